"""What an environment wrote is never learned from: loss, gradient and numbers against naive loops over the policy's
own tokens."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.environments import Answers
from helpers.logs import Memory
from helpers.models import tiny_policy
from helpers.phases import fit, scripted_grpo
from lightning_r1.callbacks.watchdog import rollout_facts
from lightning_r1.experience.batching import Layouts, Sequences, micro_batches
from lightning_r1.experience.buffer import ExperienceBuffer
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.experience.redistribute import OwnState, redistribute
from lightning_r1.experience.stored import from_plain, to_plain
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.modules.grpo import GRPO
from lightning_r1.rollout.environment import Reply
from lightning_r1.rollout.episodes import Budget, EpisodeEngine
from oracles.naive_importance import naive_off_policy_mask, naive_sampler_weights
from oracles.naive_policy_loss import naive_policy_loss

SCRIPT = {"1": ["1+2=", "7=1=<eos>", "4</think><answer>4</answer><eos>"], "2": ["2=", "=", "3<eos>"]}
WEIGHTS = {"sampler_correction": "truncate", "correction_high": 1.5}
LAYOUTS = [Layouts(), Layouts(packed=True), Layouts(shared_prefix="on")]


def no_rounding() -> Policy:
    """An architecture without parts that calculate in float32 whatever they are given (norms of Qwen do)."""
    return tiny_policy("gpt2", seed=3, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)


def talking(codec: Codec, **algorithm: Any) -> GRPO:
    """A rollout is two prompts, three episodes each; most have two or three turns."""
    module = scripted_grpo(codec, SCRIPT, policy=no_rounding(), **algorithm)
    world = Answers(("=",), lambda prompt, seed, text: Reply("35" * (1 + len(text) % 3)))
    module.engine = EpisodeEngine(module.engine, world, codec, Budget(max_turns=3, max_reply_tokens=2))
    module.double()
    module.max_grad_norm = 1e9
    return module


def moved_on(codec: Codec, tmp_path: Path, **algorithm: Any) -> tuple[GRPO, Sequences]:
    """After a step, with the rollout's second pass before it: the policy is neither the old one nor the reference."""
    module = talking(codec, num_iterations=2, kl_coef=0.1, entropy_coef=0.01, **WEIGHTS, **algorithm)
    fit(module, steps=1, folder=tmp_path)
    module.train()
    rows = module.buffer.next_minibatch()
    names = ("rollout_logprobs", "old_logprobs", "ref_logprobs")
    double = {name: [values.double() for values in getattr(rows, name)] for name in names}
    return module, replace(rows, advantages=rows.advantages.double(), **double)


def value_and_gradient(module: GRPO, rows: Sequences, layouts: Layouts, budget: int = 40) -> tuple[Tensor, Tensor]:
    module.policy.zero_grad()
    denominator, total = module._denominator(rows), torch.zeros((), dtype=torch.float64)
    for batch in micro_batches(rows, budget, module.codec.pad_id, layouts):
        loss, _ = module.loss(batch, denominator)
        loss.backward()
        total += loss.detach()
    return total, torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])


def naive(module: GRPO, rows: Sequences) -> tuple[Tensor, Tensor]:
    """Row by row, from a forward over the whole episode, of the tokens that the policy wrote alone."""
    module.policy.zero_grad()
    logprobs, entropies, olds, refs, sampler, mask = [], [], [], [], [], []
    assert rows.sampled is not None
    assert rows.old_logprobs is not None
    assert rows.ref_logprobs is not None
    assert rows.rollout_logprobs is not None
    for row in range(len(rows)):
        prompt, completion = rows.prompt_ids[row].tolist(), rows.completion_ids[row].tolist()
        logits = module.policy.model(torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
        scores = logits[len(prompt) - 1 : -1].log_softmax(-1)
        kept = [t for t, own in enumerate(rows.sampled[row].tolist()) if own]
        logprobs.append([scores[t, completion[t]] for t in kept])
        entropies.append([-(scores[t].exp() * scores[t]).sum() for t in kept])
        olds.append([float(rows.old_logprobs[row][t]) for t in kept])
        refs.append([float(rows.ref_logprobs[row][t]) for t in kept])
        sampler.append([float(rows.rollout_logprobs[row][t]) for t in kept])
        mask.append([1] * len(kept))
    algo, advantages = module.algorithm, rows.advantages.tolist()
    weights = naive_sampler_weights(olds, sampler, mask, mode="truncate", level=algo.correction_level, low=0, high=1.5)
    keep = None
    if algo.off_policy_threshold is not None:
        now = [[value.item() for value in row] for row in logprobs]
        keep = naive_off_policy_mask(now, sampler, advantages, mask, threshold=algo.off_policy_threshold)
        assert {stays for stays, advantage in zip(keep, advantages, strict=True) if advantage < 0} == {True, False}
    loss = naive_policy_loss(
        logprobs,
        olds,
        advantages,
        mask,
        reduction=algo.reduction,
        token_budget=algo.sampling.max_new_tokens,
        ratio_level=algo.ratio_level,
        ref_logprobs=refs,
        kl_coef=0.1,
        token_weights=weights,
        sequence_mask=keep,
        entropy=entropies,
        entropy_coef=0.01,
    )
    loss.backward()
    return loss.detach(), torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])


