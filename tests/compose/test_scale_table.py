"""The guide's table of sizes on clusters is what ``benchmark=scale_on_paper`` prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_r1.benchmarks import scale_on_paper
from lightning_r1.config.compose import compose_config

GUIDE = (Path(__file__).parents[2] / "recipes/guides/scale.md").read_text(encoding="utf-8")
CONFIG = compose_config("benchmark", ["benchmark=scale_on_paper"])["benchmark"]


def block() -> list[str]:
    """The lines between the marks."""
    found = re.search(r"<!-- scale -->\n(.*?)<!-- /scale -->", GUIDE, flags=re.DOTALL)
    assert found, (
        "recipes/guides/scale.md has no block between <!-- scale --> and <!-- /scale -->: paste what "
        "python recipes/benchmark.py benchmark=scale_on_paper prints"
    )
    return found[1].splitlines()


def test_every_size_and_cluster_is_told() -> None:
    lines = block()
    for options in CONFIG["devices"].values():
        assert any(line.startswith(f"{options['gpu'].upper()}, {options['memory_gib']:g} GiB each") for line in lines)
    for shape in CONFIG["shapes"]:
        rows = [line.split("|")[2].strip() for line in lines if line.startswith(f"| {shape} ")]
        assert rows == [str(gpus) for gpus in CONFIG["gpus"]] * len(CONFIG["devices"])


@pytest.mark.parametrize("shape", ["qwen2_5_1_5b"])  # all of them take a minute; the others' rows come the same way
def test_its_numbers_are_those_that_are_printed(shape: str) -> None:
    lines = block()
    printed = scale_on_paper.benchmark({**CONFIG, "shapes": [shape]})["markdown"].splitlines()
    missing = [line for line in printed if line not in lines]
    assert not missing, (
        "not in recipes/guides/scale.md, run python recipes/benchmark.py benchmark=scale_on_paper:\n"
        + "\n".join(missing)
    )
