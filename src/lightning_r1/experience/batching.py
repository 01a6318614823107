"""From ragged sequences to micro-batches within a budget of tokens: padded, packed, or with shared prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_r1.models.layout import Layout, pack
from lightning_r1.models.token_budget import split_by_tokens

Choice = Literal["auto", "on", "off"]
WORTH_SHARING = 0.8
"""Sharing pays where it leaves at most this share of the tokens that padded rows would have; see benchmark=update."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """N prompts with their completions, ragged, on the CPU: what the buffer holds.

    Every list has one entry a row; a log-probability entry is ``[completion length]``.
    """

    prompt_ids: list[Tensor]
    completion_ids: list[Tensor]
    advantages: Tensor
    """``[N]``."""
    rollout_logprobs: list[Tensor] | None = None
    old_logprobs: list[Tensor] | None = None
    ref_logprobs: list[Tensor] | None = None
    sampled: list[Tensor] | None = None
    """Of each row ``[completion length]`` bool, which tokens the policy wrote; None where it wrote them all."""

    def __len__(self) -> int:
        """N."""
        return len(self.prompt_ids)

    def lengths(self) -> list[int]:
        """Tokens of prompt and completion together, of each row."""
        return [len(p) + len(c) for p, c in zip(self.prompt_ids, self.completion_ids, strict=True)]

    def counted(self) -> int:
        """Tokens that are learned from: those that the policy wrote."""
        return sum(int(mask.sum()) for mask in self.masks())

    def masks(self) -> list[Tensor]:
        """Of each row ``[completion length]`` bool, which tokens count."""
        if self.sampled is not None:
            return self.sampled
        return [torch.ones(len(ids), dtype=torch.bool) for ids in self.completion_ids]

    def select(self, rows: Sequence[int]) -> Sequences:
        """These rows, in this order."""
        chosen = {}
        for field in fields(self):
            values = getattr(self, field.name)
            if isinstance(values, list):
                values = [values[row] for row in rows]
            elif values is not None:
                values = values[list(rows)]
            chosen[field.name] = values
        return replace(self, **chosen)


def sampled_masks(sampled: Sequence[tuple[bool, ...] | None], completion_ids: Sequence[Tensor]) -> list[Tensor] | None:
    """What :attr:`.Sequences.sampled` is for completions with these :attr:`.Completion.sampled`."""
    if all(mask is None for mask in sampled):
        return None
    return [
        torch.ones(len(ids), dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
        for mask, ids in zip(sampled, completion_ids, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Some rows, padded, for one forward and backward."""

    input_ids: Tensor
    """``[N, L]``: prompt, completion, padding on the right."""
    prompt_lengths: Tensor
    """``[N]``."""
    completion_mask: Tensor
    """``[N, T]`` bool; False at padding, and at what an environment wrote."""
    advantages: Tensor
    """``[N]``."""
    rollout_logprobs: Tensor | None = None
    """``[N, T]``, as the next two."""
    old_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None
    layout: Layout | None = None
    """Of the rows without padding; without it, they are computed as they stand."""

    def to(self, device: torch.device) -> MicroBatch:
        """On another device."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if (value := getattr(self, field.name)) is not None
        }
        return replace(self, **moved)

    def nothing(self) -> MicroBatch:
        """The same rows with no token that counts: a forward that only keeps ranks in step."""
        return replace(self, completion_mask=torch.zeros_like(self.completion_mask))


@dataclass(frozen=True, slots=True)
class Layouts:
    """How rows become micro-batches; the results are the same."""

    packed: bool = False
    """Without padding; else rows are padded, those of like length together."""
    shared_prefix: Choice = "off"
    """Rows with the same prompt compute it once in each micro-batch; auto is where that pays."""

    def shares(self, sequences: Sequences, prompts: Sequence[int]) -> bool:
        """Whether these rows share their prompts; a function of their lengths, so that it is the same on resuming."""
        if self.shared_prefix != "auto":
            return self.shared_prefix == "on"
        lengths = {prompt: len(ids) for prompt, ids in zip(prompts, sequences.prompt_ids, strict=True)}
        total = sum(sequences.lengths())
        shared = total - sum(map(len, sequences.prompt_ids)) + sum(lengths.values())
        return shared <= WORTH_SHARING * total


def pad(sequences: Sequences, pad_id: int, layout: Layout | None = None) -> MicroBatch:
    """Pad all rows to the longest of them."""
    rows = [torch.cat(parts) for parts in zip(sequences.prompt_ids, sequences.completion_ids, strict=True)]

    def stack(values: list[Tensor] | None) -> Tensor | None:
        return None if values is None else _pad(values, 0.0)

    return MicroBatch(
        input_ids=_pad(rows, pad_id),
        prompt_lengths=torch.tensor([len(ids) for ids in sequences.prompt_ids]),
        completion_mask=_pad(sequences.masks(), False),
        advantages=sequences.advantages,
        rollout_logprobs=stack(sequences.rollout_logprobs),
        old_logprobs=stack(sequences.old_logprobs),
        ref_logprobs=stack(sequences.ref_logprobs),
        layout=layout,
    )


def blank(pad_id: int) -> MicroBatch:
    """One row in which nothing counts, for a rank whose minibatch is empty."""
    zeros = torch.zeros(1, 1, dtype=torch.float32)
    return MicroBatch(
        input_ids=torch.full((1, 2), pad_id),
        prompt_lengths=torch.ones(1, dtype=torch.long),
        completion_mask=torch.zeros(1, 1, dtype=torch.bool),
        advantages=torch.zeros(1, dtype=torch.float32),
        rollout_logprobs=zeros,
        old_logprobs=zeros,
        ref_logprobs=zeros,
    )


def micro_batches(sequences: Sequences, budget: int, pad_id: int, layouts: Layouts | None = None) -> list[MicroBatch]:
    """A minibatch within a budget of tokens a forward; never empty, see :meth:`.Phase.update`."""
    if not len(sequences):
        return [blank(pad_id)]
    return [batch for _, batch in placed_micro_batches(sequences, budget, pad_id, layouts)]


def placed_micro_batches(
    sequences: Sequences, budget: int, pad_id: int, layouts: Layouts | None = None
) -> list[tuple[list[int], MicroBatch]]:
    """Micro-batches, each with the places of its rows among the sequences.

    Args:
        sequences: of which each is in one micro-batch.
        budget: tokens that a forward computes, padding included; a row longer than it stands alone.
        pad_id: of padding.
        layouts: padded by default.
    """
    layouts = layouts or Layouts()
    prompts = _prompts(sequences) if layouts.shared_prefix != "off" else list(range(len(sequences)))
    if layouts.shared_prefix != "off" and layouts.shares(sequences, prompts):
        parts = _split_by_prompt(sequences, prompts, budget)
    elif layouts.packed:
        prompts = list(range(len(sequences)))
        parts = _split_by_prompt(sequences, prompts, budget)
    else:
        parts = split_by_tokens(sequences.lengths(), budget)
        return [(rows, pad(sequences.select(rows), pad_id)) for rows in parts]
    batches = []
    for rows in parts:
        chosen = sequences.select(rows)
        of_prompts, of_completions = (list(map(len, ids)) for ids in (chosen.prompt_ids, chosen.completion_ids))
        layout = pack(of_prompts, of_completions, [prompts[row] for row in rows])
        batches.append((rows, pad(chosen, pad_id, layout)))
    return batches


def _prompts(sequences: Sequences) -> list[int]:
    """A number for each row, the same for rows with equal prompts."""
    known: dict[bytes, int] = {}
    return [known.setdefault(ids.numpy().tobytes(), len(known)) for ids in sequences.prompt_ids]


def _split_by_prompt(sequences: Sequences, prompts: Sequence[int], budget: int) -> list[list[int]]:
    """Rows of a prompt together, long prompts' first; a prompt counts once in each part."""
    groups: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    lengths = sequences.lengths()
    parts: list[list[int]] = []
    room = 0
    # longest first, as in split_by_tokens
    for group in sorted(groups.values(), key=lambda group: -max(lengths[row] for row in group)):
        here = False  # whether the prompt is in the last part
        for row in sorted(group, key=lambda row: -lengths[row]):
            needed = len(sequences.completion_ids[row]) if here else lengths[row]
            if not parts or needed > room:
                parts.append([])
                room, needed = budget, lengths[row]
            parts[-1].append(row)
            room, here = room - needed, True
    return parts


def _pad(rows: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)
