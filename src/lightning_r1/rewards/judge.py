"""A judge behind an OpenAI-compatible endpoint: vLLM, SGLang, a provider (R1 paper v2, section 2.3.3, listing 4).

R1 asks DeepSeek-V3 in rejection sampling, where no rule decides. Take another model than the one that is trained,
or a frozen one: a policy that grades itself agrees with itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lightning_r1.remote.answers import Record
from lightning_r1.remote.chat import ChatClient, ChatError
from lightning_r1.rewards.judging import Ask, Judging, message_of
from lightning_r1.text.marks import new_mark
from lightning_r1.text.tags import Tags


class Judge(Judging):
    """Asks a model behind an endpoint. It only waits, and keeps its own deadline: many are asked at once.

    A prompt's ``answer["reference"]`` is its reference, if it has one.

    Args:
        tags: of the template.
        base_url: ``http://host:8000/v1``.
        model: its name there; another model than the one that is sampled.
        api_key_env: the variable that holds the key.
        max_tokens: of a reply.
        timeout_s: of one request, in seconds.
        deadline_s: of one reply, all requests together, in seconds; then the outcome is ``timeout``.
        first_wait_s: as of :class:`.ChatClient`.
        at_once: verdicts that are waited for at the same time, in each process.
        requests_per_minute: of this process; null is no limit.
        tokens_per_minute: of this process; null is no limit.
        judging: as of :class:`.Judging`.

    Raises:
        ValueError: for a number out of its range, or no address.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        max_tokens: int | None = 1024,
        timeout_s: float = 120.0,
        deadline_s: float = 600.0,
        first_wait_s: float = 1.0,
        at_once: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        **judging: Any,
    ) -> None:
        super().__init__(tags, **judging)
        self.at_once = at_once
        self.client = ChatClient(
            base_url=base_url,
            model=model,
            api_key_env=api_key_env,
            max_tokens=max_tokens,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            first_wait_s=first_wait_s,
            at_once=at_once,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )

    def replies(self, asks: Sequence[Ask], *, fresh: bool) -> list[Record | ChatError]:
        """See :class:`.Judging`."""
        if len(asks) == 1:
            return [self._reply(asks[0], fresh)]
        with ThreadPoolExecutor(self.at_once) as threads:
            return list(threads.map(lambda ask: self._reply(ask, fresh), asks))

    def key(self, ask: Ask) -> list[Any]:
        """See :class:`.Judging`."""
        return [self.client.url, self.client.model, self.client.options, *super().key(ask)]

    def _reply(self, ask: Ask, fresh: bool) -> Record | ChatError:
        def make() -> Record:
            mark = new_mark(ask.case.question, ask.case.reference or "", ask.case.answer)
            message = message_of(self.verdict, ask, mark)
            reply = self.client.ask([{"role": "user", "content": message}])
            return {"mark": mark, "message": message, "reply": reply}

        try:
            return make() if fresh else self.answers.once(self.key(ask), make)
        except ChatError as error:
            return error
