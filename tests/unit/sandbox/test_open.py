"""A sandbox is opened when it has proven itself, and only then; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from helpers.sandboxes import QUICK, adopt_orphans, descendants, missing, no_more_than, one
from lightning_r1.sandbox import bwrap, landlock, machine
from lightning_r1.sandbox.base import GoOn, Limits, Program, Sandbox, SandboxError, Status, TestRun
from lightning_r1.sandbox.canaries import prove
from lightning_r1.sandbox.open import open_sandbox


def test_auto_takes_the_strongest_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    best = "landlock" if missing("bwrap") else "bwrap"
    opened = open_sandbox()
    assert opened.name == best
    opened.close()
    monkeypatch.setattr(bwrap.shutil, "which", lambda name: None)
    opened = open_sandbox()
    assert opened.name == "landlock"
    opened.close()


def test_no_sandbox_is_one_line_with_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 0)
    with pytest.raises(SandboxError) as error:
        open_sandbox()
    message = str(error.value)
    assert "\n" not in message
    for word in ("bwrap: no bwrap in PATH", "landlock: the kernel has no Landlock", "Install bubblewrap", "remote"):
        assert word in message


def test_a_bwrap_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SandboxError, match=r"bwrap: .*No permissions to create new namespace"):
        open_sandbox("bwrap")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "docker"}, "backend='docker': expected one of auto, bwrap"),
        ({"languages": ()}, "expected some of python, cpp"),
        ({"languages": ("python", "rust")}, "expected some of python, cpp"),
        ({"backend": "remote"}, "a url goes with"),
        ({"url": "http://127.0.0.1:1"}, "a url goes with"),
        ({"backend": "unsafe_subprocess"}, "allow_unsafe=True"),
    ],
)
def test_wrong_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(SandboxError, match=message):
        open_sandbox(**options)  # type: ignore[arg-type]


def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="sandboxes need Linux"):
        open_sandbox()


UNSAFE = """
import os, sys
from lightning_r1.sandbox.base import SandboxError
from lightning_r1.sandbox.open import open_sandbox
from helpers.sandboxes import one
for name in sys.argv[1:]:
    del os.environ[name]
try:
    opened = open_sandbox("unsafe_subprocess", allow_unsafe=True)
    print(one(opened, "print('opened')").output.decode(), end="")
    opened.close()
except SandboxError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("variables", "forgotten", "told"),
    [
        ({"WANDB_API_KEY": "", "PLAIN": "http://host/a@b:c"}, [], "opened"),
        ({"WANDB_API_KEY": "x", "HF_TOKEN": "x", "my_password": "x"}, [], "unset HF_TOKEN, WANDB_API_KEY, my_password"),
        ({"HTTPS_PROXY": "http://me:hunter2@proxy:80", "INDEX": "https://:t@host/"}, [], "unset HTTPS_PROXY, INDEX"),
        # what this process takes out of its environment stands under /proc/self/environ all the same
        ({"HF_TOKEN": "x"}, ["HF_TOKEN"], "unset HF_TOKEN and start this process anew"),
    ],
    ids=["clean", "names", "addresses", "forgotten"],
)
def test_unsafe_is_refused_with_secrets(variables: dict[str, str], forgotten: list[str], told: str) -> None:
    clean = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", UNSAFE, *forgotten], env=clean | variables, capture_output=True, text=True, check=False
    )
    assert told in done.stdout, done.stderr


class Leaky:
    """A sandbox that runs what it is given in plain processes, save for what a test mends."""

    name = "leaky"

    def __init__(self, mend: Callable[[str], str | None]) -> None:
        self.mend = mend

    def run(
        self, program: Program, inputs: Sequence[str], limits: Limits = QUICK, *, go_on: GoOn | None = None
    ) -> list[TestRun]:
        source = program.source
        if program.function:
            return [TestRun(Status.OK, b"42", 0.0)]
        mended = self.mend(source)
        if mended is not None:
            return [TestRun(Status(mended), b"", 0.0)]
        done = subprocess.run(
            [sys.executable, "-c", source], input=inputs[0].encode(), capture_output=True, check=False
        )
        return [TestRun(Status.OK if done.returncode == 0 else Status.ERROR, done.stdout, 0.0, done.stderr.decode())]

    def close(self) -> None: ...


