"""The filters, run by an interpreter of their instructions: which calls pass, on both architectures."""

# ruff: noqa: E501
from __future__ import annotations

import errno
import struct

import pytest

from lightning_r1.sandbox.seccomp import PID, inner_filter, outer_filter, supported

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {  # from the kernel's tables
    "x86_64": {
        "read": 0, "write": 1, "mmap": 9, "fcntl": 72, "ioctl": 16, "kill": 62, "tkill": 200, "tgkill": 234, "futex": 202,
        "prlimit64": 302, "clone": 56, "clone3": 435, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "openat": 257,
        "socket": 41, "connect": 42, "ptrace": 101, "mount": 165, "unshare": 272, "bpf": 321, "io_uring_setup": 425,
        "memfd_create": 319, "mkdir": 83, "unlink": 87, "rename": 82, "setsid": 112, "process_vm_readv": 310, "exit_group": 231,
        "prctl": 157, "seccomp": 317, "userfaultfd": 323, "open_by_handle_at": 304, "setuid": 105, "wait4": 61,
    },
    "aarch64": {
        "read": 63, "write": 64, "mmap": 222, "fcntl": 25, "ioctl": 29, "kill": 129, "tkill": 130, "tgkill": 131, "futex": 98,
        "prlimit64": 261, "clone": 220, "clone3": 435, "execve": 221, "execveat": 281, "openat": 56,
        "socket": 198, "connect": 203, "ptrace": 117, "mount": 40, "unshare": 97, "bpf": 280, "io_uring_setup": 425,
        "memfd_create": 279, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "setsid": 157, "process_vm_readv": 270, "exit_group": 94,
        "prctl": 167, "seccomp": 277, "userfaultfd": 282, "open_by_handle_at": 265, "setuid": 146, "wait4": 260,
    },
}  # fmt: skip
FREE = {"read", "write", "mmap", "futex", "openat", "exit_group", "wait4"}
BY_ARGUMENT = {"fcntl", "ioctl", "kill", "tkill", "tgkill", "prlimit64"}
machines = pytest.mark.parametrize("machine", ARCHITECTURE)


def verdict(steps: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run a filter as the kernel does."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    accumulator, place = 0, 0
    while True:
        code, yes, no, operand = struct.unpack_from("=HBBI", steps, 8 * place)
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif code == 0x06:
            return operand
        else:
            held = {
                0x15: accumulator == operand, 0x25: accumulator > operand,
                0x35: accumulator >= operand, 0x45: bool(accumulator & operand),
            }[code]  # fmt: skip
            place += yes if held else no


@machines
def test_a_program_may_compute_read_and_print(machine: str) -> None:
    for execute in (False, True):
        steps = inner_filter(machine, execute=execute)
        for name, number in CALLS[machine].items():
            expected = ALLOW if name in FREE or (name == "execve" and execute) else EPERM
            expected = ENOSYS if name == "clone3" else expected
            if name not in BY_ARGUMENT:
                assert verdict(steps, ARCHITECTURE[machine], number) == expected, name


@machines
def test_arguments_decide(machine: str) -> None:
    steps, calls = inner_filter(machine, execute=False), CALLS[machine]

    def ask(name: str, *arguments: int) -> bool:
        answer = verdict(steps, ARCHITECTURE[machine], calls[name], *arguments)
        assert answer in (ALLOW, EPERM)
        return answer == ALLOW

    for name in ("kill", "tkill", "tgkill"):
        assert ask(name, PID)
        assert not any(ask(name, pid) for pid in (0, 1, PID + 1, 2**32 - 1, 2**64 - 1))
        assert ask(name, PID | 5 << 32), "the kernel reads 32 bits of a pid, and so do we"
    assert [ask("prlimit64", pid) for pid in (0, PID, 1)] == [True, True, False]
    assert [ask("ioctl", 0, command) for command in (0x5401, 0x5412, 0x8902)] == [True, False, False]
    assert [command for command in range(2048) if ask("fcntl", 0, command)] == [0, 1, 2, 3, 4, 1030, 1031, 1032]


@machines
def test_a_compiler_may_fork_and_nothing_worse(machine: str) -> None:
    steps, calls = outer_filter(machine), CALLS[machine]
    may_not = {"socket", "connect", "ptrace", "mount", "unshare", "bpf", "io_uring_setup", "setsid", "process_vm_readv",
               "userfaultfd", "open_by_handle_at"}  # fmt: skip
    for name, number in calls.items():
        expected = EPERM if name in may_not else ENOSYS if name == "clone3" else ALLOW
        assert verdict(steps, ARCHITECTURE[machine], number) == expected, name
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(steps, ARCHITECTURE[machine], calls["clone"], flag | 17) == EPERM
    assert verdict(steps, ARCHITECTURE[machine], calls["clone"], 0x3D0F00) == ALLOW


@machines
def test_another_architecture_kills_and_a_newer_call_is_unknown(machine: str) -> None:
    for steps in (outer_filter(machine), inner_filter(machine, execute=True)):
        for other in (0x40000003, 0x40000028, *(set(ARCHITECTURE.values()) - {ARCHITECTURE[machine]})):
            assert verdict(steps, other, 0) == KILL
        assert verdict(steps, ARCHITECTURE[machine], 460) == ENOSYS
        x32 = verdict(steps, ARCHITECTURE[machine], 0x40000000)
        assert x32 == (KILL if machine == "x86_64" else ENOSYS)
        assert len(steps) % 8 == 0
        assert len(steps) // 8 < 4096


def test_machines() -> None:
    assert [supported(name) for name in ("x86_64", "aarch64", "riscv64", "arm64")] == [True, True, False, False]
