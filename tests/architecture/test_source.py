"""Sizes and duplication: signs of a room that should be two, or of two that should be one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "recipes").glob("*.py")])


def test_files_are_short() -> None:
    long = {str(file.relative_to(ROOT)): n for file in SOURCES if (n := len(file.read_text().splitlines())) > 320}
    assert long == {}


def test_recipes_are_leaves_of_forty_lines() -> None:
    for recipe in (ROOT / "recipes").glob("*.py"):
        assert len(recipe.read_text().splitlines()) <= 40, recipe
        for file in SOURCES:
            assert f"recipes.{recipe.stem}" not in file.read_text()


def test_no_block_of_ten_lines_stands_twice() -> None:
    seen: dict[tuple[str, ...], str] = {}
    for file in SOURCES:
        lines = [line.strip() for line in file.read_text().splitlines()]
        lines = [line for line in lines if re.search(r"\w", line) and not line.startswith(("import ", "from ", "#"))]
        for start in range(len(lines) - 9):
            block = tuple(lines[start : start + 10])
            where = f"{file.relative_to(ROOT)}: {block[0]}"
            assert block not in seen, f"{where} stands in {seen[block]} too"
            seen[block] = where


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    for file in [*SOURCES, *(ROOT / "conf").rglob("*.yaml")]:
        assert not marks.search(file.read_text()), file
