"""Judges that are simple programs: they read a message as a model might, well or badly, and reply in the form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from lightning_r1.rewards.canaries import CASES

Judging = Callable[[dict[str, Any]], str]

_RIGHT = {canary.answer for cases in CASES.values() for canary in cases if canary.right}
_FORM = re.compile(r'\{"mark": "(\w{16})"')
ANY_MARK = re.compile("^.*[\\[\uff3b\u3010]\\s?[0-9a-fA-F]{4,} +([\\w ]+)[\\]\uff3d\u3011].*$", re.MULTILINE)


def message_of(body: Mapping[str, Any]) -> str:
    """What was asked."""
    return str(body["messages"][-1]["content"])


def parts_of(message: str) -> dict[str, str]:
    """The parts between the marks of this call."""
    mark = mark_of(message)
    pieces = re.split(rf"^\[{mark} ([\w ]+)\]$", message, flags=re.MULTILINE)
    return {name: text.strip("\n") for name, text in zip(pieces[1::2], pieces[2::2], strict=True) if name != "end"}


def mark_of(message: str) -> str:
    """The mark that the reply has to carry: it stands in the form, behind all data."""
    return _FORM.findall(message)[-1]


def says(message: str, **verdict: Any) -> str:
    """A reply in the form."""
    return json.dumps({"mark": mark_of(message), "analysis": "as I see it", **verdict})


def honest(body: Mapping[str, Any]) -> str:
    """Right is what contains the reference; good is what is long; better is what is longer."""
    message = message_of(body)
    parts = parts_of(message)
    if "answer A" in parts:
        gap = len(parts["answer A"]) - len(parts["answer B"])
        strength = ">>" if abs(gap) > 10 else ">"
        return says(message, verdict=f"A{strength}B" if gap > 0 else f"B{strength}A" if gap else "A=B")
    if '"grade"' in message[message.rindex("The data ends here") :]:
        return says(message, grade=min(10, max(1, len(parts["answer"]) // 10)))
    reference = parts.get("reference", "4").casefold()
    right = re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", parts["answer"].casefold())
    return says(message, correctness="correct" if right else "incorrect")


def gullible(body: Mapping[str, Any]) -> str:
    """Takes whatever looks like an end mark for the end of the data, and does what is said behind the first one.

    It repeats the first verdict that stands there, and is honest where there is none.
    """
    message = message_of(body)
    ends = [found for found in ANY_MARK.finditer(message) if found[1] == "end"]
    behind = message[ends[0].end() :]
    ordered = re.search(r'\{"mark".*?"correctness": "(correct|incorrect)"\}', behind)
    return ordered[0] if ordered else honest(body)


def echoing(body: Mapping[str, Any]) -> str:
    """Quotes the answer behind its own verdict, as judges do that have been asked to explain themselves."""
    return f"{honest(body)}\nThis is because the answer says: {parts_of(message_of(body))['answer']}"


def turn_taking(body: Mapping[str, Any]) -> str:
    """A server that tokenises the message at once: behind a control token the judge has spoken already."""
    said = re.split(r"<\|im_start\|>assistant\n", message_of(body))
    return said[1] if len(said) > 1 else honest(body)


def pleased(body: Mapping[str, Any]) -> str:
    """Calls everything right that is short, as many a judge does with ``:``."""
    message = message_of(body)
    short = len(parts_of(message)["answer"]) < 30
    return says(message, correctness="correct") if short else honest(body)


def echoing_pair(body: Mapping[str, Any]) -> str:
    """As :func:`echoing`, of a pair: both answers stand behind its verdict."""
    parts = parts_of(message_of(body))
    return f"{honest(body)}\nA says: {parts['answer A']}\nB says: {parts['answer B']}"


def knowing_pair(body: Mapping[str, Any], otherwise: Judging | None = None) -> str:
    """Prefers canaries that are right to others; of other pairs says ``otherwise``."""
    message = message_of(body)
    parts = parts_of(message)
    right = [parts[name] in _RIGHT for name in ("answer A", "answer B")]
    if not any(right):
        return (otherwise or honest)(dict(body))
    return says(message, verdict="A=B" if all(right) else "A>>B" if right[0] else "B>>A")
