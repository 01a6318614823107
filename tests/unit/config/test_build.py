"""From a config to a run: what only shows when files are read is one line, and a user's reward plugs in."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
import pytest

from helpers.prompts import mini_codec
from helpers.quick import quick_rl, random_base
from helpers.rewards import digits_are_good
from lightning_r1.config.build import build
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.build_rewards import build_rewards
from lightning_r1.config.compose import one_line_errors
from lightning_r1.config.errors import ConfigError
from lightning_r1.modules.grpo import GRPO
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.train import train
from lightning_r1.types import Completion


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a context of 96 tokens; its card names the miniature's template."""
    return random_base(tmp_path_factory.mktemp("base"))


NO_RULES = [f"~reward.{part}.{name}" for part in ("rewards", "weights") for name in ("accuracy", "format")]
DIGITS = "+reward.rewards.digits={_target_: helpers.rewards.digits_are_good, scale: 0.5}"

WRONG = {
    "a folder that is none": (["model.path=./nowhere"], r"model\.path=\./nowhere: there is no model there; make it"),
    "a hub id that is none": (
        ["model.path=org/none"],
        r"model\.path=org/none: HF_HUB_OFFLINE is set, and .*hf download",
    ),
    "a context too short for training": (
        ["algo.sampling.max_new_tokens=95"],
        r"algo\.sampling\.max_new_tokens=95: .* up to 5 tokens .* context of 96; lower it or data\.max_prompt_tokens",
    ),
    "a context too short for evaluation": (
        ["eval.sampling.max_new_tokens=92"],
        r"eval\.sampling\.max_new_tokens=92: .* up to 5 tokens .* context of 96; lower it or .*eval\.sets\.operators",
    ),
    "another template": (
        ["template.prefill=''"],
        r"template=mini: .* was trained under another template \(\w{12}, this one is \w{12}\); choose the one",
    ),
    "a stop string of two tokens": (
        ["template.stop=['no;']"],
        r"template\.stop: 'no;' is not one token of this tokenizer.* Remove it from template\.stop",
    ),
    "a prompt without its question": (["template.prompt=hello"], r"template\.prompt='hello': expected \{question\}"),
    "prompts that are all too long": (
        ["data.max_prompt_tokens=1"],
        r"data\.max_prompt_tokens=1: all 400 prompts are longer.*; raise it",
    ),
    "data that is not there": (
        [
            "data.rows._target_=lightning_r1.data.rows.jsonl_rows",
            "~data.rows.split",
            "~data.rows.size",
            "+data.rows.path=./none.jsonl",
        ],
        r"data: none\.jsonl does not exist; set the path",
    ),
    "no reward": (["reward.rewards=null"], r"reward\.rewards is empty.*name at least one"),
    "no reward left": ([*NO_RULES[:2], "~reward.rewards.length"], r"reward\.rewards is empty.*name at least one"),
    "a weight of no reward": (
        ["+reward.weights.digits=2"],
        r"reward\.weights names \['digits'\], but the rewards are \['accuracy', 'format', 'length'\]",
    ),
    "a reward that lacks an option": (
        ["+reward.rewards.limit={_target_: helpers.rewards.needs_a_limit}"],
        r"reward\.rewards\.limit=helpers\.rewards\.needs_a_limit: missing a required argument: 'limit'; its options",
    ),
    "a reward class that lacks an option": (
        ["+reward.rewards.weight={_target_: helpers.rewards.Weighs}"],
        r"reward\.rewards\.weight=helpers\.rewards\.Weighs: missing a required argument: 'factor'; its options",
    ),
    "a reward with an option too many": (
        ["+reward.rewards.digits={_target_: helpers.rewards.digits_are_good, scal: 2}"],
        r"reward\.rewards\.digits\.scal is unknown to helpers\.rewards\.digits_are_good; did you mean scale\?",
    ),
    "a reward that is none": (
        ["+reward.rewards.digits={_target_: helpers.rewards.digits}"],
        r"reward\.rewards\.digits\._target_=helpers\.rewards\.digits: not found .*; give a dotted path",
    ),
    "a dtype": (["model.dtype=float8"], r"model\.dtype='float8': expected one of float32, bfloat16"),
    "a kernel that cannot run": (["model.attention=flash"], r"model\.attention=flash: it needs a CUDA GPU"),
}


