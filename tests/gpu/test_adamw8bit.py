"""On a GPU: AdamW in 8 bits stays near 32 bits, and pages change where its codes lie and nothing else."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import adamw8bit
from lightning_r1.optim.blocks import QUANTISED, new_state, update

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
]
SHAPES = {"aligned": (512, 1024), "odd": (512, 896), "norm": (1024,)}


def start(dtype: torch.dtype) -> nn.ParameterDict:
    make = torch.Generator().manual_seed(0)
    values = {name: (0.02 * torch.randn(shape, generator=make)).bfloat16() for name, shape in SHAPES.items()}
    return nn.ParameterDict({name: value.to("cuda", dtype) for name, value in values.items()})


def walk(parameters: nn.ParameterDict, optimizer: torch.optim.Optimizer, steps: range) -> dict[str, Tensor]:
    for step in steps:
        make = torch.Generator().manual_seed(step)
        for parameter in parameters.values():
            gradient = 0.5 + torch.randn(parameter.shape, generator=make)
            parameter.grad = gradient.bfloat16().to("cuda", parameter.dtype)
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_8_bits_go_where_32_go(dtype: torch.dtype) -> None:
    began, full, coded = start(dtype), start(dtype), start(dtype)
    exact = walk(full, adamw(full.named_parameters(), lr=1e-3), range(20))
    made = walk(coded, adamw8bit(coded.named_parameters(), lr=1e-3), range(20))
    for name, value in exact.items():
        way = (value - began[name]).float().norm()
        assert (made[name] - value).float().norm() < 0.1 * way, name
    assert not torch.equal(made["odd"], exact["odd"])


def test_rows_alone_step_as_they_do_among_others() -> None:
    for shape in SHAPES["aligned"], SHAPES["odd"]:
        make = torch.Generator("cuda").manual_seed(0)
        whole, gradient = (torch.randn(shape, device="cuda", generator=make) for _ in range(2))
        part, options = whole[100:107].clone(), {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
        states = new_state(whole), new_state(part)
        for step in range(1, 4):
            update(whole, gradient, states[0], step=step, **options)
            update(part, gradient[100:107], states[1], step=step, **options)
        assert torch.equal(part, whole[100:107])
        assert all(torch.equal(states[0][name][100:107], states[1][name]) for name in QUANTISED)


def test_pages_change_no_bit_and_come_back_from_a_checkpoint() -> None:
    def run(**options: Any) -> tuple[dict[str, Tensor], Any]:
        parameters = start(torch.bfloat16)
        optimizer = adamw8bit(parameters.named_parameters(), lr=1e-3, **options)
        walk(parameters, optimizer, range(5))
        again = start(torch.bfloat16)
        resumed = adamw8bit(again.named_parameters(), lr=1e-3, **options)
        again.load_state_dict(parameters.state_dict())
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        made, same = (walk(*one, range(5, 10)) for one in ((parameters, optimizer), (again, resumed)))
        assert all(torch.equal(made[name], same[name]) for name in SHAPES)
        return made, optimizer

    (plain, _), (paged, optimizer) = run(), run(paged=True)
    assert all(torch.equal(plain[name], paged[name]) for name in SHAPES)
    codes = [state["exp_avg_codes"] for state in optimizer.state.values() if "exp_avg_codes" in state]
    assert [getattr(code, "is_paged", False) for code in codes] == [True, True]
