"""Opens a sandbox that has proven itself, or says in one line why there is none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lightning_r1.sandbox import machine
from lightning_r1.sandbox.base import Language, Sandbox, SandboxError
from lightning_r1.sandbox.bwrap import bwrap_sandbox
from lightning_r1.sandbox.canaries import prove
from lightning_r1.sandbox.landlock import landlock_sandbox
from lightning_r1.sandbox.remote import RemoteSandbox
from lightning_r1.sandbox.unsafe import unsafe_sandbox

_QUESTIONS_AT_ONCE = 16
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
        url: of the executor (see :mod:`lightning_r1.sandbox.remote`).
        at_once: programs that run at the same time, as many as cores without it (16 on an executor); further
            callers wait. Wall clocks are fair only while each program has a core.

    Raises:
        SandboxError: in one line, with the reason of every backend tried, and what to do.
    """
    if backend not in BACKENDS:
        raise SandboxError(f"backend={backend!r}: expected one of {', '.join(BACKENDS)}")
    if (backend == "remote") != (url is not None):
        raise SandboxError(f"backend={backend!r} with url={url!r}: a url goes with backend='remote', and the other way")
    if url is not None:
        return _proven(RemoteSandbox(url, at_once=at_once or _QUESTIONS_AT_ONCE), languages)
    known, count = machine.check(languages), at_once or len(os.sched_getaffinity(0))
    if backend == "unsafe_subprocess":
        return _proven(unsafe_sandbox(known, count, allow_unsafe=allow_unsafe), known)
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


def _proven(sandbox: Sandbox, languages: Sequence[str]) -> Sandbox:
    try:
        if isinstance(sandbox, RemoteSandbox):
            prove(sandbox, languages, address=sandbox.address)
        else:
            prove(sandbox, languages, protects=sandbox.name != "unsafe_subprocess")
    except BaseException:
        sandbox.close()
        raise
    return sandbox
