"""Rewards in processes that can be killed: no answer can hang, crash or starve the run.

A reward meets thousands of texts a step that a model wrote, and a learning model finds the one on which
a library loops for ever. So each answer has a wall clock here, which the trainer holds: behind it the
worker is killed, whatever it is doing, and another takes its place within milliseconds. That answer
alone is a ``timeout``; the others of its chunk are asked again elsewhere. A worker that dies of an
answer (a segmentation fault, no memory) is a ``crash`` of that answer alone.

Who does what: :class:`WorkerPool` is what the trainer holds, :mod:`.dispatch` the thread in it that
feeds workers and looks at the clock, :mod:`.nursery` the process that forks them, :mod:`.worker` what
they do. Nothing that a worker writes is unpickled.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from functools import partial

from lightning_r1.rewards.base import Item, Pending, Reward, RewardError, attribute, is_async
from lightning_r1.rewards.dispatch import Dispatcher, Rule
from lightning_r1.types import RewardScore

_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
START_S = 120.0
"""Time for the rewards to be imported, and for all imports of one answer."""


class WorkerPool:
    """Runs rewards in worker processes; a :class:`.Scorer`.

    The processes are started with the first reward, or by :meth:`prepare`. Each rank has its own.

    Args:
        workers: processes for plain rewards; one more runs those that are ``async``.
        timeout_s: wall clock of one answer.
        memory_mib: address space of a worker; an answer that wants more is a crash.
        recycle_after: answers after which a worker is replaced, for libraries whose caches only grow.
        at_once: how many answers the ``async`` rewards make together.
        environment: variables that the rewards may see besides the language and the paths of this process.

    Raises:
        ValueError: for options that leave nothing to work with.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        timeout_s: float = 2.0,
        memory_mib: int = 2048,
        recycle_after: int = 500,
        at_once: int = 64,
        environment: Sequence[str] = (),
    ) -> None:
        for name, value in (("workers", workers), ("recycle_after", recycle_after), ("at_once", at_once)):
            if value < 1:
                raise ValueError(f"reward.workers.{name}={value}: expected >= 1")
        if timeout_s <= 0:
            raise ValueError(f"reward.workers.timeout_s={timeout_s}: expected > 0 seconds")
        if memory_mib < 128:
            raise ValueError(f"reward.workers.memory_mib={memory_mib}: expected >= 128, Python itself takes some")
        self.workers, self.timeout_s, self.memory_mib = workers, timeout_s, memory_mib
        self.recycle_after, self.at_once, self.environment = recycle_after, at_once, tuple(environment)
        self._rules: dict[int, Rule] = {}
        self._dispatcher: Dispatcher | None = None
        self._closed = False

    def prepare(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """Start the processes and let them import the rewards; does not wait.

        Raises:
            RewardError: for a reward that cannot be sent.
        """
        for name, reward in rewards:
            self._rule(name, reward)

    def start(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """See :class:`.Scorer`; waits until all are imported."""
        rules = [self._rule(name, reward) for name, reward in rewards]
        for rule in rules:
            if not rule.loaded.wait(START_S):
                raise RewardError(f"reward.rewards.{rule.name}: its import takes more than {START_S:g} s")
            if rule.error:
                raise RewardError(rule.error)

    def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
        """See :class:`.Scorer`."""
        rule = self._rule(name, reward)
        assert self._dispatcher is not None  # it came with the rule
        return self._dispatcher.begin(rule, items)

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`.Scorer`."""
        return self.begin(name, reward, items).result()

    def close(self) -> None:
        """Kill all processes; what is still being scored never will be."""
        self._closed = True
        if self._dispatcher is not None:
            self._finalizer()

    def _rule(self, name: str, reward: Reward) -> Rule:
        """The reward as the workers know it; sent when it is first seen."""
        rule = self._rules.get(id(reward))
        if rule is None:
            pickled = _pickled(name, reward)
            dispatcher = self._running()
            rule = Rule(len(self._rules), name, reward, is_async(reward))
            self._rules[id(reward)] = rule
            dispatcher.load(rule, tuple(attribute(reward, "preload", ())), pickled)
        return rule

    def _running(self) -> Dispatcher:
        if self._closed:
            raise RewardError("the reward workers are closed already")
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(
                partial(_Nursery, self.timeout_s, self.memory_mib, self.environment),
                workers=self.workers,
                timeout_s=self.timeout_s,
                recycle_after=self.recycle_after,
                at_once=self.at_once,
                import_s=START_S,
            )
            # also when the pool is forgotten, and before this process ends
            self._finalizer = weakref.finalize(self, self._dispatcher.close)
        return self._dispatcher


class _Nursery:
    """A fresh interpreter with the trainer's paths, and nothing else of its environment."""

    def __init__(self, timeout_s: float, memory_mib: int, environment: Sequence[str]) -> None:
        self.connection, theirs = socket.socketpair()
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        paths = [os.path.abspath(path) for path in sys.path]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", "from lightning_r1.rewards.nursery import main; main()"),
                *map(str, (theirs.fileno(), os.getpid(), timeout_s, memory_mib)),
            ],
            env={name: os.environ[name] for name in (*_ENVIRONMENT, *environment) if name in os.environ}
            | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.words,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the trainer, which ends this
        )
        theirs.close()

    def end(self) -> str:
        """See :class:`.NurseryProcess`."""
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        said = ""
        if not self.words.closed:
            self.words.seek(0)
            said = "; ".join(line.strip() for line in self.words.read().decode(errors="replace").splitlines()[-4:])
            self.words.close()
        return f"exit status {self.process.returncode}" + (f": {said}" if said else "")


def _pickled(name: str, reward: Reward) -> bytes:
    try:
        return pickle.dumps(reward)
    except Exception as error:
        raise RewardError(
            f"reward.rewards.{name}: it cannot be sent to a worker ({type(error).__name__}: {error}); make it a "
            "function or an object of a module, with plain attributes, or give it an attribute at_once=<threads> to "
            "run it in this process"
        ) from error
