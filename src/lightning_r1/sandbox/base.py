"""What a sandbox is: it runs a program on inputs, within limits, and says what came out.

A sandbox never sees an expected output. What it returns is plain bytes that a model's program chose freely:
whoever compares them parses them as data, and a program gains nothing by lying about them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

Language = Literal["python", "cpp"]
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""Names of environment variables that no program of a model may come near."""
LANGUAGES: tuple[Language, ...] = ("python", "cpp")


class SandboxError(RuntimeError):
    """No sandbox can be opened, or it was asked for what it cannot do; one line says why and what to do."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one test; the next one starts afresh.

    Example: ``Limits(wall_s=2.0, memory_mib=256)``

    Raises:
        ValueError: if a limit is out of its range.
    """

    wall_s: float = 4.0
    cpu_s: float = 5.0
    """Of all threads together; counted in whole seconds, rounded up."""
    memory_mib: int = 512
    """Address space of the program, its interpreter included."""
    output_bytes: int = 1 << 20
    """Of stdout (or of the JSON text), and again of stderr, which is thrown away."""
    file_bytes: int = 16 << 20
    open_files: int = 64

    def __post_init__(self) -> None:
        for name, least in {"memory_mib": 64, "output_bytes": 1, "file_bytes": 0, "open_files": 16}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {least}")
        for name in ("wall_s", "cpu_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name}={getattr(self, name)}: expected seconds > 0")


@dataclass(frozen=True, slots=True)
class Program:
    """What a model wrote.

    Without ``function`` it reads stdin and writes stdout. With it, each input is the JSON list of arguments of
    that function (or of that method of its ``class Solution``), and the output is the JSON of what it returns.

    Example: ``Program("def add(a, b): return a + b", function="add")`` with the input ``"[1, 2]"`` gives ``b"3"``.
    """

    source: str
    language: Language = "python"
    function: str | None = None


class Status(StrEnum):
    """How a test ended. Only ``BROKEN`` is not the program's doing."""

    OK = "ok"
    ERROR = "error"
    """It raised, ended with another status than 0, or was killed by a signal of its own."""
    TIME_LIMIT = "time limit"
    MEMORY_LIMIT = "memory limit"
    OUTPUT_LIMIT = "output limit"
    COMPILE_ERROR = "compile error"
    BROKEN = "broken"
    """The sandbox failed; nothing is known about the program."""


@dataclass(frozen=True, slots=True)
class TestRun:
    """What one test gave: stdout, or the JSON text of the returned value, as the program wrote it."""

    __test__ = False  # no test of pytest's

    status: Status
    output: bytes
    seconds: float
    detail: str = ""
    """For people: the end of stderr, the compiler's message. Written by the program, so believe nothing in it."""


GoOn = Callable[[int, TestRun], bool]
"""Asked after every test with its place and what came out; ``False`` ends the program's run there."""


class Sandbox(Protocol):
    """Runs programs; safe to call from many threads."""

    name: str

    def run(
        self, program: Program, inputs: Sequence[str], limits: Limits = Limits(), *, go_on: GoOn | None = None
    ) -> list[TestRun]:
        """Run ``program`` once per input, one after the other.

        Args:
            go_on: ends the run early; the list is then shorter than ``inputs``.

        Returns:
            One :class:`TestRun` per input. A program that does not compile gives one entry, ``COMPILE_ERROR``;
            the first ``BROKEN`` one is the last.

        Raises:
            SandboxError: if the sandbox does not know the language, or it has no function programs.
        """

    def close(self) -> None:
        """End every process of the sandbox."""
