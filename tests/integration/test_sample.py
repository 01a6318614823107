"""The sampling job through the real recipe: right traces, what became of the rest, and going on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from helpers import judges
from helpers.endpoint import endpoint
from helpers.engine import CopyEngine
from helpers.runs import coin_sample
from lightning_r1 import sample as verb
from lightning_r1.config.errors import ConfigError
from lightning_r1.data.sources import SourcePreferences
from lightning_r1.data.traces import jsonl_traces
from lightning_r1.models.export import read_card
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.canaries import CASES
from lightning_r1.sample import sample

COPY = ("rollout=hf", "rollout._target_=helpers.engine.CopyEngine")


def facts(run_dir: Path) -> dict[str, Any]:
    """The summary without clocks."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name != "seconds"}


@pytest.fixture(scope="module")
def uninterrupted(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sample")
    sample(coin_sample(output, base_model))
    return output / "coin" / "traces"


def test_traces_are_right_and_know_where_they_come_from(uninterrupted: Path, base_model: Path) -> None:
    summary, traces = facts(uninterrupted), list(jsonl_traces(uninterrupted / "traces.jsonl"))
    assert 10 < len(traces) <= 40
    assert len({trace.id.rpartition("/")[0] for trace in traces}) == len(traces)  # one a prompt
    for trace in traces:
        value = trace.question.split("?")[0]
        assert trace.answer == {"kind": "number", "value": int(value)}
        assert trace.completion.endswith(f"</think><answer>{value}</answer>")
        assert trace.completion.startswith("<think>")
        assert trace.provenance["model"] == str(base_model)
        assert trace.provenance["weights"] == summary["weights"]
        assert trace.provenance["step"] == read_card(base_model)["steps"]
        assert trace.provenance["sampling"]["temperature"] == 1.0
        assert (trace.provenance["seed"], trace.provenance["rewritten_by"]) == (0, None)
        assert trace.provenance["filters"] == ["accuracy", "format", "repetition", "repeated_lines", "mixed_languages"]


def test_an_engine_that_is_another_program_is_ended(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[CopyEngine] = []
    monkeypatch.setattr(CopyEngine, "close", lambda self: ended.append(self))
    sample(coin_sample(tmp_path, base_model, *COPY))
    assert len(ended) == 1


def test_every_completion_is_accounted_for(uninterrupted: Path) -> None:
    summary = facts(uninterrupted)
    assert (summary["prompts"], summary["completions"]) == (40, 160)
    assert summary["traces"] + sum(summary["left_out"].values()) == 160
    assert summary["traces"] == summary["prompts_kept"]
    assert set(summary["left_out"]) >= {"accuracy", "duplicate"}
    # what was not left out for being wrong was right
    assert summary["rewards"]["accuracy"] == pytest.approx(1 - summary["left_out"]["accuracy"] / 160, abs=0.03)
    assert summary["job"] == "cold_start"
    assert 5 < summary["trace_length_mean"] < 12


def test_an_interrupted_job_ends_with_the_same_traces(
    uninterrupted: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, parts, made = coin_sample(tmp_path, base_model), [], verb._part

    def dies_in_the_third(*arguments: Any) -> Any:
        parts.append(arguments)
        if len(parts) == 3:
            raise KeyboardInterrupt
        return made(*arguments)

    monkeypatch.setattr(verb, "_part", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        sample(config)
    run_dir = tmp_path / "coin" / "traces"
    assert not (run_dir / "summary.json").exists()
    assert not (run_dir / "traces.jsonl").exists()
    # what a kill in the middle of writing leaves
    (run_dir / "parts" / "00002.jsonl.partial").write_text('{"coun')
    sample(config)
    assert len(parts) == 2 + 1 + 3  # two made, one lost, three left
    assert (run_dir / "traces.jsonl").read_bytes() == (uninterrupted / "traces.jsonl").read_bytes()
    assert facts(run_dir) == facts(uninterrupted)
    sample(config)  # finished: nothing is made again
    assert len(parts) == 6


def test_enough_is_enough(uninterrupted: Path, base_model: Path, tmp_path: Path) -> None:
    first = (uninterrupted / "traces.jsonl").read_text().splitlines()
    summary = sample(coin_sample(tmp_path, base_model, "sample.max_total=7"))
    run_dir = tmp_path / "coin" / "traces"
    assert (run_dir / "traces.jsonl").read_text().splitlines() == first[:7]
    assert summary["traces"] == 7
    assert summary["prompts"] < 40
    assert summary["completions"] == 4 * summary["prompts"] == 7 + sum(summary["left_out"].values())


def test_parts_and_their_size_change_no_trace(uninterrupted: Path, base_model: Path, tmp_path: Path) -> None:
    sample(coin_sample(tmp_path, base_model, "sample.prompts_a_part=13"))
    assert (tmp_path / "coin/traces/traces.jsonl").read_bytes() == (uninterrupted / "traces.jsonl").read_bytes()


def test_rejection_sampling_takes_several_of_a_prompt(base_model: Path, tmp_path: Path) -> None:
    summary = sample(
        coin_sample(
            tmp_path, base_model, "sample=rejection_sampling", "sample.sampling.group_size=12", "data.rows.size=10",
        )
    )  # fmt: skip
    assert summary["job"] == "rejection_sampling"
    assert summary["completions"] == 120
    assert summary["traces"] >= summary["prompts_kept"] > 3
    traces = list(jsonl_traces(tmp_path / "coin/traces/traces.jsonl"))
    assert traces[0].provenance["filters"][-2:] == ["long_paragraph", "code"]
    # the same completion is no second trace
    assert len({(trace.question, trace.completion) for trace in traces}) == len(traces)


def test_rewriting_is_paid_for_once(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")

    def answer(body: dict[str, Any]) -> str:
        text = body["messages"][0]["content"]
        value = text.split("[question]\n")[1][:2]
        return f"<think>{value};{value}!</think><answer>{value}</answer>"

    with endpoint(answer) as server:
        config = coin_sample(
            tmp_path, base_model, "sample/rewrite=endpoint", f"sample.rewrite.client.base_url={server.url}",
            "sample.rewrite.client.model=writer", "data.rows.size=10",
        )  # fmt: skip
        summary = sample(config)
        asked = len(server.requests)
        shutil.rmtree(tmp_path / "coin/traces/parts")
        (tmp_path / "coin/traces/summary.json").unlink()
        assert sample(config)["rewritten"] == summary["rewritten"]
        assert len(server.requests) == asked
    assert summary["rewritten"] == summary["traces"] == asked > 3
    for trace in jsonl_traces(tmp_path / "coin/traces/traces.jsonl"):
        assert trace.completion.startswith(f"<think>{trace.question[:2]};")
        assert trace.provenance["rewritten_by"] == "writer"


def test_nothing_worth_keeping_is_an_error_that_says_why(base_model: Path, tmp_path: Path) -> None:
    always = "+sample.faults.all={_target_: helpers.coin.is_a_trace, _partial_: true}"
    config = coin_sample(tmp_path, base_model, always, "data.rows.size=4")
    with pytest.raises(ConfigError, match=r"none of 16 completions is worth keeping \(.*all \d"):
        sample(config)


def judges_coins(body: dict[str, Any]) -> str:
    """Right is the first number; of a canary what contains its reference."""
    message = judges.message_of(body)
    parts = judges.parts_of(message)
    if "reference" in parts:
        return judges.honest(body)
    right = parts["answer"] == f"<answer>{parts['question'].split('?')[0]}</answer>"
    return judges.says(message, correctness="correct" if right else "incorrect")


def test_where_no_rule_decides_a_judge_does(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    rows = ["data.rows._target_=helpers.preferences.helpful_coin_rows", "data.rows.size=16"]
    with endpoint(judges_coins) as server:
        judge = ["sample/judge=endpoint", f"sample.judge.base_url={server.url}", "sample.judge.model=m"]
        config = coin_sample(tmp_path, base_model, *rows, *judge)
        summary = sample(config)
        asked = len(server.requests)
        # it goes on with the verdicts it has, and asks its canaries anew
        run_dir = Path(config["paths"]["run_dir"])
        before = facts(run_dir)
        (run_dir / "summary.json").unlink()
        shutil.rmtree(run_dir / "parts")
        sample(config)
        assert len(server.requests) - asked == len(CASES["answers"])
        assert facts(run_dir) == before
        server.answer = judges.pleased
        with pytest.raises(ConfigError, match=r"sample\.judge: judge judge: of canaries that are wrong it calls"):
            sample(coin_sample(tmp_path / "other", base_model, *rows, *judge))
    assert summary["traces"] > 3
    assert summary["left_out"]["judge"] > 3
    for trace in jsonl_traces(run_dir / "traces.jsonl"):
        assert trace.completion.endswith(f"<answer>{trace.question.split('?')[0]}</answer>")


def compares_coins(body: dict[str, Any]) -> str:
    """Better is what answers with the first number; of canaries what is right."""

    def of_coins(body: Any) -> str:
        message = judges.message_of(body)
        parts = judges.parts_of(message)
        wanted = f"<answer>{parts['question'].split('?')[0]}</answer>"
        first, second = (parts[name] == wanted for name in ("answer A", "answer B"))
        return judges.says(message, verdict="A=B" if first == second else "A>>B" if first else "B>>A")

    return judges.knowing_pair(body, of_coins)


def coin_pairs(output: Path, base: Path, url: str, *overrides: str) -> dict[str, Any]:
    client = "sample.pairs.judge.client"
    return coin_sample(
        output, base, "sample=label_pairs", "data.rows._target_=helpers.preferences.helpful_coin_rows",
        f"{client}.base_url={url}", f"{client}.model=judge", f"{client}.deadline_s=20", "name=coin/pairs", *overrides,
    )  # fmt: skip


def test_pairs_are_labelled_and_a_reward_model_can_read_them(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    run_dir = tmp_path / "coin" / "pairs"
    with endpoint(compares_coins) as server:
        summary = sample(coin_pairs(tmp_path, base_model, server.url))
        asked = len(server.requests)
        before, pairs = facts(run_dir), (run_dir / "pairs.jsonl").read_bytes()
        (run_dir / "summary.json").unlink()
        shutil.rmtree(run_dir / "parts")
        sample(coin_pairs(tmp_path, base_model, server.url))  # goes on with the verdicts it has
        canaries = 4 * sum(not canary.right for canary in CASES["answers"])
        assert len(server.requests) - asked == canaries
        assert (facts(run_dir), (run_dir / "pairs.jsonl").read_bytes()) == (before, pairs)
    assert (summary["job"], summary["judge"], summary["prompts"]) == ("label_pairs", "judge", 40)
    assert summary["pairs"] + sum(summary["left_out"].values()) == 40
    assert summary["pairs"] > 3
    rows = list(SourcePreferences(str(run_dir / "pairs.jsonl"), question="question"))
    assert len(rows) == summary["pairs"]
    for row in rows:
        wanted = f"<answer>{row.question.split('?')[0]}</answer>"
        assert row.chosen.endswith(wanted)
        assert not row.rejected.endswith(wanted)
        assert row.chosen.startswith("<think>")  # whole: the reward model's own scope says what it reads


def test_a_judge_of_pairs_that_is_away_or_gullible_ends_the_job(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with endpoint(lambda body: judges.says(judges.message_of(body), verdict="A>>B")) as server:
        with pytest.raises(ConfigError, match=r"sample\.pairs\.judge: judge of pairs: of canaries that are wrong"):
            sample(coin_pairs(tmp_path, base_model, server.url))
        trusting = ["sample.pairs.judge.canaries=null", "data.rows.size=4"]
        with pytest.raises(ConfigError, match=r"sample\.pairs: of 4 prompts none gave a pair \(close"):
            sample(coin_pairs(tmp_path / "place", base_model, server.url, *trusting))
        server.answer = lambda body: 401
        with pytest.raises(RewardError, match=r"the judge of pairs is away: .*HTTP 401"):
            sample(coin_pairs(tmp_path / "away", base_model, server.url, *trusting))
    assert not (tmp_path / "away" / "coin" / "pairs" / "summary.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.path=null"], r"model\.path=None"),
        (["sample.max_per_prompt=0"], r"sample\.max_per_prompt=0: expected >= 1"),
        (["sample.prompts_a_part=0"], r"sample\.prompts_a_part=0"),
        (["sample.max_total=0"], r"sample\.max_total=0: expected >= 1, or null"),
        (["sample.sampling.temperature=0"], r"sample\.sampling\.group_size=4: at temperature 0"),
        (
            ["+sample.require.beauty=1"],
            r"sample\.require\.beauty: there is no such reward; .* accuracy, format",
        ),
        (["sample.faults.repetition.most=1"], r"most"),
        (
            ["sample.faults.repetition={}", "~sample.faults.repetition._target_"],
            r"sample\.faults\.repetition: it names no function",
        ),
        (["+sample.judge._target_=nowhere.judge"], r"sample\.judge\._target_=nowhere\.judge: not found"),
        (["sample.sampling.max_new_tokens=1000"], r"sample\.sampling\.max_new_tokens=1000: .*context of 256"),
    ],
    ids=str,
)
def test_configs_that_cannot_be_run(overrides: list[str], message: str, base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(coin_sample(tmp_path, base_model, *overrides))
