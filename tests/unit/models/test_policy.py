"""The policy's scores against the model's own dense logits, for every family."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.models import FAMILIES, dense_logits, dense_logprobs, tiny_model, tiny_policy
from lightning_r1.models.policy import Policy, TokenScores, evaluating

# (prompt, completion) lengths: different on both sides, and one completion of a single token
LENGTHS = ((5, 7), (3, 1), (9, 4))


def random_rows(lengths: tuple[tuple[int, int], ...] = LENGTHS) -> list[tuple[list[int], list[int]]]:
    return [(torch.randint(3, 124, (p,)).tolist(), torch.randint(3, 124, (c,)).tolist()) for p, c in lengths]


def padded(
    rows: list[tuple[list[int], list[int]]], *, extra: int = 0, pad_id: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """``input_ids``, ``prompt_lengths``, ``completion_mask`` of ragged rows, ``extra`` columns too wide."""
    width = max(len(p) + len(c) for p, c in rows) + extra
    longest = max(len(c) for _, c in rows) + extra
    input_ids = torch.tensor([p + c + [pad_id] * (width - len(p) - len(c)) for p, c in rows])
    mask = torch.tensor([[column < len(c) for column in range(longest)] for _, c in rows])
    return input_ids, torch.tensor([len(p) for p, _ in rows]), mask


def score(
    policy: Policy, rows: list[tuple[list[int], list[int]]], *, temperature: float = 1.0, **how: int
) -> TokenScores:
    with torch.no_grad():
        return policy(*padded(rows, **how), temperature=temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_dense_logits(family: str, temperature: float) -> None:
    policy, rows = tiny_policy(family), random_rows()

    scores = score(policy, rows, temperature=temperature)

    for place, (prompt_ids, completion_ids) in enumerate(rows):
        length = len(completion_ids)
        expected = dense_logprobs(policy.model, prompt_ids, completion_ids, temperature=temperature)
        torch.testing.assert_close(scores.logprobs[place, :length].double(), expected, atol=1e-5, rtol=0)
        log_p = (dense_logits(policy.model, prompt_ids, completion_ids).double() / temperature).log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        torch.testing.assert_close(scores.entropy[place, :length].double(), entropy, atol=1e-5, rtol=0)
        assert scores.logprobs[place, length:].tolist() == [0.0] * (7 - length)
        assert scores.entropy[place, length:].tolist() == [0.0] * (7 - length)


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [("gemma2", "final_logit_softcapping", None), ("granite", "logits_scaling", 1.0), ("cohere", "logit_scale", 1.0)],
)
def test_what_a_family_does_to_its_logits_is_visible(family: str, field: str, value: float | None) -> None:
    # the test of the test above: without the cap or the scale the numbers are others
    rows = random_rows()
    without = score(tiny_policy(family, **{field: value}), rows)
    assert (score(tiny_policy(family), rows).logprobs - without.logprobs).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_right_never_changes_a_row(family: str) -> None:
    policy, rows = tiny_policy(family), random_rows()
    together = score(policy, rows, extra=5, pad_id=17)
    for place, row in enumerate(rows):
        alone = score(policy, [row])
        length = len(row[1])
        torch.testing.assert_close(together.logprobs[place, :length], alone.logprobs[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.entropy[place, :length], alone.entropy[0], atol=1e-5, rtol=0)


def test_tokens_that_do_not_count_do_not_score() -> None:
    policy, rows = tiny_policy(), random_rows(((4, 6),))
    input_ids, prompt_lengths, mask = padded(rows)
    everything = score(policy, rows)
    mask[0, [1, 4]] = False

    with torch.no_grad():
        some = policy(input_ids, prompt_lengths, mask)

    torch.testing.assert_close(some.logprobs, torch.where(mask, everything.logprobs, 0), atol=1e-6, rtol=0)
    torch.testing.assert_close(some.entropy, torch.where(mask, everything.entropy, 0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2", "phi", "granite"])
def test_gradients_are_those_of_the_dense_logits(family: str) -> None:
    policy, rows = tiny_policy(family), random_rows()
    weights = torch.randn(3, 7)

    scores = policy(*padded(rows), temperature=0.7)
    (weights * (scores.logprobs + 0.3 * scores.entropy)).sum().backward()
    ours = {name: parameter.grad for name, parameter in policy.model.named_parameters()}

    policy.zero_grad()
    total = torch.zeros(())
    for place, (prompt_ids, completion_ids) in enumerate(rows):
        logits = policy.model(torch.tensor([prompt_ids + completion_ids]), use_cache=False).logits[0]
        log_p = (logits[len(prompt_ids) - 1 : -1] / 0.7).log_softmax(-1)
        logprobs = log_p.gather(1, torch.tensor(completion_ids)[:, None]).squeeze(1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        total = total + (weights[place, : len(completion_ids)] * (logprobs + 0.3 * entropy)).sum()
    total.backward()

    for name, parameter in policy.model.named_parameters():
        scale = 1 + parameter.grad.abs().max().item()
        torch.testing.assert_close(ours[name], parameter.grad, atol=2e-5 * scale, rtol=0, msg=f"gradient of {name}")


@pytest.mark.parametrize("family", ["qwen2", "gpt2", "gemma2", "phi"])
def test_a_micro_batch_in_which_nothing_counts_gives_zero_gradients(family: str) -> None:
    # None would leave a rank out of the gradient reduction, and the others would wait for it
    policy = tiny_policy(family)
    input_ids, prompt_lengths, mask = padded(random_rows())

    scores = policy(input_ids, prompt_lengths, torch.zeros_like(mask))
    assert scores.logprobs.tolist() == torch.zeros(mask.shape).tolist()
    (scores.logprobs.sum() + scores.entropy.sum()).backward()

    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.count_nonzero() == 0, name


def test_scores_of_a_bfloat16_model_are_float32() -> None:
    policy = Policy(tiny_model("qwen2").bfloat16())
    scores = score(policy, random_rows())
    assert scores.logprobs.dtype == scores.entropy.dtype == torch.float32


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluating_comes_back(was_training: bool) -> None:
    policy = tiny_policy("gpt2", resid_pdrop=0.4).train(was_training)
    rows = random_rows()
    with evaluating(policy):
        assert not any(module.training for module in policy.modules())
        assert not torch.is_grad_enabled()
        assert policy(*padded(rows)).logprobs.tolist() == policy(*padded(rows)).logprobs.tolist()
    assert all(module.training is was_training for module in policy.modules())
    assert torch.is_grad_enabled()


def test_evaluating_comes_back_after_an_error() -> None:
    policy = tiny_policy().train()
    with pytest.raises(RuntimeError), evaluating(policy):
        raise RuntimeError
    assert policy.model.training
    assert torch.is_grad_enabled()


def test_evaluating_leaves_every_module_in_its_own_mode() -> None:
    policy = tiny_policy().train()
    frozen = policy.model.get_input_embeddings().eval()
    with evaluating(policy):
        pass
    assert policy.model.training
    assert not frozen.training
