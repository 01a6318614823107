"""Bytes that stand on a device while a model is trained: counted of a model's parameters, shared over ranks.

What a forward, a backward and a rollout need above them is measured, see :mod:`lightning_r1.models.memory_estimate`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from lightning_r1.models.adapter import adapted_layers

Sharing = Literal["single", "ddp", "fsdp"]
Adapter = Literal["none", "lora", "qlora"]

# 8-bit AdamW: vectors, small matrices and embeddings keep averages of 32 bits; the others have one byte an entry, and a
# maximum for every block of a row
_SMALLEST_8BIT, _BLOCK = 4096, 256
# QLoRA (arXiv 2305.14314, section 3): half a byte an entry, an 8-bit maximum for every 64 of them, and a float32 for
# every 256 maxima
_BYTES_4BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
# sharded layers that are whole at the same time: the one at work and the one fetched ahead
_WHOLE_LAYERS = 2


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Bytes of a model's parameters: of all, of the largest decoder layer, and of what is in none."""

    parameters: int
    """Their number, not bytes."""
    weights: int
    layer: int
    outside: int
    """Embeddings, head and last norm."""
    states: dict[int, int]
    """Of AdamW's two averages, by bits: 32 (in the weights' own type) and 8."""
    low: int = 0
    """Of trained weights that have fewer bits than float32."""
    trained: int | None = None
    """Of weights that get a gradient; None: all do."""
    matrices: tuple[tuple[int, int, int], ...] = ()
    """Rows and columns of the matrices in decoder layers, which adapters stand beside, and how many there are."""

    @property
    def gradients(self) -> int:
        """Of the trained weights, in their own type."""
        return self.weights if self.trained is None else self.trained

    @property
    def masters(self) -> int:
        """Of a float32 copy of those with fewer bits."""
        return 2 * self.low

    def optimizer(self, bits: int, *, masters: bool) -> int:
        """Of AdamW's averages, and of the masters that it steps on.

        Args:
            bits: of the averages, 32 or 8.
            masters: whether it steps on float32 copies; averages of 32 bits are in float32 then.
        """
        if not masters:
            return self.states[bits]
        return self.masters + (self.states[8] if bits == 8 else self.states[32] - 2 * self.low + 2 * self.masters)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    frozen: int
    """Other models that ranks share as they share the policy: reference and teacher."""
    activations: int
    """Above all this at the peak of an update."""
    rollout: int
    """Above all this at the peak of a rollout: the cache, and what decoding needs for a moment."""
    exchange: int = 0
    """Buffers in which ranks exchange gradients, and whole layers of sharded weights."""
    whole: int = 0
    """Other models that each rank has for itself: reward models, and the copy that samples beside an update."""

    @property
    def standing(self) -> int:
        """What is there all the time: the gradients of an update stay until the next one begins."""
        return self.weights + self.gradients + self.optimizer + self.frozen + self.whole

    @property
    def update(self) -> int:
        """Peak of an update."""
        return self.standing + self.exchange + self.activations

    @property
    def sampling(self) -> int:
        """Peak of a rollout."""
        return self.standing + self.rollout

    @property
    def peak(self) -> int:
        """The larger of the two."""
        return max(self.update, self.sampling)


def model_size(model: nn.Module, *, four_bit: bool = False) -> ModelSize:
    """Count a model's parameters, of any device: ``meta`` will do.

    Args:
        model: any.
        four_bit: its adapters will stand on weights in four bits, which a model without weights is not stored in.
    """
    parameters = list(model.parameters())
    coded = {id(layer.base_layer.weight) for _, layer in adapted_layers(model)} if four_bit else set()

    def held(part: Iterable[Tensor]) -> int:
        return round(sum(p.numel() * _BYTES_4BIT if id(p) in coded else _bytes(p) for p in part))

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    layers = next((part for part in model.modules() if isinstance(part, nn.ModuleList)), nn.ModuleList())
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    sizes = [held(layer.parameters()) for layer in layers]
    weights = held(parameters)
    matrices = Counter((int(one.shape[0]), int(one.shape[1])) for one in layers.parameters() if one.ndim == 2)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in parameters),
        weights=weights,
        layer=max(sizes, default=0),
        outside=weights - sum(sizes),
        low=sum(_bytes(parameter) for parameter in trained if parameter.element_size() == 2),
        trained=sum(map(_bytes, trained)),
        states={
            32: 2 * sum(map(_bytes, trained)),
            8: sum(2 * _eight_bit(weight.shape, id(weight) not in embeddings) for weight in trained),
        },
        matrices=tuple((*shape, count) for shape, count in matrices.items()),
    )


def with_adapter(size: ModelSize, kind: Adapter, rank: int) -> ModelSize:
    """The same model, frozen, with a pair of factors of its own type beside every matrix of its layers.

    Args:
        size: of the model without adapters.
        kind: ``lora`` leaves the weights as they are, ``qlora`` has the matrices in 4 bits.
        rank: of the factors.
    """
    if kind == "none":
        return size
    entries = sum(rows * columns * count for rows, columns, count in size.matrices)
    factors = [(shape, count) for rows, columns, count in size.matrices for shape in ((rank, columns), (rows, rank))]
    number = sum(math.prod(shape) * count for shape, count in factors)
    layers, each = size.weights - size.outside, size.weights / size.parameters
    added = round(each * number)
    # what a matrix loses in 4 bits, of the type that the weights have
    saved = round(entries * (each - _BYTES_4BIT)) if kind == "qlora" else 0
    return replace(
        size,
        parameters=size.parameters + number,
        weights=size.weights - saved + added,
        layer=round(size.layer * (layers - saved + added) / layers),
        states={32: 2 * added, 8: sum(2 * _eight_bit(shape, True) * count for shape, count in factors)},
        low=added if each == 2 else 0,
        trained=added,
    )


def on_ranks(one: Footprint, size: ModelSize, sharing: Sharing, ranks: int, *, gathered: float = 1.0) -> Footprint:
    """What each of several ranks holds of what one device would.

    Args:
        one: on a single device.
        size: of the model.
        sharing: how the ranks share the model.
        ranks: W. The micro-batch and the rollout of ``one`` are those of a rank already.
        gathered: bytes of a gathered weight for each of a sharded one: 0.5 where they are gathered in bfloat16.
    """
    if sharing == "single" or ranks == 1:
        return one
    if sharing == "ddp":
        return replace(one, exchange=one.gradients)  # the buckets that are reduced are copies
    # the layers at work are whole; and so is a layer's gradient, beside the copy in which it is reduced
    share = size.gradients / size.weights
    layers = gathered * (size.outside + _WHOLE_LAYERS * size.layer) + share * (gathered + 1) * size.layer
    # behind the last layer, when its activations are gone, the same is true of what is in no layer
    outside = (gathered + share * (gathered + 1)) * size.outside
    return replace(
        one,
        weights=math.ceil(one.weights / ranks),
        gradients=math.ceil(one.gradients / ranks),
        optimizer=math.ceil(one.optimizer / ranks),
        frozen=math.ceil(one.frozen / ranks),
        exchange=math.ceil(max(layers, outside - one.activations)),
        # an engine in process samples from whole weights
        rollout=one.rollout and one.rollout + math.ceil(gathered * one.weights),
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _eight_bit(shape: Sequence[int], wanted: bool) -> int:
    """Bytes of one average."""
    entries = math.prod(shape)
    if not wanted or len(shape) < 2 or entries < _SMALLEST_8BIT:
        return 4 * entries
    rows = int(shape[0])
    return entries + 4 * rows * math.ceil(entries / rows / _BLOCK)
