r"""Where the tokens of a micro-batch stand when none of them is padding, and none is computed twice.

A micro-batch is N rows, prompt and completion. In the packed layout all their tokens stand in one row of S,
one sequence behind the other, each with positions of its own; whatever works on single tokens (projections, norms,
feed-forward: nearly everything) works on S tokens and knows nothing of rows. Rows whose prompts are equal can share
it: its tokens stand there once, and each completion attends to them,

.. math:: S = \sum_{\text{prompts}} |q| + \sum_i |o_i| \quad\text{instead of}\quad N \max_i (|q_i| + |o_i|).

Only attention has to know who sees whom: a layout has *parts*, in each of which n segments of queries attend to n
segments of keys, causally and aligned at their ends. A whole row, or a shared prompt, attends to itself; a completion
attends to its prompt and itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# a part is padded for kernels that want rectangles; segments this much shorter than the longest begin a new part
_SHORTEST = 0.75


@dataclass(frozen=True, slots=True)
class Part:
    """n segments of queries, each with the keys that end where it ends."""

    queries: Tensor
    """``[n, Q]``, places in the packed row, padded on the right with place 0."""
    keys: Tensor
    """``[n, K]``, likewise; the same tensor where segments attend to themselves."""
    query_lengths: Tensor
    """``[n]``."""
    key_lengths: Tensor
    """``[n]``."""
    start: int | None
    """Where the queries begin, if they are a rectangle without padding that stands in one piece."""
    flat_keys: Tensor
    """``[sum of key lengths]``, places without padding; of the queries they are a range."""
    query_range: tuple[int, int]
    """First place of the part's queries, and the one behind the last: parts follow each other."""
    masks: dict[int | None, Tensor] = field(default_factory=dict, compare=False)

    @property
    def of_itself(self) -> bool:
        """Whether segments attend to themselves alone, so that a causal kernel needs no mask."""
        return self.keys is self.queries

    def mask(self, window: int | None) -> Tensor:
        """Who sees whom, ``[n, 1, Q, K]`` bool.

        Args:
            window: a query sees so many keys at most, itself included (sliding windows).
        """
        if window not in self.masks:
            ends = (self.key_lengths - self.query_lengths)[:, None, None]
            place = ends + torch.arange(self.queries.shape[1], device=ends.device)[:, None]
            column = torch.arange(self.keys.shape[1], device=ends.device)
            seen = column <= place
            self.masks[window] = (seen if window is None else seen & (column > place - window)).unsqueeze(1)
        return self.masks[window]

    def cumulative(self) -> tuple[Tensor, Tensor]:
        """``cu_seqlens`` of queries and keys, ``[n + 1]`` int32 each."""
        lengths = torch.stack([self.query_lengths, self.key_lengths]).cumsum(1)
        both = torch.nn.functional.pad(lengths, (1, 0)).to(torch.int32)
        return both[0], both[1]

    def to(self, device: torch.device, *, non_blocking: bool = True) -> Part:
        """On another device."""
        queries = self.queries.to(device, non_blocking=non_blocking)
        return replace(
            self,
            queries=queries,
            keys=queries if self.of_itself else self.keys.to(device, non_blocking=non_blocking),
            query_lengths=self.query_lengths.to(device, non_blocking=non_blocking),
            key_lengths=self.key_lengths.to(device, non_blocking=non_blocking),
            flat_keys=self.flat_keys.to(device, non_blocking=non_blocking),
            masks={},
        )


@dataclass(frozen=True, slots=True)
class Layout:
    """The packed row of a micro-batch."""

    source: Tensor
    """``[S]``: which entry of the flattened ``input_ids`` each packed token is."""
    positions: Tensor
    """``[S]``: of each token in its own row."""
    place: Tensor
    """``[N, L]``: where each token stands in the packed row; 0 for padding."""
    parts: tuple[Part, ...]
    back: Tensor | None
    """``[S]``: each token among the parts' padded queries, one part behind the other; None if nothing is padded."""

    def __len__(self) -> int:
        """S."""
        return len(self.source)

    def to(self, device: torch.device, *, non_blocking: bool = True) -> Layout:
        """On another device."""
        return Layout(
            source=self.source.to(device, non_blocking=non_blocking),
            positions=self.positions.to(device, non_blocking=non_blocking),
            place=self.place.to(device, non_blocking=non_blocking),
            parts=tuple(part.to(device, non_blocking=non_blocking) for part in self.parts),
            back=None if self.back is None else self.back.to(device, non_blocking=non_blocking),
        )


