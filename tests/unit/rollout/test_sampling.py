"""One token a row: the draw against a search by hand, truncation against a naive implementation."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_r1.rollout.sampling import invert_cdf, sample_tokens, truncate
from lightning_r1.types import Sampling

# below, at and above one block of 512, and several blocks with a part of one
VOCABULARIES = [5, 512, 513, 2000]
LARGEST_UNIFORM = 1 - 2**-53


def random_probabilities(rows: int, vocabulary: int, *, zeros: float = 0.0) -> Tensor:
    logits = 3 * torch.randn(rows, vocabulary)
    logits[:, 1:][torch.rand(rows, vocabulary - 1) < zeros] = -torch.inf
    return logits.softmax(-1)


def grid(points: int) -> Tensor:
    """Uniform numbers as even as can be: a share p of them lies in every interval of length p."""
    return (torch.arange(points, dtype=torch.float64) + 0.5) / points


def search(probabilities: list[float], uniform: float) -> int:
    """The first token whose cumulative probability is above ``uniform`` of the total, exactly."""
    exact = [Fraction(probability) for probability in probabilities]
    target = Fraction(uniform) * sum(exact)
    reached = Fraction(0)
    for token, probability in enumerate(exact):
        reached += probability
        if reached > target:
            return token
    raise AssertionError("a uniform number below 1 is always passed")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_the_draw_is_the_search(vocabulary: int, zeros: float) -> None:
    probabilities = random_probabilities(100, vocabulary, zeros=zeros)
    uniforms = torch.rand(100, dtype=torch.float64)

    tokens = invert_cdf(probabilities, uniforms)

    assert tokens.dtype == torch.int64
    expected = [search(row, uniform) for row, uniform in zip(probabilities.tolist(), uniforms.tolist(), strict=True)]
    assert tokens.tolist() == expected


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_frequencies_are_the_probabilities(vocabulary: int) -> None:
    probabilities = random_probabilities(1, vocabulary)
    points = 50_000

    tokens = invert_cdf(probabilities.expand(points, -1), grid(points))

    counts = torch.bincount(tokens, minlength=vocabulary).double()
    # an interval of length p holds p * points of the grid, one more or one less
    assert (counts - points * probabilities[0].double()).abs().max() <= 1.1


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST_UNIFORM])
def test_a_token_of_probability_zero_is_never_drawn(vocabulary: int, uniform: float) -> None:
    for likely in ([1], [vocabulary - 2], [0, vocabulary - 1], [vocabulary // 2, vocabulary // 2 + 1]):
        probabilities = torch.zeros(1, vocabulary)
        probabilities[0, likely] = 1 / len(likely)

        token = invert_cdf(probabilities, torch.tensor([uniform], dtype=torch.float64)).item()

        expected = likely[min(int(uniform * len(likely)), len(likely) - 1)]
        assert token == expected


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_smallest_and_the_largest_uniform_number(vocabulary: int) -> None:
    probabilities = random_probabilities(50, vocabulary, zeros=0.5)
    possible = [row.nonzero().squeeze(1) for row in probabilities]

    first = invert_cdf(probabilities, torch.zeros(50, dtype=torch.float64))
    last = invert_cdf(probabilities, torch.full((50,), LARGEST_UNIFORM, dtype=torch.float64))

    assert first.tolist() == [tokens[0].item() for tokens in possible]
    for row, token in enumerate(last.tolist()):
        assert token in possible[row]
        # rounding may stop a little early, never before what is left could be seen in float32
        assert probabilities[row, token + 1 :].sum() < 1e-6


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_rows_need_not_sum_to_one(vocabulary: int) -> None:
    probabilities = random_probabilities(200, vocabulary)
    uniforms = torch.rand(200, dtype=torch.float64)
    # a power of two scales without rounding
    assert invert_cdf(probabilities / 4, uniforms).tolist() == invert_cdf(probabilities, uniforms).tolist()


def test_a_row_does_not_depend_on_the_others() -> None:
    probabilities, uniforms = random_probabilities(40, 700), torch.rand(40, dtype=torch.float64)
    together = invert_cdf(probabilities, uniforms).tolist()
    alone = [invert_cdf(probabilities[[row]], uniforms[[row]]).item() for row in range(40)]
    assert together == alone


def test_rare_tokens_keep_their_share_of_a_large_vocabulary() -> None:
    # 100,000 tokens of 5e-6 behind one of 0.5: in float32 the running sum would be off by many tokens
    probabilities = torch.full((1, 100_001), 0.5 / 100_000)
    probabilities[0, 0] = 0.5
    uniforms = torch.tensor([0.75, 0.9, 0.999], dtype=torch.float64)

    tokens = invert_cdf(probabilities.expand(3, -1), uniforms)

    torch.testing.assert_close(tokens, torch.tensor([50_000, 80_000, 99_800]), atol=3, rtol=0)


def naive_truncation(logits: list[float], sampling: Sampling) -> set[int]:
    """Tokens that stay, one rule after the other, from the definitions."""
    kept = sorted(range(len(logits)), key=lambda token: -logits[token])
    if sampling.top_k:
        kept = kept[: sampling.top_k]
    if sampling.top_p < 1:
        weights = [math.exp(logits[token]) for token in kept]
        before, stay = 0.0, []
        for token, weight in zip(kept, weights, strict=True):
            if before < sampling.top_p * sum(weights):
                stay.append(token)
            before += weight
        kept = stay
    if sampling.min_p:
        kept = [token for token in kept if math.exp(logits[token] - logits[kept[0]]) >= sampling.min_p]
    return set(kept)


TRUNCATIONS = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 10_000},
    {"top_p": 0.01},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.05},
    {"min_p": 0.9},
    {"top_k": 5, "top_p": 0.8},
    {"top_k": 20, "min_p": 0.1},
    {"top_p": 0.9, "min_p": 0.2},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.05},
]


@pytest.mark.parametrize("rules", TRUNCATIONS, ids=str)
def test_truncation_keeps_what_the_definitions_keep(rules: dict[str, float]) -> None:
    sampling = Sampling(**rules)
    logits = 2 * torch.randn(30, 60)

    truncated = truncate(logits, sampling)

    for row, left in zip(logits.tolist(), truncated, strict=True):
        kept = left.isfinite().nonzero().squeeze(1).tolist()
        assert set(kept) == naive_truncation(row, sampling)
        assert [left[token].item() for token in kept] == [row[token] for token in kept]


def test_top_p_of_a_worked_example() -> None:
    # masses before: 0, 0.5, 0.8, 0.95; those below 0.8 stay, then those below 0.79, then one alone
    logits = torch.tensor([[0.3, 0.05, 0.5, 0.15]]).log()
    for top_p, kept in [(0.81, [0, 2, 3]), (0.79, [0, 2]), (0.5, [2]), (0.001, [2])]:
        assert truncate(logits, Sampling(top_p=top_p)).isfinite()[0].nonzero().squeeze(1).tolist() == kept


def test_truncation_sees_the_temperature() -> None:
    logits = torch.tensor([[4.0, 0.0]])
    uniforms = torch.tensor([0.999], dtype=torch.float64)
    # at temperature 1 the second token has 1.8 % and is left out; at 10 it has 40 % and stays
    cold, _ = sample_tokens(logits, uniforms, Sampling(temperature=1.0, top_p=0.9))
    warm, _ = sample_tokens(logits, uniforms, Sampling(temperature=10.0, top_p=0.9))
    assert (cold.item(), warm.item()) == (0, 1)


@pytest.mark.parametrize("rules", [{}, *TRUNCATIONS], ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_logprobs_are_those_of_the_processed_distribution(rules: dict[str, float], temperature: float) -> None:
    sampling = Sampling(temperature=temperature, **rules)
    logits = 2 * torch.randn(30, 60)

    tokens, logprobs = sample_tokens(logits, torch.rand(30, dtype=torch.float64), sampling)

    for row, token, logprob in zip(logits.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
        cooled = [value / temperature for value in row]
        kept = naive_truncation(cooled, sampling)
        assert token in kept
        expected = cooled[token] - math.log(sum(math.exp(cooled[other]) for other in kept))
        assert logprob == pytest.approx(expected, abs=2e-6)


def test_frequencies_follow_the_temperature() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.5])
    points = 20_000

    tokens, _ = sample_tokens(logits.expand(points, -1), grid(points), Sampling(temperature=2.0))

    weights = [math.exp(value / 2) for value in logits.tolist()]
    expected = [points * weight / sum(weights) for weight in weights]
    assert torch.bincount(tokens).tolist() == pytest.approx(expected, abs=1.1)


def test_greedy_takes_the_largest_and_reports_temperature_one() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.5]])

    tokens, logprobs = sample_tokens(
        logits, torch.tensor([0.9, 0.9], dtype=torch.float64), Sampling(temperature=0, top_p=0.1)
    )

    assert tokens.tolist() == [1, 0]
    expected = [3 - math.log(1 + math.e**3 + math.e), 2 - math.log(math.e**2 + math.e**-1 + math.e**0.5)]
    assert logprobs.tolist() == pytest.approx(expected, abs=1e-6)


def test_bfloat16_logits_are_sampled_in_float32() -> None:
    logits = torch.randn(8, 600).bfloat16()
    uniforms = torch.rand(8, dtype=torch.float64)

    tokens, logprobs = sample_tokens(logits, uniforms, Sampling())

    assert logprobs.dtype == torch.float32
    assert (tokens, logprobs)[0].tolist() == sample_tokens(logits.float(), uniforms, Sampling())[0].tolist()
    torch.testing.assert_close(logprobs, logits.float().log_softmax(-1).gather(1, tokens[:, None]).squeeze(1))


def test_an_estimate_of_memory_can_ask_for_a_nucleus_of_a_large_vocabulary() -> None:
    with FakeTensorMode():
        tokens, logprobs = sample_tokens(torch.zeros(3, 5000), torch.zeros(3), Sampling(top_p=0.95))
    assert (tokens.shape, logprobs.shape) == ((3,), (3,))
