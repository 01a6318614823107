"""Sharding by one rank, in this process: what is a unit, in what precision it runs, and how it is whole for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from lightning_r1.parallel.sharding import Sharding, is_sharded, reshard, shard, whole


class Stack(nn.Module):
    """Two layers and a head, which is a forward's of its own as well."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.head = nn.Linear(4, 3, bias=False)
        self.exact = nn.Linear(3, 1)
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.exact(self.states(x).float())

    def states(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
            self.dtypes.append(x.dtype)
        return x @ self.head.weight.T


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def sharded(mesh: DeviceMesh, param_dtype: torch.dtype | None = None) -> Stack:
    stack = Stack()
    shard(stack, Sharding(mesh, param_dtype), layers=stack.layers, exact=[stack.exact], methods=["states"])
    return stack


def test_each_layer_is_a_unit_and_the_rest_is_the_roots(mesh: DeviceMesh) -> None:
    assert not is_sharded(Stack())
    stack = sharded(mesh)
    assert is_sharded(stack)
    assert [isinstance(part, FSDPModule) for part in (*stack.layers, stack.exact, stack.head, stack)] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert all(isinstance(parameter, DTensor) for parameter in stack.parameters())


def test_a_method_is_a_forward_as_well_and_has_the_roots_weights(mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    stack, plain, x = sharded(mesh), Stack(), torch.randn(5, 4)
    plain.load_state_dict({name: tensor.full_tensor() for name, tensor in stack.state_dict().items()})
    for run in (stack, plain):
        run.states(x).square().sum().backward()
    for held, expected in zip(stack.parameters(), plain.parameters(), strict=True):
        if expected.grad is None:
            assert held.grad is None
        else:
            torch.testing.assert_close(held.grad.full_tensor(), expected.grad)


def test_mixed_precision_spares_what_is_exact(mesh: DeviceMesh) -> None:
    stack = sharded(mesh, torch.bfloat16)
    out = stack(torch.randn(5, 4))
    assert set(stack.dtypes) == {torch.bfloat16}
    assert out.dtype == torch.float32
    out.sum().backward()
    assert {parameter.dtype for parameter in stack.parameters()} == {torch.float32}
    assert {parameter.grad.dtype for parameter in stack.parameters()} == {torch.float32}


def test_whole_for_a_while_it_is_plain_and_then_as_before(mesh: DeviceMesh) -> None:
    stack, x = sharded(mesh), torch.randn(5, 4)
    before = stack(x)
    with whole(stack), torch.no_grad():
        assert not any(isinstance(parameter, DTensor) for parameter in stack.parameters())
        assert not any(part._forward_pre_hooks or part._forward_hooks for part in stack.modules())
        assert torch.equal(stack(x), before)
        # a layer alone would otherwise become a root of its own
        stack.layers[0](x)
    assert all(isinstance(parameter, DTensor) for parameter in stack.parameters())
    assert torch.equal(stack(x), before)
    before.sum().backward()


def test_what_a_forward_left_whole_can_be_given_up(mesh: DeviceMesh) -> None:
    stack = sharded(mesh)
    with torch.no_grad():
        stack.states(torch.randn(5, 4))
    assert not isinstance(stack.head.weight, DTensor)
    reshard(stack)
    assert isinstance(stack.head.weight, DTensor)


def test_no_room_for_a_whole_model_is_told_with_the_fix(mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = sharded(mesh)

    def no_room(self: FSDPModule) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FSDPModule, "unshard", no_room)
    with pytest.raises(RuntimeError, match=r"no room for the whole model beside its slices, .* rollout=vllm_server"):
        whole(stack).__enter__()
