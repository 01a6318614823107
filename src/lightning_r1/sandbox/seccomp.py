"""Which system calls a program may make: filters for the kernel, assembled here without a library.

Two filters, one within the other. The *outer* one holds for everything in a sandbox, a compiler included: it
denies the network, tracing, mounting, namespaces, keys, BPF, io_uring and the like. The *inner* one holds for a
program under test: it allows what computing, reading and printing need, and denies every other call: no fork, no
thread, no signal to anyone else, no change to a file system. A call made in another calling convention (32 bits,
x32) kills.

The format is the kernel's ``struct sock_filter``: code, jump if true, jump if false, operand.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

# name, number on x86_64, number on aarch64 ("-": no such call there)
_ALLOWED = """
read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70;
open 2 -; openat 257 56; close 3 57; close_range 436 436; stat 4 -; fstat 5 80; lstat 6 -; newfstatat 262 79;
statx 332 291; lseek 8 62; mmap 9 222; mprotect 10 226; munmap 11 215; mremap 25 216; madvise 28 233; brk 12
214; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; sigaltstack 131 132; rt_sigpending 127
136; rt_sigtimedwait 128 137; rt_sigsuspend 130 133; pause 34 -; access 21 -; faccessat 269 48; faccessat2 439
439; pipe 22 -; pipe2 293 59; select 23 -; pselect6 270 72; poll 7 -; ppoll 271 73; epoll_create 213 -;
epoll_create1 291 20; epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22; eventfd2 290 19; dup 32 23; dup2
33 -; dup3 292 24; nanosleep 35 101; clock_nanosleep 230 115; clock_gettime 228 113; clock_getres
229 114; gettimeofday 96 169; time 201 -; times 100 153; getitimer 36 102; setitimer 38 103; alarm 37 -; getpid
39 172; gettid 186 178; getppid 110 173; getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177;
getresuid 118 148; getresgid 120 150; getgroups 115 158; getpgrp 111 -; getpgid 121 155; getsid 124 156; getcwd
79 17; chdir 80 49; fchdir 81 50; readlink 89 -; readlinkat 267 78; getdents64 217 61; uname 63 160; sysinfo 99
179; getrlimit 97 163; setrlimit 160 164; getrandom 318 278; futex 202 98; set_robust_list 273 99;
get_robust_list 274 100; rseq 334 293; set_tid_address 218 96; arch_prctl 158 -; sched_yield 24 124;
sched_getaffinity 204 123; getrusage 98 165; exit 60 93; exit_group 231 94; membarrier 324 283; restart_syscall
219 128; umask 95 166; getcpu 309 168; mincore 27 232; fadvise64 221 223; wait4 61 260; waitid 247 95; statfs
137 43; fstatfs 138 44
"""
_WITH_CARE = """
clone 56 220; clone3 435 435; fork 57 -; vfork 58 -; kill 62 129; tkill 200 130; tgkill 234 131; prlimit64 302
261; ioctl 16 29; execve 59 221; fcntl 72 25
"""
_NEVER = """
socket 41 198; socketpair 53 199; connect 42 203; bind 49 200; listen 50 201; accept 43 202; accept4 288 242;
sendto 44 206; sendmsg 46 211; sendmmsg 307 269; recvfrom 45 207; recvmsg 47 212; recvmmsg 299 243; ptrace 101
117; mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51; unshare 272 97; setns 308 268; keyctl 250
219; add_key 248 217; request_key 249 218; bpf 321 280; io_uring_setup 425 425; io_uring_enter 426 426;
io_uring_register 427 427; process_vm_readv 310 270; process_vm_writev 311 271; process_madvise 440 440;
process_mrelease 448 448; kcmp 312 272; perf_event_open 298 241; userfaultfd 323 282; open_by_handle_at 304 265;
name_to_handle_at 303 264; kexec_load 246 104; kexec_file_load 320 294; init_module 175 105; finit_module 313
273; delete_module 176 106; reboot 169 142; swapon 167 224; swapoff 168 225; personality 135 92; quotactl 179
60; acct 163 89; settimeofday 164 170; clock_settime 227 112; clock_adjtime 305 266; adjtimex 159 171;
sethostname 170 161; setdomainname 171 162; syslog 103 116; iopl 172 -; ioperm 173 -; modify_ldt 154 -; fsopen
430 430; fsconfig 431 431; fsmount 432 432; fspick 433 433; move_mount 429 429; open_tree 428 428; mount_setattr
442 442; pidfd_open 434 434; pidfd_getfd 438 438; pidfd_send_signal 424 424; fanotify_init 300 262;
fanotify_mark 301 263; lookup_dcookie 212 18; mbind 237 235; migrate_pages 256 238; move_pages 279 239;
set_mempolicy 238 237; shmget 29 194; shmat 30 196; semget 64 190; msgget 68 186; mq_open 240 180;
rt_sigqueueinfo 129 138; rt_tgsigqueueinfo 297 240; memfd_secret 447 447; uselib 134 -; ustat 136 -; sysfs 139
-; vhangup 153 58; setsid 112 157; setpgid 109 154
"""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_LAST_KNOWN = 450
"""Newer calls do not exist here: a C library then falls back to older ones."""

_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

_LOAD, _EQUAL, _AT_LEAST, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data; argument i stands at 16 + 8 * i

_NEW_NAMESPACE = 0x7E020000
_TERMINAL_SIZE_AND_FLAGS = (0x5401, 0x5413, 0x541B, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIO(N)CLEX
_FCNTL = (0, 1, 2, 3, 4, 1030, 1031, 1032)  # descriptors and pipes; not locks, nor F_SETOWN, which signals others
PID = 0x7A5A5A5A
"""Stands for the program's own process id until that is known."""


