"""The pictures of "reading a run": each is shown, small, of runs that the page tells how to make, and drawn anew."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "recipes/guides/pictures"
PAGE = (ROOT / "recipes/guides/reading_a_run.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def draw() -> Iterator[ModuleType]:
    """The script beside the pictures."""
    spec = importlib.util.spec_from_file_location("draw_pictures", PICTURES / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its dataclass looks for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def numbers(folder: Path, names: set[str], steps: int = 100) -> None:
    """A run's metrics.csv: straight lines."""
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["step", *sorted(names)])
        rows.writeheader()
        rows.writerows({"step": step, **dict.fromkeys(names, step / steps)} for step in range(1, steps + 1))


def test_every_picture_is_shown_and_small(draw: ModuleType) -> None:
    shown = set(re.findall(r"\(pictures/([\w.]+)\)", PAGE))
    assert shown == {picture.file for picture in draw.PICTURES}
    assert all((PICTURES / file).stat().st_size < 150_000 for file in shown)


def test_the_page_says_how_each_run_is_made(draw: ModuleType) -> None:
    made = set(re.findall(r"name=reading/(\w+)", PAGE))
    nodes = set(yaml.safe_load((ROOT / "conf/pipeline/mini.yaml").read_text())["nodes"])
    assert {folder for picture in draw.PICTURES for folder in picture.runs} <= made | nodes


def test_a_title_is_what_the_command_sets(draw: ModuleType) -> None:
    commands = dict(re.findall(r"experiment=mini_r1_zero name=reading/(\w+) (.+)", PAGE))
    for picture in draw.PICTURES:
        for said in re.findall(r"[\w.]+=[\w.-]+", picture.title):
            assert any(said in commands.get(folder, "") for folder in picture.runs), said


def test_they_are_drawn_of_metrics_and_what_is_missing_is_said(
    draw: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {name for picture in draw.PICTURES for panel in picture.panels.values() for name in panel}
    numbers(tmp_path / "runs" / "healthy", names)
    numbers(tmp_path / "runs" / "cold", names - {"policy/entropy"})  # a number that was not measured is no line
    (tmp_path / "drawn").mkdir()
    draw.main([tmp_path / "runs"], tmp_path / "drawn")
    assert {file.name for file in (tmp_path / "drawn").iterdir()} == {"healthy.png", "temperature.png"}
    assert "hacking.png: no run hack\n" in capsys.readouterr().err


def test_sums_and_steps_are_those_of_the_file(draw: ModuleType, tmp_path: Path) -> None:
    numbers(tmp_path / "run", {"one", "two"}, steps=4)
    curves = draw.read_curves(tmp_path / "run" / "metrics.csv")
    assert draw.total(curves, ("one", "two")) == ([1, 2, 3, 4], [0.5, 1.0, 1.5, 2.0])
    assert draw.total(curves, ("one", "three")) == ([], [])
