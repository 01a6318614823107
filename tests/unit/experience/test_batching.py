"""From ragged rows to padded micro-batches, against naive loops."""

from __future__ import annotations

import pytest
import torch

from helpers.rows import ragged
from lightning_r1.experience.batching import (
    Layouts,
    MicroBatch,
    Sequences,
    blank,
    micro_batches,
    pad,
    placed_micro_batches,
    sampled_masks,
)
from lightning_r1.models.layout import pack
from lightning_r1.models.token_budget import split_by_tokens

LENGTHS = [(3, 2), (1, 5), (4, 1), (2, 3)]
LOGPROBS = ("rollout_logprobs", "old_logprobs", "ref_logprobs")


def naive_padding(rows: Sequences, pad_id: int) -> dict[str, list[list[float]]]:
    """The padded layout, one number at a time."""
    count = len(rows.prompt_ids)
    width = max(len(rows.prompt_ids[row]) + len(rows.completion_ids[row]) for row in range(count))
    longest = max(len(rows.completion_ids[row]) for row in range(count))
    layout = {
        "input_ids": [[pad_id] * width for _ in range(count)],
        "completion_mask": [[False] * longest for _ in range(count)],
        **{name: [[0.0] * longest for _ in range(count)] for name in LOGPROBS},
    }
    for row in range(count):
        prompt, completion = rows.prompt_ids[row].tolist(), rows.completion_ids[row].tolist()
        for column, token in enumerate(prompt + completion):
            layout["input_ids"][row][column] = token
        for column in range(len(completion)):
            layout["completion_mask"][row][column] = True
            for name in LOGPROBS:
                layout[name][row][column] = getattr(rows, name)[row][column].item()
    return layout


def test_padding_is_the_naive_layout() -> None:
    rows = ragged(LENGTHS)
    batch = pad(rows, pad_id=7)
    for name, expected in naive_padding(rows, 7).items():
        assert getattr(batch, name).tolist() == expected, name
    assert batch.prompt_lengths.tolist() == [3, 1, 4, 2]
    assert batch.advantages.tolist() == [1, 2, 3, 4]
    assert batch.completion_mask.dtype == torch.bool
    assert batch.input_ids.dtype == torch.int64


def test_the_completion_stands_behind_the_prompt() -> None:
    # the mask's column t is the t-th token behind the prompt
    rows = ragged(LENGTHS)
    batch = pad(rows, pad_id=0)
    for row, completion in enumerate(rows.completion_ids):
        start = batch.prompt_lengths[row]
        counted = batch.completion_mask[row].nonzero().squeeze(1)
        assert batch.input_ids[row, start + counted].tolist() == completion.tolist()


def test_what_is_not_there_stays_away() -> None:
    rows = ragged(LENGTHS)
    batch = pad(Sequences(rows.prompt_ids, rows.completion_ids, rows.advantages), pad_id=0)
    assert batch.rollout_logprobs is batch.old_logprobs is batch.ref_logprobs is None


def test_selected_rows_stay_together() -> None:
    chosen = ragged(LENGTHS).select([2, 0, 2])
    assert chosen.lengths() == [5, 5, 5]
    assert chosen.advantages.tolist() == [3, 1, 3]
    assert [ids.tolist() for ids in chosen.completion_ids] == [[250], [50, 51], [250]]
    for name, offset in zip(LOGPROBS, (0, 10, 20), strict=True):
        assert torch.cat(getattr(chosen, name)).tolist() == pytest.approx(
            [-2.01 - offset, -0.01 - offset, -0.02 - offset, -2.01 - offset]
        )
    assert len(chosen) == 3


def test_no_rows_can_be_selected() -> None:
    nothing = ragged(LENGTHS).select([])
    assert len(nothing) == 0
    assert nothing.advantages.shape == (0,)
    assert nothing.lengths() == []


def test_a_blank_counts_nothing() -> None:
    batch = blank(pad_id=5)
    assert batch.input_ids.tolist() == [[5, 5]]
    assert not batch.completion_mask.any()
    # a forward needs a token behind the prompt's last
    assert batch.prompt_lengths.item() + batch.completion_mask.shape[1] <= batch.input_ids.shape[1]
    for name in LOGPROBS:
        assert getattr(batch, name).shape == batch.completion_mask.shape


