"""How much memory a step will need, before there are weights.

Nothing is calculated from a formula of an architecture: the model is built from its config with *fake* tensors,
which have a shape and no contents (torch's ``FakeTensorMode``), and the very forward and backward of the trainer
run on them, while every storage that is born and dies is counted. What autograd keeps, what a kernel needs for a
moment, what checkpointing saves: all of it is in the peak, for any architecture, in a second or two.

Only what is spread over ranks is arithmetic: :func:`on_ranks`.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from lightning_r1.functional import selected_logprobs
from lightning_r1.models.attention import decoding_attention
from lightning_r1.models.cache import RolloutCache, cache_layers
from lightning_r1.models.lean import LeanStep, can_be_lean
from lightning_r1.models.policy import Policy

Sharing = Literal["single", "ddp", "fsdp"]

# bitsandbytes: a tensor with fewer entries keeps 32-bit states; the others one byte an entry and a maximum a block
_SMALLEST_8BIT, _BLOCK = 4096, 256
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
    """Of weights that have fewer bits than float32."""

    @property
    def masters(self) -> int:
        """Of a float32 copy of those."""
        return 2 * self.low

    @property
    def mastered_states(self) -> int:
        """Of the optimizer that steps on masters: they, and two averages in float32."""
        return self.states[32] - 2 * self.low + 3 * self.masters


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    frozen: int
    """Other models: reference, teacher, reward models."""
    activations: int
    """Above all this at the peak of an update."""
    rollout: int
    """Above all this at the peak of a rollout: the cache, and what decoding needs for a moment."""
    exchange: int = 0
    """Buffers in which ranks exchange gradients, and whole layers of sharded weights."""

    @property
    def standing(self) -> int:
        """What is there all the time: the gradients of an update stay until the next one begins."""
        return self.weights + self.gradients + self.optimizer + self.frozen

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


def model_size(model: nn.Module) -> ModelSize:
    """Count a model's parameters, of any device: ``meta`` will do."""
    parameters = list(model.parameters())
    layers = next((part for part in model.modules() if isinstance(part, nn.ModuleList)), nn.ModuleList())
    sizes = [sum(map(_bytes, layer.parameters())) for layer in layers]
    weights = sum(map(_bytes, parameters))
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in parameters),
        weights=weights,
        layer=max(sizes, default=0),
        outside=weights - sum(sizes),
        low=sum(_bytes(parameter) for parameter in parameters if parameter.element_size() == 2),
        states={
            32: 2 * weights,
            8: sum(2 * _eight_bit(parameter) for parameter in parameters),
        },
    )


def update_peak(
    config: PretrainedConfig,
    *,
    rows: int,
    length: int,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    checkpointing: bool = False,
    accumulates: bool = False,
    head: bool = True,
) -> int:
    """Peak of forward and backward of the largest micro-batch, above weights and gradients, in bytes.

    Args:
        config: of the model, with the attention that will be used.
        rows: of the micro-batch, padded to ``length`` tokens.
        length: see ``rows``.
        dtype: of the weights.
        autocast: to this type, with mixed precision.
        checkpointing: keep a layer's input only, and compute the rest again in the backward.
        accumulates: whether an update has several micro-batches, so that there are gradients before.
        head: whether every token's log-probability is computed (a reward model has no such head).
    """
    with _counted() as memory:
        policy = Policy(_build(config, dtype)).train()
        if checkpointing:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        built, gradients = memory.now, sum(map(_bytes, policy.parameters()))
        if accumulates:
            for parameter in policy.parameters():
                parameter.grad = torch.empty_like(parameter)
        memory.peak = memory.now
        ids = torch.zeros(rows, length, dtype=torch.long)
        with torch.autocast("cpu", autocast) if autocast else nullcontext():
            hidden = policy.hidden_states(ids).flatten(0, 1)
            if head:
                weight = policy.model.get_output_embeddings().weight
                score = selected_logprobs(hidden, weight, ids.flatten(), **_cap(policy))[0].sum()
            else:
                score = hidden.float().sum()
        del hidden
        score.backward()
        return max(0, memory.peak - built - gradients)


