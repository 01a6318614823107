"""Curves: smoothing against the naive mean, thinning against what a picture must keep."""

from __future__ import annotations

import json
import math
import random
from itertools import pairwise
from statistics import fmean

import pytest

from lightning_r1.report.charts import charts, line, overlay
from lightning_r1.report.series import rounded, running_mean, smoothed, thinned


def naive_mean(values: list[float], half_width: int) -> list[float]:
    means = []
    for place in range(len(values)):
        near = [values[other] for other in range(len(values)) if abs(other - place) <= half_width]
        measured = [value for value in near if math.isfinite(value)]
        means.append(fmean(measured) if measured else math.nan)
    return means


@pytest.mark.parametrize("half_width", [0, 1, 7, 500])
def test_the_running_mean_is_the_naive_one(half_width: int) -> None:
    values = [random.choice([random.gauss(0, 1), math.nan, math.inf]) for _ in range(200)]
    assert running_mean(values, half_width) == pytest.approx(naive_mean(values, half_width), nan_ok=True)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 99, 1000, 12345])
def test_thinning_keeps_the_ends_and_every_extreme(count: int) -> None:
    values = [random.gauss(0, 1) for _ in range(count)]
    kept = thinned(values, 100)
    assert kept == sorted(set(kept))
    assert len(kept) <= 100
    if count <= 100:
        assert kept == list(range(count))
        return
    assert {0, count - 1, values.index(max(values)), values.index(min(values))} <= set(kept)
    # no long stretch without a point
    assert max(later - earlier for earlier, later in pairwise(kept)) < 5 * count / 100


def test_a_spike_of_one_step_is_on_the_page() -> None:
    values = [0.0] * 10_000
    values[7_777] = 5.0
    drawn = line({"policy/ratio_max": (list(range(10_000)), values)}, "policy/ratio_max", "largest")
    assert dict(zip(drawn["x"], drawn["y"], strict=True))[7_777] == 5.0
    assert len(drawn["x"]) <= 480
    assert drawn["mean"][drawn["x"].index(7_777)] == rounded(smoothed(values)[7_777])


def test_what_is_not_finite_is_null_and_counted() -> None:
    curves = {"optim/grad_norm": ([1, 2, 3], [1.0, math.nan, math.inf])}
    drawn = line(curves, "optim/grad_norm", "norm")
    assert drawn["y"] == [1, None, None]
    assert drawn["not_finite"] == 2
    json.dumps(charts(curves), allow_nan=False)


def test_an_interval_stands_beside_its_points() -> None:
    curves = {
        "eval/easy/pass@1": ([0, 10, 20], [0.1, 0.5, 0.9]),
        "eval/easy/pass@1_low": ([0, 20], [0.0, 0.8]),
        "eval/easy/pass@1_high": ([0, 20], [0.2, 1.0]),
    }
    drawn = line(curves, "eval/easy/pass@1", "held out")
    assert (drawn["low"], drawn["high"]) == ([0, None, 0.8], [0.2, None, 1])
    assert "mean" not in drawn
    assert [chart["title"] for of_section in charts(curves).values() for chart in of_section] == ["accuracy"]


def test_every_number_is_somewhere_and_once() -> None:
    names = [
        "rollout/reward_mean", "rollout/reward/accuracy", "rollout/reward/format", "rollout/think_length_mean",
        "policy/entropy", "policy/kl_ref", "policy/clip_fraction_low", "policy/clip_fraction_high",
        "policy/logprob_gap", "time/rollout_s", "time/update_s", "memory/peak_gib", "rollout/outcome/timeout",
        "eval/easy/pass@1", "eval/hard/pass@1", "eval/easy/cons@4", "something/new",
    ]  # fmt: skip
    drawn = charts({name: ([1], [0.5]) for name in names})
    found = [one["name"] for of_section in drawn.values() for chart in of_section for one in chart["lines"]]
    assert set(found) == set(names)
    # the reward for accuracy is part of the sum, and the accuracy in training
    assert sorted(name for name in found if found.count(name) > 1) == ["rollout/reward/accuracy"] * 2
    assert [chart["title"] for chart in drawn["Other numbers"]] == ["eval/easy/cons@4", "something/new"]
    (accuracy,) = (chart for chart in drawn["Learning"] if chart["title"] == "accuracy")
    assert [one["label"] for one in accuracy["lines"]] == ["training", "held out: easy", "held out: hard"]


def test_a_trouble_that_never_was_has_no_chart() -> None:
    def titles(value: float) -> list[str]:
        drawn = charts({"rollout/outcome/timeout": ([1, 2], [0.0, value])})
        return [chart["title"] for of_section in drawn.values() for chart in of_section]

    assert titles(0.0) == []
    assert titles(0.25) == ["scoring that went wrong"]


def test_a_run_keeps_its_colour() -> None:
    both, late = {"policy/entropy": ([1], [1.0])}, {"policy/entropy": ([1], [2.0]), "policy/kl_ref": ([1], [3.0])}
    drawn = overlay({"one": both, "other": late})["Policy"]
    assert [(chart["title"], [(one["label"], one["colour"]) for one in chart["lines"]]) for chart in drawn] == [
        ("entropy", [("one", 0), ("other", 1)]), ("KL: to the reference", [("other", 1)]),
    ]  # fmt: skip
    held_out = {name: {f"eval/{name}/pass@1": ([0], [0.5])} for name in ("easy", "hard")}
    assert [chart["title"] for chart in overlay(held_out, sets=["hard"])["Learning"]] == ["accuracy: held out: hard"]
