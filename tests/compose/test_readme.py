"""The commands that the READMEs give compose."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lightning_r1.config.compose import compose_config
from lightning_r1.config.schema import check_signatures

ROOT = Path(__file__).parents[2]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "recipes/README.md")}
COMMANDS = [
    (verb, shlex.split(overrides, comments=True))
    for text in TEXTS.values()
    for verb, overrides in re.findall(r"python recipes/(\w+)\.py ([^`\n]+)", text)
    if "--help" not in overrides and "..." not in overrides  # what a person has to fill in
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


@pytest.mark.parametrize(("verb", "overrides"), COMMANDS, ids=lambda part: part if isinstance(part, str) else None)
def test_a_command_composes(verb: str, overrides: list[str]) -> None:
    check_signatures(compose_config(verb, [override for override in overrides if override != "--dry"]))


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    assert "@@" not in TEXTS[name]
