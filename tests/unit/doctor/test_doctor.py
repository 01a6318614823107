"""A healthy run is found healthy; each illness is found by its check, in the right words."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import RepositoryNotFoundError

from helpers.doctor import examined, failures, told
from helpers.models import tiny_policy
from helpers.preferences import write_pairs
from helpers.prompts import mini_codec
from helpers.quick import overrides_of, quick_rl
from helpers.runs import COIN_EVAL, QUIET, TINY_MODEL
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.data.traces import write_traces
from lightning_r1.doctor.findings import CHECKS, Finding
from lightning_r1.doctor.memory import case_of, settings_of
from lightning_r1.doctor.patient import Patient
from lightning_r1.doctor.run import _ORDER, doctor, is_fit
from lightning_r1.models import hub
from lightning_r1.models.export import export_model
from lightning_r1.types import Trace

ROWS = "data.rows._target_=helpers.doctor"
ILL: dict[str, tuple[list[str], str, str]] = {
    "a rule": (["trainer.precision=16-mixed"], "config", r"trainer\.precision=16-mixed: use bf16-true"),
    "a GPU": (["trainer.accelerator=gpu"], "devices", r"trainer\.accelerator=gpu: there is no GPU here"),
    "nobody logged in": (
        ["logger=wandb", "logger.wandb.mode=online"],
        "logging",
        r"nobody is logged in to W&B -> wandb login",
    ),
    "a stop token": (["template.stop=['<|im_end|>']"], "template", r"'<\|im_end\|>' is not one token"),
    "tags that are lost": (
        ["+template.tags={_target_: lightning_r1.text.tags.Tags, think_open: '[T]'}"],
        "template",
        r"'\[T\]' does not survive this tokenizer",
    ),
    "words that are lost": (
        [f"{ROWS}.rows_in_words"],
        "prompts",
        r"not the same behind the tokenizer: 'Q\d.*' becomes '<pad>",
    ),
    "no data": (["data.max_prompt_tokens=4"], "data", r"data\.max_prompt_tokens=4: all 400 prompts are longer"),
    "an expression nobody finds": (
        [f"{ROWS}.rows_with_bad_golds"],
        "golds",
        r"for 1 of 8 golds itself should be 1, e\.g\. coin/train3 \(expression no expression of these numbers is 9\)",
    ),
    "a gold that is no number": (
        [f"{ROWS}.rows_with_bad_golds", "+data.rows.kind=number"],
        "golds",
        r"for 1 of 8 golds itself should be 1.*unscorable.*answer\.value='a lot'",
    ),
    "a gold that is no letter": (
        [f"{ROWS}.rows_with_bad_golds", "+data.rows.kind=choice"],
        "golds",
        r"unscorable.*expected a capital letter",
    ),
    "a reward that crashes": (
        ["+reward.rewards.broken={_target_: helpers.rewards.breaks}"],
        "rewards",
        r"broken: 4 of 4 right answers ended in crash: .*RuntimeError: broken",
    ),
    "a reward that is slow": (
        ["+reward.rewards.slow={_target_: helpers.doctor.slow}", "doctor.slowest_answer_s=0.1"],
        "rewards",
        r"slow: 9\*\*9.* took 0\.\d s, more than 0\.1 s",
    ),
    "a reward that hangs": (
        ["+reward.rewards.stuck={_target_: helpers.doctor.hangs}", "reward.workers.timeout_s=0.3", "data.rows.size=2"],
        "rewards",
        r"stuck: 2 of 2 right answers ended in timeout",
    ),
    "a context that is short": (
        ["algo.sampling.max_new_tokens=500"],
        "model",
        r"algo\.sampling\.max_new_tokens=500: with prompts of up to 5 tokens it exceeds the model's context of 96",
    ),
    "a small device": (
        ["doctor.memory_gib=0.001"],
        "memory",
        r"needs .* for an update .*; it has 1 MiB -> see the tab",
    ),
    "other weights": (["rollout._target_=helpers.doctor.OtherWeights"], "engine", r"differ by 2\.0e-02 nats"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows nothing."""
    return export_model(tiny_policy(), mini_codec(), tmp_path_factory.mktemp("doctor"), card={})


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in to W&B."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def test_every_check_is_made() -> None:
    assert sorted(_ORDER) == sorted(CHECKS)


