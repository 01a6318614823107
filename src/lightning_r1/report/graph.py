"""A pipeline's graph as a drawing: layers from top to bottom, each node below those it needs.

The layout is that of K. Sugiyama and others (1981): long edges pass through a place of their own in every layer
between, the order within a layer follows the mean of the neighbours', and then places move towards their neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT, GAP, LAYER = 176, 60, 20, 104
"""Of a node, between two of them, and from one layer to the next."""
_LANE = 14
_SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where nodes stand and how edges run, in pixels."""

    width: float
    height: float
    nodes: Mapping[str, tuple[float, float]]
    """Left upper corners."""
    edges: Mapping[tuple[str, str], Sequence[tuple[float, float]]]
    """From the lower side of the first node to the upper side of the second, through places between others."""


def layout(parents: Mapping[str, Sequence[str]]) -> Layout:
    """Place the nodes of a graph.

    Args:
        parents: of every node, those that it needs, which come before it.
    """
    if not parents:
        return Layout(0, 0, {}, {})
    depth: dict[str, int] = {}
    for name, needs in parents.items():
        depth[name] = 1 + max((depth[need] for need in needs), default=-1)
    _lower_sources(depth, parents)
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, level in depth.items():
        layers[level].append(name)
    links: list[tuple[str, str]] = []
    paths: dict[tuple[str, str], list[str]] = {}
    for name, needs in parents.items():
        for need in dict.fromkeys(needs):
            lanes = [f"{need}\0{name}\0{level}" for level in range(depth[need] + 1, depth[name])]
            for level, lane in enumerate(lanes, depth[need] + 1):
                layers[level].append(lane)
            paths[need, name] = [need, *lanes, name]
            links += pairwise(paths[need, name])
    above: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    below: dict[str, list[str]] = {name: [] for layer in layers for name in layer}
    for first, second in links:
        above[second].append(first)
        below[first].append(second)
    _order(layers, above, below)
    centres = _centres(layers, above, below)
    left = min(centres[name] - _wide(name) / 2 for name in centres)
    level_of = {name: level for level, layer in enumerate(layers) for name in layer}
    nodes = {name: (centres[name] - left - WIDTH / 2, level_of[name] * LAYER) for name in parents}
    edges = {
        edge: [
            (centres[edge[0]] - left, depth[edge[0]] * LAYER + HEIGHT),
            *(  # straight past the nodes beside it
                (centres[lane] - left, level_of[lane] * LAYER + down) for lane in path[1:-1] for down in (0, HEIGHT)
            ),
            (centres[edge[1]] - left, depth[edge[1]] * LAYER),
        ]
        for edge, path in paths.items()
    }
    width = max(centres[name] + _wide(name) / 2 for name in centres) - left
    return Layout(width, (len(layers) - 1) * LAYER + HEIGHT, nodes, edges)


def _lower_sources(depth: dict[str, int], parents: Mapping[str, Sequence[str]]) -> None:
    """A node that needs nothing, or little, stands close above the first one that needs it."""
    for name in reversed(list(parents)):
        needed_by = [depth[other] for other, needs in parents.items() if name in needs]
        if needed_by:
            depth[name] = min(needed_by) - 1


def _wide(name: str) -> int:
    return _LANE if "\0" in name else WIDTH


def _order(layers: list[list[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]) -> None:
    """Few crossings: each layer in the order of its neighbours' mean places, down and up again; the best is kept."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for level in range(len(layers)) if down else reversed(range(len(layers))):
            beside = level + (-1 if down else 1)
            if not 0 <= beside < len(layers):
                continue
            place = {name: number for number, name in enumerate(layers[beside])}
            own = {name: number for number, name in enumerate(layers[level])}
            layers[level].sort(
                key=lambda name: (_mean([place[other] for other in neighbours[name]], own[name]), own[name])
            )
        exchanged = [list(layer) for layer in layers]
        if (crossings := _exchange(exchanged, below)) < fewest:
            best, fewest = exchanged, crossings
    layers[:] = best


def _exchange(layers: list[list[str]], below: Mapping[str, list[str]]) -> int:
    """Neighbours change places as long as that takes a crossing away; how many are left."""
    fewest, better = _crossings(layers, below), True
    while better:
        better = False
        for layer in layers:
            for place in range(len(layer) - 1):
                layer[place : place + 2] = layer[place + 1], layer[place]
                if (crossings := _crossings(layers, below)) < fewest:
                    fewest, better = crossings, True
                else:
                    layer[place : place + 2] = layer[place + 1], layer[place]
    return fewest


def _crossings(layers: Sequence[Sequence[str]], below: Mapping[str, list[str]]) -> int:
    count = 0
    for upper, lower in pairwise(layers):
        place = {name: number for number, name in enumerate(lower)}
        ends = [place[other] for name in upper for other in sorted(below[name], key=place.__getitem__)]
        count += sum(later < earlier for number, earlier in enumerate(ends) for later in ends[number + 1 :])
    return count


def _centres(
    layers: Sequence[Sequence[str]], above: Mapping[str, list[str]], below: Mapping[str, list[str]]
) -> dict[str, float]:
    """Places move towards the mean of their neighbours' and keep their distance and their order."""
    centres: dict[str, float] = {}
    for layer in layers:
        at = 0.0
        for name in layer:
            centres[name] = at + _wide(name) / 2
            at += _wide(name) + GAP
    for sweep in range(2 * _SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            neighbours = above if sweep % 2 == 0 else below
            wished = [_mean([centres[other] for other in neighbours[name]], centres[name]) for name in layer]
            centres |= dict(zip(layer, _apart(wished, [_wide(name) for name in layer]), strict=True))
    return centres


def _apart(wished: Sequence[float], widths: Sequence[int]) -> list[float]:
    """As near to the wishes as the order and the distances allow: blocks that meet share the mean of their wishes."""
    offsets = [0.0]
    for first, second in pairwise(widths):
        offsets.append(offsets[-1] + (first + second) / 2 + GAP)
    blocks: list[list[float]] = []  # sum of the wishes less offsets, count
    for wish, offset in zip(wished, offsets, strict=True):
        blocks.append([wish - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    starts = [total / count for total, count in blocks for _ in range(int(count))]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _mean(places: Sequence[float], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise
