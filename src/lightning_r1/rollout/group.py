"""The in-process engine made for groups: no second copy of the weights, nothing computed twice.

Each prompt is prefilled once and its keys and values are given to the G rows of its group; the
cache is allocated once; log-probabilities are captured as tokens are drawn. When completions end,
waiting groups take their rows; when none waits, the batch shrinks. Any transformers decoder with a
key-value cache works.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from lightning_r1.models.cache import cache_layers
from lightning_r1.models.codec import Codec
from lightning_r1.models.decoder import Decoder
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.rollout.engine import Finished, Progress, as_group, uniform_draws
from lightning_r1.rollout.rows import Rows, Writing, Written
from lightning_r1.types import Group, Prompt, Sampling

# Idle rows are given away or dropped when they are this share of the batch: each drop copies the cache of the rows
# that stay, and a share (not a number) bounds all copies of a rollout by a geometric series.
_IDLE_SHARE = 0.25
# Steps between two looks for texts that end a completion, on the host: what was written behind one is cut off.
_LOOK_EVERY = 8


class GroupEngine:
    """Samples groups with a shared prefill, and a batch that is refilled and then shrinks.

    Args:
        policy: sampled from directly.
        codec: template and tokenizer.
        max_rows: rows decoded together; a larger rollout goes through them group by group.
        check_every: steps between two questions which rows have finished; by default 1 on a CPU and 16 elsewhere, where
            a question waits for the device. Completions do not depend on it.
        lean: take the short way through small models of the common kind, on a CPU.
        compile: make one program of a step (minutes, at the first rollout), and on CUDA a graph that is replayed: for
            models whose arithmetic takes less than the calls that start it.

    Raises:
        ValueError: if the architecture keeps a state that is not keys and values.
    """

    exact = True
    stops_at_texts = True
    beside_training = False  # it samples from the policy itself
    can_have_own_weights = True

    def __init__(
        self,
        policy: Policy,
        codec: Codec,
        *,
        max_rows: int = 512,
        check_every: int | None = None,
        lean: bool = True,
        compile: bool = False,
    ) -> None:
        self.policy, self.codec, self.max_rows = policy, codec, max_rows
        self.check_every, self.lean, self.compile = check_every, lean, compile
        self.version = 0
        cache_layers(policy.model)  # refuses what cannot be held

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """See :class:`~lightning_r1.rollout.engine.RolloutEngine`."""
        if not prompts:
            return []
        size = sampling.group_size
        groups: dict[int, Group] = {}
        parts: dict[int, dict[int, Written]] = {}
        with evaluating(self.policy):
            for written in _Rollout(self, prompts, sampling, seeds):
                for one in written:
                    of_group = parts.setdefault(one.group, {})
                    of_group[one.place] = one
                    if len(of_group) == size:
                        rows = [(of_group[place].token_ids, of_group[place].logprobs) for place in range(size)]
                        group = as_group(prompts[one.group], self.codec, rows, self.version, sampling.stop)
                        groups[one.group] = group
                        if finished:
                            finished(one.group, group)
                if progress:
                    progress(sum(map(len, parts.values())), len(prompts) * size)
        return [groups[index] for index in range(len(prompts))]

    def sync_weights(self, version: int) -> None:
        """Nothing to copy: the policy itself is sampled from."""
        self.version = version

    def sleep(self) -> None:
        """The cache is dropped at the end of every call."""

    def wake(self) -> None:
        """Nothing was given back."""


class _Rollout:
    """One call of the engine; iterating over it gives completions as they end."""

    def __init__(
        self, engine: GroupEngine, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
    ) -> None:
        self.prompts, self.sampling, self.seeds = prompts, sampling, seeds
        # prompts of like length together: fewer columns to look at
        self.waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index].token_ids)))
        budgets = [sampling.budget(prompt) for prompt in prompts]
        columns = max(len(prompt.token_ids) + budget for prompt, budget in zip(prompts, budgets, strict=True))
        rows = min(len(prompts), max(1, engine.max_rows // sampling.group_size)) * sampling.group_size
        model = engine.policy.model
        one_length = len({len(prompt.token_ids) for prompt in prompts}) == 1
        self.decoder = Decoder(
            engine.policy,
            rows=rows,
            columns=columns,
            ragged=not one_length or rows < len(prompts) * sampling.group_size,
            pad_id=engine.codec.pad_id,
            lean=engine.lean,
            compile=engine.compile,
        )
        vocabulary = model.get_output_embeddings().weight.shape[0]
        self.rows = Rows(rows, max(budgets), engine.codec, sampling, vocabulary, model.device)
        on_cpu = model.device.type == "cpu"
        self.check_every = engine.check_every or (1 if on_cpu else 16)
        self.look_every = max(self.check_every, _LOOK_EVERY)

    def __iter__(self) -> Iterator[list[Written]]:
        rows = self.rows
        self._admit()
        while True:
            while self._due():
                yield rows.take_finished()
                self._admit()
            if not rows.running:
                return
            rows.write(self.decoder.step(rows.drawn))

    def _due(self) -> bool:
        """Whether enough completions have ended to be taken out."""
        rows = self.rows
        if not rows.running:
            return False
        if rows.now >= rows.deadline:
            return True
        if rows.now % self.check_every:
            return False
        if rows.now % self.look_every == 0:
            rows.find_stop_texts(self.look_every)
        ended = rows.finished()
        return ended == len(rows.running) or (ended > 0 and ended + rows.idle >= _IDLE_SHARE * len(rows.live))

    def _admit(self) -> None:
        """Give idle rows to waiting groups, or drop them if none waits."""
        rows, size = self.rows, self.sampling.group_size
        free = [row for row, writing in enumerate(rows.live) if writing is None]
        groups = self._next_groups(len(free) // size)
        if groups:
            taken = free[: len(groups) * size]
            logits = self.decoder.prefill([self.prompts[index].token_ids for index in groups], taken, size)
            self._begin(groups, taken, logits.repeat_interleave(size, dim=0))
        elif not self.waiting and rows.running and rows.idle >= _IDLE_SHARE * len(rows.live):
            self.decoder.cache.keep_rows(rows.compact())
        self.decoder.cache.set_lengths(rows.lengths())

    def _next_groups(self, room: int) -> list[int]:
        if not self.decoder.ragged and self.rows.running:
            return []  # all rows have to be equally long
        groups: list[int] = []
        while self.waiting and len(groups) < room:
            length = len(self.prompts[self.waiting[0]].token_ids)
            if not self.decoder.ragged and groups and length != len(self.prompts[groups[0]].token_ids):
                break
            groups.append(self.waiting.popleft())
        return groups

    def _begin(self, groups: Sequence[int], taken: Sequence[int], logits: Tensor) -> None:
        size, began = self.sampling.group_size, max(self.rows.now, 1) - 1
        writings = [
            Writing(
                index,
                place,
                len(self.prompts[index].token_ids),
                began,
                began + self.sampling.budget(self.prompts[index]),
            )
            for index in groups
            for place in range(size)
        ]
        uniforms = uniform_draws([self.seeds[index] for index in groups], size, self.rows.steps)
        self.rows.begin(taken, writings, uniforms, logits)
