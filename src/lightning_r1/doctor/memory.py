"""What a device has to hold, from the model's config alone, and which settings would fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lightning_r1.doctor.findings import Finding, check, failed, ok, warning
from lightning_r1.doctor.patient import Patient
from lightning_r1.models.footprint import Footprint, ModelSize, Sharing, model_size, on_ranks
from lightning_r1.models.memory_estimate import Work, rollout_peak, update_peak
from lightning_r1.models.token_budget import split_by_tokens
from lightning_r1.rollout.beside import BesideEngine
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

# allocators keep more than what is asked of them
_ROOM = 0.9


@dataclass(frozen=True, slots=True)
class Work:
    """The largest micro-batch of a rank: rows padded to a length, and how many micro-batches a step has."""

    rows: int
    length: int
    micro_batches: int


@check("model")
def the_model_can_read_it(patient: Patient) -> Iterator[Finding]:
    """Its size and type, and whether prompts and completions fit its context."""
    model = patient.hollow.model
    if patient.kind != "reward_model":
        assert patient.module  # it refuses what does not fit
    config = model.config.get_text_config(decoder=True)
    context = getattr(config, "max_position_embeddings", None)
    longest = longest_row(patient)
    size = model_size(patient.hollow)
    kind = str(model.dtype).removeprefix("torch.")
    yield ok(
        f"{config.model_type} of {size.parameters:,} parameters in {kind}, attention "
        f"{config._attn_implementation}; rows of up to {longest:,} tokens"
        + (f" fit its context of {context:,}" if context else "")
    )


@check("memory")
def memory_is_enough(patient: Patient) -> Iterator[Finding]:
    """The peaks of update and rollout against the device's memory."""
    size, held = model_size(patient.hollow), memory_of_device(patient)
    now = footprint(patient, size)
    shared, ranks = sharing(patient), patient.ranks
    where = f"each of {ranks} devices ({shared})" if ranks > 1 else "the device"
    told = (
        f"{where} needs {gib(now.update)} for an update"
        + (f" and {gib(now.sampling)} for a rollout" if now.rollout else "")
        + f" ({parts_of(now)})"
    )
    patient.tables.append(("memory of a device under other settings", settings(patient, size, held)))
    if now.peak > held:
        yield failed(f"{told}; it has {gib(held)}", "see the table of settings below for those that fit")
    elif now.peak > _ROOM * held:
        yield warning(f"{told}; it has {gib(held)}, which is tight", "see the table of settings below")
    else:
        yield ok(f"{told}; it has {gib(held)}")


def footprint(
    patient: Patient,
    size: ModelSize,
    *,
    checkpointing: bool | None = None,
    bits: int | None = None,
    shared: Sharing | None = None,
    one_row: bool = False,
) -> Footprint:
    """Of the run as it is, or under other settings: activation checkpointing, bits of the optimizer, sharing of the
    model over ranks, micro-batches of one row.
    """
    model = patient.hollow.model
    if checkpointing is None:
        checkpointing = bool(model.is_gradient_checkpointing)
    if bits is None:
        bits = 8 if "8bit" in str(patient.config["optim"]["_target_"]) else 32
    work = work_of(patient, one_row=one_row)
    activations = patient.remembered(
        ("update", work, checkpointing),
        lambda: update_peak(
            model.config,
            rows=work.rows,
            length=work.length,
            dtype=model.dtype,
            autocast=torch.bfloat16 if "mixed" in str(patient.config["trainer"]["precision"]) else None,
            checkpointing=checkpointing,
            accumulates=work.micro_batches > 1,
            head=patient.kind != "reward_model",
        ),
    )
    rollout = patient.remembered(("rollout",), lambda: _rollout(patient))
    # the next rollout is sampled while this one trains, from weights of its own if the engine is in this process
    overlaps = patient.rolls_out and patient.module.rollout_plan.overlap_rollouts
    own = size.weights if overlaps and isinstance(patient.module.engine, BesideEngine) else 0
    one = Footprint(
        weights=size.weights,
        # where gradients are added up in float32, those of a micro-batch stand beside the sum
        gradients=size.weights + (size.masters if bits == 32 and keeps_masters(patient) else 0),
        optimizer=optimizer_bytes(patient, size, bits),
        frozen=frozen_bytes(patient) + own,
        activations=activations + (rollout if overlaps else 0),
        rollout=rollout,
    )
    return on_ranks(one, size, shared or sharing(patient), patient.ranks)


