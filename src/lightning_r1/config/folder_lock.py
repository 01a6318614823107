"""One process at a time writes into a run folder, also where several machines share the disk.

The kernel's locks end with their process but are not kept on every shared file system. So the lock is a file beside
the folder that says who holds it, and that is touched every few seconds. One whose holder is gone is taken over: at
once where that can be seen (the same machine, or an earlier run of the same Slurm job), else when it is not touched
any more.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import console
from lightning_r1.config.errors import ConfigError
from lightning_r1.parallel.collectives import rank, together
from lightning_r1.parallel.slurm_job import job_name

BEAT_S = 10.0
"""Seconds between two touches; a lock that stands still for six times as long has no holder."""


@contextmanager
def hold(run_dir: Path, *, beat_s: float = BEAT_S) -> Iterator[None]:
    """Hold a run folder.

    Args:
        run_dir: need not be there yet.
        beat_s: see :data:`BEAT_S`; the same for all.

    Raises:
        ConfigError: if another process holds it; says which. If it cannot be written.
    """
    file = lock_of(run_dir)
    made = [folder for folder in file.parents if not folder.exists()]
    mine = _me()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        free = _create(file, mine)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"paths.output_dir: {file.parent} cannot be written ({error.strerror}); set it to a folder of yours"
        ) from error
    while not (free or _create(file, mine)):
        _make_free(file, run_dir, beat_s)
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(file, beat_s, over), name="run folder", daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()
        if _read(file) == mine:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # a run that did not begin leaves no trace
            for folder in made:
                folder.rmdir()


@contextmanager
def hold_together(run_dir: Path, *, beat_s: float = BEAT_S) -> Iterator[None]:
    """Hold a run folder, for all ranks; they know each other already. See :func:`hold`.

    Raises:
        ConfigError: on every rank, if another process holds it.
    """
    with ExitStack() as held:
        together(lambda: held.enter_context(hold(run_dir, beat_s=beat_s)) if rank() == 0 else None, ConfigError)
        yield


def lock_of(run_dir: Path) -> Path:
    """Beside the folder, so that the folder can be moved aside."""
    return run_dir.with_name(f".{run_dir.name}.running.json")


def _make_free(file: Path, run_dir: Path, beat_s: float) -> None:
    """Take a lock away whose holder is gone.

    Raises:
        ConfigError: if its holder lives.
    """
    held = _read(file)
    if held is not None and not _is_gone(held):
        console.print(f"{run_dir} is held by {_words(held)}; looking whether it lives", soft_wrap=True)
        if _lives(file, held, 6 * beat_s):
            raise ConfigError(
                f"name={run_dir.name}: {run_dir} is being written by {_words(held)}. Wait for it, end it, or choose "
                "another name="
            )
        if _read(file) is None:
            return
    # of two that take it over, one finds that the other has been quicker, and puts its lock back
    taken = file.with_name(f"{file.name}.{uuid.uuid4().hex}")
    try:
        file.rename(taken)
    except FileNotFoundError:
        return
    if _read(taken) != held:
        with suppress(FileExistsError):
            os.link(taken, file)
    elif held is not None:
        console.print(f"{run_dir} was held by {_words(held)}, which is gone; taken over", soft_wrap=True)
    taken.unlink()


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "job": job_name(),
        "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
        "token": uuid.uuid4().hex,
    }


def _machine() -> str:
    """Where process numbers mean the same: one boot of one machine, one container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _is_gone(held: dict[str, Any]) -> bool:
    """Whether it can be seen from here that the holder has ended."""
    if held["job"] is not None and held["job"] == job_name():
        # Slurm starts a job again when all its processes are gone
        return held["restart"] != os.environ.get("SLURM_RESTART_COUNT", "0")
    if held["machine"] != _machine():
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _lives(file: Path, held: dict[str, Any], patience_s: float) -> bool:
    """Whether the lock is touched. Its own clock says so: those of two machines may differ."""
    touched, until = _touched(file), time.monotonic() + patience_s
    while time.monotonic() < until:
        time.sleep(patience_s / 60)
        if _touched(file) != touched or _read(file) != held:
            return _read(file) is not None
    return False


def _touched(file: Path) -> int | None:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _create(file: Path, mine: dict[str, Any]) -> bool:
    """Whether the lock is ours now. A link exists whole or not at all, on network file systems too."""
    beside = file.with_name(f"{file.name}.{mine['token']}")
    beside.write_text(json.dumps(mine))
    try:
        os.link(beside, file)
    except FileExistsError:
        return False
    finally:
        beside.unlink()
    return True


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _words(held: dict[str, Any]) -> str:
    return f"process {held['pid']} on {held['host']}" + (f" (job {held['job']})" if held["job"] else "")


def _beat(file: Path, beat_s: float, over: threading.Event) -> None:
    while not over.wait(beat_s):
        with suppress(OSError):  # a disk that does not answer for a while
            os.utime(file)
