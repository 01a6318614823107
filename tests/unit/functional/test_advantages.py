"""Group-relative advantages against naive loops, worked groups, unscored completions, dead groups."""

import math

import pytest
import torch

from lightning_r1.functional import group_relative_advantages, informative_groups, per_reward_advantages
from oracles.naive_advantages import naive_advantages, naive_informative, naive_per_reward_advantages

NAN = math.nan
STDS = ("sample", "population", "none")
BASELINES = ("mean", "leave_one_out")


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def random_rewards(seed, *shape):
    """Small whole and half numbers, so that ties and dead groups occur; one completion in six unscored."""
    make = torch.Generator().manual_seed(seed)
    rewards = torch.randint(-2, 4, shape, generator=make).double() / 2
    unscored = torch.rand(shape, generator=make) < 1 / 6
    return rewards.masked_fill(unscored, NAN)


def assert_equals(actual, expected):
    torch.testing.assert_close(actual, double(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("group_size", [1, 2, 3, 8])
def test_equal_the_naive_loop(group_size, std, baseline, seed):
    rewards = random_rewards(seed, 12, group_size)
    for epsilon in (1e-4, 0.5):
        actual = group_relative_advantages(rewards, std=std, baseline=baseline, epsilon=epsilon)
        assert_equals(actual, naive_advantages(rewards.tolist(), std=std, baseline=baseline, epsilon=epsilon))


def test_worked_group_for_every_standard_deviation():
    """r = 3, 1, 1, 3: mean 2, sample std sqrt(4/3), population std 1; the epsilon is outside the root."""
    rewards = double([[3.0, 1.0, 1.0, 3.0]])
    signs = double([[1.0, -1.0, -1.0, 1.0]])
    for std, deviation in (("sample", math.sqrt(4 / 3)), ("population", 1.0)):
        actual = group_relative_advantages(rewards, std=std, epsilon=0.25)
        torch.testing.assert_close(actual, signs / (deviation + 0.25), rtol=0, atol=1e-12)
    assert torch.equal(group_relative_advantages(rewards, std="none"), signs)
    torch.testing.assert_close(
        group_relative_advantages(rewards), signs / (math.sqrt(4 / 3) + 1e-4), rtol=0, atol=1e-12
    )


def test_leave_one_out_compares_with_the_others_alone():
    """r = 1, 0, 1, 1: 1 - mean(0, 1, 1) = 1/3 and 0 - mean(1, 1, 1) = -1."""
    actual = group_relative_advantages(double([[1.0, 0.0, 1.0, 1.0]]), std="none", baseline="leave_one_out")
    assert_equals(actual, [[1 / 3, -1.0, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("baseline", BASELINES)
def test_centred_on_the_mean_of_the_group(baseline):
    rewards = random_rewards(9, 20, 5)
    total = group_relative_advantages(rewards, std="none", baseline=baseline).sum(-1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


def test_unscored_completions_are_left_out_of_the_baseline_and_get_zero():
    """r = 4, nan, 2: mean 3, sample std sqrt(2); as if the middle one did not exist."""
    actual = group_relative_advantages(double([[4.0, NAN, 2.0], [NAN, NAN, 1.0], [NAN, NAN, NAN]]), epsilon=0.0)
    assert_equals(actual, [[1 / math.sqrt(2), 0.0, -1 / math.sqrt(2)], [0.0] * 3, [0.0] * 3])


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_teach_exactly_nothing(dtype, std, baseline):
    """0.1 is no binary fraction: a mean of 0.1s misses 0.1, and over a zero std plus 1e-12 that would be loud."""
    rewards = torch.tensor([[0.1] * 7, [0.3] * 6 + [NAN], [1 / 3] * 7], dtype=dtype)
    actual = group_relative_advantages(rewards, std=std, baseline=baseline, epsilon=1e-12)
    assert torch.equal(actual, torch.zeros_like(rewards))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("std", STDS)
def test_a_group_of_one_teaches_exactly_nothing(std, baseline):
    actual = group_relative_advantages(double([[5.0], [NAN]]), std=std, baseline=baseline)
    assert torch.equal(actual, double([[0.0], [0.0]]))


def test_groups_do_not_see_each_other():
    rewards = random_rewards(2, 6, 4)
    together = group_relative_advantages(rewards)
    alone = torch.cat([group_relative_advantages(row.unsqueeze(0)) for row in rewards])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("std", STDS)
def test_per_reward_equal_the_naive_loop(std, seed):
    rewards = random_rewards(seed, 5, 4, 3)
    weights = [1.0, 0.5, 2.0]
    for epsilon in (1e-4, 0.5):
        actual = per_reward_advantages(rewards, double(weights), std=std, epsilon=epsilon)
        assert_equals(actual, naive_per_reward_advantages(rewards.tolist(), weights, std=std, epsilon=epsilon))


def test_per_reward_a_large_reward_does_not_drown_a_small_one():
    """A reward a hundred times larger weighs no more; in a plain sum it would."""
    rewards = random_rewards(6, 4, 5, 2).nan_to_num(0.5)
    larger = rewards * double([100.0, 1.0])
    ones = double([1.0, 1.0])
    expected = per_reward_advantages(rewards, ones, epsilon=0.0)
    torch.testing.assert_close(per_reward_advantages(larger, ones, epsilon=0.0), expected, rtol=0, atol=1e-12)
    summed = [group_relative_advantages(r.sum(-1), epsilon=0.0) for r in (rewards, larger)]
    assert (summed[0] - summed[1]).abs().max() > 0.1


def test_per_reward_weights_are_applied_after_normalising():
    """Reward 2 is reward 1 upside down, so weights 1 and 1/2 leave half of reward 1, normalised again."""
    first = double([[1.0, 0.0, 2.0, 0.0], [5.0, 1.0, 1.0, 1.0]])
    both = torch.stack([first, -first / 100], dim=-1)
    actual = per_reward_advantages(both, double([1.0, 0.5]), epsilon=0.0)
    single = per_reward_advantages(first.unsqueeze(-1), double([1.0]), epsilon=0.0)
    torch.testing.assert_close(actual, single, rtol=0, atol=1e-12)


def test_per_reward_is_normalised_over_the_whole_batch():
    actual = per_reward_advantages(random_rewards(3, 8, 4, 2).nan_to_num(0.0), double([1.0, 1.0]), epsilon=0.0)
    assert actual.mean().item() == pytest.approx(0, abs=1e-12)
    assert actual.std().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("group_size", [1, 2, 5])
def test_informative_groups(group_size, seed):
    rewards = random_rewards(seed, 20, group_size)
    assert informative_groups(rewards).tolist() == naive_informative(rewards.tolist())


def test_informative_groups_worked():
    rewards = double([[1, 0, 1], [1, 1, 1], [1, NAN, 1], [1, NAN, 0], [NAN, NAN, 1], [NAN, NAN, NAN]])
    assert informative_groups(rewards).tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize("std", STDS)
def test_a_group_is_informative_exactly_where_an_advantage_is_not_zero(std):
    rewards = random_rewards(5, 40, 3)
    advantages = group_relative_advantages(rewards, std=std)
    assert torch.equal(advantages.abs().amax(-1) > 0, informative_groups(rewards))


@pytest.mark.parametrize(("option", "value"), [("std", "unbiased"), ("baseline", "median")])
def test_a_wrong_option_is_refused_by_its_name(option, value):
    with pytest.raises(ValueError, match=f"{option}='{value}'"):
        group_relative_advantages(double([[1.0, 0.0]]), **{option: value})