def test_a_healthy_run_is_found_healthy_and_nothing_is_left_behind(base: Path, tmp_path: Path) -> None:
    found = examined(tmp_path, base)
    assert failures(found) == []
    assert is_fit(found)
    assert list(tmp_path.iterdir()) == []
    assert "400 prompts of 5 to 5" in told(found, "data", "ok")
    assert "none of them overlaps with the 8 problems of eval.sets.operators" in told(found, "data", "ok")
    assert "accuracy: 64 golds (number): itself 1, a wrong answer 0, no answer 0" in told(found, "golds", "ok")
    assert re.search(
        r"accuracy: right 1, \d+; wrong 0, \d+; empty 0 \(wrong_format\).*ms", told(found, "rewards", "ok")
    )
    assert re.search(
        r"policy differ by \de-0[6-8]", told(found, "engine", "ok").replace(".", "")[0:200]
    ) or "e-0" in told(found, "engine", "ok")


def test_the_plan_is_the_runs(base: Path, tmp_path: Path) -> None:
    plan = told(
        examined(
            tmp_path, base, "trainer.max_steps=5", "algo.minibatches_per_rollout=2", "algo.prompts_per_rollout=6",
            "phase.module.micro_batch_tokens=100", "doctor.only=[batch plan]",
        ),
        "batch plan",
        "ok",
    )  # fmt: skip
    for said in (
        "a rollout is 6 prompts x 4 completions = 24, used for 2 optimizer step(s) of 12 completions",
        "5 optimizer steps from 3 rollouts; 18 prompts are drawn, 0.04 passes over 400",  # 18 / 400 = 0.045
        # rows of 45 tokens, two of them in a forward of 100
        "each of 1 rank samples 6 prompts a rollout, and learns from 12 completions a step, at the token limit in 6 "
        "micro-batches of at most 2 x 50 tokens",
        "a rollout samples 960 tokens, and a step trains on 540, prompts included",
        "a checkpoint of 0 MiB every 20 steps: 0 are written",
        "8 held-out problems are answered 4 times each before and after",
    ):
        assert said in plan, f"{said}\n{plan}"


@pytest.mark.parametrize("illness", ILL)
def test_an_illness_is_found_by_its_check(illness: str, base: Path, tmp_path: Path) -> None:
    overrides, check, words = ILL[illness]
    few = ["data.rows.size=8"] if check == "golds" else []
    found = examined(tmp_path, base, f"doctor.only=[config,{check}]", *overrides, *few)
    assert failures(found) == [check]
    assert re.search(words, told(found, check, "failed")), told(found, check, "failed")
    assert not is_fit(found)


def test_an_illness_is_told_once_and_the_other_checks_are_made(base: Path, tmp_path: Path) -> None:
    found = examined(tmp_path, base, "template.stop=['<|im_end|>']")
    assert list(found) == list(_ORDER)
    assert failures(found) == ["template"]
    assert "it needs the tokenizer, which cannot be had (see above)" in told(found, "data", "warning")


def test_a_check_that_there_is_not_is_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"doctor\.only: 'date' is no check; choose from config, versions"):
        examined(tmp_path, base, "doctor.only=[date]")


def test_every_kind_of_gold_is_right_for_itself(base: Path, tmp_path: Path) -> None:
    found = examined(tmp_path, base, f"{ROWS}.rows_of_every_kind", "doctor.only=[golds]")
    assert failures(found) == []
    assert "6 golds (choice, expression, math, number, text): itself 1" in told(found, "golds", "ok")
    assert "1 golds of kind rule cannot be checked by themselves" in told(found, "golds", "ok")


def test_duplicates_and_problems_of_the_evaluation_are_seen(base: Path, tmp_path: Path) -> None:
    twice = (
        "data.rows={_target_: lightning_r1.data.rows.joined, a: {_target_: helpers.coin.coin_rows, split: train, "
        "size: 20}, b: {_target_: helpers.coin.coin_rows, split: heldout, size: 30}, c: {_target_: "
        "helpers.coin.coin_rows, split: train, size: 20}}"
    )
    found = examined(tmp_path, base, "~data.rows", f"+{twice}", "doctor.only=[data]")
    said = told(found, "data", "warning")
    assert re.search(r"2\d prompts are duplicates, e\.g\. \d\d\?\d\d= -> remove them", said)
    assert "8 prompts are problems of eval.sets.operators" in said
    assert "data.decontaminate.operators=" in said
    assert failures(found) == []


