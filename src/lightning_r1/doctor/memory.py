"""What a device has to hold, from the model's config alone, and which settings would fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from lightning_r1.config.machine import checkpoint_bytes as of_config
from lightning_r1.doctor.besides import besides
from lightning_r1.doctor.case import Batch, Case, Settings
from lightning_r1.doctor.findings import Finding, check, failed, ok, warning
from lightning_r1.doctor.patient import Patient
from lightning_r1.doctor.search import Option, fits, fitting, option
from lightning_r1.doctor.units import duration, gib
from lightning_r1.experience.batching import WORTH_SHARING
from lightning_r1.models.footprint import Footprint, Sharing
from lightning_r1.models.memory_estimate import Arrangement, Work
from lightning_r1.rollout.beside import BesideEngine
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

_SHOWN = 8
_NO_LIMIT = 2**30  # engines that decide themselves how many rows are decoded together


@check("model")
def the_model_can_read_it(patient: Patient) -> Iterator[Finding]:
    """Its size and type, and whether prompts and completions fit its context."""
    model = patient.hollow.model
    if patient.kind != "reward_model":
        assert patient.module  # it refuses what does not fit
    config = model.config.get_text_config(decoder=True)
    context = getattr(config, "max_position_embeddings", None)
    longest = longest_row(patient)
    size = patient.size
    kind = str(model.dtype).removeprefix("torch.")
    yield ok(
        f"{config.model_type} of {size.parameters:,} parameters in {kind}, attention "
        f"{config._attn_implementation}; rows of up to {longest:,} tokens"
        + (f" fit its context of {context:,}" if context else "")
    )


@check("memory")
def memory_is_enough(patient: Patient) -> Iterator[Finding]:
    """The peaks of update and rollout against the device's memory."""
    held, case, now = memory_of_device(patient), case_of(patient), settings_of(patient)
    found = option(case, now, patient.cluster, held)
    needs = found.needs
    where = f"each of {patient.ranks} devices ({now.sharing})" if patient.ranks > 1 else "the device"
    told = (
        f"{where} needs {gib(needs.update)} for an update"
        + (f" and {gib(needs.sampling)} for a rollout" if needs.rollout else "")
        + f" ({parts_of(needs)})"
        + (f" and {gib(found.host)} of the host's" if found.host else "")
        + f"; it has {gib(held)}"
        + (f" ({patient.options['gpu']})" if patient.options["gpu"] != "here" else "")
    )
    adapters = patient.kind != "reward_model" and patient.config["model"]["architecture"] is None
    others = fitting(case, now, patient.cluster, held, adapters=adapters)
    columns = ("setting", "update", "rollout", "host", "fits", "a rollout and its updates")
    rows = [(" ".join(one.changes) or "as it is", *_costs(one, held)) for one in [found, *_others(others)]]
    patient.tables.append((f"memory of a device of {gib(held)}, and what fits", columns, rows))
    if patient.cluster:
        yield ok(f"times assume {patient.cluster.told()}")
    if needs.peak > held:
        fix = "see the table of settings below for those that fit" if others else "more devices, or a smaller model"
        yield failed(told, fix)
    elif fits(found, held) == "tight":
        yield warning(f"{told}, which is tight", "see the table of settings below")
    else:
        yield ok(told)


def _others(options: Sequence[Option]) -> list[Option]:
    """The cheapest few that change anything."""
    return [one for one in options if one.changes][:_SHOWN]


def _costs(one: Option, held: int) -> tuple[str, ...]:
    return (
        gib(one.needs.update),
        gib(one.needs.sampling) if one.needs.rollout else "-",
        gib(one.host) if one.host else "-",
        fits(one, held),
        duration(one.time.total) if one.time else "-",
    )


def settings_of(patient: Patient) -> Settings:
    """Of the run as it is."""
    model, config = patient.hollow.model, patient.config
    kind = config["model"].get("activation_checkpointing", False)
    return Settings(
        micro_batch_tokens=config["phase"]["module"]["micro_batch_tokens"],
        checkpointing=kind if model.is_gradient_checkpointing else False,
        bits=8 if "8bit" in str(config["optim"]["_target_"]) else 32,
        masters=keeps_masters(patient),
        sharing=sharing(patient),
        shards=shards(patient),
        mixed=config["parallel"].get("mixed_precision") == "bf16",
        cpu_offload=bool(config["parallel"].get("cpu_offload")),
        max_rows=patient.config["rollout"].get("max_rows") or _NO_LIMIT,
        sampler="server" if "vllm_server" in str(config["rollout"]["_target_"]) else "here",
    )


def case_of(patient: Patient) -> Case:
    """The run as a question to the estimates."""
    return patient.remembered("case", lambda: _case(patient))


def _case(patient: Patient) -> Case:
    model, size = patient.hollow.model, patient.size
    rows = settings_of(patient).max_rows
    # the next rollout is sampled while this one trains, from weights of its own if the engine is in this process
    overlaps = patient.rolls_out and patient.module.rollout_plan.overlap_rollouts
    own = size.weights if overlaps and isinstance(patient.module.engine, BesideEngine) else 0
    return Case(
        config=model.config,
        size=size,
        dtype=model.dtype,
        batch=batch_of(patient),
        # a server that is asked for has devices of its own, beside the run's
        gpus=patient.ranks * (2 if settings_of(patient).sampler == "server" else 1),
        rollout=lambda rows: patient.remembered(("rollout", rows), lambda: _rollout(patient, rows)),
        frozen=frozen_bytes(patient),
        whole=reward_model_bytes(patient) + own,
        beside=_rollout(patient, rows) if overlaps else 0,
        autocast=torch.bfloat16 if "mixed" in str(patient.config["trainer"]["precision"]) else None,
        arrangement=arrangement_of(patient),
        head=patient.kind != "reward_model",
        on_cpu=patient.estimates_cpu,
        besides=besides(patient),
        peak=patient.update_peak,
    )


