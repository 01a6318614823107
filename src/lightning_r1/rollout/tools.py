r"""Tools that a policy calls by name in the middle of its text, in one of two forms.

========  ======================================================  ==========================================
form      a call                                                  its reply
========  ======================================================  ==========================================
``tag``   ``<tool name="python">print(6*7)</tool>``               ``\n<output>\n42\n</output>\n``
``json``  ``<tool_call>{"name": "python", "arguments":            as the chat template writes it, e.g. between
          {"code": "print(6*7)"}}</tool_call>``                   ``<tool_response>`` and ``</tool_response>``
========  ======================================================  ==========================================

What is wrong with a call is told to the policy as text. No text of a policy is executed in this process: programs run
in a sandbox that has proven itself (:mod:`lightning_r1.sandbox`), arithmetic on a syntax tree.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from lightning_r1.rollout.calculator import Calculator
from lightning_r1.rollout.environment import Reply
from lightning_r1.sandbox.base import Limits, Program, Sandbox, Status, TestRun
from lightning_r1.sandbox.open import open_sandbox
from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.types import Prompt, ReplyKind

_TAG = re.compile(r'<tool name="([^"<>\n]{0,80})">((?:(?!<tool name=).)*)\Z', re.DOTALL)
_MOST = 100_000  # characters of a call


class Tool(Protocol):
    """Answers one text; it may have ``start()`` and ``close()``, as an environment may."""

    argument: str
    """What the text is called in a call's JSON."""

    def __call__(self, text: str) -> Reply:
        """The answer; its ``open`` and ``close`` are not used."""
        ...


