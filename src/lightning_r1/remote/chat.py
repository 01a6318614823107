"""A client for models behind an OpenAI-compatible endpoint: a rewriter, a judge, a server of our own.

A question is asked again when the endpoint is busy or away, until a deadline, and its answer is kept on disk:
a job that goes on after an interruption asks nothing twice, and ends as if it had not been interrupted.
An endpoint is another program, on another machine, and gets no more time and memory than it is allowed: not by
a byte every second, not by a reply without end.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lightning_r1.remote.answers import Answers
from lightning_r1.remote.pace import Pace, Presence
from lightning_r1.remote.post import Post, ReplyTooLong

Messages = Sequence[Mapping[str, str]]
"""``[{"role": "user", "content": "..."}]``."""

_ABOUT_THE_QUESTION = {400, 413, 422}
_WORTH_ANOTHER_TRY = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_MOST_BYTES = 8 << 20
_LONGEST_WAIT_S = 60.0
# of all threads' waits alone: results never depend on it, and no seed is spent
_JITTER = random.SystemRandom()


class ChatError(RuntimeError):
    """The endpoint gave no answer; the message says which one, and why."""


class ChatRefused(ChatError):
    """The endpoint is there and does not answer this question; asking again would not help."""


class ChatClient:
    """Asks a chat model.

    Args:
        base_url: of the endpoint, up to and with ``/v1``.
        model: its name there.
        api_key_env: environment variable that holds the key; without the variable none is sent.
        temperature: 0 gives the same answer to the same question, as far as the endpoint can.
        max_tokens: of an answer; null leaves it to the endpoint.
        timeout_s: of one try, however much of its reply has come.
        deadline_s: of all tries of a question together; waits for the own pace are not counted. Once a question
            has run into it and the endpoint answers nothing else either, others fail at once, and only one every
            half minute tries, until one is answered.
        first_wait_s: before the second try; every wait is twice the one before, at most a minute, and shortened
            by up to half at random, so that many do not return together. A ``Retry-After`` is honoured, by all
            threads.
        at_once: questions asked at the same time.
        requests_per_minute: of this process, evenly spaced, tries included; null is no limit.
        tokens_per_minute: of questions and answers, as the endpoint counts them; null is no limit.
        cache: folder of the answers; null keeps none.

    Raises:
        ValueError: if ``base_url`` is no http address, or a number is out of its range.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key_env: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        max_tokens: int | None = None,
        timeout_s: float = 300.0,
        deadline_s: float = 1800.0,
        first_wait_s: float = 1.0,
        at_once: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        cache: str | Path | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url={base_url!r}: expected an address like http://host:8000/v1")
        for name, value in {"timeout_s": timeout_s, "deadline_s": deadline_s, "at_once": at_once}.items():
            if value <= 0:
                raise ValueError(f"{name}={value}: expected > 0")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model, self.api_key_env = model, api_key_env
        self.options: dict[str, Any] = {"temperature": temperature}
        if max_tokens is not None:
            self.options["max_tokens"] = max_tokens
        self.timeout_s, self.deadline_s, self.first_wait_s = timeout_s, deadline_s, first_wait_s
        self.at_once = at_once
        self.answers = Answers(cache)
        self._pace, self._presence = Pace(requests_per_minute, tokens_per_minute), Presence()
        self._post = Post(_MOST_BYTES)

    def ask(self, messages: Messages) -> str:
        """The answer to one conversation.

        Raises:
            ChatError: if there was none before the deadline; :class:`ChatRefused` if there will be none.
        """
        request = {"model": self.model, "messages": [dict(message) for message in messages], **self.options}
        record = self.answers.once(
            [self.url, request], lambda: {"request": request, "answer": self._until_deadline(request)}
        )
        return str(record["answer"])

    def ask_all(
        self, conversations: Sequence[Messages], progress: Callable[[int, int], None] | None = None
    ) -> list[str | ChatError]:
        """An answer or an error for each conversation, in order."""
        lock, done = threading.Lock(), 0

        def one(messages: Messages) -> str | ChatError:
            nonlocal done
            try:
                return self.ask(messages)
            except ChatError as error:
                return error
            finally:
                with lock:
                    done += 1
                    if progress:
                        progress(done, len(conversations))

        with ThreadPoolExecutor(self.at_once) as threads:
            return list(threads.map(one, conversations))

    def _until_deadline(self, request: Mapping[str, Any]) -> str:
        if why := self._presence.away():
            raise ChatError(f"{self.url}: still away; last: {why}")
        body = json.dumps(request).encode()
        tokens = len(body) / 4 + self.options.get("max_tokens", 0)  # a guess, until the endpoint tells
        started, next_wait, wait, last = time.monotonic(), self.first_wait_s, 0.0, ""
        deadline = started + self.deadline_s
        while True:
            wait = max(wait, self._pace.paused())
            if time.monotonic() + wait >= deadline:
                break
            time.sleep(wait)
            own_wait = self._pace.book(tokens)
            time.sleep(own_wait)
            deadline += own_wait
            try:
                return self._once(body, min(self.timeout_s, max(0.001, deadline - time.monotonic())), tokens)
            except _TryAgain as error:
                if not last or time.monotonic() < deadline:  # a try that was cut off tells less than the one before
                    last = str(error)
                asked = error.wait_s
                self._pace.pause(asked)
            if self._presence.probing():
                break
            wait = max(asked, next_wait * _JITTER.uniform(0.5, 1.0))
            next_wait = min(2 * next_wait, _LONGEST_WAIT_S)
        last = last or f"it asked all for a pause of {wait:.0f} s"
        self._presence.gave_up(started, last)
        raise ChatError(f"{self.url}: no answer within {self.deadline_s:g} s; last: {last}")

    def _once(self, body: bytes, timeout_s: float, booked: float) -> str:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        try:
            reply = self._post.send(self.url, body, headers, timeout_s=timeout_s)
            told: Any = json.loads(reply.body) if reply.status == 200 else None
        except ReplyTooLong as error:
            self._presence.answered()
            raise ChatRefused(f"{self.url}: {error}") from error
        except (OSError, HTTPException, ValueError, RecursionError) as error:  # away, cut short, or no JSON
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        if reply.status != 200:
            raise self._failure(reply.status, reply.body.decode(errors="replace").strip(), reply.headers)
        self._presence.answered()
        self._pace.correct(_tokens_used(told, booked) - booked)
        try:
            answer = told["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            answer = None
        if not isinstance(answer, str):
            raise ChatRefused(f"{self.url}: the reply has no choices[0].message.content")
        return answer.encode(errors="replace").decode()  # half a surrogate pair cannot be written to any file

    def _failure(self, status: int, said: str, headers: Mapping[str, str]) -> Exception:
        told = f"HTTP {status}: {said}"
        if status in _WORTH_ANOTHER_TRY:
            after = {name.lower(): value for name, value in headers.items()}.get("retry-after")
            return _TryAgain(told, _seconds(after))
        if status not in _ABOUT_THE_QUESTION:
            return ChatError(f"{self.url}: {told}")
        self._presence.answered()
        return ChatRefused(f"{self.url}: {told}")


class _TryAgain(Exception):
    """This try failed; another one may not."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def _seconds(retry_after: str | None) -> float:
    """Of a ``Retry-After``: seconds, or a date; 0 for what is neither.

    >>> _seconds("1.5"), _seconds("soon"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT"), _seconds("nan"), _seconds(None)
    (1.5, 0.0, 0.0, 0.0, 0.0)
    """
    try:
        wait = float(retry_after or 0)
    except ValueError:
        try:
            until = parsedate_to_datetime(str(retry_after))
            wait = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            wait = 0.0
    return max(0.0, wait) if math.isfinite(wait) else 0.0


def _tokens_used(told: Any, booked: float) -> float:
    usage = told.get("usage") if isinstance(told, dict) else None
    used = usage.get("total_tokens") if isinstance(usage, dict) else None
    return float(used) if isinstance(used, int) and not isinstance(used, bool) and used >= 0 else booked