def batch_of(patient: Patient) -> Batch:
    """A rollout and its updates, or one update where nothing is sampled."""
    longest = longest_row(patient)
    if not patient.rolls_out:
        return Batch(rows=rows_of_step(patient) * patient.ranks, updates=1, prompt=1, completion=longest - 1)
    plan = patient.module.rollout_plan
    updates = plan.minibatches_per_rollout * plan.num_iterations
    algo = patient.config["algo"]
    return Batch(
        rows=rows_of_step(patient) * patient.ranks,
        updates=updates,
        prompt=patient.data.longest,
        completion=plan.sampling.max_new_tokens,
        group_size=plan.sampling.group_size,
        sampled=plan.prompts_per_rollout * plan.sampling.group_size,
        # the policy's own numbers before its updates, and the reference's (or the teacher's)
        scorings=int(updates > 1 and patient.kind == "rl")
        + int(bool(algo.get("kl_coef")) or patient.kind == "distill"),
    )


def arrangement_of(patient: Patient) -> Arrangement:
    """Of rows in a micro-batch at the limit; prompts are shared where a group stays whole and that pays."""
    layouts = getattr(patient.module, "layouts", None) if patient.kind != "reward_model" else None
    if layouts is None:
        return "padded"
    if patient.rolls_out and patient.config["algo"].get("whole_groups") and layouts.shared_prefix != "off":
        batch = batch_of(patient)
        both = batch.group_size * (batch.prompt + batch.completion)
        if layouts.shared_prefix == "on" or batch.prompt + batch.group_size * batch.completion <= WORTH_SHARING * both:
            return "shared prefix"
    return "packed" if layouts.packed else "padded"


def work_of(patient: Patient) -> tuple[Work, int]:
    """The largest micro-batch that can occur on a rank, and how many an update has."""
    case, now = case_of(patient), settings_of(patient)
    return case.work(now), case.micro_batches(now)


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
    """Of models that are run beside the policy: reference and teacher."""
    return sum(_bytes(model.parameters()) for model in patient.module.models()[1:]) if patient.rolls_out else 0


def reward_model_bytes(patient: Patient) -> int:
    """Of models that score, which each rank has for itself."""
    if not patient.rolls_out:
        return 0
    models = [getattr(reward, "model", None) for reward in patient.rewards.rewards.values()]
    return sum(_bytes(model.parameters()) for model in models if isinstance(model, torch.nn.Module))


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def keeps_masters(patient: Patient) -> bool:
    """Whether the optimizer steps on float32 copies of weights that have fewer bits."""
    return patient.config["optim"].get("master_weights") == "auto"


def checkpoint_bytes(patient: Patient) -> int:
    """Of one checkpoint."""
    reference = getattr(patient.module, "reference", None) if patient.rolls_out else None
    return of_config(patient.config, patient.size, reference)


def sharing(patient: Patient) -> Sharing:
    """How the ranks share the model."""
    strategy = str(patient.config["parallel"]["strategy"]).lower()
    if "fsdp" in strategy or "modelparallel" in strategy:
        return "fsdp"
    return "ddp" if patient.ranks > 1 else "single"


def shards(patient: Patient) -> int:
    """Ranks that share a whole model, where several groups of them have one each; 0: all do."""
    said = patient.config["parallel"].get("replicas", 1)
    replicas = patient.config["trainer"]["num_nodes"] if said == "nodes" else said
    return patient.ranks // replicas if replicas > 1 else 0


def _rollout(patient: Patient, rows: int) -> int:
    """The larger peak of a rollout in training and in evaluation, with so many rows decoded together."""
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
    return max(_sampling_peak(patient, rows, *one) for one in asked)


def _sampling_peak(patient: Patient, together: int, sampling: Sampling, prompts: int, longest: int) -> int:
    prompts = min(prompts, max(1, together // sampling.group_size))
    model = patient.hollow.model
    return patient.rollout_peak(
        model.config,
        prompts=prompts,
        group_size=sampling.group_size,
        prompt_tokens=longest,
        new_tokens=sampling.max_new_tokens,
        sample=partial(_drawn, sampling=replace(sampling, group_size=1)),
        # whole layers of a mixed model, and so the cache, have fewer bits than its shards
        dtype=torch.bfloat16 if settings_of(patient).mixed else model.dtype,
        on_cpu=patient.estimates_cpu,
    )


def _drawn(logits: torch.Tensor, *, sampling: Sampling) -> object:
    return sample_tokens(logits, torch.zeros(len(logits)), sampling)


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
        "other models": needs.frozen + needs.whole,
        "activations": needs.activations,
        "exchange between ranks": needs.exchange,
        "rollout cache": needs.rollout,
    }
    return ", ".join(f"{name} {gib(value)}" for name, value in parts.items() if value)