def test_nothing_keeps_the_rows_and_counts_none() -> None:
    batch = pad(ragged(LENGTHS), pad_id=0)
    nothing = batch.nothing()
    assert not nothing.completion_mask.any()
    assert nothing.completion_mask.shape == batch.completion_mask.shape
    assert nothing.input_ids is batch.input_ids
    assert batch.completion_mask.any(), "the batch itself is as it was"


def test_to_moves_every_tensor() -> None:
    layout = pack([prompt for prompt, _ in LENGTHS], [completion for _, completion in LENGTHS], [0, 1, 0, 2])
    batch = pad(ragged(LENGTHS), 0, layout)
    moved = batch.to(torch.device("meta"))
    for name in set(MicroBatch.__dataclass_fields__) - {"layout"}:
        assert getattr(moved, name).device.type == "meta", name
    for part in (moved.layout, *moved.layout.parts):
        tensors = [getattr(part, name) for name in type(part).__dataclass_fields__]
        assert {value.device.type for value in tensors if isinstance(value, torch.Tensor)} == {"meta"}
    assert [part.of_itself for part in moved.layout.parts] == [part.of_itself for part in layout.parts]
    partly = MicroBatch(batch.input_ids, batch.prompt_lengths, batch.completion_mask, batch.advantages)
    assert partly.to(torch.device("meta")).ref_logprobs is None


def test_the_budget_is_of_padded_micro_batches() -> None:
    rows = ragged([(3, 9), (5, 2), (1, 1), (6, 6), (2, 8), (4, 4)])
    for part in split_by_tokens(rows.lengths(), budget=24):
        assert pad(rows.select(part), pad_id=0).input_ids.numel() <= 24


def groups(*shapes: tuple[int, tuple[int, ...]]) -> Sequences:
    """Rows of prompts that are alike within a group, group by group."""
    rows = ragged([(prompt, length) for prompt, completions in shapes for length in completions])
    alike = [
        torch.full((prompt,), 90 + number) for number, (prompt, completions) in enumerate(shapes) for _ in completions
    ]
    return Sequences(alike, rows.completion_ids, rows.advantages)


GROUPS = groups((6, (3, 9, 1)), (2, (4, 4)), (8, (2, 5, 2, 2)))


@pytest.mark.parametrize("budget", [1, 15, 20, 40, 1000])
@pytest.mark.parametrize("layouts", [Layouts(packed=True), Layouts(shared_prefix="on")], ids=["packed", "shared"])
def test_packed_micro_batches_hold_every_row_once_within_the_budget(layouts: Layouts, budget: int) -> None:
    batches = placed_micro_batches(GROUPS, budget, 0, layouts)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(len(GROUPS)))
    for rows, batch in batches:
        assert len(batch.layout) <= budget or len(rows) == 1
        assert batch.advantages.tolist() == [GROUPS.advantages[row] for row in rows]
        prompts = {GROUPS.prompt_ids[row][0].item(): len(GROUPS.prompt_ids[row]) for row in rows}
        completions = sum(len(GROUPS.completion_ids[row]) for row in rows)
        shared = sum(prompts.values())
        alone = sum(len(GROUPS.prompt_ids[row]) for row in rows)
        assert len(batch.layout) == completions + (shared if layouts.shared_prefix == "on" else alone)
    if budget == 1000:
        assert len(batches) == 1


def test_auto_shares_where_that_leaves_few_tokens() -> None:
    auto = Layouts(shared_prefix="auto")
    [batch] = micro_batches(groups((60, (5, 5, 5))), 1000, 0, auto)
    assert len(batch.layout) == 60 + 15
    for rows in (groups((2, (50, 50))), groups((60, (5,)), (61, (5,)))):
        assert all(batch.layout is None for batch in micro_batches(rows, 1000, 0, auto))


def test_nothing_of_a_packed_micro_batch_still_has_its_layout() -> None:
    [batch] = micro_batches(GROUPS, 1000, 0, Layouts(shared_prefix="on"))
    assert batch.nothing().layout is batch.layout


def test_completions_without_an_environment_count_whole_beside_episodes() -> None:
    """As of a queue from before there was one."""
    ids = [torch.tensor([1, 2, 3]), torch.tensor([4, 5])]
    masks = sampled_masks([None, (True, False)], ids)
    assert masks is not None
    assert [mask.tolist() for mask in masks] == [[True, True, True], [True, False]]
    assert sampled_masks([None, None], ids) is None
