"""``python -m lightning_r1``: its list is the recipes, and it runs one, wherever it is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_r1 import __main__ as program
from lightning_r1.config.conf_dir import ROOT


def test_the_verbs_are_the_recipes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-r1"])
    program.main()
    told = capsys.readouterr().out
    for file in (ROOT / "recipes").glob("*.py"):
        first = file.read_text().partition('"""')[2].partition("\n")[0].removesuffix('"""')
        assert first.endswith("."), f"{file}: its first line is no sentence"
        assert f"  {file.stem}  ".replace(" ", "") + first.replace(" ", "") in told.replace(" ", "")


def test_a_verb_that_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lightning-r1", "trian", "seed=1"])
    with pytest.raises(SystemExit) as left:
        program.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: trian: there is no such verb; did you mean train?\n"


def test_it_runs_a_recipe_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_r1", "train", "experiment=mini_r1_zero", "optim.lrr=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: optim.lrr: there is no such key; did you mean optim.lr?\n",
    )
    assert list(tmp_path.iterdir()) == []
