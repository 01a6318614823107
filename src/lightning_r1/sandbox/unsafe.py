"""No sandbox: a program runs as a plain process with limits, and can read, write and reach what the caller can.

For trying things out on a machine with nothing on it, and for measuring what protection costs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_r1.sandbox import machine
from lightning_r1.sandbox.base import SECRET, Language, SandboxError
from lightning_r1.sandbox.local import LocalSandbox, starter

_PASSWORD_IN_A_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")


def unsafe_sandbox(languages: Sequence[Language], at_once: int, *, allow_unsafe: bool) -> LocalSandbox:
    """Processes with a clean environment and resource limits, and no more.

    Raises:
        SandboxError: without ``allow_unsafe``, or with what looks like a secret in the environment: a program
            finds the caller's environment under ``/proc``.
    """
    if not allow_unsafe:
        raise SandboxError("unsafe_subprocess protects nothing: say allow_unsafe=True to run models' programs in it")
    if secrets := _secrets():
        raise SandboxError(
            f"unsafe_subprocess with secrets in the environment: unset {', '.join(secrets)} and start this process anew"
        )

    def setup_with(work: str) -> dict[str, Any]:
        never = dict.fromkeys(("nobody", "confined", "keep_reading"), False)
        none = dict.fromkeys(("landlock", "outer_filter", "inner_filter", "inner_filter_cpp", "pid"))
        return {**never, **none, "work": work, "compiler": machine.compiler_command(languages)}

    start = starter([machine.interpreter()], setup_with, work="cpp" in languages)
    return LocalSandbox("unsafe_subprocess", languages, start, at_once)


def _secrets() -> list[str]:
    """Names of what looks like a secret: now, and when this process began, which ``/proc`` shows to its end."""
    began = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    variables = [*os.environ.items(), *(line.partition("=")[::2] for line in began)]
    return sorted(
        {name for name, value in variables if value and (SECRET.search(name) or _PASSWORD_IN_A_URL.search(value))}
    )
