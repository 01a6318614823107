"""Opens a sandbox that has proven itself, or says in one line why there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lightning_r1.sandbox import machine
from lightning_r1.sandbox.base import Language, Sandbox, SandboxError
from lightning_r1.sandbox.bwrap import bwrap_sandbox
from lightning_r1.sandbox.canaries import prove
from lightning_r1.sandbox.landlock import landlock_sandbox
from lightning_r1.sandbox.unsafe import unsafe_sandbox

BACKENDS = ("auto", "bwrap", "landlock", "remote", "unsafe_subprocess")


def open_sandbox(
    backend: str = "auto",
    *,
    languages: Sequence[str] = ("python",),
    url: str | None = None,
    allow_unsafe: bool = False,
    at_once: int | None = None,
) -> Sandbox:
    """A sandbox that has just kept every canary in its cage.

    Args:
        backend: ``bwrap`` (namespaces), ``landlock`` (the kernel's own, no binary needed), ``auto`` (the first of
            the two that works), ``remote`` (an executor at ``url``), ``unsafe_subprocess`` (no protection).
        languages: ``python``, ``cpp``.
        allow_unsafe: must be said for ``unsafe_subprocess``; refused with secrets in the environment.
        at_once: programs that run at the same time, as many as cores without it; further callers wait. Wall
            clocks are fair only while each program has a core.

    Raises:
        SandboxError: in one line, with the reason of every backend tried, and what to do.
    """
    if backend not in BACKENDS:
        raise SandboxError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend == "remote":
        raise SandboxError("backend='remote' needs url, the address of an executor")
    known, count = machine.check(languages), at_once or len(os.sched_getaffinity(0))
    if backend == "unsafe_subprocess":
        return unsafe_sandbox(known, count, allow_unsafe=allow_unsafe)
    tried: dict[str, Callable[[Sequence[Language], int], Sandbox]] = {
        "bwrap": bwrap_sandbox,
        "landlock": landlock_sandbox,
    }
    reasons = []
    for name in tried if backend == "auto" else (backend,):
        try:
            return _proven(tried[name](known, count), known)
        except SandboxError as error:
            reasons.append(f"{name}: {error}")
    raise SandboxError(
        f"no sandbox for models' programs ({'; '.join(reasons)}). Install bubblewrap or allow user namespaces, use"
        " backend='remote' with a url, or leave code tasks out"
    )


def _proven(sandbox: Sandbox, languages: Sequence[Language]) -> Sandbox:
    try:
        prove(sandbox, languages)
    except BaseException:
        sandbox.close()
        raise
    return sandbox
