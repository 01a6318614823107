"""Distillation's losses: against loops over the models' own logits, under every split, with padded heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.lessons import lessons_of, made_from, write_lessons
from helpers.models import tiny_policy
from lightning_r1.data.lessons import LessonDataModule
from lightning_r1.experience.batching import MicroBatch, Sequences, blank, micro_batches
from lightning_r1.experience.lesson_batching import lesson_batches
from lightning_r1.functional.diagnostics import combine
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.modules.distill import Distillation, DistillKD, DistillOnPolicy, distill_metrics
from lightning_r1.types import Sampling
from oracles.naive_divergence import naive_buckets, naive_divergence, naive_entropy, naive_softmax

KINDS = {
    "forward": ("forward_kl", 0.5),
    "reverse": ("reverse_kl", 0.5),
    "jsd": ("jsd", 0.3),
}
LENGTHS = ((3, 6), (1, 1), (5, 4), (2, 9), (4, 2))
"""Prompt and completion tokens of the student's samples."""


def student(**fields: Any) -> Policy:
    return tiny_policy("qwen3", seed=0, **fields).double()


def teacher(**fields: Any) -> Policy:
    return tiny_policy("gpt2", seed=5, **fields)


def parts(codec: Codec, policy: Policy) -> dict[str, Any]:
    return {
        "policy": policy,
        "codec": codec,
        "optimizer": lambda named: None,
        "schedule": lambda *_, **__: None,
    }


def kd(
    codec: Codec, folder: Path, policy: Policy | None = None, *, temperature: float = 1.0, **options: Any
) -> DistillKD:
    lessons = lessons_of(teacher(), codec, temperature=temperature)
    write_lessons(folder, lessons, made_from(teacher(), codec, temperature=temperature))
    data = LessonDataModule(folder=str(folder), batch_size=5, epochs=None)
    data.tokenise(codec)
    return DistillKD(data=data, **options, **parts(codec, policy or student()))


def on_policy(
    codec: Codec, policy: Policy | None = None, its_teacher: Policy | None = None, **options: Any
) -> DistillOnPolicy:
    return DistillOnPolicy(
        algorithm=Distillation(sampling=Sampling(group_size=1, max_new_tokens=16), **options),
        teacher=(its_teacher or teacher()).double(),
        engine=None,  # type: ignore[arg-type]
        rewards=None,  # type: ignore[arg-type]
        stream=None,  # type: ignore[arg-type]
        **parts(codec, policy or student()),
    )


def samples(seed: int = 0, highest: int = 136) -> Sequences:
    make = torch.Generator().manual_seed(seed)

    def ids(count: int) -> Tensor:
        return torch.randint(highest, (count,), generator=make)

    return Sequences([ids(p) for p, _ in LENGTHS], [ids(t) for _, t in LENGTHS], torch.zeros(len(LENGTHS)))


def shares(
    module: DistillKD | DistillOnPolicy, batches: Sequence[MicroBatch], denominator: float
) -> tuple[float, Tensor, dict[str, Tensor]]:
    """Loss, flat gradient and sums, added up over micro-batches."""
    module.zero_grad()
    each = [module.loss(batch, denominator) for batch in batches]
    torch.stack([loss for loss, _ in each]).sum().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])  # type: ignore[union-attr]
    return sum(loss.item() for loss, _ in each), gradient, combine([sums for _, sums in each])


def row_logits(policy: Policy, prompt_ids: Tensor, completion_ids: Tensor, ids: int = 136) -> Tensor:
    """``[T, ids]`` of one row alone, with gradient."""
    logits = policy.model(torch.cat([prompt_ids, completion_ids]).long()[None], use_cache=False).logits[0]
    return logits[len(prompt_ids) - 1 : -1, :ids]


def dense_divergence(p: Tensor, q: Tensor, kind: str, beta: float) -> Tensor:
    """The definitions again, on probabilities."""
    if kind == "forward_kl":
        return (q * (q / p).log()).sum(-1)
    if kind == "reverse_kl":
        return (p * (p / q).log()).sum(-1)
    m = beta * q + (1 - beta) * p
    return beta * (q * (q / m).log()).sum(-1) + (1 - beta) * (p * (p / m).log()).sum(-1)


