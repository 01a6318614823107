"""The drawing of a graph: nothing overlaps, arrows point down, and few of them cross."""

from __future__ import annotations

import itertools
import random

import pytest

from lightning_r1.config.compose import compose_config
from lightning_r1.report.graph import HEIGHT, WIDTH, _apart, _crossings, layout


def some_graph(seed: int) -> dict[str, list[str]]:
    chance = random.Random(seed)
    names = [f"n{i}" for i in range(chance.randint(1, 14))]
    return {name: chance.sample(names[:i], min(i, chance.randint(0, 3))) for i, name in enumerate(names)}


@pytest.mark.parametrize("seed", range(12))
def test_nodes_do_not_overlap_and_arrows_point_down(seed: int) -> None:
    parents = some_graph(seed)
    made = layout(parents)
    assert made.nodes.keys() == parents.keys()
    for (x, y), (other_x, other_y) in itertools.combinations(made.nodes.values(), 2):
        assert abs(y - other_y) >= HEIGHT or abs(x - other_x) >= WIDTH
    for x, y in made.nodes.values():
        assert -0.5 <= x <= made.width - WIDTH + 0.5
        assert 0 <= y <= made.height - HEIGHT
    assert set(made.edges) == {(need, name) for name, needs in parents.items() for need in needs}
    for (first, second), points in made.edges.items():
        assert points[0] == pytest.approx((made.nodes[first][0] + WIDTH / 2, made.nodes[first][1] + HEIGHT))
        assert points[-1] == pytest.approx((made.nodes[second][0] + WIDTH / 2, made.nodes[second][1]))
        assert all(later[1] > earlier[1] for earlier, later in itertools.pairwise(points))
        # a long edge runs beside the nodes that it passes, not through them
        for x, y in points[1:-1]:
            for left, top in made.nodes.values():
                assert not (left < x < left + WIDTH and top <= y <= top + HEIGHT)


def test_no_node_is_no_graph() -> None:
    assert layout({}).nodes == {}


def test_crossings_are_counted_as_by_hand() -> None:
    layers = [["a", "b", "c"], ["x", "y", "z"]]
    below = {"a": ["z", "x"], "b": ["y"], "c": ["x"], "x": [], "y": [], "z": []}
    # a-z with b-y and c-x; b-y with c-x; a-x with none
    assert _crossings(layers, below) == 3


def test_what_need_not_cross_does_not() -> None:
    parents = {"a": [], "b": [], "c": ["b"], "d": ["a"], "e": ["c"], "f": ["d"]}
    made = layout(parents)
    order = [[name for name in names if name in made.nodes] for names in (("a", "b"), ("d", "c"), ("f", "e"))]
    sides = [made.nodes[left][0] < made.nodes[right][0] for left, right in order]
    assert len(set(sides)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_places_are_as_near_to_the_wishes_as_can_be(seed: int) -> None:
    """Least squares under the distances: no small move of any block does better."""
    chance = random.Random(seed)
    wished, widths = [chance.uniform(0, 300) for _ in range(6)], [100] * 6

    def cost(places: list[float]) -> float:
        return sum((place - wish) ** 2 for place, wish in zip(places, wished, strict=True))

    found = _apart(wished, widths)
    assert all(later - earlier >= 119.999 for earlier, later in itertools.pairwise(found))
    for start in range(6):
        for end in range(start + 1, 7):
            for move in (-0.5, 0.5):
                moved = [place + move * (start <= i < end) for i, place in enumerate(found)]
                if all(later - earlier >= 119.999 for earlier, later in itertools.pairwise(moved)):
                    assert cost(moved) >= cost(found) - 1e-6


@pytest.mark.parametrize("overrides", [["pipeline=mini"], ["pipeline=r1", "pipeline.general_traces=t.jsonl"]])
def test_the_pipelines_that_are_there_can_be_drawn(overrides: list[str]) -> None:
    nodes = compose_config("pipeline", overrides)["pipeline"]["nodes"]
    parents = {
        node: sorted({source.split("/")[0] for source in (spec.get("inputs") or {}).values()})
        for node, spec in nodes.items()
    }
    assert layout(parents).width < 1300  # no wider than a screen