@pytest.mark.parametrize(
    ("reduction", "ratio_level"),
    [("sequence_mean", "token"), ("token_mean", "token"), ("constant", "sequence"), ("sequence_mean", "sequence")],
)
def test_the_loss_is_that_of_the_policys_own_tokens(
    reduction: str, ratio_level: str, codec: Codec, tmp_path: Path
) -> None:
    module, rows = moved_on(codec, tmp_path, reduction=reduction, ratio_level=ratio_level)
    assert rows.sampled is not None
    replies = sum(int((~mask).sum()) for mask in rows.sampled)
    assert replies > 5
    assert rows.counted() == sum(map(len, rows.completion_ids)) - replies
    value, gradient = naive(module, rows)
    assert gradient.abs().max() > 1e-3
    for layouts in LAYOUTS:
        ours, slope = value_and_gradient(module, rows, layouts)
        assert float(ours) == pytest.approx(float(value), abs=1e-10)
        torch.testing.assert_close(slope, gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "how", [{"correction_level": "sequence"}, {"correction_level": "geometric"}, {"off_policy_threshold": 0.2}]
)
def test_what_a_sampler_is_corrected_by_is_of_the_policys_own_tokens(
    how: dict[str, Any], codec: Codec, tmp_path: Path
) -> None:
    """Also where it is one number a completion: replies, whatever stands there, are neither in sums nor in lengths."""
    module, rows = moved_on(codec, tmp_path, **how)
    noise = torch.Generator().manual_seed(1)
    near = [
        torch.where(mask, old + torch.randn(len(old), generator=noise, dtype=old.dtype) / 5 + 3.0 * (row == 1), 9.0)
        for row, (old, mask) in enumerate(zip(rows.old_logprobs or (), rows.masks(), strict=True))
    ]
    rows = replace(rows, rollout_logprobs=near, advantages=-rows.advantages)  # what talks is what is dropped
    value, gradient = naive(module, rows)
    for layouts in LAYOUTS:
        ours, slope = value_and_gradient(module, rows, layouts)
        assert float(ours) == pytest.approx(float(value), abs=1e-10)
        torch.testing.assert_close(slope, gradient, rtol=0, atol=1e-10)


def test_the_numbers_of_a_reply_make_no_difference(codec: Codec, tmp_path: Path) -> None:
    module, rows = moved_on(codec, tmp_path)
    assert rows.sampled is not None
    expected = value_and_gradient(module, rows, Layouts())
    noise = {
        name: [
            torch.where(mask, values, -3.0 - torch.arange(len(values)))
            for values, mask in zip(getattr(rows, name), rows.sampled, strict=True)
        ]
        for name in ("rollout_logprobs", "old_logprobs", "ref_logprobs")
    }
    value, gradient = value_and_gradient(module, replace(rows, **noise), Layouts())
    assert float(value) == float(expected[0])
    assert torch.equal(gradient, expected[1])
    # and they would, if they counted
    value, _ = value_and_gradient(module, replace(rows, sampled=None, **noise), Layouts())
    assert abs(float(value) - float(expected[0])) > 1e-4