def test_only_some_rows_are_read_if_that_is_said(base: Path, tmp_path: Path) -> None:
    found = examined(tmp_path, base, "doctor.limit=10", "doctor.only=[data]")
    assert "10 prompts (of each source only the first 10 rows were read: doctor.limit)" in told(found, "data", "ok")


def test_a_full_disk_is_seen(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    found = examined(tmp_path, base, "doctor.only=[run folder]")
    assert failures(found) == ["run folder"]
    assert re.search(r"only 0 MiB are free at .* -> callbacks\.checkpoint\.keep=1", told(found, "run folder", "failed"))


def test_a_folder_of_somebody_else_is_seen(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in told(examined(tmp_path, base, "doctor.only=[run folder]"), "run folder", "failed")


def test_a_finished_run_is_seen(base: Path, tmp_path: Path) -> None:
    (tmp_path / "coin" / "rl").mkdir(parents=True)
    (tmp_path / "coin" / "rl" / "summary.json").write_text("{}")
    found = examined(tmp_path, base, "doctor.only=[run folder]")
    assert "holds a finished run" in told(found, "run folder", "warning")


def test_a_model_out_of_reach_is_no_illness(tmp_path: Path) -> None:
    found = examined(tmp_path, Path("org/model"))
    assert failures(found) == []
    assert "the model org/model cannot be reached from here" in told(found, "template", "warning")
    assert "400 prompts;" in told(found, "data", "ok")
    assert "64 golds" in told(found, "golds", "ok")
    for check in ("engine", "memory", "batch plan"):
        assert "not checked: it needs the" in told(found, check, "warning")


def test_a_model_that_the_hub_has_not_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*arguments: Any, **options: Any) -> Any:
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("HEAD", "https://hub")))

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_hf_file_metadata", answer)
    found = examined(tmp_path, Path("org/model"), "doctor.only=[template]")
    assert "neither such a folder nor such a model" in told(found, "template", "failed")


