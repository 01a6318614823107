"""The experience buffer: every row once a pass, and the same from any position."""

from __future__ import annotations

import io
from dataclasses import fields, replace

import pytest
import torch

from helpers.rows import ragged
from lightning_r1.experience.batching import Sequences
from lightning_r1.experience.buffer import ExperienceBuffer


def rows(count: int) -> Sequences:
    return ragged([(2 + row % 3, 1 + row % 4) for row in range(count)])


def names(minibatch: Sequences) -> list[int]:
    """Which rows they are: the advantage of row r is r + 1."""
    return [int(advantage) - 1 for advantage in minibatch.advantages]


def drain(buffer: ExperienceBuffer) -> list[list[int]]:
    taken = []
    while not buffer.exhausted:
        taken.append(names(buffer.next_minibatch()))
    return taken


@pytest.mark.parametrize(("count", "minibatches"), [(12, 4), (13, 4), (3, 1), (3, 5), (1, 1), (0, 2)])
@pytest.mark.parametrize("iterations", [1, 3])
def test_every_row_once_a_pass_in_even_minibatches(count: int, minibatches: int, iterations: int) -> None:
    buffer = ExperienceBuffer(rows(count), minibatches=minibatches, iterations=iterations, seed=5)

    taken = drain(buffer)

    assert len(taken) == minibatches * iterations
    for start in range(0, len(taken), minibatches):
        one_pass = taken[start : start + minibatches]
        assert sorted(row for minibatch in one_pass for row in minibatch) == list(range(count))
        sizes = [len(minibatch) for minibatch in one_pass]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("groups", "minibatches"), [(6, 3), (7, 3), (2, 4)])
def test_whole_groups_stay_together(groups: int, minibatches: int) -> None:
    prompts = [torch.tensor([group, 9]) for group in range(groups)]
    shape = rows(4 * groups)
    sequences = replace(shape, prompt_ids=[prompts[row % groups] for row in range(4 * groups)])
    buffer = ExperienceBuffer(sequences, minibatches=minibatches, iterations=2, seed=5, whole_groups=True)
    buffer.next_minibatch()
    taken = drain(ExperienceBuffer.from_state_dict(buffer.state_dict()))  # it goes on as it began
    buffer.position = 0
    taken = [names(buffer.next_minibatch()), *taken]

    for one_pass in (taken[:minibatches], taken[minibatches:]):
        assert sorted(row for minibatch in one_pass for row in minibatch) == list(range(4 * groups))
        dealt = [{row % groups for row in minibatch} for minibatch in one_pass]
        assert sum(map(len, dealt)) == groups, "a group is in two minibatches"
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert taken[:minibatches] != taken[minibatches:] or groups < minibatches


def test_a_row_keeps_its_tokens_and_numbers() -> None:
    sequences = rows(9)
    buffer = ExperienceBuffer(sequences, minibatches=2, iterations=1, seed=5)
    while not buffer.exhausted:
        minibatch = buffer.next_minibatch()
        for place, row in enumerate(names(minibatch)):
            for name in ("prompt_ids", "completion_ids", "rollout_logprobs", "old_logprobs", "ref_logprobs"):
                assert getattr(minibatch, name)[place] is getattr(sequences, name)[row]


def test_every_pass_and_every_seed_has_an_order_of_its_own() -> None:
    taken = drain(ExperienceBuffer(rows(20), minibatches=1, iterations=4, seed=5))
    assert len({tuple(order) for order in taken}) == 4
    assert taken[0] != list(range(20)), "shuffled from the first pass on"
    assert drain(ExperienceBuffer(rows(20), minibatches=1, iterations=4, seed=5)) == taken
    assert drain(ExperienceBuffer(rows(20), minibatches=1, iterations=4, seed=6)) != taken


@pytest.mark.parametrize("position", range(7))
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_saved_buffer_goes_on_identically(position: int, through_a_file: bool) -> None:
    buffer = ExperienceBuffer(rows(10), minibatches=3, iterations=2, seed=5)
    for _ in range(position):
        buffer.next_minibatch()
    state = buffer.state_dict()
    if through_a_file:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    resumed = ExperienceBuffer.from_state_dict(state)

    assert resumed.exhausted is buffer.exhausted is (position == 6)
    while not buffer.exhausted:
        ours, theirs = buffer.next_minibatch(), resumed.next_minibatch()
        for field in fields(Sequences):
            expected, found = getattr(ours, field.name), getattr(theirs, field.name)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert resumed.exhausted


def test_taking_does_not_change_what_was_saved() -> None:
    buffer = ExperienceBuffer(rows(10), minibatches=3, iterations=1, seed=5)
    state = buffer.state_dict()
    first = names(buffer.next_minibatch())
    assert state["position"] == 0
    assert names(ExperienceBuffer.from_state_dict(state).next_minibatch()) == first


def test_log_probabilities_that_are_not_there_stay_away() -> None:
    sequences = rows(4)
    bare = Sequences(sequences.prompt_ids, sequences.completion_ids, sequences.advantages)
    buffer = ExperienceBuffer.from_state_dict(ExperienceBuffer(bare, minibatches=2, iterations=1, seed=0).state_dict())
    minibatch = buffer.next_minibatch()
    assert minibatch.rollout_logprobs is minibatch.old_logprobs is minibatch.ref_logprobs is None


def test_a_used_up_rollout_is_not_kept() -> None:
    buffer = ExperienceBuffer(rows(4), minibatches=2, iterations=1, seed=0)
    drain(buffer)
    assert buffer.state_dict() == {}
    assert ExperienceBuffer.from_state_dict({}).exhausted


def test_the_empty_buffer_asks_for_a_rollout() -> None:
    buffer = ExperienceBuffer.empty()
    assert buffer.exhausted
    assert buffer.state_dict() == {}
    with pytest.raises(IndexError, match="roll out first"):
        buffer.next_minibatch()


def test_an_exhausted_buffer_has_no_next() -> None:
    buffer = ExperienceBuffer(rows(4), minibatches=2, iterations=1, seed=0)
    drain(buffer)
    with pytest.raises(IndexError, match="exhausted"):
        buffer.next_minibatch()
    assert buffer.position == 2
