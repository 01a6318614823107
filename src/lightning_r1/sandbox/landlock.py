"""Sandboxes of the kernel's own: Landlock, system call filters and resource limits; no binary, no namespaces.

A process restricts itself to reading the interpreter and its libraries. What Landlock can forbid has grown with
the kernel (its ABI is asked for at run time, and every right it knows is used):

=====  ======  ==============================================================================================
ABI    Linux   what it adds, and what stands in for it below
=====  ======  ==============================================================================================
1      5.13    files and folders: reading, writing, making, removing, executing
2, 3   5.19    moving between folders, truncating (below: no system call of a program changes a file system)
4      6.7     TCP (below, and for all else than TCP: no socket can be made, by system call filter)
5      6.10    device controls (below: only a terminal's few questions are let through, by filter)
6      6.12    abstract sockets, signals to others (below: by filter, a program signals only itself)
=====  ======  ==============================================================================================

Weaker than namespaces in this: a program can learn that a file exists, its size and times, though never open it;
and it sees the machine's own name, load and process numbers. So bwrap is tried first.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Any

from lightning_r1.sandbox import machine
from lightning_r1.sandbox.base import Language, SandboxError
from lightning_r1.sandbox.local import LocalSandbox, starter

_CREATE_RULESET, _ASK_VERSION = 444, 1
_EXECUTE, _WRITE, _READ, _LIST = 0x1, 0x2, 0x4, 0x8
_FILE_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # the lowest so many bits
_TCP_BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS = 0x3, 0x3


def landlock_abi() -> int:
    """The kernel's version of Landlock; 0 without it."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION)))


def landlock_sandbox(languages: Sequence[Language], at_once: int) -> LocalSandbox:
    """A sandbox of Landlock's, not proven yet.

    Raises:
        SandboxError: if the kernel has no Landlock.
    """
    abi = landlock_abi()
    if abi < 1:
        raise SandboxError("the kernel has no Landlock (Linux 5.13 or later, with 'landlock' in its lsm= list)")
    root = os.geteuid() == 0
    paths = machine.readable(languages)
    setup: dict[str, Any] = {
        "nobody": root,
        "confined": True,
        "keep_reading": root and not machine.open_to_others(paths),
        "compiler": machine.compiler_command(languages),
        **machine.filters(),
    }

    def setup_with(work: str) -> dict[str, Any]:
        ruleset = {"ruleset": _ruleset(abi).hex(), "rules": _rules(abi, paths, work)}
        return {**setup, "landlock": ruleset, "work": work}

    start = starter([machine.interpreter()], setup_with, work="cpp" in languages)
    return LocalSandbox("landlock", languages, start, at_once)


def _file_rights(abi: int) -> int:
    return (1 << _FILE_RIGHTS_BY_ABI[min(abi, 5)]) - 1


def _ruleset(abi: int) -> bytes:
    """``struct landlock_ruleset_attr``: every right the kernel knows is forbidden where no rule gives it."""
    fields = [_file_rights(abi)]
    if abi >= 4:
        fields.append(_TCP_BIND_AND_CONNECT)
    if abi >= 6:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    return struct.pack(f"={len(fields)}Q", *fields)


def _rules(abi: int, paths: Sequence[str], work: str) -> list[tuple[str, int]]:
    reading = _READ | _LIST | (_EXECUTE if work else 0)
    rules = [(path, reading) for path in paths]
    rules += [("/dev/null", _READ | _WRITE), ("/dev/zero", _READ), ("/dev/urandom", _READ)]
    if work:
        rules.append((work, _file_rights(abi)))
    return rules
