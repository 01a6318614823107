"""GRPO as a module: which forwards it makes, what it holds, when it rolls out, what it logs."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from helpers.logs import Memory
from helpers.phases import fit, scripted_grpo
from helpers.quick import quick_rl, random_base
from lightning_r1.config.build import build
from lightning_r1.experience.batching import MicroBatch
from lightning_r1.models.codec import Codec
from lightning_r1.modules.grpo import GRPO
from lightning_r1.modules.layouts import layouts_of
from lightning_r1.train import quiet, train
from lightning_r1.types import Outcome, Sampling
from oracles.naive_importance import naive_off_policy_mask, naive_sampler_weights
from oracles.naive_policy_loss import naive_policy_loss

OFF = {"shared_prefix": "off"}


@pytest.fixture
def grpo(codec: Codec) -> Callable[..., GRPO]:
    """``grpo(num_iterations=2, ...)``: a rollout is two prompts, three completions each."""
    return lambda **algorithm: scripted_grpo(codec, **algorithm)


def whole(module: GRPO) -> GRPO:
    """In float64, a step is minus the gradient, nothing is clipped: what rounding leaves can be measured."""
    module.double()
    module.max_grad_norm = 1e9
    module.make_optimizer = lambda named: torch.optim.SGD([parameter for _, parameter in named], lr=0.5)
    return module


def count_forwards(module: torch.nn.Module) -> list[int]:
    """Rows of each forward from now on."""
    rows: list[int] = []
    module.register_forward_hook(lambda policy, arguments, output: rows.append(len(arguments[0])))
    return rows


class Watch(L.Callback):
    """Weights of policy and reference before and after each step, and the gradients in it."""

    def __init__(self) -> None:
        self.before: list[dict[str, Tensor]] = []
        self.reference: list[dict[str, Tensor]] = []
        self.gradients: list[Tensor] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        self.before.append(copy.deepcopy(pl_module.policy.state_dict()))

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in pl_module.policy.parameters()]))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        if pl_module.reference is not None:
            self.reference.append(copy.deepcopy(pl_module.reference.state_dict()))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_on_policy_the_steps_own_forward_is_the_only_one(grpo: Any, tmp_path: Path) -> None:
    module = grpo()
    forwards = count_forwards(module.policy)
    fit(module, steps=3, folder=tmp_path)
    assert forwards == [6, 6, 6]
    assert module.buffer.sequences.old_logprobs is None


@pytest.mark.parametrize(
    ("minibatches", "iterations", "expected"),
    [
        (2, 1, [6, 3, 3, 6, 3]),  # one over the whole rollout, then the steps
        (1, 2, [6, 6, 6, 6, 6]),
        (3, 2, [6, 2, 2, 2]),
    ],
)
def test_off_policy_a_rollout_is_scored_once(
    minibatches: int, iterations: int, expected: list[int], grpo: Any, tmp_path: Path
) -> None:
    module = grpo(minibatches_per_rollout=minibatches, num_iterations=iterations)
    forwards = count_forwards(module.policy)
    fit(module, steps=3, folder=tmp_path)
    assert forwards == expected


def test_old_logprobs_are_those_of_the_policy_that_sampled(grpo: Any, tmp_path: Path) -> None:
    """The ratio is 1 on the first update of a rollout, and moves from there."""
    module, memory = grpo(num_iterations=3), Memory()
    fit(module, steps=6, folder=tmp_path, loggers=[memory])
    largest = memory.column("policy/ratio_max")
    for first in (0, 3):
        assert largest[first] == pytest.approx(1, abs=1e-5)
        assert all(ratio > 1.0001 for ratio in largest[first + 1 : first + 3])
    assert memory.column("policy/kl_old")[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("kl_coef", "copies"), [(0.0, 1), (0.1, 2)])
def test_a_reference_is_held_only_for_a_kl(kl_coef: float, copies: int, grpo: Any, tmp_path: Path) -> None:
    module, watch, memory = grpo(kl_coef=kl_coef), Watch(), Memory()
    of_policy = sum(parameter.numel() for parameter in module.policy.parameters())
    assert sum(parameter.numel() for parameter in module.parameters()) == copies * of_policy
    trainer = fit(module, steps=3, folder=tmp_path, callbacks=[watch], loggers=[memory])
    trained = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in module.policy.parameters()}
    assert not equal(watch.before[-1], watch.before[0])
    if kl_coef:
        assert not any(parameter.requires_grad for parameter in module.reference.parameters())
        assert not any(part.training for part in module.reference.modules())
        assert all(equal(held, watch.before[0]) for held in watch.reference)
        # on policy the first KL is 0, and the reference stays where it was
        kl = memory.column("policy/kl_ref")
        assert kl[0] == pytest.approx(0, abs=1e-6)
        assert kl[2] > kl[1] > 1e-6
    else:
        assert module.reference is None
        assert memory.column("policy/kl_ref") == []


def test_the_reference_is_scored_once_a_rollout(grpo: Any, tmp_path: Path) -> None:
    module = grpo(kl_coef=0.1, num_iterations=2)
    policy, reference = count_forwards(module.policy), count_forwards(module.reference)
    fit(module, steps=4, folder=tmp_path)
    assert (reference, policy) == ([6, 6], [6, 6, 6] * 2)


@pytest.mark.parametrize("every", [3, 4])
def test_the_reference_becomes_the_policy_between_rollouts_only(every: int, grpo: Any, tmp_path: Path) -> None:
    # rollouts before steps 0, 2, 4, ...: of those, 4 and 8 are the first at least 3 or 4 steps after a refresh
    module, watch = grpo(kl_coef=0.1, reference_refresh_steps=every, minibatches_per_rollout=2), Watch()
    fit(module, steps=10, folder=tmp_path, callbacks=[watch])
    made_at = [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    for step, (held, made) in enumerate(zip(watch.reference, made_at, strict=True)):
        assert equal(held, watch.before[made]), step
        assert [other for other in range(10) if equal(held, watch.before[other])] == [made]
    assert module.reference_step == 8


@pytest.mark.parametrize(("minibatches", "iterations"), [(1, 1), (3, 1), (1, 2), (2, 2), (6, 3)])
def test_steps_and_rollouts(minibatches: int, iterations: int, grpo: Any, tmp_path: Path) -> None:
    module, memory = grpo(minibatches_per_rollout=minibatches, num_iterations=iterations), Memory()
    of_steps = count_forwards(module.policy)
    fit(module, steps=7, folder=tmp_path, loggers=[memory])
    every = minibatches * iterations
    rollouts = math.ceil(7 / every)
    assert len(module.engine.calls) == module.rollouts == rollouts
    assert module.drawn == 2 * rollouts
    # prompts are drawn one after the other, and none twice before all were
    drawn = [prompt for prompts, _, _ in module.engine.calls for prompt in prompts]
    assert drawn == [module.stream.at(position) for position in range(2 * rollouts)]
    seeds = [seed for _, _, seeds in module.engine.calls for seed in seeds]
    assert len(set(seeds)) == len(seeds)
    # the engine was given the weights of the step
    assert module.engine.version == every * (rollouts - 1)
    assert module.engine.asleep
    assert [step for step, _ in memory.rows] == list(range(1, 8))
    logged = [step for step, numbers in memory.rows if "rollout/reward_mean" in numbers]
    assert logged == [1 + every * number for number in range(rollouts)]
    assert memory.column("progress/rollouts") == list(range(1, rollouts + 1))
    scoring = rollouts if every > 1 else 0
    assert sum(of_steps) == 6 * scoring + 7 * (6 // minibatches)


EVERYTHING_ON = {
    "minibatches_per_rollout": 2,
    "num_iterations": 2,
    "kl_coef": 0.1,
    "entropy_coef": 0.02,
    "clip_low": 0.05,
    "clip_high": 0.1,
    "dual_clip": 1.5,
    "sampler_correction": "truncate",
    "correction_high": 5.0,
    "off_policy_threshold": 4.0,
}


@pytest.mark.parametrize("said", [{"packing": "on"}, {"shared_prefix": "on"}], ids=str)
@pytest.mark.parametrize("budget", [1, 40, 16384])
def test_a_step_is_the_same_without_padding_and_with_shared_prompts(
    said: dict[str, Any], budget: int, grpo: Any, tmp_path: Path
) -> None:
    options = {"kl_coef": 0.1, "num_iterations": 2, "entropy_coef": 0.01}
    plain, other = (whole(grpo(**options)) for _ in range(2))
    other.layouts, other.micro_batch_tokens = layouts_of(other.policy, **{"packing": "off", **OFF, **said}), budget
    packed = []
    place = other.policy.packed_states
    other.policy.packed_states = lambda *arguments: packed.append(place(*arguments)) or packed[-1]
    for name, module in (("plain", plain), ("other", other)):
        fit(module, steps=2, folder=tmp_path / name)
    assert packed
    assert all(states.dtype == torch.float64 for states in packed)
    # the norms of the model calculate in float32
    for before, after in zip(plain.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
def test_a_step_is_the_same_for_every_split_into_micro_batches(reduction: str, grpo: Any, tmp_path: Path) -> None:
    gradients, numbers, forwards = {}, {}, {}
    for budget in (1, 20, 30, 10_000):
        module, watch, memory = whole(grpo(reduction=reduction, **EVERYTHING_ON)), Watch(), Memory()
        module.micro_batch_tokens = budget
        forwards[budget] = len(count_forwards(module.policy))
        rows = count_forwards(module.policy)
        fit(module, steps=4, folder=tmp_path, callbacks=[watch], loggers=[memory])
        forwards[budget] = len(rows)
        gradients[budget] = torch.stack(watch.gradients)
        numbers[budget] = [
            {name: value for name, value in row.items() if name.startswith(("policy/", "optim/"))}
            for _, row in memory.rows
        ]
    assert forwards[1] == 6 + 4 * 3  # every row alone
    assert forwards[1] > forwards[20] > forwards[30] > forwards[10_000] == 1 + 4
    one = gradients.pop(10_000)
    assert one.dtype == torch.float64
    assert one.abs().amax(1).min() > 1e-3
    for budget, gradient in gradients.items():
        assert (gradient - one).abs().max() <= 1e-10, budget
        for row, expected in zip(numbers[budget], numbers[10_000], strict=True):
            assert row == pytest.approx(expected, abs=1e-10)


CORRECTION = {"level": "geometric", "low": 0.8, "high": 1.3}


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "sequence_mean", "dual_clip": 1.1, "kl_coef": 0.3, "kl_estimator": "k2"},
        {"reduction": "token_mean", "ratio_level": "sequence", "kl_coef": 0.1, "entropy_coef": 0.04},
        {"reduction": "constant", "objective": "cispo", "entropy_coef": 0.04},
    ],
    ids=lambda options: options["reduction"],
)
def test_the_loss_is_the_papers_with_every_option_at_its_place(
    options: dict[str, Any], grpo: Any, tmp_path: Path
) -> None:
    """A step's loss from the module's own log-probabilities, by the loops written from the papers."""
    options = {"clip_low": 0.02, "clip_high": 0.05, **options}
    module = whole(
        grpo(
            num_iterations=3,
            sampling=Sampling(group_size=3, max_new_tokens=16, temperature=0.7),
            sampler_correction="truncate",
            **{f"correction_{name}": value for name, value in CORRECTION.items()},
            off_policy_threshold=0.2,
            **options,
        )
    )
    # as if sampled by a policy that is near
    module.engine._row = lambda text: near(module.codec.tokenizer.encode(text, add_special_tokens=False))
    loss, memory, expected = module.loss, Memory(), []
    weights, kept = set(), set()

    def by_loops(batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            scores = module.policy(batch.input_ids, batch.prompt_lengths, batch.completion_mask, temperature=0.7)
        now, old, sampled, advantages, mask = (
            values.tolist()
            for values in (
                scores.logprobs, batch.old_logprobs, batch.rollout_logprobs, batch.advantages, batch.completion_mask,
            )
        )  # fmt: skip
        token_weights = naive_sampler_weights(old, sampled, mask, mode="truncate", **CORRECTION)
        sequence_mask = naive_off_policy_mask(now, sampled, advantages, mask, threshold=0.2)
        weights.update(row[0] for row in token_weights)
        kept.update(sequence_mask)
        value = naive_policy_loss(
            now,
            old,
            advantages,
            mask,
            ref_logprobs=batch.ref_logprobs.tolist() if batch.ref_logprobs is not None else None,
            entropy=scores.entropy.tolist(),
            token_weights=token_weights,
            sequence_mask=sequence_mask,
            token_budget=16,
            **options,
        )
        expected.append(value)
        return loss(batch, denominator)

    module.loss = by_loops
    fit(module, steps=3, folder=tmp_path, loggers=[memory])
    # advantages are float32, and so is their product with dual_clip
    assert memory.column("policy/loss") == pytest.approx(expected, abs=1e-7)
    # everything bites somewhere
    assert max(memory.column("policy/clip_fraction_low")) > 0
    assert max(memory.column("policy/clip_fraction_high")) > 0
    assert kept == {True, False}
    assert {0.8, 1.3} < weights


def near(ids: list[int]) -> tuple[list[int], list[float]]:
    """Tokens with log-probabilities about as large as those of the tiny policy."""
    return ids, [-6.7 + math.sin(7 * len(ids) + 3 * place) for place in range(len(ids))]


# Fixed: dashboards and scripts of users read them.
LOG_NAMES = {
    "rollout/reward_mean",
    "rollout/reward/accuracy",
    "rollout/reward/format",
    "rollout/reward/length",
    "rollout/outcome/ok",
    "rollout/outcome/wrong_format",
    "rollout/outcome/timeout",
    "rollout/outcome/crash",
    "rollout/outcome/unscorable",
    *(f"rollout/outcome/{name}/{kind}" for name in ("accuracy", "format", "length") for kind in Outcome),
    "rollout/length_mean",
    "rollout/think_length_mean",
    "rollout/truncated_fraction",
    "rollout/dead_group_fraction",
    "rollout/reflection_rate",
    "rollout/format_fraction",
    "policy/loss",
    "policy/kl_ref",
    "policy/kl_old",
    "policy/clip_fraction_low",
    "policy/clip_fraction_high",
    "policy/ratio_max",
    "policy/entropy",
    "policy/logprob_gap",
    "policy/logprob_gap_max",
    "optim/grad_norm",
    "optim/lr",
    "optim/skipped",
    "time/rollout_s",
    "time/reward_s",
    "time/update_s",
    "perf/tokens_per_s",
    "memory/peak_gib",
    "progress/rollouts",
    "progress/epoch",
    "eval/operators/pass@1",
    "eval/operators/pass@1_error",
    "eval/operators/pass@1_low",
    "eval/operators/pass@1_high",
    "eval/operators/pass@4",
    "eval/operators/pass@4_low",
    "eval/operators/pass@4_high",
    "eval/operators/cons@4",
    "eval/operators/cons@4_low",
    "eval/operators/cons@4_high",
    "eval/operators/ungraded_fraction",
    "eval/operators/language_share",  # of thinking that has words
    "eval/operators/length_mean",
    "eval/operators/think_length_mean",
    "eval/operators/truncated_fraction",
    "eval/operators/reflection_rate",
    "eval/operators/format_fraction",
}


@pytest.mark.parametrize(
    ("overrides", "absent"), [((), set()), (("algo.kl_coef=0", "algo.num_iterations=2"), {"policy/kl_ref"})]
)
def test_log_names_are_fixed(overrides: tuple[str, ...], absent: set[str], tmp_path: Path) -> None:
    train(quick_rl(tmp_path, random_base(tmp_path / "base"), "algo.dead_groups=keep", *overrides))
    with (tmp_path / "coin" / "rl" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"step"} | LOG_NAMES - absent
    # steps, and evaluation before and after
    assert [(int(row["step"]), bool(row["policy/loss"])) for row in rows] == [
        (0, False), (1, True), (2, True), (3, True), (3, False),
    ]  # fmt: skip


def test_a_minibatch_without_a_token_has_no_means(grpo: Any, tmp_path: Path) -> None:
    """A policy that has nothing to learn from has not lost its entropy."""
    for dead_groups, logged in (("keep", True), ("drop", False)):
        log = Memory()
        module = grpo(rewards={"same": lambda prompt, completion: 1.0}, dead_groups=dead_groups)
        fit(module, steps=2, folder=tmp_path, loggers=[log])
        assert [name in numbers for _, numbers in log.rows for name in ("policy/entropy", "policy/ratio_max")] == (
            [logged] * 4
        )
        assert log.column("policy/loss") == log.column("optim/grad_norm") == [0.0, 0.0]


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_the_samplers_logprobs_do_not_take_the_models_precision(precision: str, tmp_path: Path) -> None:
    """Lightning makes the model's dtype torch's default for the time of a step."""
    quiet()
    base = random_base(tmp_path / "base")
    run = build(quick_rl(tmp_path, base, f"trainer.precision={precision}", "eval.sets=null", "algo.dead_groups=keep"))
    run.trainer.fit(run.module, run.datamodule)
    assert run.trainer.global_step == 3
    sampled = [completion for group in run.module.last_rollout.scored for completion in group.group.completions]
    held = run.module.buffer.sequences.rollout_logprobs
    assert all(values.dtype == torch.float32 for values in held)
    assert [values.tolist() for values in held] == [list(completion.logprobs) for completion in sampled]
    assert any((values != values.bfloat16()).any() for values in held)
