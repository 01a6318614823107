"""A packed row gives the log-probabilities and gradients of padded rows, shared prompts included."""

from __future__ import annotations

import random
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from helpers.models import FAMILIES, VOCABULARY, tiny_policy
from lightning_r1.models import packed
from lightning_r1.models.layout import Layout, pack
from lightning_r1.models.packed import why_not_packed
from lightning_r1.models.policy import Policy

# groups of rows with one prompt: (tokens of the prompt, tokens of each completion); 0 is a completion cut to nothing
RAGGED = ((7, (3, 9, 1, 5)), (4, (6,)), (9, (2, 2, 0)), (1, (4, 8)))
EQUAL = ((5, (6, 6)), (5, (6, 6)))
PACKABLE = tuple(family for family in FAMILIES if family != "gemma2")  # its soft-capped scores are kept below


def rows_of(
    groups: tuple[tuple[int, tuple[int, ...]], ...], seed: int = 0
) -> tuple[Tensor, list[int], list[int], list[int]]:
    """Random rows in random order: padded ids, lengths of prompts and completions, and whose prompt each has."""
    chance = random.Random(seed)

    def tokens(count: int) -> list[int]:
        return [chance.randrange(3, VOCABULARY) for _ in range(count)]

    rows = []
    for number, (length, completions) in enumerate(groups):
        prompt = tokens(length)
        rows += [(prompt, tokens(count), number) for count in completions]
    chance.shuffle(rows)
    ids = pad_sequence([torch.tensor(p + c) for p, c, _ in rows], batch_first=True)
    return ids, [len(p) for p, _, _ in rows], [len(c) for _, c, _ in rows], [number for _, _, number in rows]


def scored(
    policy: Policy, ids: Tensor, prompts: list[int], completions: list[int], layout: Layout | None
) -> list[Tensor]:
    """Log-probabilities, entropies, and the gradients of a random combination of both."""
    policy.zero_grad()
    mask = torch.arange(max(completions)) < torch.tensor(completions)[:, None]
    scores = policy(ids, torch.tensor(prompts), mask, temperature=0.7, layout=layout)
    weights = torch.randn(2, *mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (weights[0] * scores.logprobs + weights[1] * scores.entropy).sum().backward()
    return [scores.logprobs, scores.entropy, *(p.grad for p in policy.parameters() if p.grad is not None)]


def largest_difference(left: list[Tensor], right: list[Tensor]) -> float:
    """In units of each tensor's largest entry, if that is above 1."""
    assert len(left) == len(right)
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1)).item() for a, b in zip(left, right, strict=True))


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers' norms calculate in float32 whatever they are given; here float64 stays float64."""
    to, float_ = torch.Tensor.to, torch.Tensor.float

    def kept(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        down = self.dtype == torch.float64 and torch.float32 in (*args, *kwargs.values())
        return self if down else to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", kept)
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self if self.dtype == torch.float64 else float_(self))


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared"])
@pytest.mark.parametrize("groups", [RAGGED, EQUAL], ids=["ragged", "equal"])
@pytest.mark.parametrize("family", PACKABLE)
def test_equals_padded_rows(family: str, groups: Any, shared: bool) -> None:
    policy = tiny_policy(family).double()
    assert why_not_packed(policy.model) is None
    ids, prompts, completions, whose = rows_of(groups)
    layout = pack(prompts, completions, whose if shared else None)
    plain = scored(policy, ids, prompts, completions, None)
    assert largest_difference(plain, scored(policy, ids, prompts, completions, layout)) < 1e-10


def test_equals_padded_rows_in_float32() -> None:
    policy = tiny_policy("qwen3")
    ids, prompts, completions, whose = rows_of(RAGGED)
    plain = scored(policy, ids, prompts, completions, None)
    packed_ = scored(policy, ids, prompts, completions, pack(prompts, completions, whose))
    assert largest_difference(plain, packed_) < 2e-5


def test_a_shared_prompt_is_computed_once() -> None:
    ids, prompts, completions, whose = rows_of(RAGGED)
    assert len(pack(prompts, completions)) == sum(prompts) + sum(completions)
    once = sum(length for length, _ in RAGGED)
    shared = pack(prompts, completions, whose)
    assert len(shared) == once + sum(completions)
    seen = []
    policy = tiny_policy()
    policy.model.base_model.layers[0].mlp.register_forward_hook(lambda module, args, out: seen.append(out.shape[:2]))
    scored(policy, ids, prompts, completions, shared)
    assert seen == [(1, len(shared))]


def test_nobody_sees_another_row() -> None:
    policy = tiny_policy().double()
    ids, prompts, completions, whose = rows_of(RAGGED)
    layout = pack(prompts, completions, whose)
    before = scored(policy, ids, prompts, completions, layout)[0]
    changed = ids.clone()
    row = max(range(len(prompts)), key=lambda row: completions[row])
    changed[row, prompts[row] :] = (changed[row, prompts[row] :] + 1) % VOCABULARY
    after = scored(policy, changed, prompts, completions, layout)[0]
    others = [other for other in range(len(prompts)) if other != row]
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[row], after[row])


def test_the_attention_is_the_models_own_again_afterwards() -> None:
    policy = tiny_policy()
    ids, prompts, completions, whose = rows_of(EQUAL)
    scored(policy, ids, prompts, completions, pack(prompts, completions, whose))
    assert policy.model.config._attn_implementation == "sdpa"


def test_models_that_cannot_be_packed_say_why() -> None:
    model = tiny_policy("gemma2").model
    model.config._attn_implementation = "eager"
    assert "attention eager knows no packed rows" in str(why_not_packed(model))


def varlen_by_loops(q: Tensor, k: Tensor, v: Tensor, **said: Any) -> Tensor:
    """flash_attn_varlen_func as its documentation has it: causal, aligned at the end, windows left of the diagonal."""
    out = []
    of_queries, of_keys = said["cu_seqlens_q"].tolist(), said["cu_seqlens_k"].tolist()
    assert said["causal"]
    assert said["cu_seqlens_q"].dtype == torch.int32
    for n in range(len(of_queries) - 1):
        query, (first, behind) = q[of_queries[n] : of_queries[n + 1]], (of_keys[n], of_keys[n + 1])
        assert len(query) <= said["max_seqlen_q"]
        assert behind - first <= said["max_seqlen_k"]
        heads = q.shape[1] // k.shape[1]
        key, value = (states[first:behind].repeat_interleave(heads, dim=1) for states in (k, v))
        scale = said["softmax_scale"] or q.shape[-1] ** -0.5
        scores = torch.einsum("qhd,khd->hqk", query, key) * scale
        place = torch.arange(len(query))[:, None] + len(key) - len(query)
        seen = torch.arange(len(key)) <= place
        if said["window_size"][0] >= 0:
            seen &= torch.arange(len(key)) >= place - said["window_size"][0]
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), value))
    return torch.cat(out)


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared"])
@pytest.mark.parametrize("family", ["qwen3", "mistral_window", "deepseek_v3"])
def test_flash_gets_the_same_segments(family: str, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(family).double()
    ids, prompts, completions, whose = rows_of(RAGGED)
    plain = scored(policy, ids, prompts, completions, None)
    library = ModuleType("flash_attn")
    library.flash_attn_varlen_func = varlen_by_loops  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", library)
    monkeypatch.setattr(policy.model.config, "_attn_implementation_internal", "flash_attention_2")
    assert policy.model.config._attn_implementation == packed._FLASH
    layout = pack(prompts, completions, whose if shared else None)
    assert largest_difference(plain, scored(policy, ids, prompts, completions, layout)) < 1e-10
