"""The page that compares: every row has a cell for every system, every mark is in the legend, every note is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "recipes/guides/comparison.md").read_text(encoding="utf-8")
TABLE = PAGE.split("<!-- comparison -->")[1].split("<!-- /comparison -->")[0].strip().splitlines()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in (TABLE[0], *TABLE[2:])]
IN_WORDS = ("configuration", "largest training shown", "used by others")
MARKED = [row for row in ROWS[1:] if not row[0].startswith("**") and row[0] not in IN_WORDS]


def test_every_row_speaks_of_every_system() -> None:
    assert ROWS[0][1:] == ["lightning-r1", "TRL", "open-r1", "verl", "OpenRLHF", "NeMo-RL", "prime-rl"]
    assert [row for row in ROWS if len(row) != len(ROWS[0])] == []
    assert len(MARKED) > 30


@pytest.mark.parametrize("row", MARKED, ids=lambda row: row[0])
def test_a_cell_is_a_mark_of_the_legend(row: list[str]) -> None:
    for cell in row[1:]:
        assert re.fullmatch(r"[✓◐–?]( / [✓◐–?])?( \d+)?", cell), f"{row[0]}: {cell!r}"


def test_notes_are_used_and_there() -> None:
    used = {int(number) for row in MARKED for cell in row for number in re.findall(r"(?<=[✓◐–?] )\d+$", cell)}
    there = {int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)}
    assert used == there == set(range(1, len(there) + 1))


def test_ours_is_not_best_in_every_row() -> None:
    """A table in which one system wins everywhere is an advertisement."""
    behind = [row[0] for row in MARKED if row[1].startswith("–") and any(cell.startswith("✓") for cell in row[2:])]
    assert len(behind) >= 5
