"""A draft: prompts answered and scored on one rank, before any rank has told another of it; and one in flight.

A draft talks to nobody, so that a thread can make it while the policy trains. Whatever ranks decide together
(whether enough groups are informative, when to stop) is decided by :mod:`.collect`, in the main thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from lightning_r1.experience.stored import from_plain, to_plain
from lightning_r1.parallel.interruption import interruption
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import Progress, RolloutEngine
from lightning_r1.types import Group, Prompt, Sampling, ScoredGroup

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Draft:
    """This rank's groups of one draw, scored."""

    scored: list[ScoredGroup]
    generation_seconds: float
    reward_seconds: float
    """That scoring took longer than sampling: it begins with the first group that is whole."""
    waited_seconds: float | None = None
    """That the main thread waited for it; None where the main thread made it."""


def make_draft(
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    engine: RolloutEngine,
    rewards: RewardSuite,
    sampling: Sampling,
    *,
    progress: Progress | None = None,
    still_wanted: Callable[[], None] = lambda: None,
) -> Draft:
    """Sample and score.

    Args:
        prompts: of this rank; there may be none.
        seeds: one a prompt.
        engine: samples.
        rewards: score each group as soon as it is whole, while others are still sampled.
        sampling: how to sample.
        progress: told how far sampling is.
        still_wanted: asked now and then; ends the work by raising.

    Raises:
        RewardError: if a reward cannot be asked.
    """
    if not prompts:
        return Draft([], 0.0, 0.0)
    started = time.perf_counter()
    scoring = rewards.open()

    def told(done: int, total: int) -> None:
        still_wanted()
        if progress:
            progress(done, total)

    def finished(place: int, group: Group) -> None:
        still_wanted()
        scoring.add(place, group)

    engine.generate(prompts, sampling, seeds=seeds, progress=told, finished=finished)
    generated = time.perf_counter()
    with interruption.at_once():
        scored = scoring.result()
    still_wanted()
    return Draft(scored, generated - started, time.perf_counter() - generated)


class _Abandoned(Exception):
    """Nobody waits for this draft any more."""


class Flight:
    """A draft that a thread of its own makes, while the main thread does something else.

    Args:
        make: makes the draft; calls what it is given now and then, and lets pass what that raises.
        device: of the policy. On a GPU the thread has a stream of its own, or nothing would overlap.
    """

    def __init__(self, make: Callable[[Callable[[], None]], Draft], device: torch.device) -> None:
        self._draft: Draft | None = None
        self._error: BaseException | None = None
        self._waited = 0.0
        self._unwanted = threading.Event()
        self._surroundings = _surroundings(device)
        self._make = make
        # a daemon: a run can end although an engine never answers
        self._thread = threading.Thread(target=self._fly, name="rollout in flight", daemon=True)
        self._thread.start()

    def _fly(self) -> None:
        try:
            with self._surroundings():
                self._draft = self._make(self._still_wanted)
        except BaseException as error:
            self._error = error

    def _still_wanted(self) -> None:
        if self._unwanted.is_set():
            raise _Abandoned

    def flying(self, patience_s: float | None = None) -> bool:
        """Whether it has not landed, well or not, when it has been waited for so long; or until it has."""
        started = time.perf_counter()
        self._thread.join(patience_s)
        self._waited += time.perf_counter() - started
        return self._thread.is_alive()

    def settle(self) -> None:
        """Wait until it has landed, well or not."""
        self.flying()

    def state_dict(self) -> dict[str, Any] | None:
        """What it has made, as plain data, once it has landed; None if it has failed."""
        self.settle()
        if self._draft is None:
            return None
        return {
            "groups": [to_plain(group) for group in self._draft.scored],
            "generation_seconds": self._draft.generation_seconds,
            "reward_seconds": self._draft.reward_seconds,
        }

    def result(self) -> Draft:
        """The draft.

        Raises:
            Exception: what was raised in the thread.
        """
        self.settle()
        if self._error is not None:
            self._error.add_note("raised while the next rollout was sampled beside the update (algo.overlap_rollouts)")
            raise self._error
        assert self._draft is not None
        draft = self._draft
        return Draft(draft.scored, draft.generation_seconds, draft.reward_seconds, waited_seconds=self._waited)

    def abandon(self, patience_s: float = _PATIENCE_S) -> None:
        """End it soon; an engine that does not listen is left to itself."""
        self._unwanted.set()
        self._thread.join(patience_s)


class Landed(Flight):
    """A flight that has landed already: what a checkpoint held."""

    def __init__(self, draft: Draft) -> None:
        self._draft, self._error, self._waited = draft, None, 0.0

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Landed:
        """See :meth:`Flight.state_dict`."""
        groups = [from_plain(group) for group in state["groups"]]
        return cls(Draft(groups, state["generation_seconds"], state["reward_seconds"]))

    def flying(self, patience_s: float | None = None) -> bool:
        """Nothing to wait for."""
        return False

    def abandon(self, patience_s: float = _PATIENCE_S) -> None:
        """Nothing to end."""


def _surroundings(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What torch keeps for each thread, as it is in this one: autocast, and on a GPU another stream."""
    kind = device.type
    cast = torch.is_autocast_enabled(kind) if kind in ("cpu", "cuda") else False
    dtype = torch.get_autocast_dtype(kind) if cast else None
    threads = torch.get_num_threads()
    ready = torch.cuda.current_stream(device).record_event() if kind == "cuda" else None

    class Surroundings:
        def __enter__(self) -> None:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            self.within: list[AbstractContextManager[Any]] = [
                torch.autocast(kind, dtype=dtype, enabled=True) if cast else nullcontext()
            ]
            if ready is not None:
                stream = torch.cuda.Stream(device)
                stream.wait_event(ready)  # weights are copied on the main thread's stream
                self.within += [torch.cuda.device(device), torch.cuda.stream(stream)]
            for context in self.within:
                context.__enter__()

        def __exit__(self, *error: Any) -> None:
            for context in reversed(self.within):
                context.__exit__(*error)

    return Surroundings
