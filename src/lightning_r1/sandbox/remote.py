"""Programs run by an executor on another machine, asked over HTTP.

The protocol is one question. ``POST url`` with JSON::

    {"program": {"source": "...", "language": "python", "function": null}, "inputs": ["1 2\\n", ...],
     "limits": {"wall_s": 4.0, "cpu_s": 5.0, "memory_mib": 512, "output_bytes": 1048576, ...}}

and the answer, with status 200, in the words of :mod:`lightning_r1.sandbox.base`::

    {"runs": [{"status": "ok", "output": "Mwo=", "seconds": 0.004, "detail": ""}, ...]}

``output`` is base64; there is a run for each input, or one ``compile error``, or the last is ``broken``. Statuses
408, 425, 429 and 5xx, and an executor that is away, are asked again; every other status is final. No expected
output is ever sent. Inputs go in batches of 1, 2, 4, ..., so that a program that fails at once costs one test.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from lightning_r1.sandbox.base import GoOn, Limits, Program, SandboxError, Status, TestRun

_WORTH_ANOTHER_TRY = {408, 425, 429}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
_COMPILE_S = 70.0
_STANDARD = Limits()


class _Failed(Exception):
    """No answer, and why."""


class _TryAgain(Exception):
    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """The key goes to no other address."""


class RemoteSandbox:
    """Asks an executor.

    Args:
        url: of the question.
        at_once: questions under way at the same time; further callers wait.
        patience_s: beyond the limits of the tests themselves, until a question that finds the executor busy or
            away is given up; its tests are ``BROKEN``.
        api_key_env: environment variable with the executor's key, sent as ``Authorization: Bearer``; without the
            variable none is sent.

    Raises:
        SandboxError: if ``url`` is no http address.
    """

    name = "remote"

    def __init__(
        self, url: str, *, at_once: int = 8, patience_s: float = 120.0, api_key_env: str = "SANDBOX_API_KEY"
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise SandboxError(f"url={url!r}: expected an address like http://host:port/run")
        if at_once < 1 or patience_s <= 0:
            raise SandboxError(f"at_once={at_once}, patience_s={patience_s}: expected numbers above 0")
        self.url, self.at_once, self.patience_s, self.api_key_env = url, at_once, patience_s, api_key_env
        self._slots = threading.BoundedSemaphore(at_once)
        self._opener = urllib.request.build_opener(_NoRedirect())

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the executor."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def run(
        self, program: Program, inputs: Sequence[str], limits: Limits = _STANDARD, *, go_on: GoOn | None = None
    ) -> list[TestRun]:
        """See :meth:`lightning_r1.sandbox.base.Sandbox.run`."""
        if program.language == "cpp" and program.function is not None:
            raise SandboxError(f"function={program.function!r}: C++ programs read stdin and write stdout")
        runs: list[TestRun] = []
        size, asked = 1, False
        while len(runs) < len(inputs) or not asked:
            batch = inputs[len(runs) : len(runs) + size]
            try:
                with self._slots:
                    answers = self._ask(program, batch, limits)
            except _Failed as error:
                return [*runs, TestRun(Status.BROKEN, b"", 0.0, str(error))]
            for run in answers:
                runs.append(run)
                if run.status in (Status.COMPILE_ERROR, Status.BROKEN):
                    return runs
                if go_on is not None and not go_on(len(runs) - 1, run):
                    return runs
            size, asked = 2 * size, True
        return runs

    def close(self) -> None:
        """Nothing here outlives a question."""

    def _ask(self, program: Program, inputs: Sequence[str], limits: Limits) -> list[TestRun]:
        question = {"program": asdict(program), "inputs": list(inputs), "limits": asdict(limits)}
        body = json.dumps(question).encode()
        work_s = _COMPILE_S + len(inputs) * limits.wall_s
        deadline, wait = time.monotonic() + self.patience_s + work_s, _FIRST_WAIT_S
        while True:
            try:
                timeout_s = min(deadline - time.monotonic(), work_s + self.patience_s / 2)
                return _runs(self._once(body, timeout_s, limits, len(inputs)), inputs, limits)
            except _TryAgain as error:
                now = max(wait, error.wait_s)
                if time.monotonic() + now > deadline - work_s:
                    raise _Failed(f"{self.url}: no answer within {self.patience_s:g} s; last: {error}") from error
                time.sleep(now)
                wait = min(2 * wait, _LONGEST_WAIT_S)

    def _once(self, body: bytes, timeout_s: float, limits: Limits, count: int) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")
        most = (count + 1) * (limits.output_bytes * 4 // 3 + (16 << 10))
        until = time.monotonic() + timeout_s
        try:
            with self._opener.open(request, timeout=timeout_s) as response:
                reply = _body(response, most, until)
        except urllib.error.HTTPError as error:
            with error:
                told = f"HTTP {error.code}: {error.read(200).decode(errors='replace').strip()}"
            if error.code in _WORTH_ANOTHER_TRY or error.code >= 500:
                raise _TryAgain(told, _seconds(error.headers.get("Retry-After"))) from error
            raise _Failed(f"{self.url}: {told}") from error
        except (OSError, HTTPException) as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        if len(reply) > most:
            raise _Failed(f"{self.url}: an answer of more than {most} bytes")
        try:
            return json.loads(reply)
        except ValueError as error:  # cut short
            raise _TryAgain(f"no JSON: {reply[:100]!r}") from error


def _body(response: HTTPResponse, most: int, until: float) -> bytes:
    """All of it, or more than ``most``. A socket's own timeout begins anew with every byte.

    Raises:
        TimeoutError: if it is not there in time.
    """
    read = bytearray()
    while len(read) <= most and (chunk := response.read1(1 << 16)):
        read += chunk
        if time.monotonic() > until:
            raise TimeoutError(f"nothing whole in time, but {len(read)} bytes")
    return bytes(read)


def _runs(answer: Any, inputs: Sequence[str], limits: Limits) -> list[TestRun]:
    """The answer, checked: whoever sent it, no more and no other than was asked for."""
    try:
        runs = [
            TestRun(
                Status(run["status"]), base64.b64decode(run["output"], validate=True),
                float(run["seconds"]), str(run.get("detail", ""))[:1000],
            )
            for run in answer["runs"]
        ]  # fmt: skip
    except (TypeError, KeyError, ValueError, AttributeError, binascii.Error) as error:
        raise _Failed(f"an answer that is not in the protocol ({type(error).__name__}: {error})") from error
    ended = bool(runs) and runs[-1].status in (Status.COMPILE_ERROR, Status.BROKEN)
    if len(runs) != len(inputs) and not (ended and len(runs) <= max(1, len(inputs))):
        raise _Failed(f"{len(runs)} runs for {len(inputs)} inputs")
    if any(len(run.output) > limits.output_bytes for run in runs):
        raise _Failed(f"an output above {limits.output_bytes} bytes")
    return runs


def _seconds(text: str | None) -> float:
    try:
        return min(60.0, max(0.0, float(text or 0)))
    except ValueError:  # a date
        return 0.0
