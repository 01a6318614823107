"""Which completions a page holds: bounded, from all over the run, with those that a person would look for."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helpers.run_folders import record, sample
from lightning_r1.report import completions as module
from lightning_r1.report.completions import browse, choose, shortened
from lightning_r1.report.heldout import before_and_after, of_two, prompts
from lightning_r1.text.records import write_jsonl


def leave(folder: Path, number: int, *records: dict[str, Any]) -> None:
    write_jsonl(folder / "rollouts" / f"{number:05d}.jsonl", records)


def test_few_rollouts_are_all_there() -> None:
    assert choose([1, 2, 5], {}) == [1, 2, 5]
    assert choose([], {}) == []


def test_many_are_spread_with_the_extremes_among_them() -> None:
    steps = list(range(1, 1001))
    flat = [1.0] * 1000
    reward, ratio, sick = list(flat), list(flat), [0.0] * 1000
    reward[432], reward[433], ratio[776], sick[554] = 9.0, -9.0, 80.0, 1.0
    curves = {
        "progress/rollouts": (steps, [float((step + 1) // 2) for step in steps]),  # two steps a rollout
        "rollout/reward_mean": (steps, reward),
        "policy/ratio_max": (steps, ratio),
        "watchdog/constant_reward": (steps, sick),
    }
    chosen = choose(list(range(1, 501)), curves)
    assert len(chosen) <= module.ROLLOUTS
    assert chosen == sorted(set(chosen))
    assert {1, 500, 217, 389, 278} <= set(chosen)
    assert max(later - earlier for earlier, later in pairwise(chosen)) < 30


def test_groups_are_told_apart_also_of_one_prompt(tmp_path: Path) -> None:
    leave(tmp_path, 1, *(record(str(i), float(i), prompt=prompt) for prompt in "aab" for i in range(2)))
    groups = browse(tmp_path, {}, group_size=2)["rollouts"][0]["groups"]
    assert sorted((group["id"], len(group["c"])) for group in groups) == [("a", 2), ("a", 2), ("b", 2)]
    groups = browse(tmp_path, {}, group_size=None)["rollouts"][0]["groups"]
    assert sorted((group["id"], len(group["c"])) for group in groups) == [("a", 4), ("b", 2)]


def test_what_a_person_would_look_for_comes_first(tmp_path: Path) -> None:
    rewards = {"plain": (1, 1), "worst": (0, 0), "best": (3, 3), "spread": (0, 3), "cut": (1, 1), "failed": (1, None)}
    records = []
    for name, of_group in rewards.items():
        more: dict[str, Any] = {"cut": {"finish_reason": "length"}, "failed": {"outcomes": {"accuracy": "timeout"}}}
        records += [record(name, reward, prompt=name, **more.get(name, {})) for reward in of_group]
    leave(tmp_path, 1, *records)
    rollout = browse(tmp_path, {}, group_size=2)["rollouts"][0]
    assert [(group["id"], group["why"]) for group in rollout["groups"]] == [
        ("spread", "largest spread"), ("worst", "lowest reward"), ("best", "highest reward"),
        ("failed", "a failed check"), ("cut", "cut off"), ("plain", ""),
    ]  # fmt: skip
    failed = rollout["groups"][3]["c"][1]
    assert (failed["s"], failed["o"], failed["r"]) == (None, {"accuracy": "timeout"}, {"accuracy": None})
    assert rollout["completions"] == 12


def test_a_large_run_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARACTERS", 64_000)
    monkeypatch.setattr(module, "_READ_BYTES", 100_000)
    long = "begin " + "x" * 5_000 + " end"
    for number in range(1, 41):
        leave(tmp_path, number, *(record(long, float(i % 2), prompt=f"p{i // 4}") for i in range(64)))
    made = browse(tmp_path, {}, group_size=4)
    shown = len(made["rollouts"])
    assert 0.8 * module.ROLLOUTS < shown <= module.ROLLOUTS
    texts = [one["t"] for rollout in made["rollouts"] for group in rollout["groups"] for one in group["c"]]
    assert len(json.dumps(made)) < 200_000
    assert all(text.startswith("begin ") and text.endswith(" end") and "characters left out" in text for text in texts)
    assert all(rollout["groups"] for rollout in made["rollouts"])
    assert made["rollouts"][0]["completions"] is None  # not all were read
    assert made["left_out"].startswith(f"This page holds {len(texts):,} completions of {shown} of 40 recorded rollouts")


def test_without_rollouts_nothing_is_claimed(tmp_path: Path) -> None:
    assert browse(tmp_path, {}, group_size=2) == {
        "rollouts": [], "left_out": "No rollouts are recorded in this folder.",
    }  # fmt: skip


def test_only_the_middle_is_left_out() -> None:
    assert shortened("short", 3) == "short"
    text = shortened("a" * 1000 + "b" * 1000, 100)
    assert text == f"{'a' * 50}\n[... 1,900 characters left out ...]\n{'b' * 50}"


def evaluated(folder: Path, step: int, right: dict[str, list[bool]], name: str = "easy") -> None:
    records = [sample(prompt, f"{step} {prompt} {ok}", ok) for prompt, samples in right.items() for ok in samples]
    write_jsonl(folder / "evaluations" / f"{name}-{step:05d}.jsonl", records)


def test_prompts_are_sorted_by_what_became_of_them(tmp_path: Path) -> None:
    evaluated(tmp_path, 0, {"up": [False, False], "down": [True, True], "low": [False] * 2, "high": [True] * 2})
    evaluated(tmp_path, 5, {"up": [True], "down": [False], "low": [False], "high": [True]})
    evaluated(
        tmp_path, 9, {"up": [False, True], "down": [False, False], "low": [False] * 2, "high": [True] * 2, "x": [True]}
    )
    (pair,) = before_and_after(tmp_path)
    assert pair.comparison.problems == 4  # that both have
    made = prompts([pair])
    assert made["labels"] == ["step 0", "step 9"]
    assert made["counts"] == {"learned": 1, "lost": 1, "still wrong": 1, "still right": 1}
    (learned,) = (item for item in made["items"] if item["kind"] == "learned")
    before, after = learned["sides"]
    # a sample that ended as most of them
    assert (before["t"], before["ok"], before["right"], before["of"]) == ("0 up False", False, 0, 2)
    assert (after["t"], after["ok"], after["right"], after["of"]) == ("9 up True", True, 1, 2)


def test_two_runs_share_what_both_were_measured_on(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", 3, {"p": [True]})
    evaluated(tmp_path / "a", 3, {"q": [True]}, name="only here")
    evaluated(tmp_path / "b", 100000, {"p": [False]})
    evaluated(tmp_path / "b", 99999, {"p": [True]})
    (pair,) = of_two(tmp_path / "a", tmp_path / "b", ("a", "b"))
    assert (pair.set_name, pair.labels, pair.kind("p")) == ("easy", ("a", "b"), "lost")


def test_many_prompts_are_taken_from_all_over(tmp_path: Path) -> None:
    for step in (0, 1):
        evaluated(tmp_path, step, {f"p{i:04d}": [step > 0] for i in range(2000)})
    made = prompts(before_and_after(tmp_path))
    places = [int(item["id"][1:]) for item in made["items"]]
    assert made["counts"]["learned"] == 2000
    assert len(places) == 24
    assert min(places) < 100
    assert max(places) > 1900
