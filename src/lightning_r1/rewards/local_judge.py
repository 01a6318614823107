"""A judge whose model is in this process, on the rollout's device; asked once, at the end of a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_r1.models.chat import LocalChat
from lightning_r1.remote.answers import Record
from lightning_r1.remote.chat import ChatError, ChatRefused
from lightning_r1.rewards.base import Item
from lightning_r1.rewards.judging import Ask, Judging, message_of
from lightning_r1.text.marks import new_mark
from lightning_r1.text.tags import Tags
from lightning_r1.types import RewardScore


class LocalJudge(Judging):
    """Asks a transformers chat model, greedily: same questions, same rules, same verdicts as :class:`.Judge`.

    For a large judge serve it with vLLM or SGLang and take :class:`.Judge`: this one is for a small one beside the
    policy, and generates as simply as can be.

    Args:
        tags: of the template.
        path: a folder or hub id of a chat model; not the policy.
        max_tokens: of a reply.
        micro_batch_tokens: of one batch, replies and padding included.
        dtype: of the model's weights.
        attention: as ``model.attention``.
        judging: as of :class:`.Judging`.

    Raises:
        ValueError: for a model that is no chat model, or a number out of its range.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        path: str,
        max_tokens: int = 512,
        micro_batch_tokens: int = 65536,
        dtype: str = "float32",
        attention: str = "sdpa",
        **judging: Any,
    ) -> None:
        super().__init__(tags, **judging)
        self.chat = LocalChat(
            path, dtype=dtype, attention=attention, max_new_tokens=max_tokens, micro_batch_tokens=micro_batch_tokens
        )

    def score_batch(self, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`.BatchReward`."""
        return self.judge(items)

    def to(self, device: Any) -> None:
        """Move the model."""
        self.chat.to(device)

    def key(self, ask: Ask) -> list[Any]:
        """See :class:`.Judging`."""
        return [self.chat.path, self.chat.max_new_tokens, *super().key(ask)]

    def replies(self, asks: Sequence[Ask], *, fresh: bool) -> list[Record | ChatError]:
        """See :class:`.Judging`; what is asked twice is answered once."""
        kept = {} if fresh else {ask: self.answers.get(self.key(ask)) for ask in dict.fromkeys(asks)}
        known = {ask: record for ask, record in kept.items() if record is not None}
        wanted = [ask for ask in dict.fromkeys(asks) if ask not in known]
        marks = [new_mark(ask.case.question, ask.case.reference or "", ask.case.answer) for ask in wanted]
        messages = [message_of(self.verdict, ask, mark) for ask, mark in zip(wanted, marks, strict=True)]
        made: dict[Ask, Record | ChatError] = dict(known)
        for ask, mark, message, reply in zip(wanted, marks, messages, self.chat.answer(messages), strict=True):
            if reply is None:
                made[ask] = ChatRefused(f"{self.chat.path}: the message does not fit its context")
                continue
            record = made[ask] = {"mark": mark, "message": message, "reply": reply}
            if not fresh:
                self.answers.put(self.key(ask), record)
        return [made[ask] for ask in asks]
