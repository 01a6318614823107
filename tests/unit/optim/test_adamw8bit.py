"""AdamW in 8 bits: which averages have them, how near it stays to 32 bits, and that its state comes back as it was."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import AdamW8bit, MasterAdamW8bit, adamw8bit, averages_bits
from lightning_r1.optim.blocks import state_bytes
from lightning_r1.optim.master import stepped_on

SHAPES = {"embed_tokens": (32, 256), "wide": (8, 512), "odd": (20, 300), "small": (4, 4), "norm": (257,)}


class Model(nn.Module):
    """A parameter of each kind."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            layer = nn.Module()
            layer.weight = nn.Parameter((0.02 * torch.randn(shape, generator=make)).bfloat16().to(dtype))
            self.add_module(name, layer)

    def walk(self, optimizer: torch.optim.Optimizer, steps: range) -> Model:
        for step in steps:
            make = torch.Generator().manual_seed(step)
            for parameter in self.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=make).bfloat16().to(parameter.dtype)
            optimizer.step()
            optimizer.zero_grad()
        return self


def optimizer_of(model: nn.Module, **options: Any) -> AdamW8bit:
    made = adamw8bit(model.named_parameters(), **{"lr": 1e-3, "weight_decay": 0.1, "min_8bit_size": 4096, **options})
    assert isinstance(made, AdamW8bit)
    return made


def in_8_bits(model: Model, optimizer: AdamW8bit) -> set[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[p].removesuffix(".weight") for group in optimizer.param_groups for p in group["params"]
        if "exp_avg_codes" in optimizer.state[p]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"wide", "odd"}),
        ({"embeddings": 8}, {"wide", "odd", "embed_tokens"}),
        ({"min_8bit_size": 5000}, {"odd"}),
        ({"min_8bit_size": 0}, {"wide", "odd", "small"}),
    ],
)
def test_large_matrices_have_8_bits(options: dict[str, Any], expected: set[str]) -> None:
    model = Model()
    optimizer = optimizer_of(model, **options)
    assert in_8_bits(model, optimizer) == expected
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[parameter] for parameter in model.parameters()] == [0.1, 0.1, 0.1, 0.1, 0.0]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("model.model.embed_tokens.weight", 32), ("transformer.wte.weight", 32), ("gpt_neox.embed_in.weight", 32),
        ("model.lm_head.weight", 8), ("model.layers.0.mlp.up_proj.weight", 8), ("newtype.weight", 8),
    ],
)  # fmt: skip
def test_embeddings_are_known_by_name(name: str, bits: int) -> None:
    assert averages_bits(name, torch.Size([100, 100])) == bits
    assert averages_bits(name, torch.Size([10000])) == 32


