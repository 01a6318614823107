"""The completions that are being written, one in each row of the batch, and what they have written so far.

Tokens, log-probabilities and the uniform numbers they are drawn with stand in rings ``[steps, rows]``: what all rows
write at one time is one line of them, wherever each row is in its completion, and nothing has to be asked of an
accelerator before the next step. A row lives for at most ``steps`` steps, so that it never meets its own beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_r1.models.codec import Codec
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling


@dataclass(frozen=True, slots=True)
class Writing:
    """One completion that a row writes."""

    group: int
    """Place of its prompt in the rollout."""
    place: int
    """In its group."""
    prompt_tokens: int
    began: int
    """Step of its first token."""
    ends: int
    """Step before which its budget is used up."""


@dataclass(frozen=True, slots=True)
class Written:
    """A completion that has ended: token ids up to the stop token, and their log-probabilities."""

    group: int
    place: int
    token_ids: list[int]
    logprobs: list[float]


class Rows:
    """See the module.

    Args:
        capacity: rows at most.
        steps: the longest budget of a completion.
        codec: knows the stop tokens.
        sampling: how tokens are drawn.
        vocabulary: V.
        device: of the model.
    """

    def __init__(
        self, capacity: int, steps: int, codec: Codec, sampling: Sampling, vocabulary: int, device: torch.device
    ) -> None:
        self.steps, self.codec, self.sampling, self.device = steps, codec, sampling, device
        self.now = 0
        self.live: list[Writing | None] = [None] * capacity
        """What each row writes; None where nothing is written any more."""
        self.tokens = torch.zeros(steps, capacity, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(steps, capacity, dtype=torch.float32, device=device)
        self.uniforms = torch.zeros(steps, capacity, dtype=torch.float64, device=device)
        self.drawn = torch.zeros(capacity, dtype=torch.long, device=device)
        """The last token of each row."""
        self.stopped = torch.ones(capacity, dtype=torch.bool, device=device)
        self.is_stop = torch.zeros(vocabulary, dtype=torch.bool)
        # a stop text that is one token is seen as soon as it is drawn
        stops = (*codec.stop_ids, *codec.tokens_of(sampling.stop))
        self.is_stop[[token for token in stops if 0 <= token < vocabulary]] = True
        self.is_stop = self.is_stop.to(device)
        # a text is looked for in the last tokens only: as many as it has bytes, for a token has at least one
        self.tail = max((len(text.encode()) for text in sampling.stop), default=0)
        self._update()

    def _update(self) -> None:
        running = [row for row, writing in enumerate(self.live) if writing is not None]
        self.running = running
        self.idle = len(self.live) - len(running)
        self.deadline = min((self.live[row].ends for row in running), default=0)  # type: ignore[union-attr]

    def lengths(self) -> list[int]:
        """Tokens that each row has in the cache: all but the last one drawn. An idle row is as long as the others.

        Where those differ it has none: what it goes on to write may not run over the cache's end.
        """
        held = [None if one is None else one.prompt_tokens + self.now - 1 - one.began for one in self.live]
        of_running = {length for length in held if length is not None}
        of_idle = of_running.pop() if len(of_running) == 1 else 0
        return [of_idle if length is None else length for length in held]

    def begin(self, rows: Sequence[int], writings: Sequence[Writing], uniforms: Tensor, logits: Tensor) -> None:
        """Let idle rows write: their first tokens are drawn as though it had been at the last step.

        Args:
            rows: n idle rows.
            writings: what they write; each began at step ``now - 1``.
            uniforms: ``[n, steps]`` float64, for each of a completion's tokens.
            logits: ``[n, V]`` of the first tokens.
        """
        self.now = max(self.now, 1)
        where = torch.tensor(rows, device=self.device)
        drawn, logprobs = sample_tokens(logits, uniforms[:, 0].to(self.device), self.sampling)
        first = self.now - 1
        times = (first + torch.arange(uniforms.shape[1], device=self.device)) % self.steps
        self.uniforms[times.unsqueeze(1), where] = uniforms.t().to(self.device)
        self.tokens[first % self.steps, where] = drawn
        self.logprobs[first % self.steps, where] = logprobs
        self.drawn[where] = drawn
        self.stopped[where] = self.is_stop[drawn]
        for row, writing in zip(rows, writings, strict=True):
            self.live[row] = writing
        self._update()

    def write(self, logits: Tensor) -> None:
        """Draw every row's next token from ``[n, V]`` logits."""
        line, rows = self.now % self.steps, len(self.live)
        drawn, logprobs = sample_tokens(logits[:rows], self.uniforms[line, :rows], self.sampling)
        self.tokens[line, :rows] = drawn
        self.logprobs[line, :rows] = logprobs
        self.drawn = drawn
        self.stopped[:rows] |= self.is_stop[drawn]
        self.now += 1

    def finished(self) -> int:
        """Rows that met a stop and are still held for running. Asks the device, which has to catch up."""
        return int(self.stopped[: len(self.live)].sum()) - self.idle

    def find_stop_texts(self, since: int) -> None:
        """Mark the rows in whose last ``since`` tokens a stop text was completed."""
        if not self.sampling.stop or not self.running:
            return
        stopped = self.stopped.tolist()
        for row in self.running:
            if not stopped[row]:
                text = self.codec.decode(self._written(row, self.tail + since))
                if any(stop in text for stop in self.sampling.stop):
                    self.stopped[row] = True

    def _written(self, row: int, most: int) -> list[int]:
        writing = self.live[row]
        assert writing is not None
        times = torch.arange(max(writing.began, self.now - most), self.now, device=self.device) % self.steps
        return self.tokens[times, row].tolist()

    def take_finished(self) -> list[Written]:
        """The completions that have ended; their rows are idle from now on."""
        stopped = self.stopped[: len(self.live)].tolist()
        ended = [row for row in self.running if stopped[row] or self.live[row].ends <= self.now]  # type: ignore[union-attr]
        if not ended:
            return []
        where = torch.tensor(ended, device=self.device)
        tokens = self.tokens[:, where].t().tolist()
        logprobs = self.logprobs[:, where].t().tolist()
        written = []
        for row, ring, values in zip(ended, tokens, logprobs, strict=True):
            writing = self.live[row]
            assert writing is not None
            start = writing.began % self.steps
            length = min(self.now, writing.ends) - writing.began
            ids = (ring[start:] + ring[:start])[:length]
            end = next((place + 1 for place, token in enumerate(ids) if token in self.codec.stop_ids), length)
            written.append(Written(writing.group, writing.place, ids[:end], (values[start:] + values[:start])[:end]))
            self.live[row] = None
        self.stopped[where] = True
        self._update()
        return written

    def compact(self) -> Tensor:
        """Drop the idle rows; the rows that stay, ``[n]``."""
        kept = torch.tensor(self.running, device=self.device)
        self.live = [self.live[row] for row in self.running]
        for ring in (self.tokens, self.logprobs, self.uniforms):
            ring[:, : len(kept)] = ring[:, kept]
        self.drawn = self.drawn[kept]
        self.stopped[: len(kept)] = self.stopped[kept]
        self._update()
        return kept
