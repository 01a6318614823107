"""The order of prompts: a permutation an epoch, a function of seed and position."""

from __future__ import annotations

import random

import pytest

from helpers.prompts import number_prompt
from lightning_r1.data.stream import PromptStream
from lightning_r1.models.codec import Codec
from lightning_r1.types import Prompt


@pytest.fixture
def prompts(codec: Codec) -> list[Prompt]:
    return [number_prompt(codec, str(number), number) for number in range(11)]


def test_every_epoch_is_a_permutation_of_its_own(prompts: list[Prompt]) -> None:
    stream = PromptStream(prompts, seed=3)
    epochs = [[stream.at(epoch * 11 + place).id for place in range(11)] for epoch in range(20)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(prompt.id for prompt in prompts)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert {epoch[0] for epoch in epochs} != {epochs[0][0]}


def test_a_function_of_seed_and_position(prompts: list[Prompt]) -> None:
    positions = list(range(100))
    in_order = [PromptStream(prompts, seed=3).at(position) for position in positions]

    assert [PromptStream(prompts, seed=3).at(position) for position in positions] == in_order
    one = PromptStream(prompts, seed=3)
    random.Random(1).shuffle(positions)
    anywhere = {position: one.at(position) for position in positions}
    assert [anywhere[position] for position in range(100)] == in_order
    assert [PromptStream(prompts, seed=4).at(position) for position in range(100)] != in_order


def test_global_randomness_plays_no_part(prompts: list[Prompt]) -> None:
    random.seed(1)
    before = random.getstate()
    first = [PromptStream(prompts, seed=3).at(position) for position in range(30)]
    assert random.getstate() == before
    random.seed(2)
    assert [PromptStream(prompts, seed=3).at(position) for position in range(30)] == first


def test_positions_far_away(prompts: list[Prompt]) -> None:
    stream = PromptStream(prompts, seed=3)
    far = 11 * 10**9
    assert sorted(stream.at(far + place).id for place in range(11)) == sorted(prompt.id for prompt in prompts)


def test_epochs_are_counted(prompts: list[Prompt]) -> None:
    stream = PromptStream(prompts, seed=0)
    assert [stream.epoch(position) for position in (0, 11, 22)] == [0, 1, 2]
    assert stream.epoch(5) == pytest.approx(5 / 11)


def test_one_prompt(prompts: list[Prompt]) -> None:
    stream = PromptStream(prompts[:1], seed=0)
    assert {stream.at(position).id for position in range(5)} == {prompts[0].id}


def test_no_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.train: there are no prompts"):
        PromptStream([], seed=0)
