"""The sweep of the guide: what W&B's agent would start composes, each run in a folder of its own."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lightning_r1.config.compose import compose_config
from lightning_r1.config.reading import get
from lightning_r1.config.schema import check_signatures

ROOT = Path(__file__).parents[2]
SWEEP = yaml.safe_load((ROOT / "recipes" / "guides" / "sweep.yaml").read_text())
# the keys that W&B takes, of https://docs.wandb.ai/models/sweeps/define-sweep-configuration
KEYS = {
    "program", "method", "parameters", "metric", "name", "description", "project", "entity", "early_terminate",
    "command", "run_cap",
}  # fmt: skip


def command_of(args: dict[str, Any]) -> list[str]:
    """What the agent starts, as it does it: a part that is a macro is replaced, all others stay as they are."""
    sweep_vars = create_sweep_command_args({"args": {name: {"value": value} for name, value in args.items()}})
    sweep_vars |= {"program": [SWEEP["program"]], "env": ["/usr/bin/env"], "interpreter": ["python"]}
    command: list[str] = []
    for part in create_sweep_command(list(SWEEP["command"])):
        command += sweep_vars[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part]
    return command


def test_the_sweep_is_one_that_wandb_takes() -> None:
    assert SWEEP.keys() <= KEYS
    assert SWEEP["method"] in ("grid", "random", "bayes")
    assert SWEEP["metric"]["goal"] in ("minimize", "maximize")
    assert all(parameter.keys() == {"values"} for parameter in SWEEP["parameters"].values())
    assert (ROOT / SWEEP["program"]).is_file()


def test_every_combination_composes_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(SWEEP["parameters"])
    folders = set()
    combinations = list(product(*(SWEEP["parameters"][name]["values"] for name in names)))
    for number, values in enumerate(combinations):
        monkeypatch.setenv("WANDB_RUN_ID", f"run{number}")  # the agent sets it once the command is made
        args = dict(zip(names, values, strict=True))
        env, python, program, *overrides = command_of(args)
        assert (shutil.which(env), python, program) == (env, "python", "recipes/train.py")
        config = compose_config("train", overrides)
        check_signatures(config)
        assert {name: get(config, name) for name in names} == args
        assert f"eval/{next(iter(config['eval']['sets']))}/pass@1" == SWEEP["metric"]["name"]
        assert config["logger"]["wandb"] is not None
        folders.add(config["paths"]["run_dir"])
    assert len(folders) == len(combinations) == 9
