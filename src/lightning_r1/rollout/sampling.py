"""One token for each row from its logits, with the log-probability it was drawn with.

The draw inverts the cumulative distribution at one uniform number a row, so that a completion's
tokens do not depend on which other rows are in the batch. The cumulative sum runs over blocks
first: one running float32 sum over 150,000 tokens would distort the rare ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lightning_r1.types import Sampling

_BLOCK = 512
_NUCLEUS = 1024


def sample_tokens(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token a row.

    Args:
        logits: ``[N, V]``, raw.
        uniforms: ``[N]`` in [0, 1).
        sampling: temperature, then top-k, top-p, min-p; temperature 0 takes the largest logit.

    Returns:
        ``[N]`` token ids, and ``[N]`` log-probabilities under the distribution *after*
        temperature and truncation, the one that was really sampled from. Greedy tokens report
        their log-probability at temperature 1.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, _at(logits.log_softmax(-1), tokens)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    logits = truncate(logits, sampling)
    # one pass: the weights that the draw walks over also give the normaliser of the log-probability
    largest = logits.amax(-1, keepdim=True)
    vocabulary = logits.shape[-1]
    weights = logits.new_empty(len(logits), _padded(vocabulary))
    torch.sub(logits, largest, out=weights[:, :vocabulary]).exp_()
    weights[:, vocabulary:] = 0
    tokens, total = _draw(weights, uniforms)
    return tokens, (_at(logits, tokens) - largest.squeeze(-1)) - total.log().float()


def truncate(logits: Tensor, sampling: Sampling) -> Tensor:
    """Set to minus infinity what top-k, top-p and min-p leave out; ``[N, V]``."""
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p < 1:
        logits = _nucleus(logits, sampling.top_p)
    if sampling.min_p:
        floor = logits.amax(-1, keepdim=True) + math.log(sampling.min_p)
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The likeliest tokens whose mass reaches ``top_p``; the others at minus infinity."""
    # sorting 150,000 logits takes longer than a small model's step, and the first thousand are mostly enough; on an
    # accelerator the question would stop the queue, and sorting is quick; numbers of an estimate have no values to ask
    if logits.device.type == "cpu" and logits.shape[-1] > _NUCLEUS and not isinstance(logits, FakeTensor):
        ordered, order = logits.topk(_NUCLEUS, dim=-1)
        probabilities = (ordered - logits.logsumexp(-1, keepdim=True)).exp()
        enough = bool((probabilities.sum(-1) >= top_p).all())
    else:
        enough = False
    if not enough:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
    # keep tokens until the mass *before* them reaches top_p: the first always stays
    outside = probabilities.cumsum(-1) - probabilities >= top_p
    return torch.full_like(logits, -torch.inf).scatter(-1, order, ordered.masked_fill(outside, -torch.inf))


def invert_cdf(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulative probability passes ``uniforms``.

    Args:
        probabilities: ``[N, V]``; rows need not sum to exactly 1.
        uniforms: ``[N]`` in [0, 1).

    Returns:
        ``[N]``; never a token of probability 0.
    """
    vocabulary = probabilities.shape[-1]
    return _draw(torch.nn.functional.pad(probabilities, (0, _padded(vocabulary) - vocabulary)), uniforms)[0]


def _padded(vocabulary: int) -> int:
    """Columns of the weights: whole blocks, or the vocabulary where one block holds it."""
    return vocabulary if vocabulary <= _BLOCK else -(-vocabulary // _BLOCK) * _BLOCK


def _draw(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``[N]``, and the weights' sums ``[N]`` in float64; ``weights`` are ``[N, _padded(V)]``."""
    rows, columns = weights.shape
    uniforms = uniforms.double().unsqueeze(-1)
    if columns <= _BLOCK:
        ends = weights.cumsum(-1, dtype=torch.float64)
        total = ends[:, -1:]
        return _passed(ends, uniforms * total), total.squeeze(-1)
    blocks = weights.view(rows, -1, _BLOCK)
    block_ends = blocks.sum(-1).double().cumsum(-1)
    total = block_ends[:, -1:]
    target = uniforms * total
    block = torch.searchsorted(block_ends, target, right=True).clamp(max=blocks.shape[1] - 1)
    before = torch.where(block > 0, block_ends.gather(-1, (block - 1).clamp(min=0)), 0)
    inside = blocks.gather(1, block.unsqueeze(-1).expand(-1, -1, _BLOCK)).squeeze(1)
    column = _passed(inside.cumsum(-1, dtype=torch.float64), target - before)
    return block.squeeze(-1) * _BLOCK + column, total.squeeze(-1)


def _passed(ends: Tensor, target: Tensor) -> Tensor:
    """First column whose cumulative sum is above ``target`` ``[N, 1]``; the last likely one at most."""
    column = torch.searchsorted(ends, target, right=True)
    # rounding may leave the target at the very end: fall back to the last token that is possible
    last = torch.searchsorted(ends, ends[:, -1:].contiguous())
    return torch.minimum(column, last).squeeze(-1)


def _at(logprobs: Tensor, tokens: Tensor) -> Tensor:
    return logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
