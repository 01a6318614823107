"""The trainer's end of one keeper process: starts it, speaks frames with it under deadlines, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_r1.sandbox.base import Limits, Program, SandboxError, Status, TestRun

CLEAN_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
"""All that a sandbox finds in its environment; the fixed seed makes a program's output a function of its input."""

INTERPRETER_FLAGS = ("-P", "-s", "-S", "-B")  # as -I, which would ignore the two settings above

_INSIDE = Path(__file__).parent / "inside"
_PACKAGES = ("lightning_r1", "lightning_r1.sandbox", "lightning_r1.sandbox.inside")
_MODULES = ("confine", "python_program", "driver")
_BOOT = """
import json, os, sys, types
def read(count):
    data = b""
    while len(data) < count:
        data += os.read(0, count - len(data)) or os._exit(1)
    return data
first = json.loads(read(int.from_bytes(read(4), "big")))
for name, source in first["modules"].items():
    module = sys.modules[name] = types.ModuleType(name)
    parent, _, last = name.rpartition(".")
    setattr(sys.modules.get(parent, module), last, module)
    exec(compile(source, name, "exec"), module.__dict__)
module.serve(first["setup"])
"""
_START_S = 20.0
_GRACE_S = 10.0  # beyond a test's own limit: the driver did not answer, on a machine with too much to do
_COMPILE_S = {"python": 10.0, "cpp": 60.0}
_HEADER_BYTES = 16 << 10

_starters: dict[int, ThreadPoolExecutor] = {}
_starters_lock = threading.Lock()


class Broken(Exception):
    """The keeper or driver is gone, silent or incomprehensible."""


def _start(action: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    # A process that wants to die with its parent dies with the *thread* that started it, so one thread starts all.
    with _starters_lock:
        pid = os.getpid()
        if pid not in _starters:  # after a fork, the thread of the parent is not here
            _starters.clear()
            _starters[pid] = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
        starter = _starters[pid]
    return starter.submit(action).result()


class Session:
    """One keeper, and the program it runs at the moment.

    Args:
        command: starts a Python interpreter, to which :data:`INTERPRETER_FLAGS` and the first source are added.
        setup: how it confines itself (see ``inside/driver.py``).

    Raises:
        SandboxError: if it does not come up; with its last words.
    """

    def __init__(self, command: Sequence[str], setup: Mapping[str, Any]) -> None:
        arguments = [*command, *INTERPRETER_FLAGS, "-c", _BOOT]
        pipe = subprocess.PIPE
        try:
            self._process = _start(
                lambda: subprocess.Popen(
                    arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=CLEAN_ENVIRONMENT, cwd="/",
                    start_new_session=True, bufsize=0,
                )
            )  # fmt: skip
        except OSError as error:
            raise SandboxError(f"cannot start {command[0]}: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        for descriptor in (self._to, self._from):
            os.set_blocking(descriptor, False)
        self._buffer = bytearray()
        modules = dict.fromkeys(_PACKAGES, "")
        modules |= {
            f"{_PACKAGES[-1]}.{name}": (_INSIDE / f"{name}.py").read_text(encoding="utf-8") for name in _MODULES
        }
        deadline = time.monotonic() + _START_S
        try:
            self._send(json.dumps({"modules": modules, "setup": dict(setup)}).encode(), deadline)
            self._receive(_HEADER_BYTES, deadline)
        except Broken as error:
            raise SandboxError(self._last_words() or str(error)) from error

    def alive(self) -> bool:
        """Whether it waits for a program."""
        return self._process.poll() is None and not self._buffer

    def begin(self, program: Program, limits: Limits) -> TestRun | None:
        """Send a program; ``None`` if it compiles.

        Raises:
            Broken: if the session must be thrown away; :class:`TestRun` says it of the program where that is to blame.
        """
        deadline = time.monotonic() + _COMPILE_S[program.language] + _GRACE_S
        text = {"source": program.source, "language": program.language, "function": program.function}
        self._write(b"P", deadline)
        self._send(json.dumps({**text, "limits": asdict(limits)}).encode(), deadline)
        header, _ = self._receive(_HEADER_BYTES, deadline)
        if header.get("ended"):
            raise Broken("the driver ended while compiling")
        return None if header["status"] == Status.OK else _test_run(header, b"")

    def test(self, data: str, limits: Limits) -> TestRun:
        """Run the program on one input.

        Raises:
            Broken: if the session must be thrown away.
        """
        deadline = time.monotonic() + limits.wall_s + _GRACE_S
        self._send(b"T" + data.encode(errors="surrogatepass"), deadline)
        header, output = self._receive(_HEADER_BYTES + limits.output_bytes, deadline)
        if header.get("ended"):
            raise Broken("the driver ended during a test")
        return _test_run(header, output)

    def end(self, *, by_itself: bool = False) -> None:
        """End the program, or see it end by itself where it did not compile; the keeper is ready for the next.

        Raises:
            Broken: if the session must be thrown away.
        """
        if not by_itself:
            self._send(b"E", time.monotonic() + _GRACE_S)
        header, _ = self._receive(_HEADER_BYTES, time.monotonic() + _GRACE_S)
        if not header.get("ended"):
            raise Broken(f"expected the end, got {header}")

    def close(self) -> None:
        """Kill everything in it, and wait until it is gone."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        words = (self._process.stderr.read(4096) or b"").decode(errors="replace").strip().splitlines()
        self.close()
        return words[-1] if words else ""

    def _send(self, payload: bytes, deadline: float) -> None:
        self._write(len(payload).to_bytes(4, "big") + payload, deadline)

    def _write(self, data: bytes, deadline: float) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._to, left) :]
            except BlockingIOError:
                self._wait(self._to, select.POLLOUT, deadline)
            except OSError as error:
                raise Broken(f"it is gone ({error.strerror})") from error

    def _receive(self, most: int, deadline: float) -> tuple[dict[str, Any], bytes]:
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > most:
            raise Broken(f"a frame of {size} bytes")
        header, _, output = self._read(size, deadline).partition(b"\n")
        try:
            told = json.loads(header)
        except ValueError as error:
            raise Broken("a frame without a header") from error
        if not isinstance(told, dict):
            raise Broken("a frame without a header")
        return told, output

    def _read(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = os.read(self._from, 1 << 18)
            except BlockingIOError:
                self._wait(self._from, select.POLLIN, deadline)
                continue
            if not chunk:
                raise Broken("it is gone")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        rest = deadline - time.monotonic()
        if rest <= 0 or not poll.poll(rest * 1000 + 1):
            raise Broken("it does not answer")


def _test_run(header: Mapping[str, Any], output: bytes) -> TestRun:
    return TestRun(Status(header["status"]), output, float(header["seconds"]), str(header["detail"]))