def test_metrics_count_the_policys_own_tokens(codec: Codec, tmp_path: Path) -> None:
    module, memory = talking(codec, kl_coef=0.1), Memory()
    fit(module, steps=1, folder=tmp_path, loggers=[memory])
    assert module.last_rollout is not None
    completions = [one for scored in module.last_rollout.scored for one in scored.group.completions]
    own = [len([token for token, kept in zip(one.token_ids, one.sampled, strict=True) if kept]) for one in completions]
    replies = [kind for one in completions for kind in one.replies]
    logged = {
        name: memory.column(f"rollout/{name}")[0]
        for name in ("length_mean", "reply_length_mean", "turns_mean", "tool/ok", "tool/crash", "truncated_fraction")
    }
    # some of them end at their last turn, before their tokens are used up: nothing is wrong with the stops
    assert logged["truncated_fraction"] > 0
    assert rollout_facts(module.last_rollout, module, sampled_at=0).unstopped == 0
    assert logged == pytest.approx(
        {
            "length_mean": sum(own) / 6,
            "reply_length_mean": sum(len(one.token_ids) for one in completions) / 6 - sum(own) / 6,
            "turns_mean": 1 + len(replies) / 6,
            "tool/ok": 1.0,
            "tool/crash": 0.0,
            "truncated_fraction": sum(one.finish_reason == "length" for one in completions) / 6,
        }
    )
    # the scripted sampler's log-probabilities are -(t + 1) / 8 in each turn; replies would add their 0
    gap = memory.column("policy/logprob_gap")[0]
    assert gap == pytest.approx(logprob_gap(no_rounding().double(), codec, groups_of(module), 1.0), rel=1e-5)


def groups_of(module: GRPO) -> list[Any]:
    assert module.last_rollout is not None
    return [scored.group for scored in module.last_rollout.scored]


def test_thinking_is_the_policys_own(codec: Codec, tmp_path: Path) -> None:
    module = talking(codec)
    fit(module, steps=1, folder=tmp_path)
    first = next(one for group in groups_of(module) for one in group.completions if one.text.startswith("<think>1+2"))
    assert first.text.startswith("<think>1+2=35")
    assert codec.thinking_tokens(first) == first.length
    assert first.length == 12  # three turns of 1+2=


def test_a_queue_and_a_flight_keep_what_was_sampled(codec: Codec, tmp_path: Path) -> None:
    module = talking(codec)
    fit(module, steps=1, folder=tmp_path)
    assert module.last_rollout is not None
    for scored in module.last_rollout.scored:
        assert from_plain(to_plain(scored)) == scored
        before = {name: value for name, value in to_plain(scored).items() if name not in ("sampled", "replies")}
        assert all(one.sampled is None for one in from_plain(before).group.completions)  # of an older checkpoint


def test_ranks_get_the_masks_of_their_rows(codec: Codec, tmp_path: Path) -> None:
    """Also where one rank of then had no environment's token in its rows."""
    module = talking(codec, num_iterations=2)
    fit(module, steps=1, folder=tmp_path)
    talked = module.buffer.sequences
    silent = replace(talked, sampled=None)
    states = [
        OwnState(ExperienceBuffer(rows, minibatches=2, iterations=1, seed=0).state_dict(), [], None)
        for rows in (talked, silent)
    ]
    assert talked.sampled is not None
    wanted = [
        (ids.tolist(), mask.tolist())
        for rows in (talked, silent)
        for ids, mask in zip(rows.completion_ids, rows.masks(), strict=True)
    ]
    found = []
    for rank in range(3):
        buffer = ExperienceBuffer.from_state_dict(redistribute(states, rank, 3).buffer)
        while not buffer.exhausted:
            rows = buffer.next_minibatch()
            found += [(i.tolist(), m.tolist()) for i, m in zip(rows.completion_ids, rows.masks(), strict=True)]
    assert sorted(found) == sorted(wanted)


def test_every_field_of_a_row_is_selected(codec: Codec, tmp_path: Path) -> None:
    _, rows = moved_on(codec, tmp_path)
    chosen = rows.select([2, 0])
    for field in fields(Sequences):
        values, whole = getattr(chosen, field.name), getattr(rows, field.name)
        assert len(values) == 2
        assert torch.equal(torch.as_tensor(values[0]), torch.as_tensor(whole[2]))
