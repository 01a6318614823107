"""AdamW's two averages in 8 bits, in blocks of rows: the arithmetic is bitsandbytes', where the blocks lie is ours.

An average is stored as *codes*, one byte an entry, and *maxima*, a float32 a block of 256 entries: an entry is the
block's maximum times the number in [-1, 1] that its code stands for (dynamic quantisation, arXiv 2110.02861).
bitsandbytes cuts a tensor's entries into blocks wherever they fall. Here a block never reaches beyond a row, so that

- any set of rows holds whole blocks. A parameter sharded over its rows has codes and maxima that are sharded alike, and
  any other number of ranks loads the same numbers, bit for bit: nothing has to be quantised a second time, which
  would not be exact (the signed map has no -1);
- a step on shards, on all rows, or on some rows after the others is the same step.

Where the length of a row is a multiple of 256, as in most large models, the blocks are bitsandbytes' own and its kernel
runs on parameter, gradient and state where they lie. Elsewhere it runs on copies of some rows at a time, filled up with
zeros, which move no maximum. Everywhere the numbers are those of bitsandbytes; on a CPU it looks codes up in a table of
2^16 cells, so that what is smaller than 1.5e-5 of its block's maximum, 0 too, may be stored as up to 2e-5 of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

BLOCK = 256
# entries of one call of the kernel: it computes in float32 copies of its own on a CPU, and counts in 32 bits on a GPU
_ENTRIES = 2**22

State = dict[str, Tensor]
FIRST, SECOND = "exp_avg", "exp_avg_sq"
CODES, MAXIMA = "_codes", "_maxima"
QUANTISED = tuple(average + part for average in (FIRST, SECOND) for part in (CODES, MAXIMA))


def new_state(parameter: Tensor) -> State:
    """Zeros.

    Args:
        parameter: ``[rows, ...]``, of which the further dimensions make a row.

    Returns:
        For both averages codes, uint8 of the parameter's shape, and maxima, float32 ``[rows, blocks of a row]``.
    """
    rows, columns = _rows(parameter.shape)
    state = {}
    for average, code in zip((FIRST, SECOND), _zero_codes(), strict=True):
        state[average + CODES] = torch.full(parameter.shape, code, dtype=torch.uint8, device=parameter.device)
        state[average + MAXIMA] = torch.zeros(rows, math.ceil(columns / BLOCK), device=parameter.device)
    return state


def state_bytes(shape: Sequence[int], bits: int) -> int:
    """Bytes of both averages of a parameter of this shape, over all ranks, without a master (4 an entry).

    >>> state_bytes([1024, 2560], 32) / (1024 * 2560), state_bytes([1024, 2560], 8) / (1024 * 2560)
    (8.0, 2.03125)
    """
    if bits == 32:
        return 8 * math.prod(shape)
    rows, columns = _rows(shape)
    return 2 * (rows * columns + 4 * rows * math.ceil(columns / BLOCK))


@torch.no_grad()
def update(
    parameter: Tensor,
    gradient: Tensor,
    state: State,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One step of AdamW on a parameter and its state, in place.

    Args:
        parameter: ``[rows, ...]``, float32, bfloat16 or float16; rows may be none.
        gradient: of the same shape and type.
        state: of the same rows, see :func:`new_state`.
        step: from 1, for the bias corrections.
        lr: of this step.
        betas: of the two averages.
        eps: added to the root of the second, after its correction.
        weight_decay: times ``lr``, of the parameter.
    """
    _library()
    rows, columns = _rows(parameter.shape)
    width = math.ceil(columns / BLOCK) * BLOCK
    at_once = max(1, _ENTRIES // max(1, width))
    for first in range(0, rows, at_once):
        part = slice(first, first + at_once)
        values, codes = parameter[part], [state[average + CODES][part] for average in (FIRST, SECOND)]
        maxima = [state[average + MAXIMA][part] for average in (FIRST, SECOND)]
        direct = columns == width and values.is_contiguous()
        if direct:
            worked, slope, coded = values, gradient[part].contiguous(), codes
        else:
            like = values.new_empty(len(values), width)
            worked, slope = (_filled(tensor, like, 0) for tensor in (values, gradient[part]))
            coded = [_filled(code, like, zero) for code, zero in zip(codes, _zero_codes(), strict=True)]
        # the operator itself: the library's wrapper does not know slices of paged tensors
        torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
            "adam", slope, worked, *coded, *betas, 0.0, 0.0, eps, step, lr, *_maps(worked.device),
            maxima[0].view(-1), maxima[1].view(-1), weight_decay, 1.0,
        )  # fmt: skip
        if not direct:
            for target, source in zip((values, *codes), (worked, *coded), strict=True):
                target.copy_(source[:, :columns].reshape(target.shape))


def _rows(shape: Sequence[int]) -> tuple[int, int]:
    return shape[0], math.prod(shape[1:])


def _filled(tensor: Tensor, like: Tensor, value: float) -> Tensor:
    """``[rows, ...]`` in the longer rows of another: its shape, on its device."""
    out = torch.full_like(like, value, dtype=tensor.dtype)
    columns = math.prod(tensor.shape[1:])
    out[:, :columns] = tensor.reshape(-1, columns)
    return out


@lru_cache
def _maps(device: torch.device) -> tuple[Tensor, Tensor]:
    """What the codes of the first and of the second average stand for, float32 ``[256]``, ascending."""
    create_dynamic_map = _library().functional.create_dynamic_map
    return create_dynamic_map(signed=True).to(device), create_dynamic_map(signed=False).to(device)


def _library() -> ModuleType:
    """It registers its operators when it is imported."""
    # on a CPU it warns that it found no kernel for products of 4-bit weights, of which an optimizer makes none
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


@lru_cache
def _zero_codes() -> tuple[int, int]:
    """Which code is 0 in each."""
    first, second = (int((values == 0).nonzero()) for values in _maps(torch.device("cpu")))
    return first, second
