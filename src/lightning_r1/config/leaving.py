"""The commands that a person is told: the same one again, or the one that comes next, as they type them.

Work that was interrupted has its last words here: a Slurm job runs again, a person is told the command that goes on.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.parallel.slurm_job import RESTARTS, job_name, requeue

SCRIPT = "lightning-r1"
"""The console script of the package."""
_GOES_ON = ("train", "sample", "teach", "evaluate", "pipeline")


def command(verb: str, *overrides: str) -> str:
    """Another verb's command, written the way this process was started.

    Args:
        verb: ``train``, ``evaluate``, ...
        overrides: behind it.
    """
    return shlex.join([*_program(verb), *overrides])


def same_command() -> str:
    """The command of this process, as it was typed."""
    return shlex.join([*_program(Path(sys.argv[0]).stem), *sys.argv[1:]])


def leave(left: Interrupted, *, most: int = RESTARTS) -> None:
    """Requeue this process's Slurm job, if there is one, and say what happens next. One rank does.

    Args:
        left: why the work was left.
        most: restarts of a job after which it does not run again.
    """
    name = job_name() if left.requeue else None
    how = f"{requeue(name, most=most)}. " if name else ""
    verb = Path(sys.argv[0]).stem
    goes_on = "goes on from what is saved" if verb in _GOES_ON else "begins anew"
    sys.stderr.write(f"unfinished: {left}. {how}The same command {goes_on}: {same_command()}\n")
    sys.stderr.flush()


def _program(verb: str) -> list[str]:
    """The words before the overrides, with this verb in them."""
    typed, script = sys.orig_argv, sys.argv[0]
    for place, word in enumerate(typed[1:3], start=1):
        if Path(word).name == SCRIPT:
            return [SCRIPT, verb]
        if word == "lightning_r1" and typed[place - 1] == "-m":
            return [*typed[: place + 1], verb]
    file = f"{verb}.py"
    recipe = str(Path(script).with_name(file)) if Path(script).parent.name == "recipes" else f"recipes/{file}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return ["torchrun", "...", recipe]
    return [typed[0] if script in typed else "python", recipe]
