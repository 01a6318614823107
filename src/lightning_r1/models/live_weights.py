"""A model's weights on their way to another program: by their checkpoint names, bucket by bucket.

Nothing is copied whole: a bucket is a few tensors, made from the live ones when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_r1.models.adapter import has_adapter
from lightning_r1.models.merging import as_whole, typed

_ALIGNED = 16
"""Bytes; every tensor of a bucket begins at a multiple, so that it can be read where it lies."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tensors behind one another: names, types and shapes of all, and their bytes."""

    names: list[str]
    dtypes: list[str]
    shapes: list[list[int]]
    data: bytes


def live_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Names as in a checkpoint, and whole tensors; tied ones once, under their first name.

    Parameters are cast to ``dtype``, buffers are not; adapters are merged into their layers, weights in four bits are
    dequantised, both for that moment only, see :mod:`lightning_r1.models.merging`. Sharded tensors are made whole one
    at a time, which is collective: every rank has to go through them.
    """
    return typed(model, dtype)


def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor] | None:
    """A model's plain state in host memory, made one tensor at a time; None where its own state is that already.

    Of a sharded model, collective, and of one with an adapter, which is merged. Tied tensors are one under all their
    names, or come once beside an adapter.

    Args:
        model: any.
        keep: whether this rank wants them; the others are given nothing.
    """
    state = model.state_dict(keep_vars=True)
    sharded = any(isinstance(tensor, DTensor) for tensor in state.values())
    if has_adapter(model):
        wanted = typed(model, cast(torch.dtype, model.dtype)) if keep or sharded else iter(())
        return {name: tensor.cpu() for name, tensor in wanted if keep}
    if not sharded:
        return None
    kept: dict[int, Tensor] = {}
    for tensor in state.values():
        if id(tensor) not in kept:
            whole = as_whole(tensor)
            kept[id(tensor)] = whole.cpu() if keep else torch.empty(0)
    return {name: kept[id(tensor)] for name, tensor in state.items()} if keep else {}


def buckets(weights: Iterator[tuple[str, Tensor]], most_bytes: int) -> Iterator[Bucket]:
    """Pack tensors into buckets of at most ``most_bytes``, or of one tensor that is larger."""
    held: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in weights:
        needed = _room(tensor)
        if held and size + needed > most_bytes:
            yield _packed(held)
            held, size = [], 0
        held.append((name, tensor))
        size += needed
    if held:
        yield _packed(held)


def unpacked(bucket: Bucket) -> list[tuple[str, Tensor]]:
    """What :func:`buckets` packed, as views of one copy of the bytes.

    Raises:
        ValueError: if the bytes are not as many as the shapes need.
    """
    everything = torch.frombuffer(bytearray(bucket.data), dtype=torch.uint8)
    tensors, at = [], 0
    for name, dtype_name, shape in zip(bucket.names, bucket.dtypes, bucket.shapes, strict=True):
        dtype: torch.dtype = getattr(torch, dtype_name)
        size = torch.Size(shape).numel() * dtype.itemsize
        tensors.append((name, everything[at : at + size].view(dtype).view(shape)))
        at += -(-size // _ALIGNED) * _ALIGNED
    if at != everything.numel():
        raise ValueError(f"a bucket of {everything.numel()} bytes came where {at} were announced")
    return tensors


def _room(tensor: Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // _ALIGNED) * _ALIGNED


def _packed(held: list[tuple[str, Tensor]]) -> Bucket:
    data = torch.zeros(sum(_room(tensor) for _, tensor in held), dtype=torch.uint8)
    at = 0
    for _, tensor in held:
        flat = tensor.reshape(-1).contiguous().view(torch.uint8)
        data[at : at + flat.numel()] = flat
        at += _room(tensor)
    return Bucket(
        [name for name, _ in held],
        [str(tensor.dtype).removeprefix("torch.") for _, tensor in held],
        [list(tensor.shape) for _, tensor in held],
        data.numpy().tobytes(),
    )
