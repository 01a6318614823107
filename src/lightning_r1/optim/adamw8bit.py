"""AdamW with averages of 8 bits: a quarter of their memory, on one device, under DDP and under FSDP2.

Two averages in float32 are 8 bytes a parameter; in 8 bits they are 2, and 4 more bytes for each block of 256. Which
parameters have them is decided by the size of the whole parameter, not of a rank's shard: matrices of at least
``min_8bit_size`` entries. Vectors (norms, biases) have float32 averages, and so have embeddings unless said otherwise.

A sharded parameter (a DTensor, split by rows) is stepped on where it lies: every rank updates its own rows. A
checkpoint holds codes and maxima as they are, sharded like the parameter, and since no block reaches beyond a row
(:mod:`lightning_r1.optim.blocks`), a run resumed on any other number of ranks loads the same numbers, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.optim import Optimizer
from torch.optim.adamw import adamw as adamw_32bit

from lightning_r1.optim.blocks import CODES, QUANTISED, State, new_state, update
from lightning_r1.optim.groups import check_options, numbered, parameters_of, training
from lightning_r1.optim.master import Masters, needs_master

_EMBEDDING = re.compile(r"embed|(^|\.)w[tp]e\.")
_WORTH_A_PAGE = 100_000  # bytes; what is smaller moves more than it saves


class AdamW8bit(Optimizer):
    """AdamW whose groups say ``bits``: 8 or 32.

    State is made with the optimizer, so that a checkpoint can be loaded before the first step.

    Args:
        groups: of parameters, as torch's optimizers take them; a group with ``bits: 8`` has float parameters of two
            or more dimensions.
        lr: learning rate.
        betas: of the two averages.
        eps: in the denominator.
        paged: whether codes lie in CUDA's managed memory, which moves to the host when the device is full.

    Raises:
        ValueError: for a parameter that is sharded along another dimension than its rows, or with ``paged`` without
            CUDA.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        paged: bool = False,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "bits": 32})
        self.paged = paged
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = self._new_state(parameter, group["bits"])

    def _new_state(self, parameter: nn.Parameter, bits: int) -> State:
        local = _local(parameter.detach())
        if bits == 32:
            steps = torch.zeros((), device=local.device)  # where the fused kernel wants it
            return {"step": steps, "exp_avg": torch.zeros_like(local), "exp_avg_sq": torch.zeros_like(local)}
        if isinstance(parameter, DTensor) and any(p != Shard(0) and p != Replicate() for p in parameter.placements):
            raise ValueError(
                f"parallel: a parameter of shape {tuple(parameter.shape)} is placed as {parameter.placements}; "
                "optim=adamw8bit needs parameters that are sharded by rows"
            )
        if self.paged and local.device.type != "cuda":
            raise ValueError(f"optim.paged=true: pages are CUDA's, the model is on {local.device}; set it to false")
        return {"step": torch.zeros(()), **new_state(local)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step on every parameter that has a gradient."""
        out = None
        if closure is not None:
            with torch.enable_grad():
                out = closure()
        for group in self.param_groups:
            with_gradient = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._step_8bit if group["bits"] == 8 else self._step_32bit)(with_gradient, group)
        if self.paged:
            torch.cuda.synchronize()  # the host may read pages, for a checkpoint, as soon as this returns
        return out

    def _step_8bit(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if self.paged:
                _page(state)
            state["step"] += 1
            update(
                _local(parameter), _local(parameter.grad), state, step=int(state["step"]), lr=float(group["lr"]),
                betas=group["betas"], eps=group["eps"], weight_decay=group["weight_decay"],
            )  # fmt: skip

    def _step_32bit(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        adamw_32bit(
            [_local(parameter) for parameter in parameters],
            [_local(parameter.grad) for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], [],
            [state["step"] for state in states], fused=True, amsgrad=False, beta1=group["betas"][0],
            beta2=group["betas"][1], lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
            maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """As torch's; what belongs to a sharded parameter is sharded like it, and shares memory with the state."""
        out = super().state_dict()
        states = {
            index: {name: _placed(value, parameter) for name, value in self.state[parameter].items()}
            for index, parameter in enumerate(parameters_of(self))
        }
        return {**out, "state": states}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave, on this number of ranks or as ``torch.distributed.checkpoint`` resharded it.

        Raises:
            ValueError: if the state is another optimizer's, or of other parameters.
        """
        bits = [group["bits"] for group in self.param_groups]
        theirs = [group.get("bits", 32) for group in state_dict["param_groups"]]
        if bits != theirs:
            raise ValueError(
                f"optim: the checkpoint's groups have averages of {theirs} bits, this run's of {bits}; take the "
                "optim=, optim.min_8bit_size and optim.embeddings it was made with, or another name="
            )
        loaded = {parameter: state_dict["state"].get(index, {}) for index, parameter in numbered(state_dict, self)}
        held = dict(self.state)
        # without states: torch would convert codes and maxima to the parameter's type
        super().load_state_dict({**state_dict, "state": {}})
        self.state.update(held)
        for parameter, values in loaded.items():
            _load(held[parameter], values, parameter)


class MasterAdamW8bit(Masters, AdamW8bit):
    """The same over float32 masters."""


def adamw8bit(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    master_weights: Literal["auto", "off"] = "auto",
    min_8bit_size: int = 4096,
    embeddings: Literal[8, 32] = 32,
    paged: bool = False,
) -> Optimizer:
    """AdamW in 8 bits over the parameters that train.

    Args:
        named_parameters: of the policy.
        lr: peak learning rate.
        betas: of the two averages.
        eps: in the denominator.
        weight_decay: of matrices; vectors (norms, biases) have none.
        master_weights: auto keeps a float32 copy of weights that have fewer bits, see
            :mod:`lightning_r1.optim.master`; off lets most of a small step be rounded away.
        min_8bit_size: a matrix with fewer entries, over all ranks, keeps float32 averages.
        embeddings: bits of the averages of token embeddings. 32 as bitsandbytes recommends: frequent and rare tokens
            have gradients of very different size. Where they are the output head too (tied), they are a large part of
            a small model: 136 of the 494 million parameters of Qwen2.5-0.5B, 0.8 GB more than with 8.
        paged: lets codes move to the host where a CUDA device is full.

    Raises:
        ValueError: for a bad value, or if nothing trains.
    """
    check_options(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, master_weights=master_weights)
    if min_8bit_size < 0:
        raise ValueError(f"optim.min_8bit_size={min_8bit_size}: expected >= 0")
    if embeddings not in (8, 32):
        raise ValueError(f"optim.embeddings={embeddings}: expected 8 or 32")
    trained = training(named_parameters)
    bits = {
        name: averages_bits(name, p.shape, min_8bit_size=min_8bit_size, embeddings=embeddings)
        if p.dtype in (torch.float32, torch.bfloat16, torch.float16)
        else 32
        for name, p in trained.items()
    }
    groups = [
        {"params": [p for n, p in trained.items() if p.ndim >= 2 and bits[n] == 8], "bits": 8},
        {"params": [p for n, p in trained.items() if p.ndim >= 2 and bits[n] == 32], "bits": 32},
        {"params": [p for p in trained.values() if p.ndim < 2], "bits": 32, "weight_decay": 0.0},
    ]
    mastered = master_weights == "auto" and any(map(needs_master, trained.values()))
    return (MasterAdamW8bit if mastered else AdamW8bit)(
        [{"weight_decay": weight_decay, **group} for group in groups if group["params"]],
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        paged=paged,
    )


def averages_bits(name: str, shape: torch.Size, *, min_8bit_size: int = 4096, embeddings: int = 32) -> int:
    """Bits of the averages of a parameter of this name and whole shape: 8 or 32."""
    if len(shape) < 2 or shape.numel() < min_8bit_size:
        return 32
    return embeddings if _EMBEDDING.search(name) else 8


def _local(tensor: Tensor) -> Tensor:
    """This rank's rows; they share memory with the whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A state as part of a whole that is sharded like its parameter."""
    if not isinstance(parameter, DTensor) or value.ndim == 0:
        return value
    shape = torch.Size([parameter.shape[0], *value.shape[1:]])
    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(value, mesh, placements, run_check=False, shape=shape, stride=stride)


def _load(state: State, values: State, parameter: nn.Parameter) -> None:
    for name, target in state.items():
        value, expected = values.get(name), _placed(target, parameter)
        if value is None or _form(value) != _form(expected):
            raise ValueError(
                f"optim: the checkpoint's {name} of a parameter of shape {tuple(parameter.shape)} is "
                f"{'missing' if value is None else _form(value)}, expected {_form(expected)}; take the model, optim= "
                "and parallel= it was made with, or another name="
            )
        target.copy_(_local(value))


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}, of which {tuple(_local(tensor).shape)} here"


def _page(state: State) -> None:
    """Move codes to managed memory, where they are not there: new ones, and those that a loader moved."""
    from bitsandbytes.functional import get_paged

    for name in QUANTISED:
        codes = state[name]
        if name.endswith(CODES) and codes.is_cuda and codes.nbytes >= _WORTH_A_PAGE:
            pages = get_paged(*codes.shape, dtype=codes.dtype, device=codes.device)
            state[name] = pages.copy_(codes)
            state[name].is_paged = True  # type: ignore[attr-defined]
