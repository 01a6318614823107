"""Which settings make a run fit: every combination of a few changes, as the overrides that a person types."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_r1.doctor.case import Case, Settings
from lightning_r1.doctor.cluster import Cluster
from lightning_r1.doctor.step_time import StepTime, server_devices, step_time
from lightning_r1.models.footprint import Footprint

# allocators keep more than what is asked of them
ROOM = 0.9
_NODE = 8  # devices of one, where nothing is said


@dataclass(frozen=True, slots=True)
class Option:
    """Settings, and what they cost."""

    changes: tuple[str, ...]
    """Overrides, as they are typed; none for the run as it is."""
    settings: Settings
    needs: Footprint
    host: int
    """Bytes that a rank keeps in the host's memory."""
    time: StepTime | None
    """Of a rollout with its updates; None where nothing is known of speeds."""

    @property
    def cost(self) -> tuple[bool, float, int]:
        """By which options are sorted: training all weights first, then seconds, then changes."""
        return (self.settings.adapter != "none", self.time.total if self.time else 0.0, len(self.changes))


def option(case: Case, settings: Settings, cluster: Cluster | None, memory: int, changes: Iterable[str] = ()) -> Option:
    """What settings need and take."""
    time = step_time(case, settings, cluster, memory=memory) if cluster else None
    return Option(tuple(changes), settings, case.footprint(settings), case.host(settings), time)


def fits(one: Option, memory: int) -> str:
    """In words: yes, tight or no."""
    return "no" if one.needs.peak > memory else "tight" if one.needs.peak > ROOM * memory else "yes"


def fitting(case: Case, now: Settings, cluster: Cluster | None, memory: int, *, adapters: bool = True) -> list[Option]:
    """The options that fit with room and need all their changes to, cheapest first.

    Args:
        case: model and work.
        now: the settings as they are.
        cluster: how fast.
        memory: bytes of a device.
        adapters: whether training an adapter in place of the model is one.
    """
    found: list[tuple[tuple[int, ...], Option]] = []
    node = cluster.gpus_per_node if cluster else _NODE
    combinations = _combinations(case, now, memory, adapters, node)
    for levels, changes, settings in sorted(combinations, key=lambda one: sum(one[0])):
        # what an option that fits has not needed is no help: it costs time, or is another training
        if any(all(map(operator.le, other, levels)) for other, _ in found):
            continue
        one = option(case, settings, cluster, memory, changes)
        if fits(one, memory) == "yes":
            found.append((levels, one))
    return sorted((one for _, one in found), key=lambda one: one.cost)


def fastest(case: Case, now: Settings, cluster: Cluster, memory: int, *, adapters: bool = True) -> Option | None:
    """The cheapest of all combinations that fit with room, whether each change is needed or not."""
    tried = (
        option(case, settings, cluster, memory, changes)
        for _, changes, settings in _combinations(case, now, memory, adapters, cluster.gpus_per_node)
    )
    return min((one for one in tried if fits(one, memory) == "yes"), key=lambda one: one.cost, default=None)


def _combinations(
    case: Case, now: Settings, memory: int, adapters: bool, node: int
) -> Iterator[tuple[tuple[int, ...], tuple[str, ...], Settings]]:
    """How far each axis is turned, the overrides that say so, and the settings then."""
    for chosen in itertools.product(*map(enumerate, _axes(case, now, adapters))):
        settings = now
        changes: list[str] = []
        for _, (said, changed) in chosen:
            settings = replace(settings, **changed)
            for change in said:
                changes += [change, *case.besides.get(change, ())]
        if _can_be(case, now, settings, memory, node):
            yield tuple(level for level, _ in chosen), tuple(dict.fromkeys(changes)), settings


_Choice = tuple[Sequence[str], Mapping[str, Any]]


def _axes(case: Case, now: Settings, adapters: bool) -> Iterator[list[_Choice]]:
    """What can be changed, further and further; the first choice of each is to leave it."""
    leave: _Choice = ((), {})
    checkpointing: list[_Choice] = [
        ((f"model.activation_checkpointing={str(kind).lower()}",), {"checkpointing": kind})
        for kind in (True, "offload")
        if kind != now.checkpointing and now.checkpointing != "offload" and not (kind == "offload" and case.on_cpu)
    ]
    yield [leave, *checkpointing]
    yield [leave, *_if(now.bits == 32, "optim=adamw8bit", bits=8)]
    one_row = case.batch.prompt + case.batch.completion
    fewer = now.micro_batch_tokens > one_row and case.rows(now) > 1
    yield [leave, *_if(fewer, f"phase.module.micro_batch_tokens={one_row}", micro_batch_tokens=one_row)]
    yield [leave, *_sharings(case, now)]
    whole = adapters and now.adapter == "none" and case.size.gradients == case.size.weights
    yield [
        leave,
        *_if(whole, "model.adapter=lora", adapter="lora"),
        *_if(whole, "model.adapter=qlora", adapter="qlora"),
    ]
    fewer_rows = now.max_rows // 4
    decodes = case.batch.sampled > 0 and now.sampler == "here" and fewer_rows >= case.batch.group_size
    yield [leave, *_if(decodes, f"rollout.max_rows={fewer_rows}", max_rows=fewer_rows)]
    served = case.gpus > 1 and case.batch.sampled > 0 and now.sampler == "here" and not case.on_cpu
    yield [leave, *_if(served, "rollout=vllm_server", sampler="server")]


def _if(there: bool, said: str, **changed: Any) -> list[_Choice]:
    return [((said,), changed)] if there else []


def _sharings(case: Case, now: Settings) -> list[_Choice]:
    if case.gpus == 1:
        return []
    said: list[str] = []
    changed: dict[str, Any] = {"sharing": "fsdp"}
    choices: list[_Choice] = []
    if now.sharing != "fsdp":
        said.append("parallel=fsdp")
        if case.dtype.itemsize == 2:
            said += ["model.dtype=float32", "parallel.mixed_precision=bf16"]
            changed["mixed"] = True
        choices.append((tuple(said), dict(changed)))
    elif now.shards:
        said, changed = ["parallel.replicas=1"], {"shards": 0}
        choices.append((tuple(said), dict(changed)))
    if not now.cpu_offload and not case.on_cpu:
        choices.append(((*said, "parallel.cpu_offload=true"), {**changed, "cpu_offload": True}))
    return choices


def _can_be(case: Case, now: Settings, settings: Settings, memory: int, node: int) -> bool:
    """Whether parts go together."""
    if settings.adapter == "qlora" and settings.sharing == "fsdp":
        return False
    if settings.sampler == "server":
        servers = min(case.gpus - case.ranks(settings), node)
        return bool(server_devices(case, memory, servers)) and settings.max_rows == now.max_rows
    return True
