"""What a process does to itself before it runs what it does not trust. Sent as source into a sandbox.

Standard library only, and nothing of this package: the sandbox has no more.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

NOBODY = 65534
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_KEEPCAPS, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 4, 8, 22, 38
_SECCOMP_FILTER = 2
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same on every architecture
_PATH_BENEATH = 1
_RIGHTS_OF_A_FILE = 0x1 | 0x2 | 0x4 | 0x4000 | 0x8000  # execute, write, read, truncate, ioctl

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.syscall.restype = ctypes.c_long


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends."""
    _checked("prctl(PR_SET_PDEATHSIG)", _libc.prctl(_SET_PDEATHSIG, 9, 0, 0, 0))


def close_to_others() -> None:
    """Hide this process from others of its user, who could open its pipes through ``/proc``: Landlock lets them."""
    _checked("prctl(PR_SET_DUMPABLE)", _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0))


def become_nobody(*, keep_reading: bool) -> None:
    """Give root up for good.

    Args:
        keep_reading: keeps the one capability to pass folders closed to others, where the interpreter lies behind
            one; Landlock still says which files those are.
    """
    if keep_reading:
        _checked("prctl(PR_SET_KEEPCAPS)", _libc.prctl(_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_capabilities(*, keep_reading: bool) -> None:
    """Keep none, or the one of :func:`become_nobody`; no capability can come back."""
    kept = 1 << _CAP_DAC_READ_SEARCH if keep_reading else 0
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _checked("capset", _libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)))


def no_new_privileges() -> None:
    """No program started from here on is more than this one (set-uid programs included)."""
    _checked("prctl(PR_SET_NO_NEW_PRIVS)", _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def landlock(ruleset: bytes, rules: Sequence[tuple[str, int]]) -> None:
    """Restrict this process, and all it starts, to ``rules``: a path and the rights beneath it."""
    handle = _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, ruleset, len(ruleset), 0)
    for path, rights in rules:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = rights if os.path.isdir(path) else rights & _RIGHTS_OF_A_FILE
        beneath = struct.pack("=Qi", allowed, place)
        _syscall(f"landlock_add_rule {path}", _LANDLOCK_ADD, handle, _PATH_BENEATH, beneath, 0)
        os.close(place)
    _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, handle, 0)
    os.close(handle)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def seccomp(steps: bytes) -> None:
    """Filter this process's system calls, and those of all it starts."""
    program = _Filter(len(steps) // 8, steps)
    _checked("seccomp", _libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.addressof(program), 0, 0))


def _syscall(what: str, number: int, *arguments: int | bytes) -> int:
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _checked(what, _libc.syscall(ctypes.c_long(number), *words))


def _checked(what: str, result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
