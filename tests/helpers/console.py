"""What a person saw."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lightning_r1.callbacks import console as console_module


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed since the last call; wherever the console broke a line, one space."""
    return " ".join(capsys.readouterr().out.split())


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 200) -> Console:
    """Let the callbacks print on a terminal, where bars move; what they print goes nowhere."""
    terminal = Console(force_terminal=True, width=width, file=io.StringIO())
    monkeypatch.setattr(console_module, "console", terminal)
    return terminal
