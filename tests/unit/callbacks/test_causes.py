"""Each cause by a run that is sick of it, under the defaults of the config; and none of them by a real healthy run."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.utils import instantiate

from lightning_r1.callbacks.causes import Cause, RolloutFacts, Sight, ZeroGradient
from lightning_r1.callbacks.rollout_causes import ConstantReward, trend
from lightning_r1.callbacks.watchdog import SickRun, Watchdog
from lightning_r1.config.compose import compose_config

WELL = Sight(
    numbers={
        "rollout/truncated_fraction": 0.1, "rollout/length_mean": 200.0, "rollout/think_length_mean": 150.0,
        "rollout/dead_group_fraction": 0.4, "policy/entropy": 0.3, "policy/kl_ref": 0.01, "policy/ratio_max": 1.4,
        "policy/clip_fraction_low": 0.001, "policy/clip_fraction_high": 0.002, "policy/logprob_gap": 4e-7,
        "optim/grad_norm": 0.2, "optim/lr": 1e-6,
    },
    steps_left=1000,
    rollout=RolloutFacts(0.0, 2.0, {"accuracy": 0.2, "format": 0.3}, 0.0, 0, 0.02),
)  # fmt: skip


def sight(numbers: dict[str, float] | None = None, *, rollout: dict[str, Any] | None = None, **fields: Any) -> Sight:
    """A healthy step but for what is said."""
    assert WELL.rollout is not None
    fields = {"rollout": replace(WELL.rollout, **(rollout or {})), **fields}
    return replace(WELL, numbers={**WELL.numbers, **(numbers or {})}, **fields)


class Bench(Watchdog):
    """The watchdog, over sights that the test shows it."""

    def __init__(self, causes: dict[str, Cause | None]) -> None:
        super().__init__(causes)
        self.told: list[tuple[int, str, str]] = []
        self.step = 0

    def show(self, sights: Iterable[Sight]) -> None:
        for shown in sights:
            self.step += 1
            self.shown = shown
            trainer = SimpleNamespace(
                global_step=self.step, max_steps=self.step + shown.steps_left, is_global_zero=True, loggers=[],
                checkpoint_callbacks=[],
            )  # fmt: skip
            look(self, trainer)

    def _possible(self, module: Any) -> list[str]:
        return list(self.causes)

    def _sight(self, trainer: Any, module: Any) -> Sight:
        self.seen: dict[str, str] = {}
        return self.shown

    def _tell(self, trainer: Any, name: str, words: str, style: str) -> None:
        self.told.append((self.step, name, words))


def look(bench: Watchdog, trainer: Any) -> None:
    from lightning_r1.modules.phase import Phase

    bench.on_train_batch_end(trainer, Phase.__new__(Phase), None, None, 0)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The default causes."""
    said = ["model.path=org/model", "data=countdown", "trainer.max_steps=10"]
    return compose_config("train", said)["callbacks"]["watchdog"]


@pytest.fixture
def bench(config: dict[str, Any]) -> Bench:
    return Bench(instantiate(config, _convert_="all"))


def growing(step: int) -> Sight:
    return sight(rollout={"repetition": 0.02 + 0.01 * step})


def drifting(step: int) -> Sight:
    wiggle = 0.02 * (-1) ** step
    return sight(rollout={"preference": 0.01 * step + wiggle, "rules": 0.8 - 0.005 * step + wiggle})


# a sick run's steps, when it is told, and what is said
SICK: dict[str, tuple[Callable[[int], Sight], int, str]] = {
    "constant_reward": (
        lambda step: sight(rollout={"lowest": 0.5, "highest": 0.5}),
        3,
        "every reward is 0.5, for 3 rollouts now; look at",
    ),
    "zero_gradient": (
        lambda step: sight({"optim/grad_norm": 0.0}),
        20,
        "the gradient is 0, for 20 steps now; no parameter learns",
    ),
    "zero_learning_rate": (
        lambda step: sight({"optim/lr": 0.0}),
        3,
        "the learning rate is 0 and 1000 steps remain, for 3 steps",
    ),
    "unsynced_weights": (
        lambda step: sight(rollout={"age": 7}),
        1,
        "completions are of weights 7 steps ago, for 1 rollout now",
    ),
    "logprob_gap": (
        lambda step: sight({"policy/logprob_gap": 0.25}),
        3,
        "sampler and trainer differ by 0.25 nats a token",
    ),
    "no_stop_token": (
        lambda step: sight(rollout={"unstopped": 0.25}),
        1,
        "25% of the completions ended without a stop token",
    ),
    "all_truncated": (
        lambda step: sight({"rollout/truncated_fraction": 0.98}),
        3,
        "98% of the completions ran into the limit, at 200 tokens",
    ),
    "wrong_format": (
        lambda step: sight(rollout={"wrong_format": {"format": 0.5, "accuracy": 1.0}}),
        10,
        "accuracy found nothing to score in 100%",
    ),
    "dead_groups": (
        lambda step: sight({"rollout/dead_group_fraction": 1.0}),
        5,
        "100% of the groups have equal rewards",
    ),
    "thinking_collapse": (
        lambda step: sight({"rollout/think_length_mean": max(1.0, 150.0 / step)}),
        28,
        "thinking has 5.8 tokens, and had 68.5",
    ),
    "repetition_growth": (growing, 39, "of what is written stood before, for 5 rollouts now; add lightning_r1.rewards"),
    "preference_drift": (drifting, 30, "over 30 rollouts preference rewards rise, rule rewards fall from 0.78 to 0.66"),
    "entropy_collapse": (lambda step: sight({"policy/entropy": 0.001}), 20, "the entropy is 0.001 nats a token"),
    "kl_explosion": (lambda step: sight({"policy/kl_ref": 40.0}), 10, "the KL to the reference is 40 nats a token"),
    "ratio_explosion": (lambda step: sight({"policy/ratio_max": 3e6}), 10, "the largest ratio is 3e+06"),
    "mostly_clipped": (
        lambda step: sight({"policy/clip_fraction_low": 0.3, "policy/clip_fraction_high": 0.3}),
        10,
        "60% of the tokens are clipped",
    ),
    "solved": (
        lambda step: sight(rollout={"lowest": 0.0 if step < 5 else 2.0}),
        14,
        "every completion earns 2, as much as the best so far",
    ),
}
ENDS = {"constant_reward": 20, "zero_gradient": 100, "zero_learning_rate": 10, "unsynced_weights": 3}


