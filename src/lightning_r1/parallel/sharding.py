"""Sharded models (FSDP2): every rank holds a slice of each parameter, and a layer is whole only while it runs.

A *unit* is what is made whole together: each decoder layer is one, and what is left (embeddings, last norm, head) is
the root's. Tied parameters lie in one unit, and stay tied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_r1.parallel.collectives import rank, together

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sharding:
    """Where slices lie, and in what precision units run."""

    mesh: DeviceMesh
    """``[shards]``, or ``[replicas, shards]``."""
    param_dtype: torch.dtype | None = None
    """Of whole parameters and of what is computed with them; gradients are reduced in float32 then. None is the
    slices' own."""
    cpu_offload: bool = False
    reshard_after_forward: bool = True


def shard(
    root: nn.Module,
    sharding: Sharding,
    *,
    layers: Iterable[nn.Module],
    exact: Iterable[nn.Module] = (),
    methods: Sequence[str] = (),
) -> None:
    """Shard a model in place.

    Args:
        root: what is called; parameters may be on the ``meta`` device.
        sharding: how.
        layers: a unit each.
        exact: modules that run in the precision of their own slices, whatever the others do; a unit each.
        methods: of the root, which are forwards as well.
    """
    lowered = MixedPrecisionPolicy(param_dtype=sharding.param_dtype, reduce_dtype=torch.float32)
    policy = lowered if sharding.param_dtype else MixedPrecisionPolicy()
    offload = CPUOffloadPolicy() if sharding.cpu_offload else OffloadPolicy()
    again = sharding.reshard_after_forward
    for module in exact:
        plain = MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(module, mesh=sharding.mesh, mp_policy=plain, offload_policy=offload, reshard_after_forward=again)
    for layer in layers:
        fully_shard(layer, mesh=sharding.mesh, mp_policy=policy, offload_policy=offload, reshard_after_forward=again)
    # the root's parameters are wanted again at once in the backward
    fully_shard(root, mesh=sharding.mesh, mp_policy=policy, offload_policy=offload)
    for method in methods:
        register_fsdp_forward_method(root, method)


def is_sharded(model: nn.Module) -> bool:
    """Whether any part of it is."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def reshard(model: nn.Module) -> None:
    """Give up what a forward left whole: the root stays so for the backward, which may not follow."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def whole(*models: nn.Module) -> Iterator[None]:
    """Within it models are as if they had never been sharded: no forward waits for another rank. Collective.

    Ranks generate different numbers of tokens. So every unit is made whole at once, and its hooks rest; that needs
    room for all of a model. Nothing is trained within.
    """
    units = [module for model in models for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
    hooks = [(unit, unit._forward_pre_hooks, unit._forward_hooks) for unit in units]
    try:
        for unit in units:
            unit._forward_pre_hooks, unit._forward_hooks = type(unit._forward_pre_hooks)(), type(unit._forward_hooks)()
        yield
    finally:
        for unit, before, after in hooks:
            unit._forward_pre_hooks, unit._forward_hooks = before, after
            unit.reshard()


@torch.no_grad()
def fill(model: nn.Module, make: Callable[[], nn.Module], *, device: torch.device) -> None:
    """Give a sharded model its numbers: rank 0 makes it whole in its own memory, the others get their slices.

    Collective. Of all ranks together there is one whole model, in rank 0's host memory, and while a tensor is dealt
    out, that tensor. Buffers are copied as well, also those that no checkpoint holds: rotary frequencies come
    from an architecture's constructor, which gives nothing on the ``meta`` device.

    Args:
        model: sharded, on the ``meta`` device.
        make: gives the same model with its weights; called on rank 0 alone, and what it raises all raise.
        device: where slices shall lie.

    Raises:
        ValueError: if the two models are not the same.
        OSError: if there is nothing to read.
    """
    model.to_empty(device=device)
    source: Tensors = together(lambda: _tensors_of(make(), model) if rank() == 0 else {}, ValueError, OSError)
    for name, target in _named_tensors(model).items():
        deal(source.pop(name, None), target)
    left = [name for name, tensor in _named_tensors(model).items() if tensor.is_meta]
    if left:
        raise ValueError(f"{', '.join(left)}: still without numbers after loading")


def deal(source: Tensor | None, target: Tensor) -> None:
    """Copy rank 0's whole tensor into everybody's slice of it; the others give None. Collective."""
    if not isinstance(target, DTensor):
        held = torch.empty_like(target) if source is None else source.to(target)
        torch.distributed.broadcast(held, src=0)
        target.copy_(held)
        return
    device = torch.device(target.device_mesh.device_type, torch.cuda.current_device()) if _on_gpu(target) else "cpu"
    like = torch.empty(target.shape, dtype=target.dtype, device=device)
    held = like if source is None else source.to(like)
    dealt = distribute_tensor(held, target.device_mesh, target.placements, src_data_rank=0)
    target.to_local().copy_(dealt.to_local())


def _on_gpu(target: DTensor) -> bool:
    return target.device_mesh.device_type == "cuda"


def _named_tensors(model: nn.Module) -> Tensors:
    """Parameters and buffers, tied ones once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _tensors_of(source: nn.Module, model: nn.Module) -> Tensors:
    """The tensors of ``source`` that ``model`` needs.

    Raises:
        ValueError: if they are not just those, in shape too.
    """
    have, need = _named_tensors(source), _named_tensors(model)
    wrong = [name for name in need if name not in have or have[name].shape != need[name].shape]
    wrong += [name for name in have if name not in need]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: the weights are of another architecture than the model")
    return {name: tensor.detach() for name, tensor in have.items()}
