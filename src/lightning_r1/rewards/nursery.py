"""The process that imports the rewards once and forks workers from there, in a millisecond or two each.

It is a fresh interpreter, no fork of the trainer: neither CUDA, nor threads, nor secrets are in it. It
never asks a reward itself. It ends with the trainer, whatever ended that, and takes its workers along.

Its socket brings pickled commands behind a length (``>I``):

* ``("load", number, name, preload, pickled reward)``, answered by ``["loaded", number, error or null]``;
* ``("fork", number, "plain" or "async")``, with the worker's end of a socket;
* ``("kill", number)``.

and takes lines of JSON: those answers, and ``["ended", number, status, tail]`` for each worker that is
gone: its wait status and the end of what it wrote to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pickle
import resource
import selectors
import signal
import socket
import struct
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lightning_r1.rewards.base import Reward
from lightning_r1.rewards.worker import Worker

LENGTH = struct.Struct(">I")
TAIL = 4000
_MOST_READS = 4  # of 64 KiB, which is what a pipe holds
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the trainer tells on the command line."""

    parent: int
    timeout_s: float
    memory_mib: int


@dataclass(slots=True)
class _Child:
    pid: int
    stderr: int
    tail: bytes = b""


class Nursery:
    """Serves one trainer.

    Args:
        control: the socket to it.
        settings: of the workers.
    """

    def __init__(self, control: socket.socket, settings: Settings) -> None:
        self.control, self.settings = control, settings
        self.rewards: dict[int, Reward] = {}
        self.children: dict[int, _Child] = {}
        self.inbox, self.sockets = bytearray(), []  # type: tuple[bytearray, list[int]]
        self.selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Until the trainer is gone."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.control, selectors.EVENT_READ)
        self.selector.register(woken, selectors.EVENT_READ)
        with contextlib.suppress(AttributeError, OSError):
            # the socket alone is not enough: a process that the trainer forked may hold its end
            self.selector.register(os.pidfd_open(self.settings.parent), selectors.EVENT_READ, "parent")
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        while os.getppid() == self.settings.parent:
            for key, _ in self.selector.select():
                if key.data == "parent" or (key.fileobj is self.control and not self._commands()):
                    return
                if isinstance(key.data, _Child):
                    if not self._read(key.data):
                        self.selector.unregister(key.fileobj)
                elif key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
            self._bury()

    def close(self) -> None:
        """Kill everything that is left."""
        signal.set_wakeup_fd(-1)
        for child in self.children.values():
            _kill_group(child.pid)
        self._kill_strays(set())

    def _commands(self) -> bool:
        """Carry out what was read; False at the end."""
        data, sockets, _, _ = socket.recv_fds(self.control, 1 << 20, 16)
        self.inbox += data
        self.sockets += sockets
        while len(self.inbox) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.inbox)
            if len(self.inbox) < LENGTH.size + length:
                break
            command = pickle.loads(self.inbox[LENGTH.size : LENGTH.size + length])
            del self.inbox[: LENGTH.size + length]
            getattr(self, f"_{command[0]}")(*command[1:])
        return bool(data)

    def _load(self, number: int, preload: tuple[str, ...], pickled: bytes) -> None:
        error = None
        try:
            for name in preload:
                importlib.import_module(name)
            self.rewards[number] = pickle.loads(pickled)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        gc.freeze()  # a collection in a worker would copy the pages that it shares
        self._tell("loaded", number, error)

    def _fork(self, number: int, kind: str) -> None:
        connection, (stderr, worker_stderr) = self.sockets.pop(0), os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_worker(connection, worker_stderr, kind)
        os.close(connection)
        os.close(worker_stderr)
        os.set_blocking(stderr, False)
        child = self.children[number] = _Child(pid, stderr)
        self.selector.register(stderr, selectors.EVENT_READ, child)

    def _kill(self, number: int) -> None:
        if number in self.children:
            _kill_group(self.children[number].pid)

    def _become_worker(self, connection: int, stderr: int, kind: str) -> NoReturn:
        status = 1
        try:
            _leave(self.settings, stderr)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # of the others nothing is left open: a worker could speak for them
            self.selector.close()
            kept = socket.socket(fileno=os.dup2(connection, 3, inheritable=False) if connection != 3 else 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX") if sys.platform != "linux" else _highest_fd() + 1)
            worker = Worker(kept, self.rewards, self.settings.timeout_s)
            if kind == "async":
                asyncio.run(worker.run_async())
            else:
                worker.run()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)  # whatever a reward has closed: nothing of the nursery's may run here

    @staticmethod
    def _read(child: _Child) -> bytes:
        """Keep the end of what a worker writes to stderr; nothing is read at the end."""
        data = os.read(child.stderr, 1 << 16)
        child.tail = (child.tail + data)[-TAIL:]
        return data

    def _bury(self) -> None:
        """Tell of the workers that are gone, and end what they left behind."""
        for number, child in list(self.children.items()):
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(child.pid)  # before its number is free again
            _, status = os.waitpid(child.pid, 0)
            del self.children[number]
            with contextlib.suppress(KeyError):
                self.selector.unregister(child.stderr)
            with contextlib.suppress(BlockingIOError):  # a stray may hold it open, and write without end
                for _ in range(_MOST_READS):
                    if not self._read(child):
                        break
            os.close(child.stderr)
            self._kill_strays({other.pid for other in self.children.values()})
            self._tell("ended", number, status, child.tail.decode(errors="replace"))

    def _kill_strays(self, ours: set[int]) -> None:
        """Processes that left their worker's group and then lost it; they became ours."""
        with contextlib.suppress(OSError):
            for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
                if pid not in ours:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def _tell(self, *line: Any) -> None:
        self.control.sendall(json.dumps(line).encode() + b"\n")


def _leave(settings: Settings, stderr: int) -> None:
    """What makes a worker of a fork: a session of its own, no console, little memory, an end with its parent."""
    nursery = os.getppid()
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_CHILD_SUBREAPER, 0)
    if os.getppid() != nursery:
        os._exit(1)
    os.dup2(stderr, 2)
    faulthandler.enable(2)  # a segmentation fault says where
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (settings.memory_mib << 20,) * 2)


def _prctl(option: int, value: int) -> None:
    """On Linux; elsewhere the end of the socket has to do."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _kill_group(pid: int) -> None:
    # a worker that has not yet come to setsid has no group
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _highest_fd() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def main() -> None:
    """``python -c "...; main()" FD PARENT TIMEOUT_S MEMORY_MIB``."""
    fd, parent, timeout_s, memory_mib = sys.argv[1:]
    for number in _SIGNALS:  # a handler, which what a reward executes does not inherit as it would an ignored signal
        signal.signal(number, lambda *_: None)
    nursery = Nursery(socket.socket(fileno=int(fd)), Settings(int(parent), float(timeout_s), int(memory_mib)))
    status = 1
    try:
        nursery.serve()
        status = 0
    except BaseException:
        traceback.print_exc()  # kept, and told by the trainer
    finally:
        nursery.close()
        os._exit(status)