def work_of(patient: Patient, *, one_row: bool = False) -> Work:
    """The largest micro-batch that can occur: rows at their limit, dealt as the run deals them."""
    rows, longest = rows_of_step(patient), longest_row(patient)
    budget = longest if one_row else patient.config["phase"]["module"]["micro_batch_tokens"]
    parts = split_by_tokens([longest] * rows, budget)
    # shorter rows fill the budget better than those at the limit do
    tokens = max(longest, min(budget, rows * longest))
    largest = max(1, tokens // longest)
    return Work(largest, tokens // largest, len(parts))


def rows_of_step(patient: Patient) -> int:
    """Rows of one optimizer step on one rank."""
    if patient.rolls_out:
        plan = patient.module.rollout_plan
        rows = plan.prompts_per_rollout // patient.ranks * plan.sampling.group_size
        return -(-rows // plan.minibatches_per_rollout)
    rows = -(-patient.data.batch_size // patient.ranks)
    return 2 * rows if patient.kind == "reward_model" and patient.data.pairwise else rows


def longest_row(patient: Patient) -> int:
    """Tokens of prompt and completion at their limits."""
    if patient.rolls_out:
        return patient.data.longest + patient.module.rollout_plan.sampling.max_new_tokens
    if patient.kind == "reward_model":
        return patient.config["phase"]["max_tokens"]
    if patient.kind == "text":
        return max(len(patient.codec.encode(text)) + 1 for text in patient.data.documents(0))
    return patient.data.longest


def frozen_bytes(patient: Patient) -> int:
    """Of models beside the policy: reference and teacher, which the module holds, and reward models."""
    if not patient.rolls_out:
        return 0
    own = {id(parameter) for parameter in patient.module.policy.parameters()}
    others = [parameter for parameter in patient.module.parameters() if id(parameter) not in own]
    for reward in patient.rewards.rewards.values():
        if isinstance(model := getattr(reward, "model", None), torch.nn.Module):
            others += model.parameters()
    return sum(parameter.numel() * parameter.element_size() for parameter in others)


def keeps_masters(patient: Patient) -> bool:
    """Whether the optimizer steps on float32 copies of weights that have fewer bits."""
    return patient.config["optim"].get("master_weights") == "auto"


def optimizer_bytes(patient: Patient, size: ModelSize, bits: int) -> int:
    """Of the optimizer's states, masters included."""
    return size.mastered_states if bits == 32 and keeps_masters(patient) else size.states[bits]


def checkpoint_bytes(patient: Patient) -> int:
    """Of one checkpoint: the weights of all models that the module holds, and the optimizer's states."""
    size = model_size(patient.hollow)
    bits = 8 if "8bit" in str(patient.config["optim"]["_target_"]) else 32
    return size.weights + optimizer_bytes(patient, size, bits) + frozen_bytes(patient)


def sharing(patient: Patient) -> Sharing:
    """How the ranks share the model."""
    strategy = str(patient.config["parallel"]["strategy"]).lower()
    if "fsdp" in strategy or "modelparallel" in strategy:
        return "fsdp"
    return "ddp" if patient.ranks > 1 else "single"


def settings(patient: Patient, size: ModelSize, held: int) -> list[tuple[str, ...]]:
    """Other settings: what they are, the peaks of update and rollout, and whether they fit."""
    others: dict[str, dict[str, Any]] = {
        "as it is": {},
        "micro-batches of one row": {"one_row": True},
        "activation checkpointing": {"checkpointing": True},
        "8-bit optimizer": {"bits": 8},
        "checkpointing + 8-bit": {"checkpointing": True, "bits": 8},
        "checkpointing + 8-bit + one row": {"checkpointing": True, "bits": 8, "one_row": True},
    }
    if patient.ranks > 1:
        others[f"sharded over {patient.ranks}"] = {"shared": "fsdp"}
        others[f"sharded over {patient.ranks} + checkpointing + 8-bit"] = {
            "shared": "fsdp",
            "checkpointing": True,
            "bits": 8,
        }
    found = {name: footprint(patient, size, **said) for name, said in others.items()}
    return [
        (name, gib(needs.update), gib(needs.sampling) if needs.rollout else "-", _fits(needs.peak, held))
        for name, needs in found.items()
    ]


def _fits(peak: int, held: int) -> str:
    return "no" if peak > held else "tight" if peak > _ROOM * held else "yes"


def _rollout(patient: Patient) -> int:
    """The larger peak of a rollout in training and in evaluation."""
    if patient.kind in ("text", "sft", "reward_model") and not patient.sets:
        return 0
    asked: list[tuple[Sampling, int, int]] = []
    if patient.rolls_out:
        plan = patient.module.rollout_plan
        asked.append((plan.sampling, plan.prompts_per_rollout // patient.ranks, patient.data.longest))
    if patient.sets:
        prompts = [prompt for held_out in patient.sets.values() for prompt in held_out]
        longest = max(len(prompt.token_ids) for prompt in prompts)
        asked.append((patient.evaluation_sampling, -(-len(prompts) // patient.ranks), longest))
    return max(_sampling_peak(patient, *one) for one in asked)


def _sampling_peak(patient: Patient, sampling: Sampling, prompts: int, longest: int) -> int:
    together = patient.config["rollout"].get("max_rows")
    if together:
        prompts = min(prompts, max(1, together // sampling.group_size))
    model = patient.hollow.model
    return rollout_peak(
        model.config,
        prompts=prompts,
        group_size=sampling.group_size,
        prompt_tokens=longest,
        new_tokens=sampling.max_new_tokens,
        sample=lambda logits: sample_tokens(logits, torch.zeros(len(logits)), replace(sampling, group_size=1)),
        dtype=model.dtype,
        on_cpu=patient.on_cpu,
    )


def memory_of_device(patient: Patient) -> int:
    """Bytes that a rank can use: said, of the GPU, or what the host has free for each of its ranks."""
    if said := patient.options["memory_gib"]:
        return int(said * 2**30)
    if not patient.on_cpu:
        return torch.cuda.get_device_properties(0).total_memory
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    devices = patient.config["trainer"]["devices"]
    return int(fields["MemAvailable"].split()[0]) * 1024 // (devices if isinstance(devices, int) else 1)


def parts_of(needs: Footprint) -> str:
    """The parts that are not nothing, in words."""
    parts: Mapping[str, int] = {
        "weights": needs.weights,
        "gradients": needs.gradients,
        "optimizer": needs.optimizer,
        "other models": needs.frozen,
        "activations": needs.activations,
        "exchange between ranks": needs.exchange,
        "rollout cache": needs.rollout,
    }
    return ", ".join(f"{name} {gib(value)}" for name, value in parts.items() if value)


def gib(count: float) -> str:
    """Bytes for people.

    >>> gib(3 * 2**30), gib(5 * 2**20)
    ('3.0 GiB', '5 MiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.0f} MiB"
