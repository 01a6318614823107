"""A model too large for every rank's memory is in one rank's memory once, and in slices in all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.loading import write_big
from helpers.sharded import start_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[dict[str, Any]]]:
    """The model's bytes, and what each of two ranks tells."""
    folder = tmp_path_factory.mktemp("loading")
    size = write_big(folder / "big")
    start_ranks("helpers.loading", folder, ranks=2)
    return size, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_one_rank_alone_has_room_for_a_whole_model(ranks: tuple[int, list[dict[str, Any]]]) -> None:
    size, (first, second) = ranks
    assert 0.45 * size < second["held"] < 0.55 * size
    assert second["peak"] < 0.75 * size  # its slices and one tensor; the plain way takes the whole model
    assert first["peak"] < 1.8 * size


def test_every_number_arrives(ranks: tuple[int, list[dict[str, Any]]]) -> None:
    first, second = ranks[1]
    assert first["equal"]
    assert first["names"]
    assert second["given"] == 0
    for facts in (first, second):
        assert facts["sliced"]
        assert facts["tied"]
        assert facts["buffers"]
        assert all(facts["buffers"])


def test_whole_for_a_while_it_runs_on_one_rank_alone(ranks: tuple[int, list[dict[str, Any]]]) -> None:
    for facts in ranks[1]:
        assert facts["tied while whole"]
        assert facts["no collective"]
        assert facts["sliced again"]


def test_all_ranks_are_told_what_one_met(ranks: tuple[int, list[dict[str, Any]]]) -> None:
    for facts in ranks[1]:
        gone, other = facts["told"]
        assert gone == "OSError: no such file"
        assert other.startswith("ValueError: model.model.embed_tokens.weight")
        assert other.endswith("of another architecture than the model")
