"""One rollout: which groups are kept, which rows take part, and with what credit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from helpers.ranks import on_ranks
from lightning_r1.experience import collect as collect_module
from lightning_r1.experience.collect import Credit, Rollout, collect
from lightning_r1.experience.queue import GroupQueue
from lightning_r1.experience.stored import from_plain, to_plain
from lightning_r1.functional import group_relative_advantages, per_reward_advantages
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import EngineError
from lightning_r1.types import Completion, Outcome, Prompt, Sampling
from oracles.naive_refill import NaiveRefill

# a completion's reward is the number it writes; without <eos> it ran into the token limit
SCRIPT = {
    "mixed": ["3<eos>", "1<eos>", "0<eos>", "2"],
    "other": ["0<eos>", "0<eos>", "4<eos>", "0<eos>"],
    "equal": ["1<eos>", "1<eos>", "1", "1<eos>"],
    "zero": ["0<eos>"],
    "broken": ["1<eos>", "x<eos>", "3<eos>", "x<eos>"],
    "hopeless": ["x<eos>"],
    "cut": ["1", "2", "3", "4"],
}
SAMPLING = Sampling(group_size=4)


def written_number(prompt: Prompt, completion: Completion) -> float | None:
    written = completion.text.removeprefix("<think>")
    return None if written == "x" else float(written)


def is_odd(prompt: Prompt, completion: Completion) -> float:
    return float(completion.text[-1] in "13579")


class Draws:
    """Gives the prompts of a plan, one after the other, and remembers what it was asked."""

    def __init__(self, codec: Codec, plan: list[list[str]]) -> None:
        self.codec, self.plan = codec, plan
        self.asked: list[tuple[int, int]] = []

    def __call__(self, taken: int, count: int) -> tuple[list[Prompt], list[int]]:
        self.asked.append((taken, count))
        questions = [question for part in self.plan for question in part][taken : taken + count]
        assert len(questions) == count
        prompts = [number_prompt(self.codec, question, 0) for question in questions]
        return prompts, [100 + taken + place for place in range(count)]


@pytest.fixture
def roll(codec: Codec) -> Callable[..., tuple[Rollout, Draws, ScriptedEngine]]:
    """``roll([["mixed"], ...], groups=..., dead_groups=...)``."""

    def roll(
        plan: list[list[str]],
        *,
        groups: int | None = None,
        rewards: RewardSuite | None = None,
        number: int = 1,
        queue: GroupQueue | None = None,
        **credit: Any,
    ) -> tuple[Rollout, Draws, ScriptedEngine]:
        draws, engine = Draws(codec, plan), ScriptedEngine(codec, SCRIPT)
        rollout = collect(
            draws,
            engine,
            rewards or RewardSuite({"number": written_number}),
            sampling=SAMPLING,
            credit=Credit(**credit),
            groups=groups or len(plan[0]),
            number=number,
            queue=queue,
        )
        return rollout, draws, engine

    return roll


def questions(rollout: Rollout) -> list[str]:
    return [scored.group.prompt.question for scored in rollout.scored]


def test_prompts_seeds_and_sampling_reach_the_engine(roll: Any) -> None:
    rollout, draws, engine = roll([["mixed", "other"]])
    (prompts, sampling, seeds), *more = engine.calls
    assert not more
    assert [prompt.question for prompt in prompts] == questions(rollout) == ["mixed", "other"]
    assert (sampling, seeds, draws.asked) == (SAMPLING, [100, 101], [(0, 2)])


@pytest.mark.parametrize("std", ["sample", "population", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_advantages_are_the_functional_ones(std: str, baseline: str, roll: Any) -> None:
    rollout, _, _ = roll([["mixed", "equal", "broken"]], std=std, baseline=baseline)
    rewards = torch.tensor([[3, 1, 0, 2], [1, 1, 1, 1], [1, math.nan, 3, math.nan]], dtype=torch.float64)
    expected = group_relative_advantages(rewards, std=std, baseline=baseline)
    torch.testing.assert_close(rollout.advantages, expected, rtol=0, atol=0)
    assert rollout.advantages.dtype == torch.float64


def test_an_advantage_worked_by_hand(roll: Any) -> None:
    rollout, _, _ = roll([["other"]])
    # rewards 0 0 4 0: mean 1, sample standard deviation 2
    expected = [-1 / 2.0001, -1 / 2.0001, 3 / 2.0001, -1 / 2.0001]
    assert rollout.advantages[0].tolist() == pytest.approx(expected, abs=1e-12)
    assert rollout.sequences.advantages.tolist() == pytest.approx(expected, abs=1e-6)


def test_rewards_one_by_one(roll: Any) -> None:
    suite = RewardSuite({"number": written_number, "odd": is_odd}, {"odd": 0.5})
    rollout, _, _ = roll([["mixed", "broken"]], rewards=suite, per_reward=True)
    nan = math.nan
    numbers = torch.tensor([[3, 1, 0, 2], [1, nan, 3, nan]], dtype=torch.float64)
    odd = torch.tensor([[1, 1, 0, 0], [1, nan, 1, nan]], dtype=torch.float64)
    expected = per_reward_advantages(torch.stack([numbers, odd], -1), torch.tensor([1, 0.5], dtype=torch.float64))
    torch.testing.assert_close(rollout.advantages, expected, rtol=0, atol=0)
    # and not the advantages of the sum
    summed = group_relative_advantages(numbers + 0.5 * odd)
    assert (rollout.advantages - summed).abs().max() > 0.05


def test_rows_are_the_completions_in_order(roll: Any, codec: Codec) -> None:
    rollout, _, _ = roll([["other", "mixed"]])
    rows = rollout.sequences
    expected = [(question, text) for question in ("other", "mixed") for text in SCRIPT[question]]
    assert len(rows) == 8
    for row, (question, text) in enumerate(expected):
        assert rows.prompt_ids[row].tolist() == list(number_prompt(codec, question, 0).token_ids)
        assert codec.tokenizer.decode(rows.completion_ids[row]) == text
        length = len(rows.completion_ids[row])
        assert rows.rollout_logprobs[row].tolist() == [-(place + 1) / 8 for place in range(length)]
    torch.testing.assert_close(rows.advantages, rollout.advantages.flatten().float())
    assert rows.old_logprobs is rows.ref_logprobs is None


def test_keep_leaves_dead_groups_in(roll: Any) -> None:
    rollout, _, _ = roll([["equal", "mixed", "hopeless"]], dead_groups="keep")
    assert questions(rollout) == ["equal", "mixed", "hopeless"]
    assert len(rollout.sequences) == 12
    assert rollout.sequences.advantages[:4].tolist() == [0] * 4
    assert (rollout.dead_groups, rollout.sampled_groups, rollout.draws) == (2, 3, 1)


def test_drop_leaves_dead_groups_out_of_the_update_only(roll: Any) -> None:
    rollout, _, _ = roll([["equal", "mixed", "hopeless", "broken"]], dead_groups="drop")
    assert questions(rollout) == ["equal", "mixed", "hopeless", "broken"]  # they are logged all the same
    assert len(rollout.sequences) == 8
    assert (rollout.dead_groups, rollout.sampled_groups, rollout.draws) == (2, 4, 1)


def test_refill_draws_until_the_rollout_is_full(roll: Any) -> None:
    plan = [["equal", "mixed", "zero"], ["other", "equal", "zero"], ["broken", "mixed", "mixed"], ["mixed"] * 3]
    rollout, draws, engine = roll(plan, dead_groups="refill")
    assert questions(rollout) == ["mixed", "other", "broken"]
    # two of three are missing, and one in three teaches: six would do, and three is a whole rollout
    assert draws.asked == [(0, 3), (3, 3), (6, 3)]
    assert [seeds for _, _, seeds in engine.calls] == [[100, 101, 102], [103, 104, 105], [106, 107, 108]]
    assert len(rollout.sequences) == 12
    assert (rollout.dead_groups, rollout.sampled_groups, rollout.draws, rollout.prompts) == (4, 9, 3, 9)


def test_a_refill_draws_as_many_as_should_do_and_then_more_generously(roll: Any) -> None:
    first = ["mixed"] * 9 + ["zero"] * 3
    rollout, draws, _ = roll([first, ["zero"] * 4, ["zero"] * 12, ["mixed"] * 12], dead_groups="refill")
    # three are missing and 9 of 12 teach: 4 should do; then 9 of 16: 6, twice; then 9 of 28: 10, three times, but no
    # more than a rollout
    assert draws.asked == [(0, 12), (12, 4), (16, 12), (28, 12)]
    assert questions(rollout) == ["mixed"] * 12


@pytest.mark.parametrize("seed", range(30))
def test_refills_follow_the_naive_loop(seed: int, roll: Any) -> None:
    random = Random(seed)
    groups, refills, age = random.randint(1, 8), random.randint(1, 4), random.randint(0, 3)
    plan = [random.choice(["mixed", "zero", "zero", "other"]) for _ in range(400)]
    queue, naive, taken = GroupQueue(age), NaiveRefill(groups, refills, age), 0
    for number in range(1, 6):
        rollout, draws, _ = roll(
            [plan[taken:]], groups=groups, number=number, queue=queue, dead_groups="refill", max_refills=refills
        )
        used, drawn = naive.rollout(number, plan[taken:])
        taken += sum(drawn)
        assert [count for _, count in draws.asked] == drawn
        assert rollout.prompts == sum(drawn)
        if used:
            assert questions(rollout) == used
        assert [one.group.group.prompt.question for one in queue.waiting] == [name for _, name in naive.waiting]


def test_what_waits_is_used_first_and_not_too_late(roll: Any) -> None:
    queue = GroupQueue(1)
    roll([["mixed", "zero", "zero"], ["other", "broken", "other"]], groups=3, queue=queue, dead_groups="refill")
    assert len(queue) == 1
    rollout, draws, _ = roll([["mixed", "mixed"]], groups=3, number=2, queue=queue, dead_groups="refill")
    assert draws.asked == [(0, 2)]  # one is there
    assert questions(rollout) == ["other", "mixed", "mixed"]
    assert len(queue) == 0
    roll([["mixed", "zero", "zero"], ["other", "broken", "other"]], groups=3, queue=queue, dead_groups="refill")
    assert len(queue.usable(2)) == 1
    assert queue.usable(3) == []


def test_a_queue_is_plain_data_in_a_checkpoint(roll: Any, tmp_path: Path) -> None:
    queue = GroupQueue(3)
    plan = [["zero", "zero", "mixed"], ["broken", "mixed", "cut"]]
    rollout, _, _ = roll(plan, queue=queue, dead_groups="refill")
    torch.save(queue.state_dict(), tmp_path / "queue")
    again = GroupQueue(3)
    again.load_state_dict(torch.load(tmp_path / "queue", weights_only=True))
    assert [one.rollout for one in again.waiting] == [1]
    assert [one.group for one in again.waiting] == [one.group for one in queue.waiting]
    broken = rollout.scored[1]  # what could not be scored is not a number
    back = from_plain(to_plain(broken))
    assert repr(back) == repr(broken)
    assert (type(back.breakdown["number"][1].outcome), math.isnan(back.rewards[1])) == (Outcome, True)


def test_refill_draws_no_more_than_it_needs(roll: Any) -> None:
    rollout, draws, _ = roll([["mixed", "other"], ["mixed", "other"]], dead_groups="refill")
    assert draws.asked == [(0, 2)]
    assert questions(rollout) == ["mixed", "other"]


@pytest.mark.parametrize("max_refills", [1, 3])
def test_refill_gives_up(max_refills: int, roll: Any) -> None:
    plan = [["mixed", "zero"], *([["zero", "equal"]] * 5)]
    rollout, draws, _ = roll(plan, dead_groups="refill", max_refills=max_refills)
    assert [count for _, count in draws.asked] == [2] * (max_refills + 1)
    assert questions(rollout) == ["mixed"]  # a smaller rollout, never a dead group in disguise
    assert len(rollout.sequences) == 4
    assert rollout.dead_groups == 1 + 2 * max_refills
    assert rollout.sampled_groups == 2 * (max_refills + 1)


def test_a_rollout_of_dead_groups_only_can_still_be_logged(roll: Any) -> None:
    rollout, _, _ = roll([["zero", "equal"]] * 5, dead_groups="refill")
    assert len(rollout.scored) == 2
    assert len(rollout.sequences) == 0
    assert rollout.advantages.count_nonzero() == 0
    assert rollout.dead_groups == rollout.sampled_groups == 10


def test_groups_whose_parts_differ_are_not_dead_where_parts_are_normalised(roll: Any) -> None:
    # the sums are all 3 + 0, 1 + 2, ... = 3, but normalised one by one the parts do not cancel
    suite = RewardSuite(
        {"number": written_number, "rest": lambda prompt, completion: (3 - float(completion.text[-1])) / 2},
        {"rest": 2.0},
    )
    rollout, _, _ = roll([["mixed"]], rewards=suite, per_reward=True)
    assert rollout.scored[0].rewards == (3, 3, 3, 3)
    assert rollout.advantages.count_nonzero() == 4
    assert rollout.dead_groups == 0


def test_truncated_rows_are_left_out_but_stay_in_the_baseline(roll: Any) -> None:
    rollout, _, _ = roll([["mixed", "equal", "cut"]], mask_truncated=True)
    whole, _, _ = roll([["mixed", "equal", "cut"]])
    assert torch.equal(rollout.advantages, whole.advantages)
    # one of mixed, one of equal and all of cut ran into the limit
    assert len(rollout.sequences) == 3 + 3
    kept = whole.advantages.flatten()[[0, 1, 2, 4, 5, 7]].float()
    assert rollout.sequences.advantages.tolist() == kept.tolist()


def test_unscored_completions_have_no_advantage(roll: Any) -> None:
    rollout, _, _ = roll([["broken"]])
    # 1 and 3 are scored: mean 2, sample standard deviation 2 ** 0.5
    first = 1 / (math.sqrt(2) + 1e-4)
    assert rollout.advantages[0].tolist() == pytest.approx([-first, 0, first, 0], abs=1e-12)
    assert math.isnan(rollout.scored[0].rewards[1])


def test_a_draw_may_give_more_than_is_wanted(roll: Any) -> None:
    rollout, _, _ = roll([["mixed", "zero", "zero"], ["other", "broken", "mixed"]], groups=3, dead_groups="refill")
    assert questions(rollout) == ["mixed", "other", "broken"]
    assert rollout.advantages.shape == (3, 4)


def test_every_rank_draws_as_often_as_the_one_that_needs_most(roll: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # the stream of prompts has one position, the same for all
    plans = [[["mixed"], ["other"], ["other"]], [["zero"], ["equal"], ["other"]]]
    works = [lambda plan=plan: roll(plan, dead_groups="refill") for plan in plans]
    (lucky, first, _), (unlucky, second, _) = on_ranks(monkeypatch, [collect_module], works)
    assert first.asked == second.asked == [(0, 1), (1, 1), (2, 1)]
    assert (questions(lucky), questions(unlucky)) == (["mixed"], ["other"])
    assert (lucky.dead_groups, unlucky.dead_groups) == (0, 2)


def test_parts_are_normalised_over_the_batch_of_all_ranks(roll: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = RewardSuite({"number": written_number, "odd": is_odd}, {"odd": 0.5})
    alone, _, _ = roll([["mixed", "cut", "other", "broken"]], rewards=suite, per_reward=True)
    works = [
        lambda plan=plan: roll([plan], rewards=suite, per_reward=True)[0]
        for plan in (["mixed", "cut"], ["other", "broken"])
    ]
    first, second = on_ranks(monkeypatch, [collect_module], works)
    torch.testing.assert_close(torch.cat([first.advantages, second.advantages]), alone.advantages, rtol=0, atol=1e-12)


def test_who_is_to_leave_does_so_in_the_middle_and_leaves_the_queue_as_it_was(codec: Codec) -> None:
    class Struck(ScriptedEngine):
        """Another program, which the signal has ended as well."""

        def generate(self, *args: Any, **how: Any) -> Any:
            raise EngineError("it is gone")

    def leave() -> None:
        raise Interrupted("it received SIGTERM")

    queue = GroupQueue(2)
    for engine in (ScriptedEngine(codec, SCRIPT), Struck(codec, SCRIPT)):
        how: dict[str, Any] = {"sampling": SAMPLING, "credit": Credit(), "groups": 1, "queue": queue}
        rewards = RewardSuite({"number": written_number})
        with pytest.raises(Interrupted, match="SIGTERM"):
            collect(Draws(codec, [["mixed"]]), engine, rewards, still_wanted=leave, **how)
    assert len(queue) == 0
    with pytest.raises(EngineError, match="it is gone"):
        collect(Draws(codec, [["mixed"]]), engine, rewards, **how)


def test_seconds_are_measured(roll: Any) -> None:
    rollout, _, _ = roll([["mixed"]])
    assert rollout.generation_seconds > 0
    assert rollout.reward_seconds > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dead_groups": "ignore"}, r"algo\.dead_groups='ignore': expected keep, drop or refill"),
        ({"max_refills": 0}, r"algo\.max_refills=0: expected >= 1"),
    ],
)
def test_unknown_credit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Credit(**fields)
