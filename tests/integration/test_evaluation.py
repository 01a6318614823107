"""The verb evaluate on a real tiny model: what it leaves, killed and continued, graded anew, compared."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from helpers.engine import CopyEngine
from helpers.runs import coin_evaluation
from lightning_r1 import evaluate as verb
from lightning_r1.config.errors import ConfigError
from lightning_r1.evaluate import evaluate
from lightning_r1.evaluation.intervals import share_interval
from lightning_r1.evaluation.store import SampleStore
from lightning_r1.text.records import read_jsonl

COPY = ("rollout=hf", "rollout._target_=helpers.engine.CopyEngine")
KILLABLE = "rollout._target_=helpers.engine.KilledEngine"
GOLDS_ARE_SECOND = "+eval.sets.operators.wanted=1"


@pytest.fixture(scope="module")
def whole(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation; its name is the same everywhere, so that folders can be compared."""
    output = tmp_path_factory.mktemp("whole")
    evaluate(coin_evaluation(output, base_model, KILLABLE))
    return output / "coin" / "evaluation"


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A finished evaluation to change."""
    return Path(shutil.copytree(whole, tmp_path / "coin" / "evaluation"))


def again(run_dir: Path, model: Path, *overrides: str) -> dict[str, Any]:
    """The same command again, with more to it."""
    return evaluate(coin_evaluation(run_dir.parents[1], model, KILLABLE, *overrides))


def files(run_dir: Path) -> dict[str, bytes]:
    return {name: (run_dir / name).read_bytes() for name in ("samples/operators.jsonl", "problems/operators.jsonl")}


def test_what_it_leaves(whole: Path, base_model: Path) -> None:
    summary = again(whole, base_model)  # finished: nothing but its summary is read
    assert sorted(path.name for path in whole.iterdir()) == ["config.yaml", "problems", "samples", "summary.json"]
    samples, problems = read_jsonl(whole / "samples/operators.jsonl"), read_jsonl(whole / "problems/operators.jsonl")
    assert [sample["prompt_id"] for sample in samples[::4]] == [f"coin/heldout{i}" for i in range(24)]
    assert len(samples) == 96
    shares = [fmean(sample["correct"] for sample in samples[start : start + 4]) for start in range(0, 96, 4)]
    assert [fmean(problem["correct"]) for problem in problems] == shares
    numbers = {name.removeprefix("eval/operators/"): value for name, value in summary["after"].items()}
    assert numbers["pass@1"] == fmean(shares)
    assert (numbers["pass@1_low"], numbers["pass@1_high"]) == share_interval(shares)
    assert 0.05 < numbers["pass@1"] < numbers["pass@4"] == fmean(share > 0 for share in shares)
    assert numbers["length_mean"] == fmean(sample["tokens"] for sample in samples)
    # it names one of the two numbers, mostly: a vote cannot be better than a coin
    assert 0 < numbers["cons@4"] < 0.8
    of_set = summary["sets"]["operators"]
    assert (of_set["problems"], of_set["group_size"], of_set["max_new_tokens"]) == (24, 4, 12)
    assert {"model", "path", "template", "tokens", "commit", "versions"} <= summary.keys()


def test_an_engine_that_is_another_program_is_ended(
    base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[CopyEngine] = []
    monkeypatch.setattr(CopyEngine, "close", lambda self: ended.append(self))
    with monkeypatch.context() as broken:
        broken.setattr(SampleStore, "fill", lambda *arguments, **how: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(coin_evaluation(tmp_path, base_model, *COPY))
    assert len(ended) == 1
    evaluate(coin_evaluation(tmp_path, base_model, *COPY))
    assert len(set(ended)) == 2


def killed(config: dict[str, Any], call: int) -> None:
    import os

    torch.set_num_threads(1)
    os.environ["KILL_AT_CALL"] = str(call)
    evaluate(config)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_killed_and_continued_is_the_same(call: int, whole: Path, base_model: Path, tmp_path: Path) -> None:
    config = coin_evaluation(tmp_path, base_model, KILLABLE)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_r1.evaluate"])
    process = context.Process(target=killed, args=(config, call))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run_dir = tmp_path / "coin" / "evaluation"
    done = sorted(path.name for path in (run_dir / "samples").rglob("*.jsonl"))
    assert done == [f"{number:05d}.jsonl" for number in range(call - 1)]
    summary = evaluate(config)
    assert files(run_dir) == files(whole)
    assert summary["after"] == again(whole, base_model)["after"]
    assert not list((run_dir / "samples").glob("*.parts"))


def test_what_is_there_is_not_sampled_again(copied: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = again(copied, base_model)

    def no_sampling(*arguments: Any) -> None:
        raise AssertionError("it samples")

    monkeypatch.setattr(verb, "build_sampler", no_sampling)
    assert again(copied, base_model) == before
    # killed behind the last sample, before the summary
    (copied / "summary.json").unlink()
    shutil.rmtree(copied / "problems")
    assert again(copied, base_model)["after"] == before["after"]
    assert again(copied, base_model, "rescore=true")["after"] == before["after"]
    (copied / "samples/operators.jsonl").unlink()
    (copied / "summary.json").unlink()
    with pytest.raises(AssertionError, match="it samples"):
        again(copied, base_model)


def test_parts_of_another_size_are_not_mixed(whole: Path, base_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "coin" / "evaluation"
    (run_dir / "samples" / "operators.parts").mkdir(parents=True)
    shutil.copy(whole / "config.yaml", run_dir)
    with pytest.raises(ConfigError, match=r"holds a run with another save_every \(32 there, 16 here\)"):
        again(run_dir, base_model, "save_every=16")


def test_graded_anew_it_is_the_same(copied: Path, whole: Path, base_model: Path) -> None:
    summary = again(copied, base_model, "rescore=true")
    assert files(copied) == files(whole)
    assert summary["after"] == again(whole, base_model)["after"]
    assert summary["rescored"] is True


def test_graded_anew_by_other_golds(copied: Path, base_model: Path) -> None:
    before = again(copied, base_model)
    samples = SampleStore(copied / "samples/operators.jsonl").read()
    summary = again(copied, base_model, "rescore=true", GOLDS_ARE_SECOND)
    now = SampleStore(copied / "samples/operators.jsonl").read()
    assert [sample.completion for sample in now] == [sample.completion for sample in samples]
    # a problem's two numbers differ: nobody is right in both ways
    assert not any(one.correct and other.correct for one, other in zip(now, samples, strict=True))
    assert sum(sample.correct for sample in now) > 0
    assert summary["after"]["eval/operators/pass@1"] != before["after"]["eval/operators/pass@1"]
    assert summary["after"]["eval/operators/length_mean"] == before["after"]["eval/operators/length_mean"]
    # from now on the folder holds the evaluation against these golds
    assert again(copied, base_model, GOLDS_ARE_SECOND) == summary
    with pytest.raises(
        ConfigError, match=r"holds a run with another eval\.sets\.operators\.wanted \(1 there, None here"
    ):
        again(copied, base_model)


def test_graded_anew_the_prompts_have_to_be_the_same(copied: Path, whole: Path, base_model: Path) -> None:
    with pytest.raises(ValueError, match="prompt 'coin/heldout0' is not what it was when it was sampled"):
        again(copied, base_model, "rescore=true", "eval.sets.operators.split=train")
    assert files(copied) == files(whole)


def test_without_samples_there_is_nothing_to_grade(base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"rescore=true: .*operators\.jsonl is not there; let the evaluation sample first"
    ):
        evaluate(coin_evaluation(tmp_path, base_model, "rescore=true"))


def test_compared_with_itself_it_is_noise(
    whole: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(coin_evaluation(tmp_path, base_model, "eval.seed=1", f"compare={whole}"))
    said = " ".join(capsys.readouterr().out.split())
    assert "within noise" in said
    assert "exact sign-flip test" in said


def test_a_difference_is_told(
    copied: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # a grader that finds everything right, against one that finds hardly anything right
    other = copied.parent / "other"
    shutil.copytree(copied, other)
    perfect = (copied / "problems/operators.jsonl").read_text().replace("false", "true")
    (other / "problems/operators.jsonl").write_text(perfect)
    again(copied, base_model, f"compare={other}")
    assert "worse here" in " ".join(capsys.readouterr().out.split())


def test_another_evaluation_has_to_be_there(copied: Path, base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compare=.*nowhere: no evaluation was finished there"):
        again(copied, base_model, f"compare={tmp_path}/nowhere")
    other = copied.parent / "other"
    (other / "problems").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"compare=.*other: it has none of the sets operators"):
        again(copied, base_model, f"compare={other}")
    first = (copied / "problems/operators.jsonl").read_text().splitlines(keepends=True)[0]
    (other / "problems/operators.jsonl").write_text(first)
    with pytest.raises(ConfigError, match="of operators, they share 1 problems of 1 and 24"):
        again(copied, base_model, f"compare={other}")


def test_new_tokens_end_where_the_context_does(base_model: Path, tmp_path: Path) -> None:
    # the paper's 32,768 on a model that reads 256, behind a prompt of 5 tokens
    config = coin_evaluation(tmp_path, base_model, "eval.sampling.max_new_tokens=32768", "limit=2", "samples=1")
    summary = evaluate(config)
    assert summary["sets"]["operators"]["max_new_tokens"] == 256 - 5
    assert summary["after"]["eval/operators/truncated_fraction"] == 0
