"""The commands as a user types them: help, mistakes, and any folder to stand in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.quick import overrides_of, quick_rl, random_base
from lightning_r1.config.conf_dir import choices
from lightning_r1.models.export import read_card

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))


def run(recipe: str, *arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python recipes/<recipe>.py ...``, with the tests' helpers at hand."""
    plain = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    helpers = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *arguments],
        cwd=cwd,
        env={**plain, "PYTHONPATH": helpers, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )


def groups_of(recipe: str) -> list[str]:
    """Groups in the recipe's defaults list; one that may be missing, and Hydra's own, are not for users."""
    lines = (ROOT / "conf" / f"{recipe}.yaml").read_text().splitlines()
    found = [match[1] for line in lines if (match := re.match(r"  - (\w+): ", line))]
    return [group for group in found if group not in ("hydra", "paths")]


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_help_names_the_groups_and_an_example(recipe: str, tmp_path: Path) -> None:
    done = run(recipe, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    told = " ".join(done.stdout.split())
    for group in groups_of(recipe):
        assert re.search(rf" {group}=\w+ {re.escape(', '.join(choices(group)))} ", told) or f"{group}" in alone_in(told)
    assert f"recipes/{recipe}.py " in told
    assert "HYDRA_FULL_ERROR=1" in done.stdout
    assert list(tmp_path.iterdir()) == []


def alone_in(told: str) -> list[str]:
    """Groups of one choice, as help tells them."""
    return told.partition("without a choice: ")[2].partition(" Keys beside")[0].split(", ")


def test_the_groups_are_those_that_a_user_says() -> None:
    assert {"phase", "model", "data", "reward", "algo", "rollout", "optim", "logger", "eval", "experiment"} <= set(
        groups_of("train")
    )
    assert groups_of("pipeline") == ["pipeline", "cluster"]


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_each_recipe_says_in_its_first_lines_how_it_is_run(recipe: str) -> None:
    first = (ROOT / "recipes" / f"{recipe}.py").read_text().split('"""')[1]
    assert f"python recipes/{recipe}.py " in first


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("train", "algo=ppo", "algo=ppo: there is no such choice; choose one of: cispo, dapo"),
        ("train", "optim.lr=[1", "optim.lr=[1: "),
        ("pipeline", "dri=true", "dri: there is no such key; did you mean dry?"),
        ("report", "rum=x", "rum: there is no such key; did you mean run?"),
        ("report", None, "run is not set; add run=... to the command"),
        ("benchmark", "benchmark.step=1", "benchmark.step: there is no such key; did you mean benchmark.steps?"),
    ],
)
def test_a_mistake_is_one_line(recipe: str, override: str | None, message: str, tmp_path: Path) -> None:
    done = run(recipe, *([override] if override else []), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_whoever_wants_the_stack_gets_it(tmp_path: Path) -> None:
    done = run("train", "optim.lrr=1", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_train_then_report_from_another_folder(tmp_path: Path) -> None:
    random_base(tmp_path / "base")
    # everything by relative paths, as seen from where the user stands
    overrides = overrides_of(quick_rl, Path("results"), Path("base"))
    done = run("train", *overrides, cwd=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "  model       results/coin/rl/model\n" in done.stdout
    assert "  numbers     results/coin/rl/summary.json, results/coin/rl/metrics.csv\n" in done.stdout
    assert "  report      results/coin/rl/report.html\n" in done.stdout
    folder = tmp_path / "results" / "coin" / "rl"
    assert read_card(folder / "model")["steps"] == 3
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "metrics.csv", "rollouts", "evaluations", "checkpoints", "model", "summary.json", "report.html",
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "results"]

    done = run("report", "run=results/coin/rl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "report in results/coin/rl/report.html" in done.stdout
    assert "curves in results/coin/rl/curves.png" in done.stdout
    assert (folder / "curves.png").stat().st_size > 10_000