@pytest.fixture
def told(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """``told("optim.lr=-1")``: what a user reads who says that; no step may be made."""

    def told(*overrides: str) -> str:
        monkeypatch.setattr(GRPO, "training_step", lambda *step: pytest.fail("a step was made"))
        with pytest.raises(SystemExit) as ended, one_line_errors():
            train(quick_rl(tmp_path, base, *overrides))
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.endswith("\n")
        return said.removesuffix("\n")

    return told


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line_before_any_training(wrong: str, told: Any, tmp_path: Path) -> None:
    overrides, message = WRONG[wrong]
    assert re.fullmatch(f"error: {message}.*", told(*overrides))
    assert list(tmp_path.iterdir()) == []  # so that the corrected command is not held for another run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=-1", r"optim\.lr=-1: expected >= 0"),
        ("optim.betas=[0.9,1.0]", r"optim\.betas=\[0\.9, 1\.0\]: expected both in \[0, 1\)"),
        ("schedule.warmup_steps=-1", r"schedule\.warmup_steps=-1: expected >= 0"),
        ("schedule.final_fraction=2", r"schedule\.final_fraction=2: expected a share in \[0, 1\]"),
    ],
)
def test_what_the_optimizer_refuses_is_one_line_before_any_training(override: str, message: str, told: Any) -> None:
    assert re.fullmatch(f"error: {message}", told(override))


def test_the_corrected_command_trains(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=95"):
        train(quick_rl(tmp_path, base, "algo.sampling.max_new_tokens=95"))
    assert train(quick_rl(tmp_path, base, "trainer.max_steps=1"))["steps"] == 1


def test_a_folder_without_weights_is_refused_by_key(tmp_path: Path) -> None:
    folder = random_base(tmp_path / "base")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=rf"^model\.path={folder}: it cannot be loaded \(.*; set it to a") as caught:
        build_policy(quick_rl(tmp_path, folder))
    assert "\n" not in str(caught.value)


def test_a_foreign_model_has_no_card_and_takes_any_template(base: Path, tmp_path: Path) -> None:
    folder = random_base(tmp_path / "base")
    (folder / "lightning_r1.json").unlink()
    codec, policy = build_policy(quick_rl(tmp_path, folder, "template.prefill=''"))
    assert codec.template.prefill == ""
    assert sum(parameter.numel() for parameter in policy.parameters()) > 0


def logged(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["rollout/reward_mean"]]


