"""A rollout engine that writes what the test says, and one that is killed when the test says."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.engine import Finished, Progress, as_group
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Group, Prompt, Sampling


class ScriptedEngine:
    """Completion g of a prompt is ``script[prompt.question][g]``, from the start again when they run out.

    A text that ends with ``<eos>`` stops; one that does not ran into the token limit. The
    log-probability of a completion's token t is ``-(t + 1) / 8``.

    Args:
        codec: makes the tokens.
        script: texts by question, as the policy writes them: behind the prefill.
    """

    exact = True
    beside_training = True

    def __init__(self, codec: Codec, script: Mapping[str, Sequence[str]]) -> None:
        self.codec, self.script = codec, script
        self.version = 0
        self.asleep = False
        self.calls: list[tuple[list[Prompt], Sampling, list[int]]] = []
        """Prompts, sampling and seeds of every call."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """One group a prompt, from the script."""
        self.calls.append((list(prompts), sampling, list(seeds)))
        groups = []
        for prompt in prompts:
            texts = self.script[prompt.question]
            rows = [self._row(texts[place % len(texts)]) for place in range(sampling.group_size)]
            groups.append(as_group(prompt, self.codec, rows, self.version, sampling.stop))
            if finished:
                finished(len(groups) - 1, groups[-1])
            if progress:
                progress(len(groups) * sampling.group_size, len(prompts) * sampling.group_size)
        return groups

    def _row(self, text: str) -> tuple[list[int], list[float]]:
        ids = self.codec.tokenizer.encode(text, add_special_tokens=False)
        return ids, [-(place + 1) / 8 for place in range(len(ids))]

    def sync_weights(self, version: int) -> None:
        """Completions carry this version from now on."""
        self.version = version

    def sleep(self) -> None:
        """Remembers that it sleeps."""
        self.asleep = True

    def wake(self) -> None:
        """Remembers that it is awake."""
        self.asleep = False


class CopyEngine(GroupEngine):
    """Samples from a copy of the policy, as another program does, and takes its weights at every sync.

    Args:
        policy: copied.
        codec: template and tokenizer.
        stale_from: the sync, counted from 1, from which on weights are no longer taken; 0 is never.
        parity_tolerance: see :class:`.OtherProgram`.
    """

    exact = False

    def __init__(
        self, policy: Policy, codec: Codec, *, stale_from: int = 0, parity_tolerance: float | None = 1e-4
    ) -> None:
        super().__init__(copy.deepcopy(policy), codec)
        self.trained, self.stale_from, self.parity_tolerance = policy, stale_from, parity_tolerance
        self.syncs = 0
        self.closed = False

    def sync_weights(self, version: int) -> None:
        """Copy, unless it is too late for that."""
        super().sync_weights(version)
        self.syncs += 1
        if not self.stale_from or self.syncs < self.stale_from:
            self.policy.load_state_dict(self.trained.state_dict())

    def close(self) -> None:
        """Remembers that it was closed."""
        self.closed = True


class KilledEngine(GroupEngine):
    """Kills its process with SIGKILL at the call whose number stands in ``KILL_AT_CALL``; never without it."""

    def generate(self, *arguments: Any, **how: Any) -> list[Group]:
        """As the group engine, until the end."""
        self.calls = getattr(self, "calls", 0) + 1
        if os.environ.get("KILL_AT_CALL") == str(self.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(*arguments, **how)
