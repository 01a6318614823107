"""Comparisons do the same work on both sides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from helpers.models import tiny_model
from lightning_r1.benchmarks import grpo_step_vs_trl as step
from lightning_r1.benchmarks import learning_vs_trl, rewards, rollout, sandbox, scaling
from lightning_r1.benchmarks.bounds import Machine, bound
from lightning_r1.benchmarks.grpo_step_vs_trl import Work, ours, ratios, trl
from lightning_r1.benchmarks.math_work import hostile_answers, ordinary, spread
from lightning_r1.benchmarks.shapes import byte_tokenizer
from lightning_r1.benchmarks.step_systems import our_overrides
from lightning_r1.benchmarks.step_work import lucky, random_rows
from lightning_r1.config.compose import compose_config
from lightning_r1.text.golds import check_gold
from lightning_r1.types import Completion, Group, Prompt


@pytest.mark.parametrize("lengths", ["natural", "fixed"])
def test_both_systems_measure_their_steps(base_model: Path, lengths: str) -> None:
    work = Work(str(base_model), prompts=2, group_size=3, max_new_tokens=5, lengths=lengths, steps=2)
    for measured in (ours(work), trl(work)):
        assert len(measured.seconds) == len(measured.tokens) == work.steps  # the one that warms up is not counted
        assert min(measured.seconds) > 0
        most = work.prompts * work.group_size * work.max_new_tokens
        assert all(tokens == most if lengths == "fixed" else 0 < tokens <= most for tokens in measured.tokens)
        assert measured.above_start_gib < measured.peak_gib
        halves = zip(measured.seconds, measured.rollout_seconds, measured.update_seconds, strict=True)
        assert all(whole == pytest.approx(first + second) for whole, first, second in halves)
        assert min(*measured.rollout_seconds, *measured.update_seconds) > 0
        assert measured.update_gib <= measured.above_start_gib


def test_a_shape_with_random_weights_beside_trl(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "in_a_process", lambda system, work: system(work))  # no need to import all again
    said = [
        "shape=tiny", f"models={tmp_path}", "prompts=2", "group_size=2", "max_new_tokens=4", "prompt_tokens=24",
        "rows_per_forward=2", "steps=2", "rounds=1", "lengths=fixed", f"picture={tmp_path / 'steps.png'}",
    ]  # fmt: skip
    more = [
        "+benchmark.ours.sdpa=['model.attention=sdpa']", "+benchmark.ours.strange=['model.strange=1']",
        "+benchmark.trl.strange={strange: 1}",
    ]  # fmt: skip
    config = compose_config("benchmark", [*(f"benchmark.{one}" for one in said), *more])["benchmark"]
    result = step.benchmark(config)
    assert set(result["medians"]) == {"ours", "TRL", "ours, sdpa"}
    for numbers in result["medians"].values():
        assert numbers["tokens_per_step"] == 2 * 2 * 4
        assert numbers["seconds"] > 0
    assert set(result["ratios"]) == {"ours", "ours, sdpa"}
    assert set(result["not_run"]) == {"ours, strange", "TRL, strange"}
    assert "strange" in result["not_run"]["ours, strange"]
    assert (tmp_path / "steps.png").stat().st_size > 1000
    told = " ".join(capsys.readouterr().out.split())
    assert "not run:" in told
    assert result["where"]["commit"][:12] in told


def test_both_systems_get_the_same_random_prompts_and_luck() -> None:
    rows = list(random_rows(40, count=5))
    assert rows == list(random_rows(40, count=5))
    tokenizer = byte_tokenizer()
    assert {len(tokenizer.encode(row.question + "<think>")) for row in rows} == {40}
    assert len({row.question for row in rows}) == 5
    assert [lucky(ids) for ids in ((1, 2), (1, 3), ())] == [1, 0, 0]


def test_work_for_a_gpu_is_not_run_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = compose_config("benchmark", ["benchmark=grpo_step_h200"])["benchmark"]
    result = step.benchmark(config)
    assert result["not_run"] == {"everything": "benchmark.device=cuda, and there is no GPU here"}
    assert "grpo_step_h200: not run: benchmark.device=cuda, and there is no GPU here" in capsys.readouterr().out
    assert list(step.systems_of(config)) == [
        "ours", "TRL", *(f"ours, {name}" for name in config["ours"]), "TRL, continuous batching",
    ]  # fmt: skip


def test_ratios_say_how_much_faster_and_how_much_smaller_ours_is() -> None:
    ours_, theirs = (
        {"seconds": 1.0, "tokens_per_s": 900.0, "peak_gib": 1.0, "above_start_gib": 0.1},
        {"seconds": 3.0, "tokens_per_s": 300.0, "peak_gib": 2.0, "above_start_gib": 0.4},
    )
    assert ratios(ours_, theirs) == {"seconds": 3.0, "tokens_per_s": 3.0, "peak_gib": 0.5, "above_start_gib": 0.25}


def test_what_a_step_costs_as_the_work_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "in_a_process", lambda system, work: system(work))
    said = [
        f"models={tmp_path}", "prompts=2", "group_size=2", "max_new_tokens=3", "prompt_tokens=24",
        "rows_per_forward=2", "steps=2", "rounds=1", f"picture={tmp_path / 'scaling.png'}",
        "sweeps.prompts=[1,2]", "sweeps.max_new_tokens=[2,6]", "sweeps.shape=[tiny,small]",
    ]  # fmt: skip
    config = compose_config("benchmark", ["benchmark=scaling", *(f"benchmark.{one}" for one in said)])["benchmark"]
    sweeps = scaling.benchmark(config)["sweeps"]
    tokens = {name: [one["tokens_per_step"] for one in sweep["medians"].values()] for name, sweep in sweeps.items()}
    assert tokens == {"prompts": [6, 12], "max_new_tokens": [8, 24], "shape": [12, 12]}
    small, larger = sweeps["shape"]["sizes"].values()
    assert 1e5 < small < larger < 1e6 * 2
    assert all(set(sweep["exponents"]) == set(scaling.MEASURED.values()) for sweep in sweeps.values())
    assert (tmp_path / "scaling.png").stat().st_size > 1000
    assert "a step of ours over max_new_tokens" in capsys.readouterr().out


def test_learning_beside_trl(
    base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_vs_trl, "in_a_process", lambda system, work: system(work))
    monkeypatch.setattr(learning_vs_trl, "Work", lambda **given: Work(**given, prompts=2, group_size=2))
    monkeypatch.setattr(learning_vs_trl.Watch, "pass_at_1", lambda watch: len(watch.curve.steps) / 4)
    said = [f"model={base_model}", "every=1", "max_steps=6", "target=0.5", f"picture={tmp_path / 'learning.png'}"]
    config = compose_config("benchmark", ["benchmark=learning_vs_trl", *(f"benchmark.{one}" for one in said)])
    result = learning_vs_trl.benchmark(config["benchmark"])
    for name in ("ours", "TRL"):
        (curve,) = result["curves"][name]
        assert curve["steps"] == [1, 2, 3]  # twice at the target, and no further
        assert curve["passes"] == [0.25, 0.5, 0.75]
        assert result["seconds"][name] == [curve["seconds"][1]]
        assert 0 < curve["seconds"][0] < curve["seconds"][1] < curve["seconds"][2]
    assert (tmp_path / "learning.png").stat().st_size > 1000
    assert "until pass@1 0.5" in " ".join(capsys.readouterr().out.split())


def test_what_is_right_is_counted(base_model: Path) -> None:
    from lightning_r1.config.build_policy import build_policy

    codec, policy = build_policy(compose_config("train", our_overrides(Work(str(base_model)))))
    watch = learning_vs_trl.Watch(policy, codec, learning_vs_trl.Goal(problems=3))
    assert 0 <= watch.pass_at_1() <= 1
    assert len(watch.prompts) == 3
    assert learning_vs_trl.Curve([1, 2], [3.0, 4.0], [0.1, 0.9]).reached(0.8) == 4
    assert learning_vs_trl.Curve([1], [3.0], [0.1]).reached(0.8) is None


def test_exponents() -> None:
    assert scaling.exponent([1, 2, 4, 8], [5, 10, 20, 40]) == pytest.approx(1)
    assert scaling.exponent([1, 10, 100], [7, 7, 7]) == pytest.approx(0)
    assert math.isnan(scaling.exponent([3, 3], [1, 2]))
    assert math.isnan(scaling.exponent([1, 2], [0.0, 2]))


def test_sandboxes_beside_a_subprocess(capsys: pytest.CaptureFixture[str]) -> None:
    said = [f"benchmark.{key}" for key in ("programs=5", "tests=2", "rounds=2", "at_once=2", "backends=[auto,nowhere]")]
    config = compose_config("benchmark", ["benchmark=sandbox", *said])["benchmark"]
    result = sandbox.benchmark(config)
    assert result["work"] == {"programs": 5, "tests": 2, "rounds": 2, "at_once": 2}
    assert set(result["medians"]) == {"auto", sandbox.THEIRS}
    for numbers in result["medians"].values():
        assert numbers["tests_per_s"] == 2 * numbers["programs_per_s"] > 0
    assert "backend='nowhere'" in result["missing"]["nowhere"]
    assert "5 programs x 2 tests, 2 at a time, median of 2 turns" in capsys.readouterr().out


def test_a_sandbox_that_fails_right_programs_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tuple((source, lambda n: "no") for source, _ in sandbox._PROGRAMS)
    monkeypatch.setattr(sandbox, "_PROGRAMS", wrong)
    config = {"programs": 2, "tests": 1, "rounds": 1, "at_once": 1, "backends": []}
    with pytest.raises(RuntimeError, match="subprocess: 2 of 2 right programs failed"):
        sandbox.benchmark(config)


def test_rewards_beside_math_verify(capsys: pytest.CaptureFixture[str]) -> None:
    said = {
        "ordinary": 48, "hostile": 20, "timeout_s": 20.0, "unfiltered": 2, "direct_ordinary": 8, "direct_hostile": 2,
        "direct_timeout_s": 1, "direct_patience_s": 20,
    }  # fmt: skip
    config = compose_config(
        "benchmark", ["benchmark=rewards", *(f"benchmark.{key}={value}" for key, value in said.items())]
    )
    result = rewards.benchmark(config["benchmark"])
    turns = {(turn["system"], turn["work"]): turn for turn in result["turns"]}
    for work, answers in (("ordinary", 48), ("hostile", 20)):
        turn = turns["ours", work]
        assert turn["answers"] == turn["asked"] == sum(turn["outcomes"].values()) == answers
        assert turn["mistakes"] == 0
        assert turn["worst_s"] < 20
        assert turn["outcomes"].keys() <= {"ok", "wrong_format"}
    assert turns["ours", "hostile, filter off"]["asked"] == 2
    direct = turns["directly", "hostile"]
    assert (direct["answers"], direct["asked"]) == (20, 2)
    assert direct["total_s"] == pytest.approx(10 * direct["seconds"])
    assert "* extrapolated" in capsys.readouterr().out


def test_the_work_is_made_of_numbers_and_its_golds_are_usable() -> None:
    plain, evil = ordinary(480), hostile_answers(200)
    assert plain == ordinary(480)
    assert [value for *_, value in plain].count(1.0) == 240
    assert len({(gold, answer) for _, gold, answer, _ in plain}) > 470
    assert len({answer for _, _, answer, _ in evil}) > 150
    for _, gold, _, _ in plain + evil:
        check_gold({"kind": "math", "value": gold})
    kinds = {kind for kind, *_ in evil}
    assert {kind for kind, *_ in spread(evil, 40)} == kinds
    assert len({answer for _, _, answer, _ in spread(evil, 100)}) > 75


ROLLOUTS = ("prompts=2", "group_size=3", "max_new_tokens=6", "rollouts=2", "rounds=1")


@pytest.mark.parametrize("lengths", ["natural", "fixed"])
def test_rollout_engines_side_by_side(
    base_model: Path, tmp_path: Path, lengths: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [*ROLLOUTS, f"model={base_model}", f"lengths={lengths}", "run=[hf,group,group_general]"]
    overrides = ["benchmark=rollout", f"paths.output_dir={tmp_path}", *(f"benchmark.{one}" for one in said)]
    result = rollout.benchmark(compose_config("benchmark", overrides)["benchmark"])
    assert set(result["medians"]) == {"hf", "group", "group_general"}
    for numbers in result["medians"].values():
        assert 0 < numbers["share_of_bound"] < 1
        assert numbers["tokens_per_s"] > 0
        assert numbers["peak_gib"] > 0.1
        assert numbers["bound"] in ("memory", "arithmetic")
        most = 2 * 3 * 6
        assert (
            numbers["tokens_per_rollout"] == most if lengths == "fixed" else 0 < numbers["tokens_per_rollout"] <= most
        )
    # ours draw the same numbers, whichever way they take through the model
    assert result["medians"]["group"]["tokens_per_rollout"] == result["medians"]["group_general"]["tokens_per_rollout"]
    assert Path(result["plot"]).stat().st_size > 1000
    assert "the bound is of" in capsys.readouterr().out


def test_rollouts_of_a_shape_and_of_an_engine_by_its_configs_name(tmp_path: Path) -> None:
    said = [*ROLLOUTS[:-2], "rollouts=1", "rounds=2", "shape=tiny", "prompt_tokens=9", "run=[group]", "engines={}"]
    overrides = ["benchmark=rollout_0_5b", f"paths.output_dir={tmp_path}", *(f"benchmark.{one}" for one in said)]
    result = rollout.benchmark(compose_config("benchmark", overrides)["benchmark"])
    assert result["medians"]["group"]["tokens_per_rollout"] == 2 * 3 * 6


def test_the_bound_is_what_has_to_be_read_and_multiplied() -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    prompt = Prompt("1", "", "", (5, 6, 7), {})
    groups = [Group(prompt, tuple(Completion((9,) * length, (0.0,) * length, "stop") for length in (1, 4)))]
    found = bound(model, groups, Machine(bytes_per_s=1.0, flop_per_s=1.0))
    weights = sum(parameter.numel() for parameter in model.parameters()) - 136 * 32  # an embedding is looked up
    # four steps read the weights; the second completion's tokens behind the first look at 4, 5 and 6 tokens
    cache = 2 * 2 * 2 * 8  # keys and values, layers, heads, size
    assert found.memory_s == 4 * (4 * weights + (4 + 5 + 6) * cache)
    # three tokens of the prompt and three that are fed; the prompt's look at 1, 2 and 3
    assert found.arithmetic_s == 2 * weights * 6 + 4 * 2 * 4 * 8 * (4 + 5 + 6 + 1 + 2 + 3)
    assert (found.seconds, found.kind) == (found.memory_s, "memory")
    slower = bound(model, groups, Machine(bytes_per_s=1.0, flop_per_s=0.5))
    assert (slower.seconds, slower.kind) == (2 * found.arithmetic_s, "arithmetic")