def recorded(run_dir: Path) -> list[list[dict[str, Any]]]:
    """Completions of each rollout."""
    files = sorted((run_dir / "rollouts").glob("*.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_a_reward_of_the_users_own_is_what_training_logs(base: Path, tmp_path: Path) -> None:
    train(quick_rl(tmp_path, base, DIGITS, "reward.weights.format=0", "+reward.weights.digits=4"))
    run_dir = tmp_path / "coin" / "rl"
    rollouts, rows = recorded(run_dir), logged(run_dir)
    assert len(rollouts) == len(rows) == 3
    seen = set()
    for completions, row in zip(rollouts, rows, strict=True):
        # from the texts alone, by a count of our own
        own = [0.5 * len([c for c in done["completion"] if c in "0123456789"]) for done in completions]
        assert float(row["rollout/reward/digits"]) == pytest.approx(fmean(own), abs=1e-9)
        assert [done["rewards"]["digits"] for done in completions] == own
        totals = [
            done["rewards"]["accuracy"] + 4 * mine + done["rewards"]["length"]
            for done, mine in zip(completions, own, strict=True)
        ]
        assert float(row["rollout/reward_mean"]) == pytest.approx(fmean(totals), abs=1e-9)
        seen.update(own)
    assert len(seen) > 3


def test_it_is_what_the_policy_learns_from(base: Path, tmp_path: Path) -> None:
    """Alone, it decides the sign of every advantage."""
    train(quick_rl(tmp_path, base, *NO_RULES, "~reward.rewards.length", DIGITS))
    for completions in recorded(tmp_path / "coin" / "rl"):
        groups: dict[str, list[dict[str, Any]]] = {}
        for completion in completions:
            groups.setdefault(completion["prompt_id"], []).append(completion)
        for group in groups.values():
            mean = fmean(done["rewards"]["digits"] for done in group)
            for done in group:
                assert done["advantage"] == pytest.approx(done["rewards"]["digits"] - mean, abs=1e-9)


def test_what_cannot_be_scored_and_what_breaks_is_counted_and_not_averaged(base: Path, tmp_path: Path) -> None:
    own = [
        "+reward.rewards.weighs={_target_: helpers.rewards.Weighs, factor: 3.0}",
        "+reward.rewards.breaks={_target_: helpers.rewards.breaks}",
    ]
    never = ["reward.stop_at.crash=null", "reward.stop_at.unscorable=null"]
    train(quick_rl(tmp_path, base, *own, *never, "trainer.max_steps=1"))
    (row,), (completions,) = logged(tmp_path / "coin" / "rl"), recorded(tmp_path / "coin" / "rl")
    tokens = [done["tokens"] for done in completions]
    assert min(tokens) <= 10 < max(tokens)
    honest = [3.0 * count for count in tokens if count <= 10]
    assert float(row["rollout/reward/weighs"]) == pytest.approx(fmean(honest))
    assert row["rollout/reward/breaks"] == "nan"
    assert float(row["rollout/outcome/crash"]) == pytest.approx(1 / 5)
    assert float(row["rollout/outcome/breaks/crash"]) == 1
    assert float(row["rollout/outcome/unscorable"]) == pytest.approx((1 - len(honest) / len(tokens)) / 5)
    assert row["rollout/reward_mean"] == "nan"


def test_rewards_are_made_with_their_options_and_the_templates_tags(base: Path, tmp_path: Path) -> None:
    config = quick_rl(tmp_path, base, DIGITS, "reward.weights.accuracy=2")
    codec = mini_codec()
    suite = build_rewards(config, codec)
    assert list(suite.rewards) == ["accuracy", "format", "length", "digits"]
    assert suite.weights == {"accuracy": 2, "format": 1, "length": 1, "digits": 1}
    assert isinstance(suite.rewards["accuracy"], Accuracy)
    assert suite.rewards["accuracy"].tags is codec.template.tags
    prompt, completion = codec.prompt("1+1", {}, id="test"), Completion((1,), (0.0,), "stop", "12 and 3")
    assert suite.rewards["digits"](prompt, completion) == 1.5 == 0.5 * digits_are_good(prompt, completion)


def test_a_config_becomes_the_run_it_says(base: Path, tmp_path: Path) -> None:
    run = build(quick_rl(tmp_path, base, "seed=7", "algo.kl_coef=0", "phase.module.max_grad_norm=0.5"))
    assert isinstance(run.module, GRPO)
    assert isinstance(run.trainer, L.Trainer)
    assert run.run_dir == tmp_path / "coin" / "rl"
    assert (run.module.seed, run.module.max_grad_norm, run.module.reference) == (7, 0.5, None)
    assert run.module.engine.policy is run.module.policy
    assert run.module.stream.prompts == run.datamodule.train
    assert run.trainer.max_steps == 3
    assert [len(prompts) for prompts in run.evaluation.sets.values()] == [8]
    other = build(quick_rl(tmp_path, base, "eval.sets=null"))
    assert other.evaluation is None
