"""Tensors of models and optimizers by name, so that another layout or another strategy finds them.

torch numbers an optimizer's states by the order of its parameters; here they are named after the parameters:
``optimizer0.policy.model.layers.0.mlp.up_proj.weight.exp_avg``. How many states there are, and of which shapes, is the
optimizer's business: one with as many rows as its parameter is sharded as the parameter is, any other is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor import empty as sharded_empty
from torch.optim import Optimizer


class Source(Protocol):
    """Where stored tensors come from."""

    @property
    def tensors(self) -> Mapping[str, tuple[Sequence[int], torch.dtype]]:
        """Shape and dtype of every whole tensor, by name."""
        ...

    def read(self, targets: dict[str, Tensor]) -> None:
        """Fill tensors with what was stored under their names."""
        ...


class WholeTensors:
    """A source of tensors that are in memory already: those of a checkpoint that is one file."""

    def __init__(self, whole: Mapping[str, Tensor]) -> None:
        self.whole = whole
        self.tensors = {name: (tensor.shape, tensor.dtype) for name, tensor in whole.items()}

    @torch.no_grad()
    def read(self, targets: dict[str, Tensor]) -> None:
        """Every rank takes its part of what it has whole."""
        for name, target in targets.items():
            stored = self.whole[name]
            if isinstance(target, DTensor):
                on_device = stored.to(target.to_local().device)
                # no rank sends anything: all have read the same file
                stored = distribute_tensor(on_device, target.device_mesh, target.placements, src_data_rank=None)
            target.copy_(stored)


def once(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors among the values, tied ones once, under their first name."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue
        local = _local(tensor)
        place = (local.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if local.numel() == 0 or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept


def read_model(module: nn.Module, source: Source, *, strict: bool) -> None:
    """Fill a module's state.

    Args:
        module: whose tensors are filled where they are.
        source: has them under ``model.<name>``.
        strict: whether each has to be there, and nothing else.

    Raises:
        RuntimeError: names what is missing, or not wanted.
    """
    state = module.state_dict()
    targets = {f"model.{name}": tensor for name, tensor in once(state).items()}
    stored = {name for name in source.tensors if name.startswith("model.")}
    missing = sorted(targets.keys() - stored)
    foreign = sorted(stored - {f"model.{name}" for name in state})
    if strict and (missing or foreign):
        raise RuntimeError(
            f"model: the checkpoint is of another one; it lacks {missing or 'nothing'} and has {foreign or 'nothing'} "
            "besides"
        )
    source.read({name: tensor for name, tensor in targets.items() if name in stored})


def named_optimizer(optimizer: Optimizer, module: nn.Module, place: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's tensors by name, and whatever else its state holds.

    Args:
        optimizer: over parameters of the module.
        module: names the parameters.
        place: of the optimizer among the module's optimizers.
    """
    return name_state(optimizer.state_dict(), parameter_names(optimizer, module), place)


def name_state(state: Mapping[str, Any], names: Sequence[str], place: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """See :func:`named_optimizer`; of an optimizer's ``state_dict()``."""
    tensors: dict[str, Tensor] = {}
    others: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        name = names[index]
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[_key(place, name, key)] = value
            else:
                others.setdefault(name, {})[key] = value
    groups = [{**group, "params": [names[index] for index in group["params"]]} for group in state["param_groups"]]
    return tensors, {"others": others, "param_groups": groups}


def read_optimizer(
    optimizer: Optimizer, module: nn.Module, place: int, said: Mapping[str, Any], source: Source
) -> None:
    """Give an optimizer the state that :func:`named_optimizer` took apart.

    Raises:
        ValueError: if it was another optimizer's.
    """
    names = parameter_names(optimizer, module)
    if [name for group in said["param_groups"] for name in group["params"]] != names:
        raise ValueError("optim: the checkpoint's optimizer has other parameters; resume with the settings of then")
    targets = _targets(dict(zip(names, _parameters(optimizer), strict=True)), place, source)
    source.read(targets)
    state: dict[int, dict[str, Any]] = {}
    for index, name in enumerate(names):
        prefix = _key(place, name, "")
        values = {key.removeprefix(prefix): tensor for key, tensor in targets.items() if key.startswith(prefix)}
        if values := values | said["others"].get(name, {}):
            state[index] = values
    numbers = {name: index for index, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in said["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _targets(parameters: Mapping[str, Tensor], place: int, source: Source) -> dict[str, Tensor]:
    """Room for every stored state of these parameters."""
    by_prefix = {_key(place, name, ""): parameter for name, parameter in parameters.items()}
    targets = {}
    for key, (shape, dtype) in source.tensors.items():
        parameter = by_prefix.get(key[: key.rfind(".") + 1])
        if parameter is not None:
            targets[key] = _room_beside(parameter, shape, dtype)
    return targets


def _room_beside(parameter: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if isinstance(parameter, DTensor) and shape and shape[0] == parameter.shape[0]:
        return sharded_empty(
            *shape, dtype=dtype, device_mesh=parameter.device_mesh, placements=list(parameter.placements)
        )
    device = _local(parameter).device if shape else "cpu"  # counts of steps: torch puts them where it wants them
    return torch.empty(tuple(shape), dtype=dtype, device=device)


class HostCopies:
    """Copies of tensors in the host's memory, for whoever writes them while training goes on.

    Memory that is pinned takes long to get, so that it is kept from one copy to the next.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies with the same names and layouts; overwritten by the next call."""
        copies = {}
        for name, tensor in tensors.items():
            local = _local(tensor)
            buffer = self._buffers.get(name)
            if buffer is None or (buffer.shape, buffer.dtype) != (local.shape, local.dtype):
                buffer = torch.empty(local.shape, dtype=local.dtype, pin_memory=local.is_cuda)
            self._buffers[name] = buffer.copy_(local, non_blocking=True)
            # from_local would move it back to the mesh's device
            copies[name] = DTensor(buffer, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else buffer
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._buffers = {name: self._buffers[name] for name in tensors}
        return copies


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _key(place: int, name: str, key: str) -> str:
    return f"optimizer{place}.{name}.{key}"


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """In the order in which torch numbers them."""
    for group in optimizer.param_groups:
        yield from group["params"]


def parameter_names(optimizer: Optimizer, module: nn.Module) -> list[str]:
    """Of an optimizer's parameters, in the order in which torch numbers them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for parameter in _parameters(optimizer)]