def test_the_state_of_8_bits_takes_the_bytes_that_are_told() -> None:
    model = Model()
    optimizer = optimizer_of(model)
    for name, parameter in model.named_parameters():
        bits = averages_bits(name, parameter.shape)
        held = sum(value.nbytes for key, value in optimizer.state[parameter].items() if key != "step")
        assert held == state_bytes(parameter.shape, bits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_has_32_bits_is_torchs_adamw(dtype: torch.dtype) -> None:
    ours, theirs = Model(dtype), Model(dtype)
    ours.walk(optimizer_of(ours), range(5))
    theirs.walk(adamw(theirs.named_parameters(), lr=1e-3, weight_decay=0.1), range(5))
    exact = dtype == torch.float64  # of which the kernel knows nothing
    for name in SHAPES:
        left, right = (model.get_parameter(f"{name}.weight") for model in (ours, theirs))
        if exact or name not in ("wide", "odd"):
            assert torch.equal(left, right)
        elif dtype == torch.float32:
            assert not torch.equal(left, right)


@pytest.mark.parametrize("columns", [256, 300])
def test_a_problem_is_solved_as_in_32_bits(columns: int) -> None:
    """Least squares, 200 steps: the two paths stay within a tenth of the way that they go."""
    make = torch.Generator().manual_seed(0)
    inputs, target = torch.randn(64, columns, generator=make), torch.randn(16, columns, generator=make)

    def solve(factory: Any, **options: Any) -> tuple[Tensor, list[float]]:
        weight = nn.Parameter(torch.zeros(16, columns))
        optimizer = factory([("weight", weight)], lr=1e-2, **options)
        losses = []
        for _ in range(200):
            optimizer.zero_grad()
            loss = (inputs @ (weight - target).t()).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return weight.detach(), losses

    (exact, fine), (coded, coarse) = solve(adamw), solve(adamw8bit, min_8bit_size=0)
    assert fine[-1] < 0.02 * fine[0]
    assert coarse[-1] < 0.02 * fine[0]
    assert not torch.equal(exact, coded)
    assert (exact - coded).norm() < 0.1 * exact.norm()
    assert max(abs(a - b) for a, b in zip(fine, coarse, strict=True)) < 0.02 * fine[0]


FORMS = [(torch.float32, "auto"), (torch.bfloat16, "auto"), (torch.bfloat16, "off")]


@pytest.mark.parametrize(("dtype", "masters"), FORMS)
def test_resumed_in_the_same_bits(dtype: torch.dtype, masters: str) -> None:
    model = Model(dtype)
    optimizer = optimizer_of(model, master_weights=masters)
    assert isinstance(optimizer, MasterAdamW8bit) == (dtype == torch.bfloat16 and masters == "auto")
    model.walk(optimizer, range(5))
    file = io.BytesIO()
    torch.save({"weights": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    other = Model(dtype)
    again = optimizer_of(other, master_weights=masters)
    other.load_state_dict(loaded["weights"])
    again.load_state_dict(loaded["optimizer"])
    assert_same_state(again, optimizer)
    for state in again.state.values():
        assert {value.dtype for name, value in state.items() if name.endswith("_codes")} <= {torch.uint8}
        assert {value.dtype for name, value in state.items() if name.endswith("_maxima")} <= {torch.float32}
    model.walk(optimizer, range(5, 8))
    other.walk(again, range(5, 8))
    assert_same_state(again, optimizer)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(stepped_on(optimizer, one), stepped_on(again, two))


def assert_same_state(one: torch.optim.Optimizer, two: torch.optim.Optimizer) -> None:
    left, right = one.state_dict(), two.state_dict()
    assert left["param_groups"] == right["param_groups"]
    assert left["state"].keys() == right["state"].keys() == set(range(len(SHAPES)))
    for index, state in left["state"].items():
        assert state.keys() == right["state"][index].keys()
        for name, value in state.items():
            assert value.dtype == right["state"][index][name].dtype
            assert torch.equal(value, right["state"][index][name]), name


@pytest.mark.parametrize(("dtype", "masters"), FORMS)
def test_looked_up_by_name_before_the_first_step_and_after_it(dtype: torch.dtype, masters: str) -> None:
    """As ``torch.distributed.checkpoint`` does, which steps with gradients of 0 where it finds no state."""
    model, other = Model(dtype), Model(dtype)
    optimizer, again = optimizer_of(model, master_weights=masters), optimizer_of(other, master_weights=masters)
    began = copy.deepcopy(optimizer.state_dict())
    get_optimizer_state_dict(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert str(optimizer.state_dict()) == str(began)
    model.walk(optimizer, range(3))
    named = get_optimizer_state_dict(model, optimizer)
    assert set(named["state"]) == {f"{name}.weight" for name in SHAPES}
    assert ("master" in named["state"]["odd.weight"]) == isinstance(optimizer, MasterAdamW8bit)
    set_optimizer_state_dict(other, again, copy.deepcopy(named))
    assert_same_state(again, optimizer)


def test_masters_of_32_bits_are_looked_up_by_name_too() -> None:
    model, other = Model(torch.bfloat16), Model(torch.bfloat16)
    optimizer, again = (adamw(one.named_parameters(), lr=1e-3) for one in (model, other))
    model.walk(optimizer, range(3))
    set_optimizer_state_dict(other, again, copy.deepcopy(get_optimizer_state_dict(model, optimizer)))
    assert_same_state(again, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_8_bits_with_masters_follow_float32() -> None:
    exact, mastered = Model(), Model(torch.bfloat16)
    optimizer = optimizer_of(mastered, lr=1e-6)
    exact.walk(optimizer_of(exact, lr=1e-6), range(50))
    mastered.walk(optimizer, range(50))
    for one, two in zip(exact.parameters(), mastered.parameters(), strict=True):
        assert torch.equal(stepped_on(optimizer, two), one)
        assert torch.equal(two, one.bfloat16())


def test_another_optimizers_checkpoint_is_refused() -> None:
    model = Model()
    small = optimizer_of(model, min_8bit_size=0).state_dict()
    with pytest.raises(ValueError, match=r"averages of \[8, 32, 32\] bits, this run's of \[32, 32\]"):
        optimizer_of(model, min_8bit_size=10**6).load_state_dict(small)
    large = optimizer_of(model, min_8bit_size=5000).state_dict()
    with pytest.raises(ValueError, match=r"exp_avg.* of a parameter of shape \(.*\) is "):
        optimizer_of(model).load_state_dict({**large, "param_groups": optimizer_of(model).state_dict()["param_groups"]})
    with pytest.raises(ValueError, match=r"averages of \[32, 32\] bits"):
        optimizer_of(model).load_state_dict(adamw(model.named_parameters(), lr=1e-3).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, r"optim\.lr=-1\.0: expected >= 0"),
        ({"min_8bit_size": -1}, r"optim\.min_8bit_size=-1: expected >= 0"),
        ({"embeddings": 16}, r"optim\.embeddings=16: expected 8 or 32"),
        ({"paged": True}, r"optim\.paged=true: pages are CUDA's, the model is on cpu"),
    ],
)
def test_bad_values_are_refused_by_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_of(Model(), **options)
