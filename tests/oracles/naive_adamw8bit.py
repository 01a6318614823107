"""AdamW with averages in 8 bits, entry by entry: arXiv 1711.05101, algorithm 2, and arXiv 2110.02861, section 2."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

BLOCK = 256


def dynamic_map(*, signed: bool) -> list[float]:
    """The numbers of dynamic (tree) quantisation: a decimal exponent in unary, then a linear fraction."""
    numbers = [0.0, 1.0]
    for exponent in range(7):
        count = 2**exponent if signed else 2 ** (exponent + 1)
        edges = [0.1 + 0.9 * index / count for index in range(count + 1)]
        middles = [(low + high) / 2 for low, high in pairwise(edges)]
        scaled = [10.0 ** (exponent - 6) * middle for middle in middles]
        numbers += scaled + ([-number for number in scaled] if signed else [])
    return sorted(numbers)


MAPS = dynamic_map(signed=True), dynamic_map(signed=False)


def values_of(codes: list[int], maxima: list[float], which: int) -> list[float]:
    """What a row of codes stands for, of the first (0) or second (1) average."""
    return [MAPS[which][code] * maxima[column // BLOCK] for column, code in enumerate(codes)]


@dataclass
class Row:
    """A row of weights and its averages, which are numbers."""

    weights: list[float]
    averages: tuple[list[float], list[float]]

    def step(self, gradient: list[float], *, step: int, lr, betas, eps, weight_decay) -> Row:
        """AdamW; nothing is rounded."""
        after = Row([], ([], []))
        for weight, first, second, slope in zip(self.weights, *self.averages, gradient, strict=True):
            first = betas[0] * first + (1 - betas[0]) * slope
            second = betas[1] * second + (1 - betas[1]) * slope**2
            change = first / (1 - betas[0] ** step) / (math.sqrt(second / (1 - betas[1] ** step)) + eps)
            after.weights.append(weight - lr * (change + weight_decay * weight))
            after.averages[0].append(first)
            after.averages[1].append(second)
        return after

    def maxima(self, which: int) -> list[float]:
        """Of the blocks of an average."""
        row = self.averages[which]
        return [max(map(abs, row[first : first + BLOCK])) for first in range(0, len(row), BLOCK)]


def nearest(value: float, maximum: float, which: int) -> float:
    """Of what codes can stand for."""
    return min((number * maximum for number in MAPS[which]), key=lambda stored: abs(stored - value))