def pack(
    prompt_lengths: Sequence[int], completion_lengths: Sequence[int], prompts: Sequence[int] | None = None
) -> Layout:
    """The packed layout of N right-padded rows.

    Args:
        prompt_lengths: of each row; at least 1.
        completion_lengths: of each row.
        prompts: which prompt each row has, by any number: rows with the same one share it. None shares nothing.

    >>> layout = pack([2, 2, 1], [2, 1, 1], prompts=[7, 7, 8])
    >>> len(layout), layout.positions.tolist()
    (7, [0, 1, 0, 1, 2, 3, 2])
    >>> layout.place.tolist()
    [[2, 3, 4, 5], [2, 3, 6, 0], [0, 1, 0, 0]]
    """
    lengths = [p + c for p, c in zip(prompt_lengths, completion_lengths, strict=True)]
    width = max(lengths)
    sharing = _sharing(prompts, len(lengths))
    first = {row: rows[0] for rows in sharing for row in rows}  # who brings the prompt of a sharing row
    # what attends to itself: (row, how many of its tokens), longest first
    alone = [(row, lengths[row]) for row in range(len(lengths)) if row not in first]
    alone += [(rows[0], prompt_lengths[rows[0]]) for rows in sharing]
    behind = sorted((row for row in first if completion_lengths[row]), key=lambda row: -lengths[row])
    builder = _Builder(width)
    for bucket in _buckets(alone):
        builder.add([(row, 0, length) for row, length in bucket], {})
    for bucket in _buckets([(row, completion_lengths[row]) for row in behind]):
        segments = [(row, prompt_lengths[row], lengths[row]) for row, _ in bucket]
        builder.add(segments, {row: (first[row], prompt_lengths[row]) for row, _ in bucket})
    return builder.layout(len(lengths), {row: (first[row], prompt_lengths[row]) for row in first})


class _Builder:
    """Packs segments one behind the other; a segment is (row, first column, column behind the last)."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.start: dict[tuple[int, int], int] = {}  # (row, first column) -> place
        self.source: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.parts: list[Part] = []
        self.total = 0

    def add(self, segments: Sequence[tuple[int, int, int]], prompts: dict[int, tuple[int, int]]) -> None:
        """One part.

        Args:
            segments: the queries.
            prompts: by row, the row that brings the prompt before its segment, and the prompt's length.
        """
        first, queries, keys = self.total, [], []
        for row, begin, end in segments:
            self.start[row, begin] = self.total
            columns = torch.arange(begin, end)
            own = torch.arange(self.total, self.total + end - begin)
            self.total += end - begin
            self.source.append(row * self.width + columns)
            self.positions.append(columns)
            queries.append(own)
            if row in prompts:
                bringer, length = prompts[row]
                shared = self.start[bringer, 0]
                keys.append(torch.cat([torch.arange(shared, shared + length), own]))
        padded = pad_sequence(queries, batch_first=True)
        whole = padded.numel() == self.total - first
        self.parts.append(
            Part(
                queries=padded,
                keys=pad_sequence(keys, batch_first=True) if keys else padded,
                query_lengths=torch.tensor([len(segment) for segment in queries]),
                key_lengths=torch.tensor([len(segment) for segment in keys or queries]),
                start=first if whole else None,
                flat_keys=torch.cat(keys or queries),
                query_range=(first, self.total),
            )
        )

    def layout(self, rows: int, sharing: dict[int, tuple[int, int]]) -> Layout:
        """All of it.

        Args:
            rows: N.
            sharing: as ``prompts`` of :meth:`add`, of all rows that share one.
        """
        source = torch.cat(self.source)
        place = torch.zeros(rows * self.width, dtype=torch.long)
        place[source] = torch.arange(self.total)
        place = place.view(rows, self.width)
        for row, (bringer, length) in sharing.items():
            place[row, :length] = place[bringer, :length]
        return Layout(source, torch.cat(self.positions), place, tuple(self.parts), self._back())

    def _back(self) -> Tensor | None:
        if all(part.start is not None for part in self.parts):
            return None
        back, before = torch.zeros(self.total, dtype=torch.long), 0
        for part in self.parts:
            real = torch.arange(part.queries.shape[1]) < part.query_lengths[:, None]
            entries = before + torch.arange(part.queries.numel()).view_as(part.queries)
            back[part.queries[real]] = entries[real]
            before += part.queries.numel()
        return back


def _sharing(prompts: Sequence[int] | None, rows: int) -> list[list[int]]:
    """Rows that have the same prompt, two or more of them."""
    groups: dict[int, list[int]] = {}
    for row, prompt in zip(range(rows), prompts or (), strict=False):
        groups.setdefault(prompt, []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _buckets(entries: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Entries of like length together, longest first."""
    buckets: list[list[tuple[int, int]]] = []
    for entry in sorted(entries, key=lambda entry: -entry[1]):
        if buckets and entry[1] >= _SHORTEST * buckets[-1][0][1]:
            buckets[-1].append(entry)
        else:
            buckets.append([entry])
    return buckets
