"""What an adapted or quantised model is worth as a plain one: merged weights, by their checkpoint names.

The training weights are not touched. A tensor is made when it is asked for, so that no second model stands in memory
unless somebody keeps them all.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PretrainedConfig, PreTrainedModel

from lightning_r1.models.adapter import adapted_layers, is_adapters, trained_pair

# what bitsandbytes stores beside a weight in four bits
_CODES = re.compile(r"\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+)$")


def plain_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as in a checkpoint of the plain model; tied ones once, under their first name.

    Adapters are merged in float32 (float64 where the model is), weights in four bits dequantised. Sharded tensors are
    made whole one at a time, which is collective: every rank has to go through them.
    """
    adapted = dict(adapted_layers(model))
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen or is_adapters(name) or _CODES.search(name):
            continue
        seen.add(id(tensor))
        owner, _, kind = name.rpartition(".")
        layer = adapted.get(owner.removesuffix(".base_layer"))
        if layer is None:
            yield name, _values(tensor)
        else:
            yield f"{owner.removesuffix('.base_layer')}.{kind}", merged(layer) if kind == "weight" else _values(tensor)


def typed(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """:func:`plain_weights` with parameters in ``dtype``.

    Buffers are not cast: where a model keeps numbers in one, it needs them as they are.
    """
    buffers = {name for name, _ in model.named_buffers()}
    for name, tensor in plain_weights(model):
        yield name, tensor.to(dtype) if name not in buffers and tensor.is_floating_point() else tensor


def merged(layer: Any) -> Tensor:
    """The weight of an adapted layer with its adapter, in the layout of the base's."""
    low, high, scaling = trained_pair(layer)
    weight = _values(layer.base_layer.weight)
    wide = torch.promote_types(weight.dtype, torch.float32)
    added = scaling * (_values(high).to(wide) @ _values(low).to(wide))
    return weight.to(wide) + (added.t() if layer.fan_in_fan_out else added)


def _values(tensor: Tensor) -> Tensor:
    return dequantised(tensor) if getattr(tensor, "quant_state", None) is not None else as_whole(tensor)


def as_whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered, which is collective; any other as it is."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def dequantised(weight: Any) -> Tensor:
    """What four bits stand for, in the type of the model."""
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def plain_config(model: PreTrainedModel) -> PretrainedConfig:
    """The config of the plain model, which is not quantised; a copy."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def plain_shell(model: PreTrainedModel) -> PreTrainedModel:
    """The plain model without its weights: what writes them to a folder."""
    with torch.device("meta"):
        shell: Any = type(model)(plain_config(model))
    shell.to(model.dtype)
    shell.generation_config = model.generation_config
    return shell
