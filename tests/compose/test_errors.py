"""What a user can get wrong on the command line is one line, with the nearest valid name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures, fits

TRAIN = Path(__file__).parents[2] / "recipes" / "train.py"
BASE = ["model.path=org/model", "data=countdown", "trainer.max_steps=10"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lrr=1"], r"optim\.lrr: there is no such key; did you mean optim\.lr\?"),
        (["opim.lr=1"], r"opim\.lr: there is no such key; did you mean optim\.lr\?"),
        (["algo.clip_hi=1"], r"did you mean algo\.clip_high\?"),
        (["data.rows={siz: 3}"], r"data\.rows\.siz: there is no such key; did you mean data\.rows\.size\?"),
        (["algo=ppo"], r"algo=ppo: there is no such choice; choose one of: cispo, dapo, distill"),
        (["experiment=nope"], r"experiment=nope: there is no such choice"),
    ],
)
def test_a_wrong_key_or_choice(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose_config("train", [*BASE, *overrides])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["model.path", "trainer.max_steps"])
def test_a_missing_value(missing: str) -> None:
    # for reasoning RL the paper gives no number of steps
    overrides = ["phase=reasoning_rl", *(override for override in BASE if not override.startswith(missing))]
    with pytest.raises(ConfigError, match=f"{missing} is not set; add {missing}=..."):
        compose_config("train", overrides)


def test_r1_zero_has_the_papers_settings() -> None:
    config = compose_config("train", ["phase=r1_zero", "model.path=org/model", "data=countdown"])
    assert (config["trainer"]["max_steps"], config["optim"]["lr"]) == (10400, 3e-6)
    algo = config["algo"]
    assert (algo["prompts_per_rollout"], algo["minibatches_per_rollout"], algo["num_iterations"]) == (512, 16, 1)
    assert (algo["sampling"]["group_size"], algo["sampling"]["max_new_tokens"]) == (16, 32768)
    assert (algo["kl_coef"], algo["reference_refresh_steps"]) == (0.001, 400)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=fast", r"optim\.lr='fast': expected a number"),
        ("algo.objective=ppo", r"algo\.objective='ppo': expected one of clip, cispo, sapo"),
        ("algo.sampling.group_size=2.5", r"algo\.sampling\.group_size=2\.5: expected a whole number"),
        ("algo.mask_truncated=maybe", r"algo\.mask_truncated='maybe': expected true or false"),
        ("algo.dual_clip=high", r"algo\.dual_clip='high': expected a number or null"),
        ("optim.betas=[0.9]", r"optim\.betas=\[0\.9\]"),
        ("+algo.entropy=1", r"algo\.entropy is unknown .*did you mean entropy_coef"),
        ("+phase.module.micro_batch=1", r"phase\.module\.micro_batch is unknown .*micro_batch_tokens"),
        ("reward.rewards.accuracy._target_=nowhere.Reward", r"nowhere\.Reward: not found"),
        ("reward.rewards.accuracy._target_=lightning_r1.rewards.accuracy.Acuracy", "not found"),
    ],
)
def test_a_value_that_does_not_fit_its_signature(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_signatures(compose_config("train", [*BASE, override]))


def test_fits_leaves_doubtful_annotations_alone() -> None:
    assert fits("anything", list)
    assert fits(3, "int | Unknown")
    assert not fits(True, int)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TRAIN), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_recipe_says_it_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    done = run(*BASE, "optim.lrr=1", f"paths.output_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr == "error: optim.lrr: there is no such key; did you mean optim.lr?\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_groups() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in ("phase=r1_zero ", "pretrain,", "cispo, dapo", "experiment=mini_r1_zero", "resume: auto"):
        assert word in done.stdout


def test_a_data_error_names_file_line_and_key(tmp_path: Path, base_model: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"question": "1+1?", "answer": 2}\n{"question": "1+2?"}\n')
    done = run(
        f"model.path={base_model}", "model.dtype=float32", "template=mini", "data=jsonl", f"data.rows.path={file}",
        "trainer.max_steps=1", "logger=csv", f"paths.output_dir={tmp_path}/out",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{file} line 2: key 'answer' is missing; the line has question" in done.stderr
