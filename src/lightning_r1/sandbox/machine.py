"""What a sandbox on this machine must let a program read: the interpreter, its libraries, a compiler."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_r1.sandbox import seccomp
from lightning_r1.sandbox.base import LANGUAGES, Language, SandboxError

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
_COMPILERS = ("g++", "c++", "clang++")
_FOR_COMPILERS = ("/bin", "/usr/bin", "/usr/include", "/usr/libexec", "/usr/local/include")
_CPP_FLAGS = ("-O2", "-std=c++17", "-pipe", "-w")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def interpreter() -> str:
    """The Python that runs this, without its virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def readable(languages: Sequence[Language]) -> list[str]:
    """Files and folders that programs in these languages may read; those that exist, outer ones first."""
    standard_library = Path(os.__file__).resolve().parent
    wanted = [interpreter(), str(standard_library), *_SYSTEM_LIBRARIES]
    if not standard_library.is_relative_to("/usr"):  # libpython lies beside it
        wanted.append(str(standard_library.parent))
    if "cpp" in languages:
        wanted += _FOR_COMPILERS
    found = sorted({path for path in wanted if os.path.exists(path)})
    return [path for path in found if not any(path.startswith(other + "/") for other in found)]


def compiler_command(languages: Sequence[Language]) -> list[str]:
    """The C++ compiler and its flags; empty if C++ is not asked for.

    Raises:
        SandboxError: if there is none.
    """
    if "cpp" not in languages:
        return []
    for name in _COMPILERS:
        if found := shutil.which(name, path="/usr/bin:/bin"):
            return [found, *_CPP_FLAGS]
    raise SandboxError("languages has 'cpp', but there is no C++ compiler in /usr/bin: install g++")


def check(languages: Sequence[str]) -> list[Language]:
    """The languages, checked; and that this is a machine with sandboxes at all.

    Raises:
        SandboxError: with the fix.
    """
    if sys.platform != "linux":
        raise SandboxError(
            f"sandboxes need Linux, and this is {sys.platform}: use backend='remote' with a url, or have no code tasks"
        )
    known = [language for language in LANGUAGES if language in languages]
    if not languages or len(known) != len(set(languages)):
        raise SandboxError(f"languages={list(languages)}: expected some of {', '.join(LANGUAGES)}")
    return known


def filters() -> dict[str, object]:
    """The system call filters of the setup.

    Raises:
        SandboxError: on a machine for which there are none.
    """
    machine = platform.machine()
    if not seccomp.supported(machine):
        raise SandboxError(f"no system call filter for {machine}: use backend='remote' with a url")
    return {
        "outer_filter": seccomp.outer_filter(machine).hex(),
        "inner_filter": seccomp.inner_filter(machine, execute=False).hex(),
        "inner_filter_cpp": seccomp.inner_filter(machine, execute=True).hex(),
        "pid": seccomp.PID,
    }


def open_to_others(paths: Sequence[str]) -> bool:
    """Whether a user who owns nothing can reach and read all of them."""
    for path in paths:
        here = Path(path)
        if not here.stat().st_mode & 0o004 or not all(folder.stat().st_mode & 0o001 for folder in here.parents):
            return False
    return True
