"""Arithmetic that works on one Python float or on one float64 torch scalar, for the naive loops.

With floats a naive loop gives a value. With 0-dim tensors the same loop also gives, by autograd, a
gradient that shares no line with the vectorised code it judges. Only branches and one-number
operations are used: Python's own ``min``, ``max``, ``if``.
"""

import math

import torch


def exp(x):
    return x.exp() if isinstance(x, torch.Tensor) else math.exp(x)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def frozen(x):
    """The paper's sg(): the number without its gradient."""
    return x.detach() if isinstance(x, torch.Tensor) else x


def clip(x, low, high):
    """A constant outside the bounds, so its gradient is exactly 0 there."""
    return min(max(x, low), high)


def leaves(matrix):
    """Every number of a tensor as its own float64 leaf with gradient, in nested lists."""
    return [[torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in row] for row in matrix.tolist()]


def gradients(leaf_rows):
    """The gradients of :func:`leaves` as one tensor; 0 where a leaf was never used."""
    rows = [[0.0 if x.grad is None else x.grad.item() for x in row] for row in leaf_rows]
    return torch.tensor(rows, dtype=torch.float64)
