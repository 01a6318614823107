"""What befalls work that was begun in good order, in one line: no memory, no space, no permission, a taken port.

It is told from the names and words of what libraries raise, so that nothing has to be imported for it. Whatever is
not known here keeps its stack.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator

from lightning_r1.config.leaving import command, same_command
from lightning_r1.parallel.interruption import FAILED, MISTAKEN

_FULL = "HYDRA_FULL_ERROR=1 shows where"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def explain_trouble(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit status for trouble that is known, else None.

    Args:
        error: what was raised; what it was raised from is looked at too.
    """
    for one in _chain(error):
        for known in (_memory, _space, _permission, _port, _missing):
            if told := known(one):
                return told
    return None


def _memory(error: BaseException) -> tuple[str, int] | None:
    words = str(error)
    on_device = type(error).__name__ == "OutOfMemoryError"
    on_host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in words
    if not (on_device or on_host):
        return None
    asked = re.search(r"(?:[Tt]ried to allocate|you tried to allocate) ([\d.]+ \w+)", words)
    what = f"the {'GPU' if on_device else 'host'} has no memory left" + (f" for {asked[1]} more" if asked else "")
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any("/lightning_r1/rollout/" in name for name in frames):
        fix = "lower rollout.max_rows, or algo.sampling.max_new_tokens"
    else:
        fix = "lower phase.module.micro_batch_tokens, or set model.activation_checkpointing=true"
    sharing = "choose optim=adamw8bit or parallel=fsdp"
    return (
        f"{what}: {fix}, or {sharing}; {command('doctor', '...')} with the same overrides tells what fits. Then the "
        f"same command goes on from what is saved: {same_command()} ({_FULL})",
        FAILED,
    )


def _space(error: BaseException) -> tuple[str, int] | None:
    words = str(error)
    if not (getattr(error, "errno", None) in _NO_SPACE or "No space left on device" in words):
        return None
    file = getattr(error, "filename", None)
    return (
        f"no space is left on the disk{f' of {file}' if file else ''}; what was saved before is whole. Free some (old "
        "runs, folders *.old1, callbacks.checkpoint.keep=1), then the same command goes on from there: "
        f"{same_command()} ({_FULL})",
        FAILED,
    )


def _permission(error: BaseException) -> tuple[str, int] | None:
    file = getattr(error, "filename", None)
    if not (isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and file):
        return None
    return (
        f"{file}: {error.strerror}; let it be yours, or set paths.output_dir to a folder of yours ({_FULL})",
        MISTAKEN,
    )


def _port(error: BaseException) -> tuple[str, int] | None:
    words = str(error)
    if not (getattr(error, "errno", None) == errno.EADDRINUSE or "EADDRINUSE" in words):
        return None
    found = re.search(r"port[:= ]+(\d+)", words)
    port = f"port {found[1]}" if found else "the port"
    return f"{port} is taken by another program; end it, or choose another: MASTER_PORT=... where ranks meet", MISTAKEN


def _missing(error: BaseException) -> tuple[str, int] | None:
    name = (getattr(error, "name", None) or "").partition(".")[0]
    extra = EXTRAS.get(name)
    if not (isinstance(error, ImportError) and extra):
        return None
    return f"{name} is not installed; install it with pip install 'lightning-r1[{extra}]'", MISTAKEN


EXTRAS = {
    "flash_attn": "flash",
    "bitsandbytes": "bnb",
    "peft": "lora",
    "vllm": "vllm",
    "lingua": "lang",
    "datasets": "data",
    "hydra_plugins": "slurm",
    "submitit": "slurm",
    "reasoning_gym": "tasks",
    "trl": "dev",
}
"""The extra that installs a module."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from or while, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
