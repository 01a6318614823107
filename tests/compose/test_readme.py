"""The commands that the READMEs give compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lightning_r1.config.compose import compose_config
from lightning_r1.config.schema import check_signatures

ROOT = Path(__file__).parents[2]
TEXTS = {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "recipes/README.md", "sbatch/README.md")
}
# a job script runs a recipe: the first pair is what it is called, the second what it adds
SCRIPTS = {
    "train.sbatch": ("train", []),
    "train_with_vllm.sbatch": ("train", ["rollout=vllm_servers", "rollout.base_urls=[http://n3:20001]"]),
    "evaluate.sbatch": ("evaluate", ["eval=aime24"]),
    "pipeline.sh": ("pipeline", ["cluster=slurm"]),
}
COMMANDS = [
    (verb, shlex.split(overrides, comments=True))
    for text in TEXTS.values()
    for verb, overrides in re.findall(r"python recipes/(\w+)\.py ([^`\n]+)", text)
    if "--help" not in overrides and "..." not in overrides  # what a person has to fill in
]
JOBS = [
    (SCRIPTS[script][0], [*SCRIPTS[script][1], *shlex.split(overrides, comments=True)])
    for script, overrides in re.findall(r"sbatch/([\w.]+) ([^`\n]+=[^`\n]+)", TEXTS["sbatch/README.md"])
    if "..." not in overrides
]


def test_there_are_commands_of_every_kind() -> None:
    assert len(COMMANDS) > 20
    assert {verb for verb, _ in COMMANDS} >= {
        "train",
        "sample",
        "teach",
        "evaluate",
        "pipeline",
        "report",
        "doctor",
        "benchmark",
    }


def test_there_are_jobs_of_every_kind() -> None:
    assert {verb for verb, _ in JOBS} == {"train", "evaluate", "pipeline"}
    assert len(JOBS) > 6


@pytest.mark.parametrize(
    ("verb", "overrides"), [*COMMANDS, *JOBS], ids=lambda part: part if isinstance(part, str) else None
)
def test_a_command_composes(verb: str, overrides: list[str]) -> None:
    overrides = [override for override in overrides if override not in ("--dry", "--multirun")]
    first = [re.sub(r"(=[\w.-]+)(,[\w.-]+)+$", r"\1", override) for override in overrides]  # of a sweep
    sweeps = any("hydra/launcher" in override for override in overrides)
    check_signatures(compose_config(verb, [one for one in first if "hydra" not in one] if sweeps else overrides))


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    assert "@@" not in TEXTS[name]
