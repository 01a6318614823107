r"""Seconds of a rollout and its updates, from arithmetic, bytes and what a cluster is taken to reach.

Decoding a token of some rows reads every weight once, and each row's keys and values, half of them on average; an
update of T tokens costs

.. math:: 3 \left( 2 N_{body} T + 2 N_{head} T_{completion} + 4\, layers \cdot width \cdot pairs \right)

operations, of which a third more with activation checkpointing and a third less with frozen weights, whose gradients
nobody asks for. Pairs are those of a token and one that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from lightning_r1.doctor.case import Case, Settings
from lightning_r1.doctor.cluster import Cluster
from lightning_r1.models.memory_estimate import kept_by_host

# bytes of a server's weights, whatever the shards' type
_SERVED_IN = 2
# a server keeps this share of its devices' memory for weights and cache, and no more than this part of it for weights
_OF_MEMORY, _OF_WEIGHTS = 0.9, 0.6


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one rollout with all its updates."""

    rollout: float
    rewards: float
    scoring: float
    """Forwards by the reference, and by the policy before its updates."""
    update: float
    exchange: float
    """Between ranks and with the host, as far as it is not hidden."""
    sync: float
    """Of weights, to where a rollout samples from."""

    @property
    def total(self) -> float:
        """One after the other."""
        return sum(getattr(self, one.name) for one in fields(self))


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """What a model computes with."""

    body: int
    """Parameters of layers."""
    head: int
    width: int
    """Of all heads of attention."""
    layers: int
    cache: int
    """Keys and values of a token: numbers, not bytes."""

    def forward(self, prompt: int, completion: int, *, rows: int = 1, prompts: int | None = None) -> float:
        """Operations of a forward of rows, of whose prompts some are computed (default: each row's)."""
        prompts = rows if prompts is None else prompts
        pairs = prompts * prompt**2 / 2 + rows * completion * (prompt + completion / 2)
        tokens = prompts * prompt + rows * completion
        products = 2 * self.body * tokens + 2 * self.head * rows * completion
        return products + 4 * self.layers * self.width * pairs


def arithmetic(case: Case) -> Arithmetic:
    """Of the model itself; an adapter's own products are few."""
    config: Any = case.config.get_text_config(decoder=True)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    head = config.vocab_size * config.hidden_size
    ends = head * (1 if config.tie_word_embeddings else 2)
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return Arithmetic(
        body=case.size.parameters - ends,
        head=head,
        width=heads * size,
        layers=config.num_hidden_layers,
        cache=2 * config.num_hidden_layers * key_heads * size,
    )