def test_settings_that_fit_are_told(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examined(tmp_path, base, "doctor.memory_gib=0.003", "doctor.only=[memory]", "~eval.sets.operators")
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    fits: dict[str, str] = {}
    setting = ""
    for line in lines:
        # a long setting is folded over lines; its numbers stand on the first
        setting = line[1].strip() if line[5].strip() else setting + line[1].strip()
        verdict = line[5].strip() or fits.popitem()[1]
        fits[setting] = verdict
    assert fits["as it is"] == "no"
    assert len(fits) > 1
    assert all(verdict == "yes" for said, verdict in fits.items() if said != "as it is")
    assert any("model.activation_checkpointing=true" in said for said in fits)


def test_a_cluster_that_is_not_here_is_estimated(base: Path, tmp_path: Path) -> None:
    cluster = ["gpu=h100", "trainer.devices=8", "trainer.num_nodes=2", "algo.prompts_per_rollout=32"]
    found = examined(tmp_path, base, *cluster, "trainer.accelerator=auto", "doctor.only=[devices,memory,batch plan]")
    assert failures(found) == []
    assert "memory and time are estimated for 16 x h100" in told(found, "devices", "ok")
    assert "it has 79.6 GiB (h100)" in told(found, "memory", "ok")
    assert "16 x h100: 989 TFLOPS at 40% MFU, memory 3350 GB/s at 40%" in told(found, "batch plan", "ok")
    said = examined(tmp_path, base, *cluster, "doctor.mfu=0.2", "doctor.memory_gib=1e-6", "doctor.only=[memory]")
    assert "989 TFLOPS at 20% MFU" in told(said, "memory", "ok")
    assert failures(said) == ["memory"]


def test_the_time_on_paper_is_arithmetic(base: Path, tmp_path: Path) -> None:
    found = examined(tmp_path, base, "doctor.only=[batch plan]", "doctor.tflops=1e-6", "doctor.bandwidth_gb_s=1e9")
    parameters = sum(parameter.numel() for parameter in tiny_policy().parameters())
    # 8 rows of 45 tokens, five of them the prompt's, which need no head; three forwards an update, 40 % of a million
    # operations a second
    head = tiny_policy().model.get_output_embeddings().weight.numel()
    forward = 2 * (parameters - 2 * head) * 8 * 45 + 2 * head * 8 * 40  # an embedding is looked up
    forward += 4 * 2 * 48 * 8 * (5 * 5 / 2 + 40 * (5 + 20))  # two layers, four heads of 12
    assert f"update {3 * forward / (1e6 * 0.4) / 60:.1f} min" in told(found, "batch plan", "ok")


def test_other_phases_have_their_checks(base: Path, tmp_path: Path) -> None:
    traces = tmp_path / "traces.jsonl"
    write_traces(
        traces, [Trace(f"t/{n}", f"1{n}?2{n}=", f"<think>1{n}</think><answer>1{n}</answer>") for n in range(9)]
    )
    common = [*QUIET, "threads=1", "template=mini", f"paths.output_dir={tmp_path}", "trainer.accelerator=cpu"]
    loaded = ["model=mini", f"model.path={base}"]
    pairs = write_pairs(tmp_path / "pairs.jsonl", 40)
    phases: dict[str, tuple[list[str], str]] = {
        "cold_start_sft": (
            [*loaded, f"data.sources.traces.path={traces}", "data.batch_size=4"],
            "5 optimizer steps of 4 rows, 2.00 passes over the data",  # 18 traces in two epochs
        ),
        "pretrain": (
            ["experiment=mini_base", *TINY_MODEL, *COIN_EVAL, "trainer.max_steps=7"],
            "7 optimizer steps of 40 rows; the first step has",
        ),
        "reward_model": (
            [*loaded, "data.batch_size=8", "phase.max_tokens=64", "data=preferences", f"data.rows.path={pairs}"],
            "optimizer step",
        ),
        "distill_on_policy": (
            [*loaded, "data=operators", "model@teacher=mini", f"teacher.path={base}", "trainer.max_steps=3",
             "algo.prompts_per_rollout=4", "algo.sampling.max_new_tokens=16", "eval=default"],
            "a rollout is 4 prompts x 1 completions = 4",
        ),
    }  # fmt: skip
    for phase, (overrides, said) in phases.items():
        choice = [] if phase == "pretrain" else [f"phase={phase}"]
        checks = "doctor.only=[config,template,data,model,memory,batch plan]"
        found = doctor(compose_config("doctor", [*choice, *overrides, *common, checks]))
        assert failures(found) == [], {name: told(found, name, "failed") for name in failures(found)}
        assert said in told(found, "batch plan", "ok"), told(found, "batch plan", "ok")
        assert told(found, "memory", "ok")


def test_a_finding_after_an_error_is_kept() -> None:
    from lightning_r1.doctor.findings import NotChecked, examine, ok

    def breaks(patient: Any) -> Any:
        yield ok("first")
        raise KeyError("second")

    def stops(patient: Any) -> Any:
        yield ok("first")
        raise NotChecked("no wind", "wait")

    assert examine(breaks, None) == [Finding("ok", "first"), Finding("failed", "KeyError: 'second'")]
    assert examine(stops, None) == [Finding("ok", "first"), Finding("warning", "not checked: no wind", "wait")]


def test_a_rollout_beside_the_update_needs_weights_and_a_cache_besides(base: Path, tmp_path: Path) -> None:
    only = ["doctor.only=[memory,batch plan]", "~eval.sets.operators"]
    overlapped = ["algo.overlap_rollouts=true", "algo.sampler_correction=truncate"]
    plain, beside = (examined(tmp_path, base, *only, *more) for more in ([], overlapped))
    assert "while the next rollout is sampled from a copy of the weights" in told(beside, "batch plan", "ok")
    assert "copy of the weights" not in told(plain, "batch plan", "ok")
    sizes = []
    for overrides in ([], overlapped):
        config = compose_config("doctor", [*overrides_of(quick_rl, tmp_path, base), *overrides])
        patient = Patient(config)
        try:
            case = case_of(patient)
            sizes.append((case.footprint(settings_of(patient)), case.size.weights))
        finally:
            patient.close()
    (one, weights), (other, _) = sizes
    assert (other.frozen, other.whole) == (one.frozen, one.whole + weights)
    assert other.activations == one.activations + one.rollout
    assert other.update > one.update
