"""Rewards that do what the completion says, however bad it is."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


def _loop() -> None:
    while True:
        pass


def _stubborn() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


def _fork_and_go_on() -> None:
    os.fork()  # both go on, and both would answer


def _fork_and_stay() -> None:
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def _daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()


def _leave_a_flood() -> None:
    if os.fork() == 0:
        os.setsid()
        while True:
            os.write(2, b"x" * 4096)
    time.sleep(0.2)
    os._exit(3)


def _kill_the_nursery() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _forge() -> None:
    for number in range(3, 64):
        try:
            os.write(number, b'["answer", 0, 1.0, "ok", "forged"]\n' * 3)
        except OSError:
            continue


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _replace_streams() -> None:
    sys.stdout = sys.stderr = sys.stdin = None  # type: ignore[assignment]


def _print_much() -> None:
    for _ in range(20_000):
        sys.stdout.write("x" * 100 + "\n")
        sys.stderr.write("y" * 100 + "\n")


DEEDS: dict[str, Callable[[], Any]] = {
    "loop": _loop,
    "stubborn": _stubborn,
    "power": lambda: 10**10**10,
    "regex": lambda: re.match(r"(a+)+$", "a" * 60 + "b"),
    "sleep": lambda: time.sleep(600),
    "memory": lambda: bytearray(64 << 30),
    "slow memory": lambda: [bytes(1 << 20) for _ in range(1 << 16)],
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "exit 0": lambda: os._exit(0),
    "sys.exit": sys.exit,
    "interrupt": _raise(KeyboardInterrupt()),
    "base exception": _raise(BaseException("not an Exception")),
    "recursion": lambda: (lambda again: again(again))(lambda again: again(again)),
    "raise": _raise(ValueError("broken")),
    "fork": _fork_and_go_on,
    "fork and stay": _fork_and_stay,
    "daemon": _daemon,
    "subprocess": lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]),
    "leave a flood": _leave_a_flood,
    "kill group": lambda: os.killpg(0, signal.SIGKILL),
    "kill the nursery": _kill_the_nursery,
    "close everything": lambda: os.closerange(0, 64),
    "forge": _forge,
    "streams": _replace_streams,
    "print": _print_much,
    "stderr": lambda: (os.write(2, b"the last words"), os._exit(1)),
    "alarm": lambda: signal.alarm(1),
    "thread": lambda: threading.Thread(target=time.sleep, args=(600,)).start(),
    "socket": lambda: socket.create_connection(("127.0.0.1", 9), timeout=0.1),
}


def obey(prompt: Prompt, completion: Completion) -> Any:
    """Do it, and give the number of characters."""
    if deed := DEEDS.get(completion.text):
        deed()
    return float(len(completion.text))


VERDICTS: dict[str, Any] = {
    "nan": math.nan,
    "infinite": math.inf,
    "text": "1.0",
    "list": [1.0],
    "none": None,
    "true": True,
    "wrong format": RewardScore(0.0, Outcome.WRONG_FORMAT, "no tag"),
    "unscorable": RewardScore(math.nan, Outcome.UNSCORABLE, "no gold"),
    "newline": RewardScore(0.5, Outcome.OK, 'two\nlines "quoted" \x00 ü'),
    "surrogate": RewardScore(0.5, Outcome.OK, "\ud800"),
}


def say(prompt: Prompt, completion: Completion) -> Any:
    """The verdict that the completion names."""
    return VERDICTS[completion.text]


async def obey_later(prompt: Prompt, completion: Completion) -> float:
    """The same behind other answers; ``wait`` never comes back, but lets others go on."""
    await asyncio.sleep(0.01)
    if completion.text == "wait":
        await asyncio.sleep(600)
    if deed := DEEDS.get(completion.text):
        deed()
    return float(len(completion.text))


class Together:
    """Async: gives how many were being asked at the same time."""

    def __init__(self) -> None:
        self.now = 0

    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Waits a little."""
        self.now += 1
        await asyncio.sleep(0.1)
        most = self.now
        await asyncio.sleep(0.1)
        self.now -= 1
        return float(most)


def forge_later(prompt: Prompt, completion: Completion) -> float:
    """Answer, and write an answer to nothing a little later."""
    threading.Timer(0.2, _forge).start()
    return 1.0


def environment(prompt: Prompt, completion: Completion) -> RewardScore:
    """What a worker sees: variables, and loaded modules that it should not have."""
    names = " ".join(sorted(os.environ))
    heavy = [name for name in ("torch", "lightning", "hydra", "transformers") if name in sys.modules]
    return RewardScore(float(len(heavy)), Outcome.OK, names)


def process(prompt: Prompt, completion: Completion) -> RewardScore:
    """Which process answers, and which is above it."""
    return RewardScore(float(os.getpid()), Outcome.OK, str(os.getppid()))


def slow(prompt: Prompt, completion: Completion) -> float:
    """Milliseconds to wait stand in the completion, in a shuffled order."""
    time.sleep(int(completion.text) / 1000)
    return float(completion.text) + len(prompt.question)


class NeedsKey:
    """Remembers in which process it was made, and what it was given."""

    preload = ("fractions",)

    def __init__(self, factor: float) -> None:
        self.factor, self.made_in = factor, os.getpid()

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 if ``preload`` was there before."""
        return RewardScore(self.factor * ("fractions" in sys.modules), Outcome.OK, str(self.made_in))


class CannotBeSent:
    """Holds what cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Never asked."""
        return 0.0


class CannotBeMadeThere:
    """Pickles, and fails where it is read."""

    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("not here")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Never asked."""
        return 0.0


class HangsAfterFork:
    """The first ``hanging`` workers never come to their first line."""

    def __init__(self, hanging: int) -> None:
        self.hanging = hanging

    def __setstate__(self, state: dict[str, int]) -> None:
        self.hanging = state["hanging"]

        def count() -> None:
            self.hanging -= 1

        os.register_at_fork(after_in_child=lambda: time.sleep(600 * (self.hanging > 0)), after_in_parent=count)

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Right."""
        return 1.0


class Imports:
    """Imports a module that takes longer than an answer may, file by file.

    Args:
        folder: of the package ``heavy_package``.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Imports it at the first answer, as libraries do that import late."""
        if self.folder not in sys.path:
            sys.path.append(self.folder)
        import heavy_package  # type: ignore[import-not-found]

        return float(heavy_package.VALUE)


def heavy_package(folder: Path, modules: int, seconds: float) -> str:
    """Write a package of modules that each take so long to import."""
    package = folder / "heavy_package"
    package.mkdir()
    imports = "".join(f"from heavy_package import part{number}\n" for number in range(modules))
    (package / "__init__.py").write_text(f"{imports}VALUE = 7\n")
    for number in range(modules):
        (package / f"part{number}.py").write_text(f"import time\ntime.sleep({seconds})\n")
    return str(folder)
