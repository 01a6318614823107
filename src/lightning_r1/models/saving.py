"""Memory for time in the backward, and time for compiling: what a training forward keeps, and how its layers run.

*Activation checkpointing* keeps each decoder layer's input alone and computes the rest again in the backward;
*offload* keeps that input in the host's memory (pinned, where there is a GPU). *Compiled* layers run through
``torch.compile`` in training only: a rollout's cache has other shapes at every token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lightning_r1.models.packed import same_packing

Checkpointing = Literal[False, True, "offload"]


def checkpoint_activations(model: PreTrainedModel, kind: Checkpointing) -> None:
    """Let every decoder layer keep its input only.

    Args:
        model: in training mode later; in evaluation mode nothing is kept anyway.
        kind: False leaves the model as it is; ``offload`` also moves the inputs to the host.

    Raises:
        ValueError: for an unknown kind, and an architecture that cannot.
    """
    if kind not in (False, True, "offload"):
        raise ValueError(f"model.activation_checkpointing={kind!r}: expected false, true or offload")
    if not kind:
        return
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            f"model.activation_checkpointing={str(kind).lower()}: model_type={model.config.model_type!r} has no "
            "layers that can be computed again; set it to false"
        )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            vars(module)["_gradient_checkpointing_func"] = _offloaded if kind == "offload" else _recomputed


def _recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    # the backward runs when the packed row's attention has been taken back
    again = same_packing()
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))


def _offloaded(function: Callable[..., Any], *arguments: Any) -> Any:
    with save_on_cpu(pin_memory=torch.cuda.is_available()):
        return _recomputed(function, *arguments)


class CompiledLayers:
    """Decoder layers that run compiled within :meth:`running`; compiled at first use."""

    def __init__(self) -> None:
        self._compiled: dict[nn.Module, Callable[..., Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledLayers:
        """Of another model: what is compiled belongs to these layers."""
        return CompiledLayers()

    @contextmanager
    def running(self, model: nn.Module) -> Iterator[None]:
        """Within it the model's layers are compiled."""
        layers = next((part for part in model.modules() if isinstance(part, nn.ModuleList)), nn.ModuleList())
        for layer in layers:
            if layer not in self._compiled:
                self._compiled[layer] = torch.compile(layer._call_impl, dynamic=True)
            layer._compiled_call_impl = self._compiled[layer]
        try:
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