@pytest.mark.parametrize(("kind", "beta"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("ce_coef", [0.0, 0.4])
def test_kd_equals_a_plain_loop(kind: str, beta: float, ce_coef: float, codec: Codec, tmp_path: Path) -> None:
    module = kd(codec, tmp_path, temperature=0.8, divergence=kind, beta=beta, ce_coef=ce_coef)
    lessons = module.data.share(0, 0, 1)
    tokens = sum(len(lesson.completion_ids) for lesson in lessons)
    value, gradient, sums = shares(module, lesson_batches(lessons, 50, codec.pad_id, 5), tokens)

    module.zero_grad()
    total, divergences, cross_entropy = torch.zeros((), dtype=torch.float64), 0.0, 0.0
    for lesson in lessons:
        logits = row_logits(module.policy, lesson.prompt_ids, lesson.completion_ids)
        stored = lesson.top_logprobs.double().exp()
        for place, token in enumerate(lesson.completion_ids.tolist()):
            p = (logits[place] / 0.8).softmax(-1)
            chosen = p[lesson.top_ids[place].long()]
            p = torch.cat([chosen, 1 - chosen.sum(0, keepdim=True)])
            of_token = dense_divergence(p, stored[place] / stored[place].sum(), kind, beta)
            ce = -logits[place].log_softmax(-1)[token]
            total = total + of_token + ce_coef * ce
            divergences, cross_entropy = divergences + of_token.item(), cross_entropy + ce.item()
    (total / tokens).backward()
    assert value == pytest.approx(total.item() / tokens, abs=1e-10)
    expected = torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert gradient.abs().max() > 1e-4
    assert sums["tokens"] == tokens
    assert float(sums["divergence"]) == pytest.approx(divergences, abs=1e-8)
    assert float(sums["tail"]) == pytest.approx(
        sum(float(lesson.top_logprobs[:, -1].double().exp().sum()) for lesson in lessons), abs=1e-10
    )
    if ce_coef:
        assert float(sums["cross_entropy"]) == pytest.approx(cross_entropy, abs=1e-8)


@pytest.mark.parametrize(("kind", "beta"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
def test_on_policy_equals_a_plain_loop(kind: str, beta: float, reduction: str, codec: Codec) -> None:
    module = on_policy(codec, divergence=kind, beta=beta, temperature=1.3, reduction=reduction)
    rows = samples()
    denominator = module._denominator(rows)
    value, gradient, sums = shares(module, micro_batches(rows, 20, codec.pad_id), denominator)

    module.zero_grad()
    total, divergences, entropies = torch.zeros((), dtype=torch.float64), 0.0, 0.0
    for prompt_ids, completion_ids in zip(rows.prompt_ids, rows.completion_ids, strict=True):
        p = (row_logits(module.policy, prompt_ids, completion_ids) / 1.3).softmax(-1)
        q = (row_logits(module.teacher, prompt_ids, completion_ids) / 1.3).softmax(-1).detach()
        of_row = dense_divergence(p, q, kind, beta)
        weight = {"token_mean": 22, "sequence_mean": 5 * len(completion_ids), "constant": 5 * 16}[reduction]
        total = total + of_row.sum() / weight
        for of_p, of_q in zip(p.tolist(), q.tolist(), strict=True):
            divergences += naive_divergence(of_p, of_q, kind=kind, beta=beta)
            entropies += naive_entropy(of_q)
    total.backward()
    assert value == pytest.approx(total.item(), abs=1e-10)
    expected = torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert gradient.abs().max() > 1e-4
    assert float(sums["divergence"]) == pytest.approx(divergences, abs=1e-8)
    assert float(sums["teacher_entropy"]) == pytest.approx(entropies, abs=1e-8)


@pytest.mark.parametrize("budget", [1, 12, 30, 1000])
@pytest.mark.parametrize(("kind", "beta"), KINDS.values(), ids=KINDS)
def test_the_split_into_micro_batches_changes_nothing(
    budget: int, kind: str, beta: float, codec: Codec, tmp_path: Path
) -> None:
    offline = kd(codec, tmp_path, divergence=kind, beta=beta, ce_coef=0.2)
    lessons = offline.data.share(0, 0, 1)
    together = shares(offline, lesson_batches(lessons, 10_000, codec.pad_id, 5), 70)
    cut = lesson_batches(lessons, budget, codec.pad_id, 5)
    assert_same(shares(offline, [*cut, cut[-1].nothing(), *lesson_batches([], budget, codec.pad_id, 5)], 70), together)

    live = on_policy(codec, divergence=kind, beta=beta, reduction="sequence_mean")
    together = shares(live, micro_batches(samples(), 10_000, codec.pad_id), 5)
    cut = micro_batches(samples(), budget, codec.pad_id)
    assert_same(shares(live, [*cut, cut[-1].nothing(), blank(codec.pad_id)], 5), together)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_together_equal_one(ranks: int, codec: Codec, tmp_path: Path) -> None:
    module = kd(codec, tmp_path, ce_coef=0.2)
    whole = shares(module, lesson_batches(module.data.share(0, 0, 1), 40, codec.pad_id, 5), 70)
    dealt = [lesson_batches(module.data.share(0, rank, ranks), 40, codec.pad_id, 5) for rank in range(ranks)]
    assert_same(shares(module, [batch for of_rank in dealt for batch in of_rank], 70), whole)


def assert_same(one: tuple[float, Tensor, dict[str, Tensor]], other: tuple[float, Tensor, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-10)
    torch.testing.assert_close(one[1], other[1], rtol=0, atol=1e-10)
    for name in other[2]:
        assert float(one[2][name]) == pytest.approx(float(other[2][name]), abs=1e-9), name


def padded(policy: Policy, rows: int) -> Policy:
    """The same model with more rows in its head, all of them favourites."""
    policy.model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[136:] = 2.0
    return policy


def test_heads_padded_to_different_sizes_compare_what_they_share(codec: Codec, tmp_path: Path) -> None:
    rows = samples()
    expected = shares(on_policy(codec), micro_batches(rows, 30, codec.pad_id), 22)
    module = on_policy(codec, padded(student(), 142), padded(teacher(), 160))
    assert module.ids == 136
    value, _, _ = shares(module, micro_batches(rows, 30, codec.pad_id), 22)
    assert value == pytest.approx(expected[0], abs=1e-10)
    head = module.policy.model.get_output_embeddings().weight
    assert torch.equal(head.grad[136:], torch.zeros_like(head.grad[136:]))

    plain = kd(codec, tmp_path / "plain")
    lessons = plain.data.share(0, 0, 1)
    expected = shares(plain, lesson_batches(lessons, 30, codec.pad_id, 5), 70)
    wide = kd(codec, tmp_path / "wide", padded(student(), 142))
    value, _, _ = shares(wide, lesson_batches(lessons, 30, codec.pad_id, 5), 70)
    assert value == pytest.approx(expected[0], abs=1e-10)


def test_a_sampled_id_that_only_a_padded_head_has_ends_the_row(codec: Codec) -> None:
    module = on_policy(codec, padded(student(), 142))
    rows = samples()
    rows.completion_ids[0][3] = 139
    rows.completion_ids[2][0] = 136
    cut = module.completed(replace(rows, rollout_logprobs=[torch.zeros(len(ids)) for ids in rows.completion_ids]))
    assert [len(ids) for ids in cut.completion_ids] == [3, 1, 0, 9, 2]
    assert torch.equal(cut.completion_ids[3], rows.completion_ids[3])
    assert cut.rollout_logprobs is None
    value, gradient, sums = shares(module, micro_batches(cut, 1, codec.pad_id), 15)
    assert sums["tokens"] == 15
    assert torch.isfinite(gradient).all()
    assert value > 0


@pytest.mark.parametrize("reduction", ["token_mean", "sequence_mean", "constant"])
def test_what_an_environment_wrote_is_not_learned_from(reduction: str, codec: Codec) -> None:
    """Also in a row that is cut before a sampled id that only a padded head has."""
    module = on_policy(codec, padded(student(), 142), reduction=reduction)
    rows = samples()
    rows.completion_ids[0][4] = 139
    masks = [torch.arange(count) % 3 != 1 for _, count in LENGTHS]
    cut = module.completed(replace(rows, sampled=masks))
    value, gradient, sums = shares(module, micro_batches(cut, 20, codec.pad_id), module._denominator(cut))

    own = [mask[:4] if row == 0 else mask for row, mask in enumerate(masks)]
    module.zero_grad()
    total, counted = torch.zeros((), dtype=torch.float64), sum(int(mask.sum()) for mask in own)
    assert counted < sum(map(len, cut.completion_ids))
    for prompt_ids, completion_ids, mask in zip(rows.prompt_ids, cut.completion_ids, own, strict=True):
        p, q = (row_logits(of, prompt_ids, completion_ids).softmax(-1)[mask] for of in (module.policy, module.teacher))
        of_row = dense_divergence(p, q.detach(), module.algorithm.divergence, 0.5).sum()
        weight = {"token_mean": counted, "sequence_mean": 5 * int(mask.sum()), "constant": 5 * 16}[reduction]
        total = total + of_row / weight
    total.backward()
    assert value == pytest.approx(total.item(), abs=1e-10)
    expected = torch.cat([parameter.grad.flatten() for parameter in module.policy.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
    assert sums["tokens"] == counted


def test_the_teacher_is_frozen_and_in_no_checkpoint(codec: Codec) -> None:
    module = on_policy(codec)
    assert not any("teacher" in name for name, _ in module.named_parameters())
    assert {name.split(".")[0] for name in module.state_dict()} == {"policy"}
    before = [parameter.clone() for parameter in module.teacher.parameters()]
    shares(module, micro_batches(samples(), 30, codec.pad_id), 22)
    assert all(parameter.grad is None for parameter in module.teacher.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, module.teacher.parameters(), strict=True))
    assert not module.teacher.training


def test_a_student_that_is_the_teacher_has_nothing_to_learn(codec: Codec) -> None:
    module = on_policy(codec, student(), student())
    value, gradient, _ = shares(module, micro_batches(samples(), 30, codec.pad_id), 22)
    assert value == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_metrics_have_their_names_and_are_means_over_tokens(codec: Codec, tmp_path: Path) -> None:
    module = kd(codec, tmp_path, ce_coef=0.5)
    lessons = module.data.share(0, 0, 1)
    value, _, sums = shares(module, lesson_batches(lessons, 50, codec.pad_id, 5), 70)
    tokens = float(sums["tokens"])
    sums |= {"loss": torch.tensor(value), "grad_norm_max": torch.tensor(2.0), "skipped_max": torch.tensor(0.0)}
    metrics = distill_metrics(sums)
    assert set(metrics) == {
        "train/loss", "train/cross_entropy", "optim/grad_norm", "optim/skipped", "distill/divergence",
        "distill/teacher_entropy", "distill/student_entropy", "distill/tail",
    }  # fmt: skip
    assert metrics["train/loss"] == pytest.approx(value)
    assert metrics["optim/grad_norm"] == 2.0
    assert metrics["distill/divergence"] == pytest.approx(float(sums["divergence"]) / tokens)
    assert metrics["train/cross_entropy"] == pytest.approx(float(sums["cross_entropy"]) / tokens)


def test_the_top_is_all_that_offline_distillation_sees(codec: Codec, tmp_path: Path) -> None:
    """By hand, on one token: five ids and the tail."""
    module = kd(codec, tmp_path)
    lesson = module.data.share(0, 0, 1)[0]
    _, _, sums = shares(module, lesson_batches([lesson], 50, codec.pad_id, 5), 1)
    own = row_logits(module.policy, lesson.prompt_ids, lesson.completion_ids).tolist()
    its = row_logits(teacher(), lesson.prompt_ids, lesson.completion_ids).tolist()
    expected = 0.0
    for p, q in zip(map(naive_softmax, own), map(naive_softmax, its), strict=True):
        top = sorted(range(136), key=lambda v, q=q: -q[v])[:5]
        expected += naive_divergence(naive_buckets(p, top), naive_buckets(q, top), kind="forward_kl")
    assert float(sums["divergence"]) == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_is_refused(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"divergence='kl': expected forward_kl"):
        Distillation(divergence="kl")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"beta=1: jsd needs"):
        Distillation(divergence="jsd", beta=1)
    with pytest.raises(ValueError, match=r"algo.prompts_per_rollout=0: expected >= 1"):
        Distillation(prompts_per_rollout=0)
    with pytest.raises(ValueError, match=r"divergence='kl'"):
        kd(codec, tmp_path / "a", divergence="kl")
    with pytest.raises(ValueError, match=r"the student's head has 100 ids, the teacher's distributions 136"):
        kd(codec, tmp_path / "b", tiny_policy(vocab_size=100))


def test_the_plan_says_what_is_learned(codec: Codec, tmp_path: Path) -> None:
    assert kd(codec, tmp_path).plan() == "5 traces an epoch, 5 a step; the top 5 of org/teacher at temperature 1.0"
    assert on_policy(codec).plan().startswith("a rollout is 64 prompts x 1 completions = 64, used for 1 optimizer step")
