"""Three reductions with worked numbers, and the denominators they are given."""

import pytest
import torch

from lightning_r1.functional import minibatch_denominator, reduce_tokens
from oracles.batches import random_batch

REDUCTIONS = ("sequence_mean", "token_mean", "constant")

# Two counted rows, of 2 and of 1 token, and an empty one; the 100s are masked.
VALUES = torch.tensor([[1.0, 2.0, 100.0], [100.0, 6.0, 100.0], [100.0, 100.0, 100.0]], dtype=torch.float64)
MASK = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("reduction", "value", "gradient"),
    [
        ("sequence_mean", (1.5 + 6.0 + 0.0) / 3, [[1 / 6, 1 / 6, 0], [0, 1 / 3, 0], [0, 0, 0]]),
        ("token_mean", (1.0 + 2.0 + 6.0) / 3, [[1 / 3, 1 / 3, 0], [0, 1 / 3, 0], [0, 0, 0]]),
        ("constant", (1.0 + 2.0 + 6.0) / 12, [[1 / 12, 1 / 12, 0], [0, 1 / 12, 0], [0, 0, 0]]),
    ],
)
def test_worked_minibatch(reduction, value, gradient):
    """3 sequences, 3 tokens, a budget of 4 tokens: denominators 3, 3 and 12."""
    denominator = minibatch_denominator(sequences=3, tokens=3, reduction=reduction, token_budget=4)
    leaf = VALUES.clone().requires_grad_()
    actual = reduce_tokens(leaf, MASK, reduction=reduction, denominator=denominator)
    actual.backward()
    assert actual.item() == pytest.approx(value, abs=1e-12)
    torch.testing.assert_close(leaf.grad, torch.tensor(gradient, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equal_the_naive_loop(reduction, seed):
    batch = random_batch(seed)
    denominator = batch.denominator(reduction, 8)
    total = 0.0
    for row, counts in zip(batch.logprobs.tolist(), batch.mask.tolist(), strict=True):
        counted = [x for x, c in zip(row, counts, strict=True) if c]
        if counted:
            total += sum(counted) / (len(counted) if reduction == "sequence_mean" else 1) / denominator
    actual = reduce_tokens(batch.logprobs, batch.mask, reduction=reduction, denominator=denominator)
    assert actual.item() == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_denominator_given_is_the_denominator_used(reduction):
    batch = random_batch(1)
    one, four, tensor = (
        reduce_tokens(batch.logprobs, batch.mask, reduction=reduction, denominator=d)
        for d in (1.0, 4.0, torch.tensor(4.0, dtype=torch.float64))
    )
    assert one.item() == pytest.approx(4 * four.item(), abs=1e-12)
    assert torch.equal(four, tensor)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_tensor_of_ones_reduces_to_one_where_every_row_counts(reduction):
    mask = random_batch(2).mask[[0, 1, 3, 4]]
    budget = mask.sum().item() / 4
    denominator = minibatch_denominator(sequences=4, tokens=mask.sum(), reduction=reduction, token_budget=budget)
    actual = reduce_tokens(torch.ones(mask.shape), mask, reduction=reduction, denominator=denominator)
    assert actual.item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("reduction", "sequences", "tokens", "expected"),
    [
        ("sequence_mean", 4, 100, 4.0),
        ("token_mean", 4, 100, 100.0),
        ("constant", 4, 100, 256.0),
        ("sequence_mean", 0, 0, 1.0),
        ("token_mean", 0, 0, 1.0),
        ("constant", 0, 0, 64.0),
    ],
)
def test_minibatch_denominator(reduction, sequences, tokens, expected):
    actual = minibatch_denominator(sequences=sequences, tokens=tokens, reduction=reduction, token_budget=64)
    assert actual == expected
    assert isinstance(actual, float)


def test_refusals_name_the_option():
    with pytest.raises(ValueError, match="reduction='mean'"):
        reduce_tokens(VALUES, MASK, reduction="mean", denominator=1)
    with pytest.raises(ValueError, match="reduction='mean'"):
        minibatch_denominator(sequences=1, tokens=1, reduction="mean", token_budget=1)
