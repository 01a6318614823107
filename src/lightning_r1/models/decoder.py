"""A policy that decodes: a prefill of whole prompts, then one token for every row of a cache at a time.

Any transformers decoder with a key-value cache goes through its own ``forward``; small ones of the common kind
go through :mod:`lightning_r1.models.lean`, because there the modules around the arithmetic would take longer than it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from lightning_r1.models.attention import decodes_with, decoding_attention
from lightning_r1.models.cache import RolloutCache, cache_layers
from lightning_r1.models.lean import LeanStep, can_be_lean
from lightning_r1.models.policy import Policy

# Tokens, padding included, that are prefilled together: enough to keep a GPU busy, few enough to bound the memory.
_PREFILL_TOKENS = 32768
# A compiled step is one program for each number of columns: they come in blocks, and in few of them.
_BLOCK, _MOST_BLOCKS = 128, 4


class Step(Protocol):
    """Logits ``[n, V]`` behind the tokens ``[n]`` that are written to the cache's live rows."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Feed one token a row."""
        ...


class Decoder:
    """Prefills and decodes with the policy's current weights, for one rollout.

    Args:
        policy: in evaluation mode.
        rows: decoded together at most.
        columns: tokens of the longest row.
        pad_id: fills what a prompt is shorter than its neighbours.
        ragged: whether rows may come to differ in length; they never do where the architecture insists on an attention
            of its own.
        lean: take the short way through small models of the common kind.
        compile: make one program of the model's step, and on CUDA a graph of it; it is never lean then.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        rows: int,
        columns: int,
        pad_id: int,
        ragged: bool = True,
        lean: bool = True,
        compile: bool = False,
    ) -> None:
        self.policy, self.pad_id = policy, pad_id
        model = policy.model
        self.device = model.device
        self.ragged = ragged and decodes_with(model) is not None
        if compile and decodes_with(model) is None:
            raise ValueError(
                f"rollout.compile=true: model_type={model.config.model_type!r} with "
                f"{model.config._attn_implementation} attention needs rows of one length, and a compiled step has rows "
                "of any. Set rollout.compile=false"
            )
        block = max(_BLOCK, -(-columns // _MOST_BLOCKS)) if compile else 0
        self.cache = RolloutCache(
            cache_layers(model), rows=rows, columns=columns, device=self.device, ragged=ragged, fixed=block
        )
        self.step: Step
        if lean and not compile and can_be_lean(model):
            self.step = LeanStep(model, self.cache)
        else:
            self.step = ModelStep(policy, self.cache, _compiled(self.device.type) if compile else forward)

    def prefill(self, prompts: Sequence[Sequence[int]], rows: Sequence[int], group_size: int) -> Tensor:
        """Write prompts into the cache, each to its group's rows.

        Args:
            prompts: token ids of B prompts.
            rows: ``B * G`` rows of the cache, a prompt's together.
            group_size: G.

        Returns:
            ``[B, V]``, the logits of the first token of each prompt's completions.
        """
        logits = []
        for start, end in _parts([len(prompt) for prompt in prompts]):
            ids, last = _right_pad(prompts[start:end], self.pad_id, self.device)
            # behind a shorter prompt stands what no earlier token attends to: no mask is needed
            held = DynamicCache()
            output = self.policy.model.base_model(input_ids=ids, past_key_values=held, use_cache=True)
            hidden = output.last_hidden_state[torch.arange(len(ids), device=self.device), last]
            logits.append(self.policy.head(hidden))
            of_part = torch.tensor(rows[start * group_size : end * group_size], device=self.device)
            self.cache.admit(of_part, held, group_size)
        return torch.cat(logits)


class ModelStep:
    """A step through the model's own forward.

    Args:
        policy: any transformers decoder.
        cache: is read and written.
        run: :func:`forward`, or that compiled.
    """

    def __init__(self, policy: Policy, cache: RolloutCache, run: Callable[..., Tensor]) -> None:
        self.model, self.cache, self.run = policy.model, cache, run

    def __call__(self, tokens: Tensor) -> Tensor:
        """See :class:`Step`."""
        live, rows = len(tokens), self.cache.batch()
        with decoding_attention(self.model):
            logits = self.run(self.model, self.cache, F.pad(tokens, (0, rows - live)) if rows > live else tokens)
        self.cache.advance()
        return logits[:live]


def forward(model: PreTrainedModel, cache: RolloutCache, tokens: Tensor) -> Tensor:
    """Logits ``[n, V]`` behind the tokens ``[n]``."""
    rows = len(tokens)
    return model(
        input_ids=tokens.unsqueeze(1),
        attention_mask=cache.counted(rows),
        position_ids=cache.lengths[:rows].unsqueeze(1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


@functools.cache
def _compiled(device: str) -> Callable[..., Tensor]:
    """:func:`forward` compiled, once for every shape it meets; on CUDA its kernels are replayed as a graph."""
    program = torch.compile(forward, mode="reduce-overhead" if device == "cuda" else "default", dynamic=False)

    def run(model: PreTrainedModel, cache: RolloutCache, tokens: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()  # the last step's logits have been used
        return program(model, cache, tokens)

    return run


def _parts(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Where to cut the prompts so that no part has more than ``_PREFILL_TOKENS``, padding included."""
    parts, start = [], 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or max(lengths[start : end + 1]) * (end + 1 - start) > _PREFILL_TOKENS:
            parts.append((start, end))
            start = end
    return parts


def _right_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, P]``, and the column ``[B]`` of each prompt's last token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[pad_id] * (width - len(prompt))] for prompt in prompts])
    last = torch.tensor([len(prompt) - 1 for prompt in prompts])
    return ids.to(device), last.to(device)
