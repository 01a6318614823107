"""For weights that are not float32: an optimizer steps on float32 copies of them, and hands the rounded ones back.

A bfloat16 number has 8 significant bits. A step of 1e-6 on a weight of 0.02 is far below the distance to the next one
(6e-5), so that it would be rounded away, every time. The *masters* keep what rounding would lose; they are part of the
optimizer's state, and of every checkpoint. Gradients of several micro-batches are added up in float32 as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_r1.optim.groups import numbered, parameters_of


class Masters(Optimizer):
    """A layer over an optimizer: ``class MasterAdamW(Masters, AdamW)``.

    Groups and state belong to the parameters, as in every optimizer: whoever looks parameters up by name, as
    ``torch.distributed.checkpoint`` does, finds them, with ``master`` beside the averages. Only within a call do the
    masters stand in their place. A parameter that is sharded (a DTensor) has a master that is sharded alike.

    Args:
        groups: of parameters, as torch's optimizers take them; those that are float32 are their own masters.
        options: of the optimizer below.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **options: Any) -> None:
        self.masters: dict[Tensor, nn.Parameter] = {}
        super().__init__([{**group, "params": list(map(self._master, group["params"]))} for group in groups], **options)
        self._replace(self._owners())

    def _master(self, parameter: nn.Parameter) -> nn.Parameter:
        if not needs_master(parameter):
            return parameter
        self.masters[parameter] = nn.Parameter(parameter.detach().float())
        return self.masters[parameter]

    def _owners(self) -> dict[Tensor, Tensor]:
        return {master: parameter for parameter, master in self.masters.items()}

    def _replace(self, others: Mapping[Any, Tensor]) -> None:
        """Put others in the place of parameters, in groups and state."""
        for group in self.param_groups:
            group["params"] = [others.get(parameter, parameter) for parameter in group["params"]]
        self.state = defaultdict(dict, {others.get(owner, owner): value for owner, value in self.state.items()})

    @contextmanager
    def _masters_in_place(self) -> Iterator[None]:
        self._replace(self.masters)
        try:
            yield
        finally:
            self._replace(self._owners())

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
        out = closure() if closure else None
        self.collect()
        with self._masters_in_place():
            super().step()
        self._round()
        return out

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self.masters.items():
            parameter.copy_(master)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of masters and parameters."""
        super().zero_grad(set_to_none)
        for master in self.masters.values():
            master.grad = None

    def state_dict(self) -> dict[str, Any]:
        """As the optimizer's below, with each parameter's ``master`` in its state."""
        out = super().state_dict()
        states = dict(out["state"])
        for index, parameter in enumerate(parameters_of(self)):
            if parameter in self.masters:
                states[index] = {**states.get(index, {}), "master": self.masters[parameter].detach()}
        return {**out, "state": states}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave; without masters, they are the parameters as they are now.

        Raises:
            ValueError: for masters as they were kept once, beside the states: without them, training would go on from
                rounded weights.
        """
        if "masters" in state_dict:
            raise ValueError(
                "this checkpoint keeps its float32 masters in an older form: start from its exported model"
            )
        states = {index: dict(state) for index, state in state_dict["state"].items()}
        for index, parameter in numbered(state_dict, self):
            if parameter in self.masters:
                self.masters[parameter].copy_(states.get(index, {}).pop("master", parameter))
        kept = {index: state for index, state in states.items() if state}
        with self._masters_in_place():  # averages are loaded in the type of what they belong to
            super().load_state_dict({**state_dict, "state": kept})
        self._round()


class MasterAdamW(Masters, AdamW):
    """torch's AdamW over float32 masters."""


def needs_master(parameter: Tensor) -> bool:
    """Whether steps would be rounded to fewer bits than float32 has."""
    return parameter.is_floating_point() and parameter.element_size() < 4


def has_masters(optimizer: Optimizer) -> bool:
    """Whether it steps on masters."""
    return isinstance(optimizer, Masters)


def collect_gradients(optimizer: Optimizer) -> None:
    """Called after each backward: gradients of few bits are added up in float32."""
    if isinstance(optimizer, Masters):
        optimizer.collect()


def stepped_on(optimizer: Optimizer, parameter: nn.Parameter) -> nn.Parameter:
    """Whose gradient the optimizer reads: the parameter's master, or itself."""
    return optimizer.masters.get(parameter, parameter) if isinstance(optimizer, Masters) else parameter