def supported(machine: str) -> bool:
    """Whether filters can be made for this machine (``platform.machine()``)."""
    return machine in _ARCHITECTURES


def outer_filter(machine: str) -> bytes:
    """For everything in a sandbox; the driver and a compiler live with it."""
    numbers = _numbers(_WITH_CARE, machine)
    rules = [
        _when(numbers["clone"], [*_load_argument(0), (_ANY_BIT, 0, 1, _NEW_NAMESPACE), _ends(_EPERM), _ends(_ALLOW)])
    ]
    rules.append(_when(numbers["clone3"], [_ends(_ENOSYS)]))
    rules += [_when(number, [_ends(_EPERM)]) for number in _numbers(_NEVER, machine).values()]
    return _assemble(machine, rules, _ALLOW)


def inner_filter(machine: str, *, execute: bool) -> bytes:
    """For a program under test; :data:`PID` in it is to be replaced.

    Args:
        execute: allows ``execve``, which turns the driver's child into a compiled program.
    """
    numbers = _numbers(_WITH_CARE, machine)
    rules = [_when(number, [_ends(_ALLOW)]) for number in _numbers(_ALLOWED, machine).values()]
    rules.append(_when(numbers["clone3"], [_ends(_ENOSYS)]))
    rules += [_when(numbers[name], _if_argument(0, [PID])) for name in ("kill", "tkill", "tgkill")]
    rules.append(_when(numbers["prlimit64"], _if_argument(0, [0, PID])))
    rules.append(_when(numbers["ioctl"], _if_argument(1, _TERMINAL_SIZE_AND_FLAGS)))
    rules.append(_when(numbers["fcntl"], _if_argument(1, _FCNTL)))
    if execute:
        rules.append(_when(numbers["execve"], [_ends(_ALLOW)]))
    return _assemble(machine, rules, _EPERM)


_Step = tuple[int, int, int, int]


def _numbers(table: str, machine: str) -> dict[str, int]:
    column = 1 + _ARCHITECTURES[machine][0]
    rows = (row.split() for row in table.split(";"))
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _ends(verdict: int) -> _Step:
    return (_RETURN, 0, 0, verdict)


def _load_argument(place: int) -> list[_Step]:
    # The lower half: what is compared here is an int for the kernel, which drops the upper half as well.
    return [(_LOAD, 0, 0, 16 + 8 * place)]


def _when(number: int, steps: list[_Step]) -> list[_Step]:
    """Every list of steps ends with a return, so the loaded number is still there for the next call's rule."""
    return [(_EQUAL, 0, len(steps), number), *steps]


def _if_argument(place: int, values: Iterable[int]) -> list[_Step]:
    steps = _load_argument(place)
    for value in values:
        steps += [(_EQUAL, 0, 1, value), _ends(_ALLOW)]
    return [*steps, _ends(_EPERM)]


def _assemble(machine: str, rules: list[list[_Step]], otherwise: int) -> bytes:
    steps: list[_Step] = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine][1]), _ends(_KILL)]
    steps.append((_LOAD, 0, 0, _NUMBER))
    if machine == "x86_64":
        steps += [(_AT_LEAST, 0, 1, _X32), _ends(_KILL)]
    for rule in rules:
        steps += rule
    steps += [(_GREATER, 0, 1, _LAST_KNOWN), _ends(_ENOSYS), _ends(otherwise)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
