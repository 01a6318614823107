"""How much memory a step will need, before there are weights.

Nothing is calculated from a formula of an architecture: the model is built from its config with *fake* tensors,
which have a shape and no contents (torch's ``FakeTensorMode``), and the very forward and backward of the trainer
run on them, while every storage that is born and dies is counted. What autograd keeps, what a kernel needs for a
moment, what checkpointing saves: all of it is in the peak, for any architecture, in a second or two.

What stands all the time, and what ranks share, is arithmetic: :mod:`lightning_r1.models.footprint`.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache

from lightning_r1.functional import selected_logprobs
from lightning_r1.models.attention import decoding_attention
from lightning_r1.models.cache import RolloutCache, cache_layers
from lightning_r1.models.layout import Layout, pack
from lightning_r1.models.lean import LeanStep, can_be_lean
from lightning_r1.models.policy import Policy
from lightning_r1.models.saving import Checkpointing, checkpoint_activations

Arrangement = Literal["padded", "packed", "shared prefix"]


@dataclass(frozen=True, slots=True)
class Work:
    """The rows of a micro-batch, all alike."""

    rows: int
    prompt: int
    """Tokens, at least 1."""
    completion: int
    """Tokens; those that are learned from."""
    arrangement: Arrangement = "padded"
    """In a rectangle, one behind the other, or with the prompt of all computed once."""

    @property
    def tokens(self) -> int:
        """That the layers compute."""
        if self.arrangement == "shared prefix":
            return self.prompt + self.rows * self.completion
        return self.rows * (self.prompt + self.completion)


def update_peak(
    config: PretrainedConfig,
    work: Work,
    *,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    checkpointing: Checkpointing = False,
    accumulates: bool = False,
    head: bool = True,
    on_cpu: bool = False,
) -> int:
    """Peak of forward and backward of the largest micro-batch, above weights and gradients, in bytes.

    Args:
        config: of the model, with the attention that will be used.
        work: the micro-batch.
        dtype: of the weights.
        autocast: to this type, with mixed precision.
        checkpointing: keep a layer's input only, and compute the rest again in the backward; ``offload`` keeps it in
            the host's memory.
        accumulates: whether an update has several micro-batches, so that there are gradients before.
        head: whether completions' log-probabilities are computed (a reward model has no such head).
        on_cpu: whether the host's memory is the device's, so that offloading frees nothing.
    """
    layout = _layout(work, config)
    with _counted() as memory:
        policy = Policy(_build(config, dtype)).train()
        if checkpointing:
            checkpoint_activations(policy.model, True)
        built, gradients = memory.now, sum(map(_bytes, policy.parameters()))
        if accumulates:
            for parameter in policy.parameters():
                parameter.grad = torch.empty_like(parameter)
        memory.peak = memory.now
        with torch.autocast("cpu", autocast) if autocast else nullcontext():
            hidden = _hidden(policy, work, layout)
            if head:
                counted = torch.zeros(work.rows * work.completion, dtype=torch.long)
                weight = policy.model.get_output_embeddings().weight
                score = selected_logprobs(
                    hidden[counted], weight, counted, rehearsal=True, **_cap(policy)
                )[0].sum()  # fmt: skip
            else:
                score = hidden.float().sum()
        del hidden
        score.backward()
        peak = max(0, memory.peak - built - gradients)
    if checkpointing == "offload" and not on_cpu:
        # of the inputs, one layer's is on its way to the device while another's is at work
        peak -= kept_by_host(config, work, dtype, on_device=2)
    return peak


def deep_update_peak(config: PretrainedConfig, work: Work, **how: Any) -> int:
    """:func:`update_peak` with gradients that were there before, from one layer and from two.

    Every further layer keeps as much as the one before: for models whose layers are all alike, in a tenth of the time.

    Args:
        config: of the model.
        work: the micro-batch.
        how: as :func:`update_peak`.
    """
    checkpointing = bool(how.get("checkpointing"))
    shallow = {**how, "accumulates": True, "checkpointing": checkpointing}
    one, two = (update_peak(with_layers(config, layers), work, **shallow) for layers in (1, 2))
    peak = one + (config.num_hidden_layers - 1) * (two - one)
    if how.get("checkpointing") == "offload" and not how.get("on_cpu"):
        peak -= kept_by_host(config, work, how.get("dtype", torch.float32), on_device=2)
    return peak


def with_layers(config: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The same architecture with fewer layers."""
    shallow = copy.deepcopy(config)
    shallow.num_hidden_layers = layers
    if getattr(shallow, "layer_types", None):
        shallow.layer_types = shallow.layer_types[:layers]
    return shallow


def kept_by_host(config: PretrainedConfig, work: Work, dtype: torch.dtype, *, on_device: int = 0) -> int:
    """Bytes of the layers' inputs that offloading keeps in the host's memory, but for some that are on the device."""
    text = config.get_text_config(decoder=True)
    return max(0, text.num_hidden_layers - on_device) * work.tokens * text.hidden_size * dtype.itemsize


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


def _layout(work: Work, config: PretrainedConfig) -> Layout | None:
    """Where the rows stand; made of real tensors, for a layout depends on values."""
    if work.arrangement == "padded":
        return None
    shared = [0] * work.rows if work.arrangement == "shared prefix" else None
    layout = pack([work.prompt] * work.rows, [work.completion] * work.rows, shared)
    if "flash" in str(config._attn_implementation):
        for part in layout.parts:
            part.masks[None] = None  # type: ignore[assignment]  # flash attention knows who sees whom without a mask
    return layout


def _hidden(policy: Policy, work: Work, layout: Layout | None) -> Tensor:
    """Last hidden states, one behind the other."""
    if layout is None:
        ids = torch.zeros(work.rows, work.prompt + work.completion, dtype=torch.long)
        return policy.hidden_states(ids).flatten(0, 1)
    ids = torch.zeros(work.rows, work.prompt + work.completion, dtype=torch.long)
    return policy.packed_states(ids, layout)


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
    with torch.random.fork_rng(devices=[]), FakeTensorMode(allow_non_fake_inputs=True), counter:
        yield counter
