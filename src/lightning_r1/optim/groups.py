"""What every AdamW here is asked: its options, which parameters train, and how torch numbers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from torch import nn
from torch.optim import Optimizer


def check_options(
    *, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, master_weights: str
) -> None:
    """Refuse what no AdamW can do.

    Raises:
        ValueError: names the key, its value and what is expected.
    """
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if value < 0:
            raise ValueError(f"optim.{name}={value}: expected >= 0")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optim.betas={betas}: expected both in [0, 1)")
    if master_weights not in ("auto", "off"):
        raise ValueError(f"optim.master_weights={master_weights!r}: expected auto or off")


def training(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, nn.Parameter]:
    """The parameters that train, by name.

    Raises:
        ValueError: if there are none.
    """
    found = {name: parameter for name, parameter in named_parameters if parameter.requires_grad}
    if not found:
        raise ValueError("model: no parameter requires a gradient, so nothing would be trained")
    return found


def parameters_of(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """In the order in which torch numbers them."""
    return chain.from_iterable(group["params"] for group in optimizer.param_groups)


def numbered(state_dict: Mapping[str, Any], optimizer: Optimizer) -> Iterator[tuple[int, nn.Parameter]]:
    """An optimizer's parameters with the numbers under which a ``state_dict`` holds their states."""
    saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    return zip(saved, parameters_of(optimizer), strict=False)  # torch refuses another number of them
