"""Weights of few bits follow the float32 trajectory, and a resumed run goes on in the same bits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.master import MasterAdamW, collect_gradients, stepped_on

STEPS, LR = 200, 1e-6


def start(dtype: torch.dtype) -> nn.ParameterDict:
    make = torch.Generator().manual_seed(0)
    matrix = 0.02 * torch.randn(16, 8, generator=make)
    return nn.ParameterDict({"matrix": matrix.bfloat16().to(dtype), "norm": torch.ones(8, dtype=dtype)})


def gradients(step: int, parameters: nn.ParameterDict) -> dict[str, Tensor]:
    make = torch.Generator().manual_seed(step)
    return {name: 0.5 + torch.randn(p.shape, generator=make).bfloat16().float() for name, p in parameters.items()}


def walk(dtype: torch.dtype, **options: Any) -> tuple[nn.ParameterDict, torch.optim.Optimizer]:
    parameters = start(dtype)
    optimizer = adamw(parameters.named_parameters(), lr=LR, weight_decay=0.1, **options)
    for step in range(STEPS):
        for name, gradient in gradients(step, parameters).items():
            parameters[name].grad = gradient.bfloat16().to(dtype)
        optimizer.step()
        optimizer.zero_grad()
    return parameters, optimizer


def test_masters_follow_float32_and_without_them_nothing_moves() -> None:
    exact = start(torch.float32)
    optimizer = adamw(exact.named_parameters(), lr=LR, weight_decay=0.1)
    for step in range(STEPS):
        for name, gradient in gradients(step, exact).items():
            exact[name].grad = gradient.bfloat16().float()
        optimizer.step()
    mastered, stepper = walk(torch.bfloat16)
    rounded, plain = walk(torch.bfloat16, master_weights="off")
    assert isinstance(stepper, MasterAdamW)
    assert not isinstance(plain, MasterAdamW)
    began = start(torch.bfloat16)
    for name, parameter in exact.items():
        assert torch.equal(stepped_on(stepper, mastered[name]), parameter)
        assert torch.equal(mastered[name], parameter.bfloat16())
    # 200 steps of 1e-6 are 2e-4: a bfloat16 near 1 has 4e-3 to the next one below, the float32 weight moved
    assert torch.equal(rounded["norm"], began["norm"])
    assert (exact["norm"] - 1).abs().min() > 1e-5
    moved, lost = ((w["matrix"].float() - exact["matrix"]).abs().mean() for w in (mastered, rounded))
    assert lost > 2 * moved  # what is left of it is the distance to the nearest bfloat16


def test_gradients_of_micro_batches_are_added_up_in_float32() -> None:
    parameter = nn.Parameter(torch.ones(3, 2, dtype=torch.bfloat16))
    optimizer = adamw([("p", parameter)], lr=LR)
    for _ in range(1000):
        (parameter.sum() / 1000).backward()
        collect_gradients(optimizer)
        assert parameter.grad is None
    one = torch.tensor(1 / 1000, dtype=torch.bfloat16).double()
    torch.testing.assert_close(
        stepped_on(optimizer, parameter).grad.double(), (1000 * one).expand(3, 2), rtol=1e-5, atol=0
    )
    lossy = nn.Parameter(torch.ones(3, 2, dtype=torch.bfloat16))
    for _ in range(1000):
        (lossy.sum() / 1000).backward()
    assert (lossy.grad.double() < 0.6).all(), "a test of the test: bfloat16 stops adding"


def test_resumed_in_the_same_bits() -> None:
    parameters, optimizer = walk(torch.bfloat16)
    weights, state = copy.deepcopy((parameters.state_dict(), optimizer.state_dict()))
    other = start(torch.bfloat16)
    again = adamw(other.named_parameters(), lr=LR, weight_decay=0.1)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    for step in range(STEPS, STEPS + 5):
        for named, stepper in ((parameters, optimizer), (other, again)):
            for name, gradient in gradients(step, named).items():
                named[name].grad = gradient.bfloat16()
            stepper.step()
    for name, parameter in parameters.items():
        assert torch.equal(stepped_on(optimizer, parameter), stepped_on(again, other[name]))
    assert all(value.dtype == torch.float32 for one in again.state.values() for value in one.values())


def test_a_checkpoint_without_masters_starts_them_from_the_weights() -> None:
    parameters, plain = walk(torch.bfloat16, master_weights="off")
    again = adamw(parameters.named_parameters(), lr=LR)
    with torch.no_grad():
        parameters["norm"].fill_(0.5)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(stepped_on(again, parameters["norm"]), torch.full((8,), 0.5))


def test_masters_of_an_older_form_are_refused() -> None:
    optimizer = adamw([("w", nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16)))], lr=1e-3)
    with pytest.raises(ValueError, match="an older form: start from its exported model"):
        optimizer.load_state_dict(optimizer.state_dict() | {"masters": [torch.ones(4, 4)]})


def test_float32_needs_no_master_and_mixed_models_have_some() -> None:
    both = nn.ParameterDict({"low": torch.ones(2, 2, dtype=torch.bfloat16), "full": torch.ones(2, 2)})
    optimizer = adamw(both.named_parameters(), lr=0.1)
    assert stepped_on(optimizer, both["full"]) is both["full"]
    assert stepped_on(optimizer, both["low"]).dtype == torch.float32
    assert type(adamw([("full", nn.Parameter(torch.ones(2)))], lr=0.1)) is torch.optim.AdamW
    with pytest.raises(ValueError, match=r"optim\.master_weights='on': expected auto or off"):
        adamw(both.named_parameters(), lr=0.1, master_weights="on")
