"""AdamW for weights that are not float32: it steps on float32 copies of them, and hands the rounded ones back.

A bfloat16 number has 8 significant bits. A step of 1e-6 on a weight of 0.02 is far below the distance to the next one
(6e-5), so that it would be rounded away, every time. The *masters* keep what rounding would lose; they are part of the
optimizer's state, and of every checkpoint. Gradients of several micro-batches are added up in float32 as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


class MasterAdamW(AdamW):
    """torch's AdamW over float32 masters.

    Args:
        groups: of parameters, as torch's optimizers take them; those that are float32 are their own masters.
        options: of torch's AdamW.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **options: Any) -> None:
        self.masters: dict[nn.Parameter, nn.Parameter] = {}
        mastered = [{**group, "params": [self._master(parameter) for parameter in group["params"]]} for group in groups]
        super().__init__(mastered, **options)

    def _master(self, parameter: nn.Parameter) -> nn.Parameter:
        if not needs_master(parameter):
            return parameter
        self.masters[parameter] = nn.Parameter(parameter.detach().float())
        return self.masters[parameter]

    @torch.no_grad()
    def collect(self) -> None:
        """Add the parameters' gradients to their masters' and forget them: once after each backward."""
        for parameter, master in self.masters.items():
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step on the masters, then the parameters are the masters rounded."""
        self.collect()
        out = super().step(closure)
        self._round()
        return out

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self.masters.items():
            parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of masters and parameters."""
        super().zero_grad(set_to_none)
        for parameter in self.masters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with the masters."""
        return super().state_dict() | {"masters": [master.detach() for master in self.masters.values()]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave; without masters, they are the parameters as they are now."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "masters"})
        values: list[Tensor] = state_dict.get("masters") or list(self.masters)
        for master, value in zip(self.masters.values(), values, strict=True):
            master.copy_(value)
        self._round()


def needs_master(parameter: Tensor) -> bool:
    """Whether steps would be rounded to fewer bits than float32 has."""
    return parameter.is_floating_point() and parameter.element_size() < 4


def has_masters(optimizer: Optimizer) -> bool:
    """Whether it steps on masters."""
    return isinstance(optimizer, MasterAdamW)


def collect_gradients(optimizer: Optimizer) -> None:
    """Called after each backward: gradients of few bits are added up in float32."""
    if isinstance(optimizer, MasterAdamW):
        optimizer.collect()


def stepped_on(optimizer: Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """Whose gradient the optimizer reads: the parameter's master, or itself."""
    return optimizer.masters.get(parameter, parameter) if isinstance(optimizer, MasterAdamW) else parameter
