"""What a recipe tells of itself: its help, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_r1.config.conf_dir import ROOT, choices
from lightning_r1.config.usage import completion, help_text

RECIPES = {file.stem for file in (ROOT / "recipes").glob("*.py")}


def test_help_says_what_it_is_for_and_what_can_be_chosen() -> None:
    told = help_text("Train.\n\n    an example", "train", "python recipes/train.py")
    assert told.startswith("Train.\n\n    an example")
    joined = " ".join(told.split())
    for group in ("algo", "experiment", "phase", "rollout"):
        assert ", ".join(choices(group)) in joined
    assert "r1_7b/reasoning_rl" in joined
    assert "base/" not in joined
    assert "  phase=r1_zero  " in told
    assert "  experiment=null  " in told
    assert "  name: ${phase.name}_${model.name} # the run's folder" in told
    assert "pipeline=" not in told
    assert max(map(len, told.splitlines())) <= 120
    assert "_target_" not in told


def test_help_shows_the_choices_of_the_overrides() -> None:
    assert "  model=mini  " in help_text("", "train", "", ["experiment=mini_r1_zero"])


@pytest.mark.parametrize("config_name", sorted(RECIPES))
def test_every_recipe_has_help(config_name: str) -> None:
    groups, _, keys = help_text("", config_name, "").partition("Keys beside them")
    assert not groups.rstrip().endswith(":")  # nothing is announced and not there
    assert "defaults:" not in keys
    assert len(keys.splitlines()) > 4


def complete(line: str, folder: Path, breaks: str = "= ") -> list[str]:
    """What bash would offer behind this line."""
    script = folder / "lightning-r1"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m lightning_r1 "$@"\n')
    script.chmod(0o755)
    (folder / "python").unlink(missing_ok=True)
    (folder / "python").symlink_to(sys.executable)
    # bash gives the variable its own value at the start
    ask = f'COMP_WORDBREAKS="{breaks}"; ' + 'COMP_POINT=${#COMP_LINE}; _lightning_r1; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{completion('bash')}\n{ask}"],
        env=os.environ
        | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "COMP_LINE": line,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lightning-r1 ", sorted(RECIPES)),
        ("lightning-r1 tra", ["train"]),
        ("lightning-r1 train exper", ["experiment="]),
        ("lightning-r1 train experiment=r1_32b/c", ["r1_32b/cold_start"]),
        ("lightning-r1 train model=qwen2_5_7", ["qwen2_5_7b"]),
        ("python recipes/train.py experiment=mini_r1_zero optim.l", ["optim.lr="]),
        ("python -m lightning_r1 evaluate eval=aime", ["aime24", "aime25"]),
    ],
)
def test_a_shell_completes(line: str, offered: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path) == offered


def test_what_stands_before_an_equals_sign_is_kept_where_bash_replaces_it(tmp_path: Path) -> None:
    assert complete("lightning-r1 train algo=r1", tmp_path, breaks=" ") == ["algo=r1_paper"]


def test_other_programs_are_not_run(tmp_path: Path) -> None:
    script, ran = tmp_path / "other.py", tmp_path / "ran"
    script.write_text(f"open({str(ran)!r}, 'w')\n")
    assert complete(f"python {script} a", tmp_path) == []
    assert not ran.exists()


def test_hydras_own_question_is_answered() -> None:
    line = "python recipes/train.py rollout=vllm_servers"
    done = subprocess.run(
        [sys.executable, "recipes/train.py", "-sc", "query=bash"],
        env=os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.stdout.split(), done.stderr) == (["rollout=vllm_servers"], "")
