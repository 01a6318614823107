"""What a rollout engine is, and the randomness that every engine shares.

Randomness is a function, not a state: the draws of a completion depend on the run's seed, the
rollout's number, the prompt's position in it and the completion's place in its group, and on
nothing else. How rows are batched, on which rank they are sampled and whether the run was
interrupted in between make no difference.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.parallel.sharding import whole
from lightning_r1.types import Completion, Group, Prompt, Sampling

Progress = Callable[[int, int], None]
"""Called now and then with (completions finished, completions in all)."""
Finished = Callable[[int, Group], None]
"""Called with a prompt's place and its group, as soon as the group is whole."""


class EngineError(RuntimeError):
    """An engine that cannot go on; the message says where, for how long, and what to do, in one line."""


class RolloutEngine(Protocol):
    """Samples from the policy's current weights."""

    exact: bool
    """Whether its log-probabilities are the trainer's own numbers (up to rounding): the same
    weights in the same process. Others need a correction for the mismatch."""
    beside_training: bool
    """Whether :meth:`generate` may run in a thread while the policy trains: it samples from weights of its own,
    those of the last :meth:`sync_weights`, and draws no number from torch's global generator. An engine in this
    process that only lacks the weights says so with ``can_have_own_weights = True``, and is given a copy.

    An engine that ends completions at :attr:`.Sampling.stop` says so with ``stops_at_texts = True``; one that ends
    them wherever one of these may have been completed, with ``pauses_at_texts = True``: an environment's episodes
    (:mod:`.episodes`) go on from there."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """Sample ``sampling.group_size`` completions of each prompt.

        Args:
            prompts: B prompts.
            sampling: how to sample.
            seeds: one a prompt, see :func:`seed_for`.
            progress: told how far it is.
            finished: given each group as soon as it is whole, so that scoring need not wait for the others.

        Returns:
            One group a prompt, in order.
        """
        ...

    def sync_weights(self, version: int) -> None:
        """Take the policy's current weights; ``version`` is the step they belong to."""
        ...

    def sleep(self) -> None:
        """Give memory back while the policy is trained."""
        ...

    def wake(self) -> None:
        """Take it again."""
        ...


class OtherProgram(RolloutEngine, Protocol):
    """An engine whose weights are copies, in another program: ``exact`` is False."""

    parity_tolerance: float | None
    """How far its log-probabilities may be from the policy's after a sync, in nats a token; None never looks."""

    def close(self) -> None:
        """End what was started, if anything was."""
        ...


class AroundEngine:
    """What an engine around another leaves to it."""

    inner: RolloutEngine

    def sync_weights(self, version: int) -> None:
        """See :class:`RolloutEngine`."""
        self.inner.sync_weights(version)

    def sleep(self) -> None:
        """See :class:`RolloutEngine`."""
        self.inner.sleep()

    def wake(self) -> None:
        """See :class:`RolloutEngine`."""
        self.inner.wake()

    def close(self) -> None:
        """End what the engine started."""
        close(self.inner)


@contextmanager
def from_whole_weights(engine: RolloutEngine, policy: Policy) -> Iterator[None]:
    """Within it the engine can sample on every rank as long as that rank has to; collective.

    An engine in this process samples from the policy, which may be sharded; any other has weights of its own.
    """
    with whole(policy) if engine.exact else nullcontext():
        yield


def close(engine: RolloutEngine) -> None:
    """End what an engine started: another program, say."""
    if end := getattr(engine, "close", None):
        end()


def seed_for(*names: int | str) -> int:
    """A seed from names, the same in every process: ``seed_for(run_seed, "rollout", 7, 3)``.

    >>> seed_for(0, "rollout", 1) == seed_for(0, "rollout", 1) != seed_for(0, "rollout", 2)
    True
    """
    digest = hashlib.sha256(json.dumps(names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform_draws(seeds: Sequence[int], group_size: int, steps: int) -> Tensor:
    """Uniform numbers in [0, 1) for every token that may be sampled: ``[B * G, steps]`` float64."""
    draws = torch.empty(len(seeds) * group_size, steps, dtype=torch.float64)
    generator = torch.Generator()
    for row, of_row in enumerate(draws):
        # a stream for each completion, so that neither its neighbours nor the token limit matter
        generator.manual_seed(seed_for(seeds[row // group_size], row % group_size))
        of_row.uniform_(generator=generator)
    return draws


def as_group(
    prompt: Prompt,
    codec: Codec,
    rows: Sequence[tuple[Sequence[int], Sequence[float]]],
    version: int,
    stop: Sequence[str] = (),
) -> Group:
    """A group from the token ids and log-probabilities of its completions.

    Args:
        prompt: of the group.
        codec: makes texts of the tokens.
        rows: a pair for each completion, cut behind its first stop token.
        version: ``global_step`` of the weights.
        stop: texts that end a completion as well; a row may go on behind one, and is cut here.
    """
    return Group(prompt, tuple(_completion(codec, *row, version, stop) for row in rows))


def _completion(
    codec: Codec, token_ids: Sequence[int], logprobs: Sequence[float], version: int, stop: Sequence[str]
) -> Completion:
    end = stop_text_end(codec, token_ids, stop)
    if end is not None:
        token_ids, logprobs = token_ids[:end], logprobs[:end]
    stopped = end is not None or (bool(token_ids) and token_ids[-1] in codec.stop_ids)
    return Completion(
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs),
        finish_reason="stop" if stopped else "length",
        text=codec.completion_text(token_ids),
        policy_version=version,
    )


def stop_text_end(codec: Codec, token_ids: Sequence[int], stop: Sequence[str]) -> int | None:
    """How many tokens there are up to the one that completes the first of some texts; None if none stands there."""
    if not stop:
        return None

    def holds(tokens: int) -> bool:
        written = codec.decode(token_ids[:tokens])
        return any(text in written for text in stop)

    if not holds(len(token_ids)):
        return None
    # more tokens never take a text away: the least number is found by halving
    return bisect_left(range(len(token_ids)), True, key=holds)