def step_time(case: Case, settings: Settings, cluster: Cluster, *, memory: int) -> StepTime:
    """Estimate.

    Args:
        case: model and work.
        settings: under which.
        cluster: how fast; its devices are the case's.
        memory: bytes of a device, for the cache of a server.
    """
    of, batch, ranks = arithmetic(case), case.batch, case.ranks(settings)
    rows = case.rows(settings)
    prompts = -(-rows // case.work(settings).rows) if case.arrangement == "shared prefix" else rows
    forward = of.forward(batch.prompt, batch.completion, rows=rows, prompts=prompts) / cluster.flop_per_s
    again = 1 if settings.checkpointing else 0
    frozen = settings.adapter != "none" or case.size.gradients < case.size.weights / 2
    update = forward * ((2 if frozen else 3) + again) * batch.updates
    scoring = forward * batch.scorings * batch.updates
    exchanged = batch.updates * _exchange(case, settings, cluster)
    return StepTime(
        rollout=_rollout(case, settings, cluster, of, memory),
        rewards=batch.sampled / cluster.rewards_per_s,
        scoring=scoring,
        update=update,
        exchange=exchanged - cluster.overlap * min(exchanged, update),
        sync=_sync(case, settings, cluster, ranks),
    )


def server_devices(case: Case, memory: int, available: int) -> list[int]:
    """Of one copy of a server's model, all that can be: powers of two that leave room for a cache."""
    weights = min(_SERVED_IN, case.dtype.itemsize) * case.size.parameters
    sizes = [2**power for power in range(available.bit_length()) if 2**power <= available]
    return [devices for devices in sizes if weights <= _OF_MEMORY * _OF_WEIGHTS * memory * devices]


def _sampled_in(case: Case, settings: Settings) -> int:
    """Bytes of a weight, a key or a value where it is sampled."""
    return min(_SERVED_IN, case.dtype.itemsize) if settings.sampler == "server" else case.dtype_under(settings).itemsize


def _rollout(case: Case, settings: Settings, cluster: Cluster, of: Arithmetic, memory: int) -> float:
    if not case.batch.sampled:
        return 0.0
    ranks = case.ranks(settings)
    if settings.sampler == "here":
        return _sampling(case, settings, cluster, of, copies=ranks, together=settings.max_rows)
    servers, each = case.gpus - ranks, _sampled_in(case, settings)
    a_row = each * of.cache * (case.batch.prompt + case.batch.completion)
    return min(
        _sampling(
            case, settings, cluster, of, copies=servers // devices, devices=devices,
            together=max(1, int((_OF_MEMORY * memory * devices - each * case.size.parameters) // a_row)),
        )
        for devices in server_devices(case, memory, min(servers, cluster.gpus_per_node))
    )  # fmt: skip


def _sampling(
    case: Case, settings: Settings, cluster: Cluster, of: Arithmetic, *, copies: int, together: int, devices: int = 1
) -> float:
    """Seconds of a rollout by copies of the model, each on some devices with so many rows together."""
    batch, each = case.batch, _sampled_in(case, settings)
    weights = each * (of.body + of.head)
    if settings.adapter == "qlora":
        weights = round(weights * (0.5 + 2 * each) / each)  # 4 bits are read, written as they are used, and read again
    rows = -(-batch.sampled // copies)
    together = min(rows, together)
    read = weights + together * each * of.cache * (batch.prompt + batch.completion / 2)
    steps = rows * batch.completion / together
    decode = max(
        steps * read / (devices * cluster.bytes_per_s),
        steps * 2 * (of.body + of.head) * together / (devices * cluster.flop_per_s),
    )
    prefill = of.forward(batch.prompt, 0, rows=-(-rows // batch.group_size)) / (devices * cluster.flop_per_s)
    return decode + prefill


def _exchange(case: Case, settings: Settings, cluster: Cluster) -> float:
    """Of one update on a rank, between ranks and with the host."""
    ranks, micro_batches = case.ranks(settings), case.micro_batches(settings)
    size, seconds = case.size_under(settings), 0.0
    ring = (ranks - 1) / ranks / cluster.exchange_bytes_per_s(ranks)
    if settings.sharing == "ddp":
        masters = settings.masters and size.low > 0
        seconds += 2 * size.gradients * ring * (micro_batches if masters else 1)
    if settings.sharing == "fsdp":
        gathered, shards = size.weights * (0.5 if settings.mixed else 1.0), case.shards(settings)
        within = (shards - 1) / shards / cluster.exchange_bytes_per_s(shards)
        # before the forward, before the backward, and gradients behind it
        seconds += micro_batches * (2 * gathered + size.gradients) * within
        # where there are several whole models, their slices' gradients once more
        seconds += 2 * size.gradients / shards * (1 - shards / ranks) / cluster.exchange_bytes_per_s(ranks)
    if settings.cpu_offload:
        shard = (micro_batches * (2 * size.weights + size.gradients) + size.gradients) / case.shards(settings)
        seconds += shard / cluster.host_bytes_per_s
    if settings.checkpointing == "offload" and not case.on_cpu:
        kept = kept_by_host(case.config, case.work(settings), case.dtype_under(settings))
        seconds += micro_batches * 2 * kept / cluster.host_bytes_per_s
    return seconds


def _sync(case: Case, settings: Settings, cluster: Cluster, ranks: int) -> float:
    if not case.batch.sampled or case.gpus == 1:
        return 0.0
    weights = _sampled_in(case, settings) * case.size.parameters
    if settings.sampler == "server" or settings.sharing == "fsdp":
        ends = case.gpus if settings.sampler == "server" else case.shards(settings)
        return weights / cluster.exchange_bytes_per_s(ends)
    return 0.0
