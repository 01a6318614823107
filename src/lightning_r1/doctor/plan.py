"""The batch plan in plain words, and about how long it will take."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_r1.doctor.findings import Finding, NotChecked, check, ok
from lightning_r1.doctor.memory import checkpoint_bytes, gib, longest_row, rows_of_step, work_of
from lightning_r1.doctor.patient import Patient
from lightning_r1.experience.batching import micro_batches
from lightning_r1.models.footprint import model_size
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.modules.supervised import Supervised

# a token that is trained on costs two operations a parameter in the forward and four in the backward; with activation
# checkpointing the forward is made twice
_TRAINED, _TRAINED_TWICE = 6, 8


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
    work, step_rows = work_of(patient), rows_of_step(patient)
    yield ok(
        f"{counted(patient.steps, 'optimizer step')} from {counted(rollouts, 'rollout')}; "
        f"{rollouts * plan.prompts_per_rollout:,} prompts are drawn, "
        f"{module.stream.epoch(rollouts * plan.prompts_per_rollout):.2f} passes over {len(patient.data.train):,}"
    )
    yield ok(
        f"each of {counted(ranks, 'rank')} samples {counted(plan.prompts_per_rollout // ranks, 'prompt')} a rollout, "
        f"and learns from {counted(step_rows, 'completion')} a step, at the token limit in "
        f"{counted(work.micro_batches, 'micro-batch', 'micro-batches')} of at most {work.rows} x {work.length} tokens"
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
    options = patient.options
    if options["tflops"] and options["bandwidth_gb_s"]:
        seconds = sum(paper_seconds(patient, sampled=sampled, trained=trained))
        yield ok(
            f"on paper ({options['tflops']:g} TFLOPS at {options['mfu']:.0%}, {options['bandwidth_gb_s']:g} GB/s) a "
            f"rollout at the limit and its updates take {duration(seconds)}, the run {duration(rollouts * seconds)}"
        )


def paper_seconds(patient: Patient, *, sampled: float, trained: float) -> tuple[float, float]:
    """Seconds of a rollout and of its updates on one rank: bound by memory bandwidth, and by arithmetic.

    Args:
        patient: the run, with ``tflops``, ``mfu`` and ``bandwidth_gb_s`` said.
        sampled: tokens of a rollout that the rank samples.
        trained: tokens of its updates, prompts included.
    """
    size, options = model_size(patient.hollow), patient.options
    plan = patient.module.rollout_plan
    rows = patient.config["rollout"].get("max_rows")
    if not rows:
        raise NotChecked("rollout.max_rows is not known, so the speed on paper is not either")
    together = min(rows, sampled / plan.sampling.max_new_tokens)
    cache = patient.remembered(("rollout",), lambda: 0) / 2  # half full on average
    a_token = (size.weights + cache) / (options["bandwidth_gb_s"] * 1e9)
    operations = _TRAINED_TWICE if patient.hollow.model.is_gradient_checkpointing else _TRAINED
    arithmetic = operations * size.parameters * trained / (options["tflops"] * 1e12 * options["mfu"])
    return sampled / together * a_token, arithmetic


def duration(seconds: float) -> str:
    """For people.

    >>> duration(0.25), duration(90), duration(7200), duration(300000)
    ('0.2 s', '1.5 min', '2.0 h', '3.5 days')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "step"), counted(2000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