def rollout_peak(
    config: PretrainedConfig,
    *,
    prompts: int,
    group_size: int,
    prompt_tokens: int,
    new_tokens: int,
    sample: Callable[[Tensor], object],
    dtype: torch.dtype = torch.float32,
    on_cpu: bool = False,
) -> int:
    """Peak of a batch of groups that all run to the token limit, above the weights, in bytes.

    Args:
        config: of the model, with the attention that will be used.
        prompts: decoded together.
        group_size: G.
        prompt_tokens: of the longest prompt.
        new_tokens: the limit.
        sample: draws a token a row from logits ``[N, V]``; its copies of them count too.
        dtype: of the weights.
        on_cpu: whether the engine decodes on a CPU, where it has an attention of its own.
    """
    with _counted() as memory, torch.no_grad():
        model = _build(config, dtype).eval()
        standing = memory.now
        total = prompts * group_size
        cache = RolloutCache(cache_layers(model), rows=total, columns=prompt_tokens + new_tokens)
        # what the engine notes of every token: the draw, the token, its log-probability
        notes = torch.empty(total, new_tokens, 20, dtype=torch.uint8)
        prefilled = DynamicCache()
        sample(_next_logits(model, prefilled, torch.zeros(prompts, prompt_tokens, dtype=torch.long)))
        cache.admit(torch.arange(total), prefilled, group_size)
        del prefilled
        cache.set_lengths([prompt_tokens + new_tokens - 1] * total)
        if on_cpu and can_be_lean(model):
            sample(LeanStep(model, cache)(torch.zeros(total, dtype=torch.long)))
        else:
            with decoding_attention(model) if on_cpu else nullcontext():
                sample(_next_logits(model, cache, torch.zeros(total, 1, dtype=torch.long)))
        del notes
        return memory.peak - standing


def on_ranks(one: Footprint, size: ModelSize, sharing: Sharing, ranks: int) -> Footprint:
    """What each of several ranks holds of what one device would.

    Args:
        one: on a single device.
        size: of the model.
        sharing: how the ranks share the model.
        ranks: W. The micro-batch and the rollout of ``one`` are those of a rank already.
    """
    if sharing == "single" or ranks == 1:
        return one
    if sharing == "ddp":
        return replace(one, exchange=one.gradients)  # the buckets that are reduced are copies
    whole = size.outside + _WHOLE_LAYERS * size.layer  # weights of the layers at work, and as many gradients
    return replace(
        one,
        weights=math.ceil(one.weights / ranks),
        gradients=math.ceil(one.gradients / ranks),
        optimizer=math.ceil(one.optimizer / ranks),
        frozen=math.ceil(one.frozen / ranks),
        exchange=2 * whole,
        rollout=one.rollout + one.weights,  # an engine in process samples from whole weights
    )


def _next_logits(model: PreTrainedModel, cache: Cache, ids: Tensor) -> Tensor:
    return model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]


def _build(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    # flash attention needs a GPU; torch's kernel keeps as much: queries, keys, values, outputs, and a sum a row
    kept = "sdpa" if "flash" in str(config._attn_implementation) else config._attn_implementation or "sdpa"
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, attn_implementation=kept)


def _cap(policy: Policy) -> dict[str, Any]:
    bias = getattr(policy.model.get_output_embeddings(), "bias", None)
    return {"bias": bias, "softcap": policy.softcap, "scale": policy.scale}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _eight_bit(parameter: Tensor) -> int:
    """Bytes of one average."""
    if parameter.numel() < _SMALLEST_8BIT:
        return 4 * parameter.numel()
    return parameter.numel() + 4 * math.ceil(parameter.numel() / _BLOCK)


class _Counter(TorchDispatchMode):
    """Bytes of all storages alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key)


@contextmanager
def _counted() -> Iterator[_Counter]:
    """Within it tensors are fake, and counted."""
    counter = _Counter()
    with torch.random.fork_rng(devices=[]), FakeTensorMode(), counter:
        yield counter
