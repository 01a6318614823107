"""Sandboxes of namespaces: bubblewrap gives a program a world with an interpreter in it, and nothing else.

No network, no ``/proc``, a process tree of its own, a file system that holds the interpreter, system libraries
and three devices, all read-only. bubblewrap itself is started with a clean environment: its own would be found
under ``/proc``. Where the caller is root, the program is nobody: for the host's root, limits on processes do not
count. System call filters and resource limits come on top (``inside/driver.py``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_r1.sandbox import machine
from lightning_r1.sandbox.base import Language, SandboxError
from lightning_r1.sandbox.local import LocalSandbox
from lightning_r1.sandbox.session import Session

_WORK, _WORK_BYTES = "/tmp", 256 << 20
_CAP_SYS_ADMIN = 21
_TO_BECOME_NOBODY = ("CAP_SETUID", "CAP_SETGID", "CAP_CHOWN")  # given up right after


def bwrap_sandbox(languages: Sequence[Language], at_once: int) -> LocalSandbox:
    """A sandbox of bubblewrap's, not proven yet.

    Raises:
        SandboxError: if ``bwrap`` is not in PATH.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxError("no bwrap in PATH: install bubblewrap")
    # With the right to mount, root needs no user namespace, and can become nobody for good.
    drop = os.geteuid() == 0 and _has_capability(_CAP_SYS_ADMIN)
    command = [program, *_arguments(languages, drop=drop), machine.interpreter()]
    setup: dict[str, Any] = {
        "nobody": drop,
        "confined": True,
        "keep_reading": False,
        "landlock": None,
        "work": _WORK if "cpp" in languages else "",
        "compiler": machine.compiler_command(languages),
        **machine.filters(),
    }
    return LocalSandbox("bwrap", languages, lambda: (Session(command, setup), _nothing), at_once)


def _arguments(languages: Sequence[Language], *, drop: bool) -> list[str]:
    if drop:
        spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        spaces += ["--cap-drop", "ALL"]
        spaces += [word for name in _TO_BECOME_NOBODY for word in ("--cap-add", name)]
    else:
        spaces = ["--unshare-all", "--cap-drop", "ALL"]
    arguments = [*spaces, "--die-with-parent", "--new-session"]
    paths = machine.readable(languages)
    # bwrap would make parents with the rights of what lies in them: /root would be closed to nobody.
    for parent in sorted({str(parent) for path in (*paths, *machine.DEVICES) for parent in Path(path).parents} - {"/"}):
        arguments += ["--dir", parent]
    for path in paths:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        else:
            arguments += ["--ro-bind", path, path]
    for device in machine.DEVICES:
        arguments += ["--dev-bind", device, device]
    if "cpp" in languages:
        arguments += ["--size", str(_WORK_BYTES), "--tmpfs", _WORK]
    return [*arguments, "--remount-ro", "/", "--chdir", "/"]


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> number & 1)


def _nothing() -> None:
    """A namespace leaves nothing behind."""