def test_every_cause_has_its_sick_run(config: dict[str, Any]) -> None:
    assert set(config) == set(SICK)
    assert {name: cause["stop_after"] for name, cause in config.items() if cause["stop_after"]} == ENDS


@pytest.mark.parametrize("name", SICK)
def test_a_sick_run_is_told_its_cause_once_and_no_other(bench: Bench, name: str) -> None:
    step_of, told_at, words = SICK[name]
    last = ENDS.get(name, told_at + 30) - 1
    bench.show(step_of(step) for step in range(1, last + 1))
    assert [(step, cause) for step, cause, _ in bench.told] == [(told_at, name)]
    assert words in bench.told[0][2]
    assert "\n" not in bench.told[0][2]


@pytest.mark.parametrize("name", ENDS)
def test_what_cannot_heal_ends_the_run(bench: Bench, name: str) -> None:
    step_of, last, words = SICK[name][0], ENDS[name], SICK[name][2].split(",")[0]
    bench.show(step_of(step) for step in range(1, last))
    with pytest.raises(
        SickRun, match=rf"watchdog: the run was ended at step {last} by {name}: {words}.* for {last} .*s now"
    ):
        bench.show([step_of(last)])


@pytest.mark.parametrize("name", ENDS)
def test_the_last_step_ends_the_run_anyway(bench: Bench, name: str) -> None:
    bench.show(SICK[name][0](step) for step in range(1, ENDS[name]))
    bench.show([replace(SICK[name][0](ENDS[name]), steps_left=0)])


@pytest.mark.parametrize("name", [name for name in SICK if name not in ("preference_drift", "repetition_growth")])
def test_it_is_told_again_when_it_comes_again(bench: Bench, name: str) -> None:
    step_of, told_at, _ = SICK[name]
    bench.show(step_of(step) for step in range(1, told_at + 1))
    bench.show([WELL] * 8)  # whatever is a mean has forgotten it
    assert [words for _, cause, words in bench.told if cause == name][1:] == ["has cleared"]
    bench.show(step_of(step) for step in range(1, told_at + 1))
    assert len([words for _, cause, words in bench.told if cause == name]) == 3


@pytest.mark.parametrize("name", SICK)
def test_one_healthy_sight_begins_the_count_anew(bench: Bench, name: str) -> None:
    step_of, told_at, _ = SICK[name]
    if told_at == 1 or name in ("thinking_collapse", "repetition_growth", "preference_drift"):
        return  # these look at more than one sight
    for _ in range(3):
        bench.show(step_of(step) for step in range(1, told_at))
        bench.show([WELL])
    assert bench.told == []


def healthy_run() -> list[Sight]:
    """Rollouts of a real R1-Zero run of the miniature, 0.05 to 0.92 right, in which thinking first shortens."""
    with (Path(__file__).parent / "healthy.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [
        Sight(
            row,
            steps_left=len(rows) - place,
            rollout=RolloutFacts(
                row["lowest"], row["highest"], {"accuracy": row["no_answer"], "format": row["no_format"]}, 0.0, 0,
                row["repetition"],
            ),
        )
        for place, row in enumerate(rows)
    ]  # fmt: skip


def test_a_healthy_run_is_left_in_peace(bench: Bench) -> None:
    sights = healthy_run()
    assert len(sights) == 200
    bench.show(sights)
    assert bench.told == []
    assert max(cause.count for cause in bench.causes.values()) < 3


def test_an_even_healthier_run_is_told_that_it_is_solved_and_not_ended(bench: Bench) -> None:
    bench.show(healthy_run())
    bench.show(
        [sight({"rollout/dead_group_fraction": 1.0}, rollout={"lowest": 2.0, "highest": 2.0}, teaches=False)] * 200
    )
    assert [name for _, name, _ in bench.told] == ["solved"]


