"""What a policy can talk to while it answers: an environment, asked whenever the policy writes one of its stop texts.

A completion is then an *episode* of several turns. In each turn the policy writes up to a stop text (a call) or to
its end; the environment's reply to the call is put behind it, and the policy goes on from there::

    policy       <think>2*5=          10+1=           11 no; ...
    environment             10               11

Replies are given, not sampled: they are in the prompt of the next turn, and masked from the loss
(:attr:`.Completion.sampled`). Who runs the turns is :class:`.EpisodeEngine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lightning_r1.types import Prompt, ReplyKind


@dataclass(frozen=True, slots=True)
class Reply:
    """What is put behind a call.

    Example: ``Reply("42\\n", open="<output>\\n", close="</output>\\n")``
    """

    text: str = ""
    """What the tool says. It is cut to the budget, and made of plain tokens (:meth:`.Codec.encode_plain`)."""
    kind: ReplyKind = "ok"
    """For ``rollout/tool/<kind>``."""
    open: str = ""
    """What stands before and behind the text: the environment's own words, never cut, special tokens allowed."""
    close: str = ""


class Episode(Protocol):
    """One completion's conversation with an environment."""

    def reply(self, text: str) -> Reply | None:
        """The answer to the call that a text ends with.

        Called in a thread, within a time limit. The answer has to be a function of the prompt, the seed and the texts
        so far, or a run that goes on after an interruption is not the same run.

        Args:
            text: the whole completion so far as rewards read it, replies included. It ends with the token that
                completes a stop text, so that a few more characters may follow that.

        Returns:
            The reply, which may be empty: the policy just goes on. None ends the episode.
        """
        ...


class Environment(Protocol):
    """Opens an episode for every completion.

    It may have besides: ``start()``, called once before anything is sampled, which raises ValueError or RuntimeError
    in one line if it cannot work here; ``close()``, called at the end; and ``failure``, the :class:`Reply` that stands
    for one that did not come in time, or was not made because :meth:`Episode.reply` raised.
    """

    stops: tuple[str, ...]
    """Texts at which an episode is asked. The end of a turn, as a chat template writes it, may be one."""

    def open(self, prompt: Prompt, seed: int) -> Episode:
        """An episode.

        Args:
            prompt: that is answered.
            seed: of this completion, for whatever is random in the episode.
        """
        ...
