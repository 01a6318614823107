"""The few things that ranks tell each other. Alone, a rank tells itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_sum(value: float) -> float:
    """Sum of a number over all ranks."""
    return _reduce(value, dist.ReduceOp.SUM)


def all_max(value: float) -> float:
    """Largest of a number over all ranks."""
    return _reduce(value, dist.ReduceOp.MAX)


def all_gather(value: T) -> list[T]:
    """Everybody's value, by rank. For small Python objects."""
    if world_size() == 1:
        return [value]
    gathered: list[T | None] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def together(work: Callable[[], T], *errors: type[BaseException]) -> T:
    """``work()`` of every rank; where it raises one of ``errors`` on one, all raise it in its words.

    Where ranks raise different ones, all raise the one that is named first: what they do next, they do together.
    ``work`` itself must not talk to other ranks behind the place where it may raise.
    """
    result: T | None = None
    raised: BaseException | None = None
    try:
        result = work()
    except errors as caught:
        raised = caught
    told = None
    if raised is not None:
        told = next(index for index, error in enumerate(errors) if isinstance(raised, error)), str(raised)
    failures = [failure for failure in all_gather(told) if failure is not None]
    if failures:
        index, message = min(failures, key=lambda failure: failure[0])
        if raised is not None and told is not None and told[0] == index:
            raise raised
        raise errors[index](message)
    return cast(T, result)


def combine_over_ranks(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add sums and take maxima (``*_max``) over all ranks; every rank must hold the same names."""
    if world_size() == 1:
        return sums
    names = sorted(sums)
    for suffix, operation in ((False, dist.ReduceOp.SUM), (True, dist.ReduceOp.MAX)):
        chosen = [name for name in names if name.endswith("_max") is suffix]
        if chosen:
            stacked = torch.stack([sums[name].double() for name in chosen])
            dist.all_reduce(stacked, op=operation)
            sums = {**sums, **dict(zip(chosen, stacked.unbind(), strict=True))}
    return sums


def _reduce(value: float, operation: dist.ReduceOp.RedOpType) -> float:
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=operation)
    return tensor.item()