def test_a_reward_that_becomes_constant_below_the_best_is_broken(bench: Bench) -> None:
    bench.show(healthy_run())
    with pytest.raises(SickRun, match=r"constant_reward: every reward is 0, for 20 rollouts"):
        bench.show([sight(rollout={"lowest": 0.0, "highest": 0.0})] * 20)


def test_what_tells_nothing_neither_counts_nor_clears(bench: Bench) -> None:
    """Steps between two rollouts, and rollouts in which nothing could be scored."""
    quiet = replace(WELL, rollout=None)
    unscored = sight(rollout={"lowest": math.nan, "highest": math.nan})
    constant = SICK["constant_reward"][0](1)
    bench.show([constant, quiet, quiet, constant, unscored, quiet, constant])
    assert [(step, name) for step, name, _ in bench.told] == [(7, "constant_reward")]


def test_without_advantages_the_gradient_may_be_0(bench: Bench) -> None:
    bench.show([sight({"optim/grad_norm": 0.0}, teaches=False)] * 300)
    assert bench.told == []


def test_a_distillation_does_not_learn_from_rewards(bench: Bench) -> None:
    same = {"rollout/dead_group_fraction": 1.0}
    bench.show([sight(same, rollout={"lowest": 0.0, "highest": 0.0}, by_reward=False)] * 50)
    bench.show([sight(same, by_reward=False)] * 50)
    assert bench.told == []


def test_another_programs_numbers_are_never_quite_ours(bench: Bench) -> None:
    bench.show([sight({"policy/logprob_gap": 0.25}, exact=False)] * 50)
    assert bench.told == []


def test_an_end_at_which_nothing_stops(bench: Bench) -> None:
    bench.show([sight(foreign_end=(7, 9))] * 5)
    ((step, name, words),) = bench.told
    assert (step, name) == (1, "no_stop_token")
    assert "the model ends with token 7 or 9, at which nothing stops, for 1 rollout now; add the token" in words


def test_a_single_spike_of_the_kl_is_no_explosion(bench: Bench) -> None:
    for _ in range(5):
        bench.show([sight({"policy/kl_ref": 1e4})] * 9 + [WELL])
    assert bench.told == []


@pytest.mark.parametrize(
    ("preference", "rules"),
    [
        (lambda step: 0.01 * step, lambda step: 0.8),  # only better
        (lambda step: 0.01 * step, lambda step: 0.5 + 0.01 * step),  # both better
        (lambda step: 0.5, lambda step: 0.8 - 0.01 * step),  # both worse, or one
        (lambda step: 0.5 - 0.01 * step, lambda step: 0.8 - 0.01 * step),
        (lambda step: 0.01 * step, lambda step: 0.8 - 0.001 * step),  # hardly worse
        (lambda step: 0.01 * step, lambda step: 0.8 + 0.1 * (-1) ** step - 0.001 * step),  # not clearly worse
        (lambda step: math.nan, lambda step: 0.8 - 0.01 * step),  # no preference rewards
    ],
)
def test_no_drift(bench: Bench, preference: Callable[[int], float], rules: Callable[[int], float]) -> None:
    bench.show(sight(rollout={"preference": preference(step), "rules": rules(step)}) for step in range(60))
    assert bench.told == []


def spearman(values: list[float]) -> float:
    """By its definition: Pearson's correlation of ranks, equal values sharing the mean of theirs."""
    ranks = [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]
    times = [place + 1 for place in range(len(values))]
    mean = (len(values) + 1) / 2
    pairs = [(rank - mean, time - mean) for rank, time in zip(ranks, times, strict=True)]
    return sum(x * y for x, y in pairs) / math.sqrt(sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs))


def test_trend_is_spearmans() -> None:
    for values in ([1.0, 2, 2, 3, 0.5, 7], [3.0, 2, 1], [1.0, 1, 2], [5.0, 1, 4, 4, 4, 2, 9, 9]):
        assert trend(values) == pytest.approx(spearman(values))


def test_memory_survives_a_checkpoint(config: dict[str, Any]) -> None:
    for name, (step_of, told_at, _) in SICK.items():
        whole, half = (Bench(instantiate(config, _convert_="all")) for _ in range(2))
        whole.show(step_of(step) for step in range(1, told_at + 2))
        half.show(step_of(step) for step in range(1, told_at // 2 + 1))
        state = half.state_dict()
        kept = deepcopy(state)
        again = Bench(instantiate(config, _convert_="all"))
        again.load_state_dict(state)
        again.step = half.step
        again.show(step_of(step) for step in range(told_at // 2 + 1, told_at + 2))
        assert again.told == whole.told[len(half.told) :], name
        assert again.state_dict() == whole.state_dict(), name
        assert state == kept, name  # it is a copy


def test_counts_that_are_not_in_order() -> None:
    with pytest.raises(ValueError, match="watchdog, ZeroGradient: warn_after=0, expected >= 1"):
        ZeroGradient(warn_after=0)
    with pytest.raises(ValueError, match="watchdog, ConstantReward: stop_after=2, expected >= warn_after=3 or null"):
        ConstantReward(warn_after=3, stop_after=2)