class Tools:
    """An environment of tools by name.

    Args:
        tools: by the name that a policy calls them by.
        form: see the table above.
        open: put before a reply; None is the table's.
        close: put behind it.

    Raises:
        ValueError: without tools, or for another form.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        form: Literal["tag", "json"] = "tag",
        open: str | None = None,
        close: str | None = None,
    ) -> None:
        if not tools:
            raise ValueError("tools is empty: name at least one")
        forms = {
            "tag": ("</tool>", "\n<output>\n", "\n</output>\n"),
            "json": ("</tool_call>", "\n<tool_response>\n", "\n</tool_response>\n"),
        }
        if form not in forms:
            raise ValueError(f"form={form!r}: expected tag or json")
        end, before, after = forms[form]
        self.tools, self.form, self.stops = dict(tools), form, (end,)
        self.before, self.after = before if open is None else open, after if close is None else close
        self.failure = self._told(Reply("error: the tool did not answer"))

    def start(self) -> None:
        """Let the tools prove themselves.

        Raises:
            RuntimeError: from one that cannot work here.
        """
        for tool in self.tools.values():
            if begin := getattr(tool, "start", None):
                begin()

    def close(self) -> None:
        """Give back what they hold."""
        for tool in self.tools.values():
            if end := getattr(tool, "close", None):
                end()

    def open(self, prompt: Prompt, seed: int) -> Tools:
        """Nothing is remembered from call to call."""
        return self

    def reply(self, text: str) -> Reply:
        """See :class:`.Episode`."""
        before = text.rpartition(self.stops[0])[0][-_MOST:]
        name, argument = (_read_tag if self.form == "tag" else self._read_json)(before)
        if name is None:
            return self._told(Reply(f"error: {argument}", "error"))
        if name not in self.tools:
            return self._told(Reply(f"error: no tool {name!r}; there are {', '.join(self.tools)}", "error"))
        return self._told(self.tools[name](argument))

    def _read_json(self, before: str) -> tuple[str | None, str]:
        """Name and argument of a call; or None, and what is wrong."""
        try:
            call = json.loads(before.rpartition("<tool_call>")[2])
        except (ValueError, RecursionError) as error:
            return None, f"the call is no JSON ({error})"
        arguments = call.get("arguments") if isinstance(call, dict) else None
        if not isinstance(arguments, dict) or not isinstance(call.get("name"), str):
            return None, 'a call is {"name": ..., "arguments": {...}}'
        name = call["name"]
        wanted = self.tools[name].argument if name in self.tools else ""
        if name in self.tools and not isinstance(arguments.get(wanted), str):
            return None, f"{name} takes the text {wanted!r}"
        return name, arguments.get(wanted, "")

    def _told(self, reply: Reply) -> Reply:
        return Reply(reply.text, reply.kind, self.before, self.after)


def _read_tag(before: str) -> tuple[str | None, str]:
    match = _TAG.search(before, before.rfind('<tool name="') if '<tool name="' in before else len(before))
    if match is None or "</tool>" in match[2]:  # that call was answered, and this end has no beginning
        return None, 'a call is <tool name="...">...</tool>'
    return match[1], match[2]


class CalculatorTool:
    """The value of an arithmetic expression.

    Args:
        largest: absolute value of a result.
    """

    argument = "expression"

    def __init__(self, largest: float = 1e12) -> None:
        self.calculator = Calculator(largest)

    def __call__(self, text: str) -> Reply:
        """See :class:`Tool`."""
        try:
            return self.calculator.calculate(text)
        except ExpressionError as error:
            return Reply(f"error: {error}", "error")


_KINDS: Mapping[Status, ReplyKind] = {Status.OK: "ok", Status.TIME_LIMIT: "timeout", Status.BROKEN: "crash"}


class PythonTool:
    """What a Python program prints, run in a sandbox; each call is a program of its own.

    Args:
        backend: of :func:`.open_sandbox`.
        url: of a remote sandbox.
        allow_unsafe: let ``backend=unsafe_subprocess`` run programs that nothing holds back.
        time_limit_s: of one call.
        memory_limit_mib: address space of a program.
        max_output_chars: of a reply; a longer output loses its middle.
        at_once: programs that run at a time; None is one a core that this process may use.

    Raises:
        ValueError: for limits out of their range.
    """

    argument = "code"

    def __init__(
        self,
        backend: str = "auto",
        url: str | None = None,
        allow_unsafe: bool = False,
        time_limit_s: float = 4.0,
        memory_limit_mib: int = 512,
        max_output_chars: int = 2000,
        at_once: int | None = None,
    ) -> None:
        if max_output_chars < 40:
            raise ValueError(f"max_output_chars={max_output_chars}: expected >= 40")
        self.limits = Limits(wall_s=time_limit_s, cpu_s=time_limit_s + 1, memory_mib=memory_limit_mib)
        self.max_output_chars = max_output_chars
        self._how: dict[str, Any] = {
            "backend": backend,
            "url": url,
            "allow_unsafe": allow_unsafe,
            "at_once": at_once or len(os.sched_getaffinity(0)),
        }
        self._sandbox: Sandbox | None = None
        self._opening = threading.Lock()

    def start(self) -> None:
        """Open the sandbox, which proves that it holds.

        Raises:
            SandboxError: if none does; says why not.
        """
        with self._opening:
            if self._sandbox is None:
                self._sandbox = open_sandbox(**self._how)

    def close(self) -> None:
        """Give the sandbox back."""
        with self._opening:
            if self._sandbox is not None:
                self._sandbox.close()
            self._sandbox = None

    def __call__(self, text: str) -> Reply:
        """See :class:`Tool`."""
        self.start()
        assert self._sandbox is not None
        source = text.encode(errors="replace").decode()  # half a surrogate pair cannot be sent
        runs = self._sandbox.run(Program(source), [""], self.limits)
        run = runs[0] if runs else TestRun(Status.BROKEN, b"", 0.0, "no run came back")
        output = run.output.decode(errors="replace").strip("\n")
        if run.status is not Status.OK:
            fault = f"error: {run.status.value}"
            output = "\n".join(part for part in (output, fault, run.detail.strip()) if part)
        return Reply(without_middle(output, self.max_output_chars), _KINDS.get(run.status, "error"))


def without_middle(text: str, most: int) -> str:
    """A text of at most so many characters, its middle left out if need be.

    >>> without_middle("0123456789" * 10, 50)
    '0123456789012[... 74 characters ...]7890123456789'
    """
    if len(text) <= most:
        return text
    told = f"[... {len(text)} characters ...]"
    half = max((most - len(told)) // 2, 1)
    return f"{text[:half]}[... {len(text) - 2 * half} characters ...]{text[-half:]}"
