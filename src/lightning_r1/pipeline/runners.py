"""Where a node is run: in this process, in a process of its own. As Slurm jobs: :mod:`.jobs`.

A runner is given a command, the same one that a person would type, so that what a pipeline does can
be done by hand.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from lightning_r1.callbacks.console import NODE, console
from lightning_r1.config.compose import compose_config
from lightning_r1.parallel.interruption import UNFINISHED, Interrupted, interruption

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "recipes"


@dataclass(frozen=True)
class Command:
    """A verb and its overrides.

    >>> Command("train", ("phase=r1_zero", "seed=1")).shell()
    'python recipes/train.py phase=r1_zero seed=1'
    """

    verb: str
    overrides: tuple[str, ...]

    def shell(self) -> str:
        """As a person would type it."""
        return shlex.join(["python", f"recipes/{self.verb}.py", *self.overrides])


class Runner(Protocol):
    """Runs a command to its end."""

    def __call__(self, name: str, command: Command, lock: int) -> None:
        """Run it.

        Args:
            name: of the node, for people.
            command: what to run.
            lock: open file that stays locked while anybody holds it.

        Raises:
            RuntimeError: if it fails.
            Interrupted: if it was interrupted, and goes on when it is run again.
        """


class InProcess:
    """Runs a node here: one after the other, with live progress bars."""

    def __call__(self, name: str, command: Command, lock: int) -> None:
        """See :class:`Runner`."""
        verb: Callable[..., object] = getattr(import_module(f"lightning_r1.{command.verb}"), command.verb)
        os.environ[NODE] = name
        try:
            verb(compose_config(command.verb, command.overrides))
        finally:
            del os.environ[NODE]


class Subprocess:
    """Runs a node in a process of its own: several at once, memory given back after each.

    What it prints comes here line by line, with the node's name in front.
    """

    def __call__(self, name: str, command: Command, lock: int) -> None:
        """See :class:`Runner`."""
        arguments = [sys.executable, str(RECIPES / f"{command.verb}.py"), *command.overrides]
        with subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(lock,),
            env=os.environ | {NODE: name},
        ) as process:
            interruption.children.add(process.pid)
            try:
                _pass_on(name, process)
            except (Interrupted, KeyboardInterrupt):
                _pass_on(name, process)  # it has been asked as well, and has something to say before its end
                raise
            finally:
                interruption.children.discard(process.pid)
        if process.returncode == UNFINISHED:
            raise Interrupted(f"node {name} was interrupted")
        if process.returncode:
            raise RuntimeError(
                f"node {name} ended with status {process.returncode}; its own message stands above. What is finished "
                f"is kept: the same command goes on from here. By hand: {command.shell()}"
            )


def _pass_on(name: str, process: subprocess.Popen[str]) -> None:
    """What a node's process prints, until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        console.print(f"{name:>20} │ {line.rstrip()}", markup=False, soft_wrap=True)


RUNNERS: dict[str, Callable[[], Runner]] = {"process": InProcess, "subprocess": Subprocess}
