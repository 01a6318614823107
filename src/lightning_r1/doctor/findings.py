"""What a check is, what it finds, and how it goes on where something cannot be found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One plain sentence, and what to do about it."""

    level: Level
    text: str
    fix: str = ""


class NotChecked(Exception):
    """Something that a check needs is not at hand; says what, and what to do."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.fix = fix


Check = Callable[[Any], Iterator[Finding]]
CHECKS: dict[str, Check] = {}
"""By the name that the table shows, in the order in which they are made."""


def check(name: str) -> Callable[[Check], Check]:
    """Register a check."""

    def register(function: Check) -> Check:
        CHECKS[name] = function
        return function

    return register


def ok(text: str) -> Finding:
    """As it should be."""
    return Finding("ok", text)


def warning(text: str, fix: str = "") -> Finding:
    """The run can go on, but somebody should look at this."""
    return Finding("warning", text, fix)


def failed(text: str, fix: str = "") -> Finding:
    """The run would fail, or learn nothing."""
    return Finding("failed", text, fix)


def examine(function: Check, patient: Any) -> list[Finding]:
    """What a check finds; what it raises is a finding too, and what it found before stays.

    Args:
        function: the check.
        patient: the run, see :class:`.Patient`.
    """
    found: list[Finding] = []
    try:
        for finding in function(patient):
            found.append(finding)
    except NotChecked as missing:
        found.append(warning(f"not checked: {missing}", missing.fix))
    except Exception as error:
        found.append(failed(one_line(error)))
    return found


def one_line(error: BaseException) -> str:
    """An error in one line; the name of its kind where it is none of ours."""
    said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    return said if isinstance(error, ValueError) and said else f"{type(error).__name__}: {said}"
