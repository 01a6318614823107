"""Sandboxes for tests: which backends this machine has, and what a sandbox has left behind."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.sandbox.base import Limits, Program, Sandbox, TestRun
from lightning_r1.sandbox.landlock import landlock_abi

BACKENDS = ("bwrap", "landlock")
QUICK = Limits(wall_s=30.0, cpu_s=20.0)  # generous: what is tested with it ends by itself
_SET_CHILD_SUBREAPER = 36


@functools.cache
def missing(backend: str) -> str:
    """Why a backend cannot be tested here; empty if it can."""
    if sys.platform != "linux":
        return f"this is {sys.platform}"
    if backend == "landlock":
        return "" if landlock_abi() else "the kernel has no Landlock"
    if shutil.which("bwrap") is None:
        return "no bwrap in PATH"
    spaces = ["--unshare-all"] if os.geteuid() else ["--unshare-ipc", "--unshare-pid", "--unshare-net"]
    tried = subprocess.run(
        ["bwrap", *spaces, "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or (f"bwrap ended with {tried.returncode}" if tried.returncode else "")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each backend that this machine cannot test."""
    for name in BACKENDS:
        if reason := missing(name):
            terminalreporter.write_line(f"sandbox: {name} is not tested here: {reason}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the cases of backends that are not here; the end of the report says so."""
    absent = [item for item in items if missing_backend(item)]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if not missing_backend(item)]


def missing_backend(item: pytest.Item) -> bool:
    backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")  # type: ignore[attr-defined]
    return backend in BACKENDS and bool(missing(backend))


def one(sandbox: Sandbox, source: str, data: str = "", limits: Limits = QUICK, **program: Any) -> TestRun:
    """Run a program on one input."""
    runs = sandbox.run(Program(source, **program), [data], limits)
    assert len(runs) == 1
    return runs[0]


def adopt_orphans() -> None:
    """Make this process the parent of every orphan among its descendants, so that none is overlooked."""
    assert ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def descendants() -> set[int]:
    """All living processes below this one."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(status.parent.name))
    found, todo = set[int](), [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def no_more_than(before: set[int], within_s: float = 30.0) -> set[int]:
    """Descendants that were not there before, when they have had time to go; zombies of orphans are collected."""
    deadline = time.monotonic() + within_s
    while (extra := descendants() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return extra
