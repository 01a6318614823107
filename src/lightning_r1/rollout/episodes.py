"""Completions in several turns: any engine, with an environment that answers in between.

All episodes of a turn are sampled together; each goes on as a prompt of its own, of the very tokens it has so far:
nothing is tokenised twice. Replies are made in threads while other episodes are still sampled.

*Randomness* stays a function: the first turn draws as a completion without an environment does, turn ``t`` of it from
its prompt's seed, its place in the group and ``t``. Batches, ranks and interruptions make no difference, as far as
the environment's replies make none.

*Cost*: each turn prefills its episodes again, unless the engine keeps prefixes (vLLM does).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from lightning_r1.models.codec import Codec
from lightning_r1.rollout.engine import AroundEngine, EngineError, Finished, Progress, RolloutEngine, seed_for
from lightning_r1.rollout.environment import Environment, Episode, Reply
from lightning_r1.rollout.replies import Asked, Late, Replies
from lightning_r1.types import Completion, FinishReason, Group, Prompt, ReplyKind, Sampling

_FEW = 8
"""Failed replies that are taken for bad luck, however few others there are."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one episode. Its tokens, replies included, are ``sampling.max_new_tokens``.

    An episode that has used it up ends there, with the finish reason ``length``.
    """

    max_turns: int = 8
    """Turns of the policy: one more than replies."""
    max_reply_tokens: int = 256
    """Of each reply; what is longer is cut."""
    timeout_s: float = 10.0
    """For each reply, on top of limits that a tool has itself."""
    at_once: int = 8
    """Replies made at the same time, by each process."""

    def __post_init__(self) -> None:
        """Refuse what leaves no room to talk."""
        for name, least in (("max_turns", 2), ("max_reply_tokens", 1), ("at_once", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"environment.budget.{name}={getattr(self, name)}: expected >= {least}")
        if not self.timeout_s > 0:
            raise ValueError(f"environment.budget.timeout_s={self.timeout_s}: expected seconds > 0")


class EpisodeEngine(AroundEngine):
    """Samples episodes from an engine that samples turns.

    Args:
        engine: ends turns at texts, or pauses where one may stand (see :class:`.RolloutEngine`).
        environment: answers.
        codec: template and tokenizer.
        budget: of each episode.
    """

    def __init__(self, engine: RolloutEngine, environment: Environment, codec: Codec, budget: Budget) -> None:
        self.inner, self.environment, self.codec, self.budget = engine, environment, codec, budget
        self.exact, self.beside_training = engine.exact, engine.beside_training
        self.can_have_own_weights = getattr(engine, "can_have_own_weights", False)
        self.parity_tolerance = getattr(engine, "parity_tolerance", None)

    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seeds: Sequence[int],
        progress: Progress | None = None,
        finished: Finished | None = None,
    ) -> list[Group]:
        """See :class:`~lightning_r1.rollout.engine.RolloutEngine`.

        Raises:
            EngineError: if most replies fail; says how.
        """
        with Replies(self.budget.at_once, self.budget.timeout_s) as replies:
            rollout = _Rollout(self, prompts, sampling, seeds, replies, progress, finished)
            rollout.first_turn()
            while going_on := rollout.replied():
                rollout.next_turn(going_on)
        return rollout.groups()

    def close(self) -> None:
        """End the environment, and what the engine started."""
        if end := getattr(self.environment, "close", None):
            end()
        super().close()


@dataclass(slots=True)
class _Writing:
    """An episode under way, or over."""

    index: int
    """Place of its prompt in the rollout."""
    place: int
    """In its group."""
    prompt: Prompt
    episode: Episode
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    replies: list[ReplyKind] = field(default_factory=list)
    pieces: int = 0
    """Completions of the engine that it is made of: its turns, and more where an engine pauses within one."""
    began: int = 0
    """Its token at which the turn began."""
    asked: Asked[Reply | None] | None = None
    finish_reason: FinishReason | None = None
    policy_version: int = 0

    def add(self, token_ids: Sequence[int], logprobs: Sequence[float], *, sampled: bool) -> None:
        self.token_ids += token_ids
        self.logprobs += logprobs
        self.sampled += [sampled] * len(token_ids)


class _Rollout:
    """One call of the engine."""

    def __init__(
        self,
        engine: EpisodeEngine,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        seeds: Sequence[int],
        replies: Replies,
        progress: Progress | None,
        finished: Finished | None,
    ) -> None:
        self.engine, self.environment, self.codec = engine.inner, engine.environment, engine.codec
        self.budget, self.prompts, self.sampling, self.seeds = engine.budget, prompts, sampling, seeds
        self.replies, self.progress, self.finished = replies, progress, finished
        self.of_turn = replace(sampling, stop=tuple(dict.fromkeys((*sampling.stop, *self.environment.stops))))
        self.episodes = [list(self._open(index, prompt)) for index, prompt in enumerate(prompts)]
        pausing = getattr(self.engine, "pauses_at_texts", False)
        self.pauses = frozenset(self.codec.completing(self.of_turn.stop) if pausing else ())
        self.over = self.given = self.failed = 0

    def _open(self, index: int, prompt: Prompt) -> Iterator[_Writing]:
        for place in range(self.sampling.group_size):
            seed = seed_for(self.seeds[index], "environment", place)
            yield _Writing(index, place, prompt, self.environment.open(prompt, seed))

    def first_turn(self) -> None:
        """Sampled in groups, so that prompts are prefilled once for all of them."""

        def written(index: int, group: Group) -> None:
            for writing, completion in zip(self.episodes[index], group.completions, strict=True):
                self._take(writing, completion)

        self.engine.generate(self.prompts, self.of_turn, seeds=self.seeds, progress=self._told, finished=written)

    def next_turn(self, going_on: Sequence[_Writing]) -> None:
        """Each episode from where it is."""
        prompts = [
            replace(
                writing.prompt,
                id=f"{writing.prompt.id}/{writing.place}",
                token_ids=(*writing.prompt.token_ids, *writing.token_ids),
                token_budget=self._room(writing),
            )
            for writing in going_on
        ]
        seeds = [seed_for(self.seeds[one.index], "turn", one.place, one.pieces) for one in going_on]

        def written(index: int, group: Group) -> None:
            self._take(going_on[index], group.completions[0])

        alone = replace(self.of_turn, group_size=1)
        self.engine.generate(prompts, alone, seeds=seeds, progress=self._told, finished=written)

    def replied(self) -> list[_Writing]:
        """The episodes that go on, with the replies to what they asked."""
        asking = [writing for group in self.episodes for writing in group if writing.asked is not None]
        asking.sort(key=lambda writing: writing.asked.number)  # type: ignore[union-attr]
        for writing in asking:
            self._put_behind(writing, self._reply(writing))
            self._told(0, 0)
        return [writing for group in self.episodes for writing in group if writing.finish_reason is None]

    def groups(self) -> list[Group]:
        """All groups, whole."""
        return [self._group(index) for index in range(len(self.prompts))]

    def _take(self, writing: _Writing, completion: Completion) -> None:
        """What the engine wrote: to the end, to a call, or to a pause within the turn."""
        writing.add(completion.token_ids, completion.logprobs, sampled=True)
        writing.pieces += 1
        writing.policy_version = completion.policy_version
        turn, room = self.codec.decode(writing.token_ids[writing.began :]), self._room(writing)
        if any(stop in turn for stop in self.sampling.stop):
            self._end(writing, "stop")
        elif not any(stop in turn for stop in self.environment.stops):
            paused = completion.finish_reason == "length" and room > 0 and completion.token_ids[-1] in self.pauses
            if not paused:
                self._end(writing, completion.finish_reason)
        elif len(writing.replies) + 1 == self.budget.max_turns or room < 1:
            self._end(writing, "length")
        else:
            text, episode = self.codec.completion_text(writing.token_ids), writing.episode
            writing.asked = self.replies.ask(lambda: episode.reply(text))

    def _reply(self, writing: _Writing) -> Reply | None:
        assert writing.asked is not None
        try:
            return self.replies.result(writing.asked)
        except Late:
            return self._failure("timeout", f"a reply took longer than {self.budget.timeout_s:g} s")
        except Exception as error:
            return self._failure("crash", f"{type(error).__name__}: {error}")
        finally:
            writing.asked = None

    def _failure(self, kind: ReplyKind, how: str) -> Reply:
        self.failed += 1
        calls = self.given + 1
        if self.failed >= _FEW and 2 * self.failed > calls:
            raise EngineError(
                f"environment.world={type(self.environment).__name__}: {self.failed} of {calls} replies failed, the "
                f"last one with: {' '.join(how.split())}"
            )
        reply: Reply = getattr(self.environment, "failure", Reply())
        return replace(reply, kind=kind)

    def _put_behind(self, writing: _Writing, reply: Reply | None) -> None:
        self.given += 1
        if reply is None:
            self._end(writing, "stop")
            return
        writing.replies.append(reply.kind)
        ids = reply_ids(reply, self.codec, self.budget.max_reply_tokens)
        if len(ids) >= self._room(writing):
            self._end(writing, "length")  # nothing could be written behind it
        else:
            writing.add(ids, [0.0] * len(ids), sampled=False)
            writing.began = len(writing.token_ids)

    def _room(self, writing: _Writing) -> int:
        return self.sampling.budget(writing.prompt) - len(writing.token_ids)

    def _end(self, writing: _Writing, reason: FinishReason) -> None:
        writing.finish_reason = reason
        self.over += 1
        group = self.episodes[writing.index]
        if self.finished and all(one.finish_reason is not None for one in group):
            self.finished(writing.index, self._group(writing.index))

    def _group(self, index: int) -> Group:
        return Group(self.prompts[index], tuple(self._completion(writing) for writing in self.episodes[index]))

    def _completion(self, writing: _Writing) -> Completion:
        assert writing.finish_reason is not None
        return Completion(
            token_ids=tuple(writing.token_ids),
            logprobs=tuple(writing.logprobs),
            finish_reason=writing.finish_reason,
            text=self.codec.completion_text(writing.token_ids),
            policy_version=writing.policy_version,
            sampled=tuple(writing.sampled),
            replies=tuple(writing.replies),
        )

    def _told(self, done: int, total: int) -> None:
        """Episodes that are over, whatever the engine says of a turn."""
        if self.progress:
            self.progress(self.over, len(self.prompts) * self.sampling.group_size)


def reply_ids(reply: Reply, codec: Codec, most: int) -> list[int]:
    """Tokens of a reply; its text is cut where all of it would be more than ``most``."""
    before, after = (codec.encode_more(part) if part else [] for part in (reply.open, reply.close))
    room = max(most - len(before) - len(after), 0)
    return [*before, *codec.encode_plain(reply.text)[:room], *after]
