"""What is left of a rollout belongs to the same steps on any number of ranks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.rows import ragged
from lightning_r1.experience.batching import Sequences
from lightning_r1.experience.buffer import ExperienceBuffer
from lightning_r1.experience.redistribute import OwnState, describe, own_state, redistribute

G = 4  # completions of a prompt


def buffer(rank: int, groups: int, *, position: int, whole_groups: bool, minibatches: int = 3) -> ExperienceBuffer:
    """A rank's part of a rollout; the advantage of a row is its number over all ranks."""
    rows = ragged([(3, 1 + row % 4) for row in range(groups * G)])
    ids = [100 * rank + row for row in range(groups * G)]
    prompts = [torch.tensor([10 * rank + row // G, 9]) for row in range(groups * G)]
    sequences = replace(rows, prompt_ids=prompts, advantages=torch.tensor(ids, dtype=torch.float32))
    made = ExperienceBuffer(sequences, minibatches=minibatches, iterations=2, seed=rank, whole_groups=whole_groups)
    made.position = position
    return made


def state(made: ExperienceBuffer, queue: Any = (), flight: Any = None) -> OwnState:
    return OwnState(made.state_dict(), list(queue), flight)


def drain(made: ExperienceBuffer) -> list[Sequences]:
    taken = []
    while not made.exhausted:
        taken.append(made.next_minibatch())
    return taken


def rows_of(minibatches: list[Sequences]) -> Counter[tuple[Any, ...]]:
    """Each row with all that belongs to it."""
    return Counter(
        (float(part.advantages[row]), *(tuple(values[row].tolist()) for values in (
            part.prompt_ids, part.completion_ids, part.rollout_logprobs, part.old_logprobs, part.ref_logprobs)))
        for part in minibatches for row in range(len(part))
    )  # fmt: skip


@pytest.mark.parametrize("whole_groups", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2), (3, 2), (2, 5)])
@pytest.mark.parametrize("position", [0, 2, 5])
def test_each_step_that_is_left_has_the_same_completions(
    before: int, after: int, position: int, whole_groups: bool
) -> None:
    # ranks of different sizes, as those have that drop dead groups; one may have nothing
    sizes = [3, 6, 4, 0][:before]
    old = [buffer(rank, size, position=position, whole_groups=whole_groups) for rank, size in enumerate(sizes)]
    states = [state(one) for one in old]
    new = [ExperienceBuffer.from_state_dict(redistribute(states, rank, after).buffer) for rank in range(after)]

    theirs, ours = ([drain(one) for one in many] for many in (old, new))
    assert {len(steps) for steps in ours} == {6 - position}
    for step in range(6 - position):
        expected, found = ([steps[step] for steps in many] for many in (theirs, ours))
        assert rows_of(found) == rows_of(expected)
        if whole_groups:
            units = [{int(prompt[0]) for prompt in part.prompt_ids} for part in found]
            assert sum(map(len, units)) == len(set().union(*units)), "a group is on two ranks"
            assert max(map(len, units)) - min(map(len, units)) <= 1
        else:
            assert max(map(len, found)) - min(map(len, found)) <= 1


def test_nobody_gets_rows_that_it_does_not_need() -> None:
    old = [state(buffer(rank, 3, position=5, whole_groups=False)) for rank in range(2)]
    new = [ExperienceBuffer.from_state_dict(redistribute(old, rank, 4).buffer) for rank in range(4)]
    assert [len(one.sequences) for one in new] == [2, 2, 2, 2]  # of the 8 of the last minibatch


def test_twice_is_as_good_as_once() -> None:
    old = [buffer(rank, 4, position=1, whole_groups=False) for rank in range(2)]
    states = [redistribute([state(one) for one in old], rank, 4) for rank in range(4)]
    again = [ExperienceBuffer.from_state_dict(redistribute(states, rank, 2).buffer) for rank in range(2)]
    ours, theirs = ([part for one in many for part in drain(one)] for many in (again, old))
    assert rows_of(ours) == rows_of(theirs)


def test_between_rollouts_nothing_is_left() -> None:
    old = [state(buffer(rank, 2, position=6, whole_groups=False)) for rank in range(2)]
    assert redistribute(old, 0, 3) == OwnState({}, [], None)
    assert describe(old, 3) == "nothing is left of the rollout"


def test_groups_that_wait_are_dealt_out_oldest_first() -> None:
    queues = [[{"rollout": 1, "group": "a"}, {"rollout": 3, "group": "b"}], [{"rollout": 2, "group": "c"}], []]
    states = [state(ExperienceBuffer.empty(), queue) for queue in queues]
    dealt = [[one["group"] for one in redistribute(states, rank, 2).queue] for rank in range(2)]
    assert dealt == [["a", "b"], ["c"]]
    assert "3 waiting group(s) are dealt out anew" in describe(states, 2)


def flight(groups: list[int]) -> dict[str, Any]:
    return {"groups": groups, "generation_seconds": 1.0, "reward_seconds": float(len(groups))}


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_rollout_in_flight_lies_in_the_order_of_the_stream(after: int) -> None:
    # position p went to rank p % 2
    states = [state(ExperienceBuffer.empty(), (), flight(groups)) for groups in ([0, 2, 4, 6], [1, 3, 5, 7])]
    dealt = [redistribute(states, rank, after).flight for rank in range(after)]
    assert [one and one["groups"] for one in dealt] == [list(range(rank, 8, after)) for rank in range(after)]
    assert describe(states, after).endswith("the 8 group(s) in flight are dealt out anew")


def test_a_flight_that_does_not_divide_or_has_failed_is_made_again() -> None:
    states = [state(ExperienceBuffer.empty(), (), flight(groups)) for groups in ([0, 2], [1, 3])]
    assert [redistribute(states, rank, 3).flight for rank in range(3)] == [None] * 3
    assert describe(states, 3).endswith("the 4 group(s) in flight are sampled again")
    failed = [states[0], state(ExperienceBuffer.empty())]
    assert redistribute(failed, 0, 1).flight is None


def test_as_many_ranks_as_before_have_what_they_wrote() -> None:
    states = {rank: state(buffer(rank, 2, position=1, whole_groups=False)) for rank in range(2)}
    checkpoint = {"lightning_r1": {"world_size": 2}, "ranks": {1: states[1].plain()}}
    assert own_state(checkpoint, 1, 2, tell=pytest.fail) == states[1]


def test_a_file_that_holds_all_ranks_together_is_read() -> None:
    """As checkpoints were before ranks had files of their own."""
    kept = buffer(0, 2, position=1, whole_groups=True)
    made = {
        "sequences": kept.state_dict()["sequences"], "minibatches": 3, "iterations": 2, "seed": 0,
        "whole_groups": True, "position": 1,
    }  # fmt: skip
    checkpoint = {"lightning_r1": {"world_size": 1, "buffers": [made], "queues": [[]], "flights": None}}
    told: list[str] = []
    own = own_state(checkpoint, 0, 1, tell=pytest.fail)
    assert rows_of(drain(ExperienceBuffer.from_state_dict(own.buffer))) == rows_of(drain(kept))
    assert own_state(checkpoint, 1, 2, tell=told.append).buffer
    assert told == [
        "the checkpoint was written by 1 rank(s) and is read by 2: the 5 minibatch(es) left of the rollout are cut anew"
    ]