WAYS = [("while True", "time limit"), ("bytearray", "memory limit"), ("fork()", "ok"), ("environ", "ok"),
        ("HOST, PORT", "ok"), ("PATHS", "ok"), ("FOLDERS", "ok")]  # fmt: skip
CANARIES = ["loop", "memory", "fork", "environment", "network", "files", "writing"]


@pytest.mark.parametrize("broken", range(2, 7), ids=CANARIES[2:])
def test_every_canary_can_fail(broken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef")

    def mend(source: str) -> str | None:
        return next((status for place, (word, status) in enumerate(WAYS) if word in source and place != broken), None)

    with pytest.raises(SandboxError, match=f"canary '{CANARIES[broken]}'"):
        prove(Leaky(mend))


@pytest.mark.parametrize(("word", "canary"), [("while True", "loop"), ("bytearray", "memory"), ("input()", "hello")])
def test_canaries_of_limits_can_fail(word: str, canary: str) -> None:
    def mend(source: str) -> str | None:
        return "ok" if word in source else next((status for way, status in WAYS if way in source), None)

    with pytest.raises(SandboxError, match=f"canary '{canary}'"):
        prove(Leaky(mend))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"sandbox-{os.getpid()}-*"))


def test_nothing_leaks(backend: str) -> None:
    adopt_orphans()
    before = folders()
    processes = descendants()
    opened = open_sandbox(backend, languages=("python", "cpp"), at_once=2)
    one(opened, "print(1)")
    files, running, threads = open_descriptors(), descendants(), threading.active_count()
    for _ in range(50):
        one(opened, "import os\nprint(os.getpid())")
        one(opened, "print(")
    assert (open_descriptors(), descendants(), threading.active_count()) == (files, running, threads)
    session = opened._idle[0][0]  # type: ignore[attr-defined]
    opened.close()
    assert session._process.returncode is not None, "a zombie stays"
    assert no_more_than(processes) == set()
    assert open_descriptors() < files
    assert one(opened, "print(1)").output == b"1\n", "a closed sandbox starts anew"
    opened.close()
    assert no_more_than(processes) == set()
    assert folders() == before


def test_a_killed_keeper_is_replaced(sandbox: Sandbox) -> None:
    one(sandbox, "print(1)")
    session = sandbox._idle[-1][0]  # type: ignore[attr-defined]
    os.killpg(session._process.pid, signal.SIGKILL)
    session._process.wait()
    assert one(sandbox, "print(2)").output == b"2\n"


def test_a_keeper_killed_during_a_test_is_the_sandboxes_fault(backend: str) -> None:
    before = descendants()
    opened = open_sandbox(backend)

    def go_on(place: int, run: TestRun) -> bool:
        for pid in descendants() - before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    runs = opened.run(Program("print(1)"), ["", "", ""], QUICK, go_on=go_on)
    assert [run.status for run in runs] == [Status.OK, Status.BROKEN]
    assert one(opened, "print(2)").output == b"2\n"
    opened.close()


def test_an_error_of_the_caller_ends_the_program(backend: str) -> None:
    before = descendants()
    opened = open_sandbox(backend)

    def go_on(place: int, run: TestRun) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened.run(Program("print(1)"), ["", ""], QUICK, go_on=go_on)
    assert no_more_than(before) == set()
    assert one(opened, "print(2)").output == b"2\n"
    opened.close()


DIES = """
import os, sys, time
from lightning_r1.sandbox.base import Limits, Program
from lightning_r1.sandbox.open import open_sandbox
opened = open_sandbox(sys.argv[1])
print("open", flush=True)
opened.run(Program("import time\\ntime.sleep(60)"), [""], Limits(wall_s=60))
"""


def test_a_killed_trainer_takes_its_sandboxes_along(backend: str) -> None:
    adopt_orphans()
    before = descendants()
    trainer = subprocess.Popen([sys.executable, "-c", DIES, backend], stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == b"open\n"
    deadline = time.monotonic() + 30
    while len(descendants() - before) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    assert no_more_than(before) == set()
