"""Averages in 8 bits: the formula entry by entry, bitsandbytes where its blocks are ours, and any rows alone."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.optim import AdamW8bit as Theirs
from torch import Tensor, nn

from lightning_r1.optim import blocks
from lightning_r1.optim.blocks import QUANTISED, new_state, state_bytes, update
from oracles.naive_adamw8bit import Row, nearest, values_of

OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def draw(step: int, *shape: int) -> Tensor:
    """Gradients of many sizes, and some that are 0."""
    make = torch.Generator().manual_seed(step)
    sizes = 10.0 ** torch.randint(-4, 1, shape, generator=make)
    return torch.randn(shape, generator=make) * sizes * (torch.rand(shape, generator=make) > 0.1)


def walk(parameter: Tensor, *, among: Tensor | None = None, rows: slice = slice(None)) -> tuple[Tensor, dict]:
    """Five steps, of all rows of a tensor or of some rows ``among`` others."""
    state, shape = new_state(parameter), (parameter if among is None else among).shape
    for step in range(1, 6):
        gradient = draw(step, *shape)[rows].to(parameter.dtype)
        update(parameter, gradient, state, step=step, **OPTIONS)
    return parameter, state


@pytest.mark.parametrize("shape", [(2, 256), (3, 40), (1, 300)])
def test_every_step_is_the_formula_entry_by_entry(shape: tuple[int, int]) -> None:
    parameter = draw(0, *shape)
    state = new_state(parameter)
    for step in range(1, 5):
        expected = [
            row.step(slopes, step=step, **OPTIONS)
            for row, slopes in zip(rows_of(parameter, state), draw(step, *shape).double().tolist(), strict=True)
        ]
        update(parameter, draw(step, *shape), state, step=step, **OPTIONS)
        for made, row in zip(rows_of(parameter, state), expected, strict=True):
            assert made.weights == pytest.approx(row.weights, rel=1e-5, abs=1e-6)
            for which in (0, 1):
                for first, maximum in zip(range(0, shape[1], 256), row.maxima(which), strict=True):
                    block = slice(first, first + 256)
                    for stored, value in zip(made.averages[which][block], row.averages[which][block], strict=True):
                        best = abs(nearest(value, maximum, which) - value)
                        # on a CPU bitsandbytes finds codes in a table of 2**16 cells between -1 and 1
                        assert abs(stored - value) <= best + 2**-15 * maximum


def rows_of(parameter: Tensor, state: dict[str, Tensor]) -> list[Row]:
    """What is stored, as numbers."""
    averages = [
        [
            values_of(*row, which)
            for row in zip(state[f"{name}_codes"].tolist(), state[f"{name}_maxima"].tolist(), strict=True)
        ]
        for which, name in enumerate(("exp_avg", "exp_avg_sq"))
    ]
    return [Row(weights, both) for weights, *both in zip(parameter.double().tolist(), *averages, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_rows_are_whole_blocks_it_is_bitsandbytes_bit_for_bit(dtype: torch.dtype) -> None:
    began = draw(0, 16, 512).to(dtype)
    ours, state = walk(began.clone())
    theirs = nn.Parameter(began.clone())
    optimizer = Theirs([theirs], **OPTIONS)
    for step in range(1, 6):
        theirs.grad = draw(step, 16, 512).to(dtype)
        optimizer.step()
    assert torch.equal(ours, theirs.detach())
    compare_with(optimizer.state[theirs], state, columns=512)


def compare_with(theirs: dict, state: dict, columns: int) -> None:
    rows = len(state["exp_avg_codes"])
    for average, code, maximum in (("exp_avg", "state1", "absmax1"), ("exp_avg_sq", "state2", "absmax2")):
        assert torch.equal(state[average + "_codes"].flatten(1), theirs[code].view(rows, -1)[:, :columns])
        assert torch.equal(state[average + "_maxima"], theirs[maximum].view(rows, -1))


@pytest.mark.parametrize("shape", [(16, 300), (20, 3, 100), (600, 8)])
def test_elsewhere_it_is_bitsandbytes_on_rows_filled_up_with_zeros(shape: tuple[int, ...]) -> None:
    columns = torch.Size(shape[1:]).numel()
    width = -(-columns // 256) * 256

    def filled(tensor: Tensor) -> Tensor:
        return nn.functional.pad(tensor.flatten(1), (0, width - columns))

    began = draw(0, *shape)
    ours, state = walk(began.clone())
    theirs = nn.Parameter(filled(began))
    optimizer = Theirs([theirs], **OPTIONS)
    for step in range(1, 6):
        theirs.grad = filled(draw(step, *shape))
        optimizer.step()
    assert torch.equal(ours.flatten(1), theirs.detach()[:, :columns])
    compare_with(optimizer.state[theirs], state, columns)


@pytest.mark.parametrize("columns", [512, 300])
def test_rows_alone_step_as_they_do_among_others(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    shape = (11, columns)
    whole, state = walk(draw(0, *shape))
    monkeypatch.setattr(blocks, "_ENTRIES", 1024)  # two rows of a call
    again, its = walk(draw(0, *shape))
    assert torch.equal(again, whole)
    for rows in (slice(0, 3), slice(3, 10), slice(10, 11), slice(11, 11)):
        alone, own = walk(draw(0, *shape)[rows], among=whole, rows=rows)
        assert torch.equal(alone, whole[rows])
        for name in QUANTISED:
            assert torch.equal(own[name], state[name][rows])
            assert torch.equal(its[name], state[name])


def test_columns_that_are_rows_elsewhere() -> None:
    """A tensor that does not lie row by row, and a gradient that is one number in memory."""
    straight, _ = walk(draw(0, 4, 256))
    turned = draw(0, 4, 256).t().contiguous().t()
    assert not turned.is_contiguous()
    assert torch.equal(walk(turned)[0], straight)
    for parameter in (expanded := draw(0, 4, 256), plain := expanded.clone()):
        gradient = torch.ones(1, 1).expand(4, 256)
        update(parameter, gradient if parameter is expanded else gradient.clone(), new_state(plain), step=1, **OPTIONS)
    assert torch.equal(expanded, plain)


def test_a_step_with_learning_rate_and_gradient_0_changes_nothing() -> None:
    parameter, _ = walk(draw(0, 5, 300))
    before, fresh = parameter.clone(), new_state(parameter)
    update(parameter, torch.zeros_like(parameter), fresh, step=1, **{**OPTIONS, "lr": 0.0})
    assert torch.equal(parameter, before)
    assert not any(fresh[name].any() for name in QUANTISED if name.endswith("_maxima")), "times 0 every code is 0"


@pytest.mark.parametrize("shape", [(4, 256), (7, 300), (600, 8), (3, 5, 70), (0, 512)])
def test_bytes_are_those_of_the_tensors(shape: tuple[int, ...]) -> None:
    state = new_state(torch.zeros(shape))
    assert state_bytes(shape, 8) == sum(value.nbytes for value in state.values())
    assert state_bytes(shape, 32) == 2 * torch.zeros(shape).nbytes
