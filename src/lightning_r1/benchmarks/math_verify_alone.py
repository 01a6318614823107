"""math-verify called as the peers call it, in a process of its own, which stands for their trainer."""

from __future__ import annotations

import logging
from multiprocessing.connection import Connection

from math_verify import parse, verify


def verify_all(connection: Connection, timeout_s: int) -> None:
    """Grade what comes, gold and completion, in the main thread and with the library's own alarms."""
    logging.disable(logging.CRITICAL)

    def grade(gold: str, text: str) -> bool:
        wanted = parse(f"${gold}$", parsing_timeout=timeout_s)
        return verify(wanted, parse(text, parsing_timeout=timeout_s), timeout_seconds=timeout_s)

    grade(r"\frac{1}{2}x", r"\boxed{x/2}")
    connection.send(None)
    while True:
        gold, text = connection.recv()
        try:
            connection.send(("ok", float(grade(gold, text))))
        except Exception:
            connection.send(("crash", 0.0))
