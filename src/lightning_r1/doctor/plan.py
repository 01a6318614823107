"""The batch plan in plain words, and about how long it will take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from lightning_r1.doctor.findings import Finding, check, ok
from lightning_r1.doctor.memory import (
    case_of,
    checkpoint_bytes,
    longest_row,
    memory_of_device,
    rows_of_step,
    settings_of,
    work_of,
)
from lightning_r1.doctor.patient import Patient
from lightning_r1.doctor.step_time import step_time
from lightning_r1.doctor.units import counted, duration, gib
from lightning_r1.experience.batching import micro_batches
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.modules.supervised import Supervised


@check("batch plan")
def the_plan_in_words(patient: Patient) -> Iterator[Finding]:
    """What is sampled, what is learned from, how often it is saved and measured."""
    if patient.kind == "reward_model":
        yield ok(f"{patient.data.describe()}; {counted(patient.steps, 'optimizer step')}")
        return
    yield ok(patient.module.plan())
    if patient.rolls_out:
        yield from _rollouts(patient)
    else:
        yield from _minibatches(patient)
    yield from _saved_and_measured(patient)
    yield from _time(patient)


def _rollouts(patient: Patient) -> Iterator[Finding]:
    module = patient.module
    assert isinstance(module, RolloutPhase)
    plan, ranks = module.rollout_plan, patient.ranks
    of_a_rollout = plan.minibatches_per_rollout * plan.num_iterations
    rollouts = -(-patient.steps // of_a_rollout)
    rows, new = plan.prompts_per_rollout * plan.sampling.group_size, plan.sampling.max_new_tokens
    (work, micro), step_rows = work_of(patient), rows_of_step(patient)
    yield ok(
        f"{counted(patient.steps, 'optimizer step')} from {counted(rollouts, 'rollout')}; "
        f"{rollouts * plan.prompts_per_rollout:,} prompts are drawn, "
        f"{module.stream.epoch(rollouts * plan.prompts_per_rollout):.2f} passes over {len(patient.data.train):,}"
    )
    yield ok(
        f"each of {counted(ranks, 'rank')} samples {counted(plan.prompts_per_rollout // ranks, 'prompt')} a rollout, "
        f"and learns from {counted(step_rows, 'completion')} a step, at the token limit in "
        f"{counted(micro, 'micro-batch', 'micro-batches')} of at most {work.rows} x {work.prompt + work.completion} "
        "tokens"
    )
    yield ok(
        f"at the limit of {new:,} new tokens a rollout samples {rows * new:,} tokens, and a step trains on "
        f"{ranks * step_rows * longest_row(patient):,}, prompts included"
    )


def _minibatches(patient: Patient) -> Iterator[Finding]:
    module = patient.module
    assert isinstance(module, Supervised) or hasattr(patient.data, "batch_size")
    told = f"{counted(patient.steps, 'optimizer step')} of {patient.data.batch_size} rows"
    if epochs := getattr(patient.data, "epochs_before", None):
        told += f", {epochs(patient.steps):.2f} passes over the data"
    if isinstance(module, Supervised):
        first = module.sequences(0)
        batches = micro_batches(first, module.micro_batch_tokens, patient.codec.pad_id, module.layouts)
        told += (
            f"; the first step has {sum(first.lengths()):,} tokens in "
            f"{counted(len(batches), 'micro-batch', 'micro-batches')} (one rank)"
        )
    yield ok(told)


def _saved_and_measured(patient: Patient) -> Iterator[Finding]:
    checkpoint, every = patient.config["callbacks"]["checkpoint"], patient.config["eval"]["every_n_steps"]
    written = patient.steps // checkpoint["every_n_steps"]
    yield ok(
        f"a checkpoint of {gib(checkpoint_bytes(patient))} every {checkpoint['every_n_steps']} steps: {written} are "
        f"written, the last {checkpoint['keep']} kept"
    )
    if not patient.sets:
        yield ok("nothing is measured on held-out problems (eval=<set> adds one)")
        return
    problems = sum(map(len, patient.sets.values()))
    during = f", and every {every} steps with one" if every else ""
    yield ok(
        f"{problems:,} held-out problems are answered {patient.evaluation_sampling.group_size} times each before and "
        f"after{during}"
    )


def _time(patient: Patient) -> Iterator[Finding]:
    """From what was measured here, and from what was said of a device."""
    if not patient.rolls_out:
        return
    module = patient.module
    assert isinstance(module, RolloutPhase)
    plan, ranks = module.rollout_plan, patient.ranks
    updates = plan.minibatches_per_rollout * plan.num_iterations
    sampled = plan.prompts_per_rollout * plan.sampling.group_size * plan.sampling.max_new_tokens / ranks
    trained = updates * rows_of_step(patient) * longest_row(patient)
    rollouts = -(-patient.steps // updates)
    if patient.speed:
        # a backward costs two forwards
        seconds = sampled / patient.speed["sampled"] + 3 * trained / patient.speed["scored"]
        yield ok(
            f"at the speed measured here with four short rows, a rollout and its updates take at most "
            f"{duration(seconds)}, the run {duration(rollouts * seconds)}; large batches are faster, "
            "and most answers shorter"
        )
    if patient.cluster:
        needed = step_time(case_of(patient), settings_of(patient), patient.cluster, memory=memory_of_device(patient))
        parts = {field.name: getattr(needed, field.name) for field in fields(needed)}
        yield ok(
            f"on paper a rollout at the limit and its updates take {duration(needed.total)} "
            f"({', '.join(f'{name} {duration(seconds)}' for name, seconds in parts.items() if seconds)}), the run "
            f"{duration(rollouts * needed.total)}, assuming {patient.cluster.told()}"
        )
