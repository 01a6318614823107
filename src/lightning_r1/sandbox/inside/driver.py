"""The program inside a sandbox: it runs a model's program once per test, each time in a process of its own.

Three generations of processes:

- *keeper*: confines itself, then waits; it never sees a program.
- *driver*: forked by the keeper for one program, so that none finds a trace of another. Compiles the source
  (and executes none of it), then forks a child per test and counts that child's bytes itself.
- *child*: has nothing but its own stdin, stdout and stderr, confines itself further, and runs the program.

A frame is four bytes of length (big-endian) and its payload. To the driver: the program (JSON), then a frame per
test, ``b"T"`` and the input, then ``b"E"``. Back: a JSON line and the output. The next input is sent after the
answer to the last, so that the one who compares can stop at the first failing test.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import resource
import select
import signal
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning_r1.sandbox.inside import confine
from lightning_r1.sandbox.inside.python_program import OUT_OF_MEMORY, prepare, run_python

_IN, _OUT = 3, 4  # where the frames go; 0, 1 and 2 are nothing here, and the program's in its child
_VALUE = 3  # of a function program's child, which has closed the frames
_DETAIL_BYTES = 600
_COMPILE_CPU_S, _COMPILE_MEMORY, _COMPILE_FILE = 20, 2 << 30, 64 << 20
_MIB = 1 << 20
_CLOSED = 0o500  # a program's user owns the folder of the compiler, and can make nothing in it
_ADD_SEALS, _NO_CHANGE = 1033, 0x1 | 0x2 | 0x4 | 0x8  # no more seals, not shorter, not longer, no writing


def serve(setup: dict[str, Any]) -> NoReturn:
    """The keeper: confines this process as ``setup`` says, then forks a driver for every byte it reads."""
    os.dup2(0, _IN)
    os.dup2(1, _OUT)
    nothing, errors = os.open("/dev/null", os.O_RDWR), os.dup(2)  # opened last: 3 and 4 are taken
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    try:
        prepare()
        _confine(setup)
    except OSError as error:
        os.write(errors, str(error).encode())
        os._exit(1)
    os.dup2(nothing, 2)
    os.closerange(_OUT + 1, 256)
    gc.collect()
    gc.freeze()
    _send({"ready": True})
    while os.read(_IN, 1):
        driver = os.fork()
        if driver == 0:
            _drive(setup)
        if os.waitpid(driver, 0)[1] == signal.SIGPROF:  # its timer is set only while it compiles
            _send({"status": "compile error", "seconds": 0.0, "detail": "compiling it takes longer than a test may"})
        _send({"ended": True})
    os._exit(0)


def _confine(setup: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if setup["nobody"]:
        if setup["work"]:
            os.chown(setup["work"], confine.NOBODY, confine.NOBODY)
        confine.become_nobody(keep_reading=setup["keep_reading"])
    if setup["confined"]:
        confine.drop_capabilities(keep_reading=setup["keep_reading"])
        confine.no_new_privileges()
        confine.close_to_others()
    if setup["work"]:
        os.chmod(setup["work"], _CLOSED)
    confine.die_with_parent()
    if setup["landlock"]:
        confine.landlock(bytes.fromhex(setup["landlock"]["ruleset"]), setup["landlock"]["rules"])
    if setup["outer_filter"]:
        confine.seccomp(bytes.fromhex(setup["outer_filter"]))


def _drive(setup: dict[str, Any]) -> NoReturn:
    try:
        confine.die_with_parent()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # to be waited for in _ended
        program = json.loads(_receive())
        try:
            started = time.monotonic()
            if program["language"] == "cpp":
                built: Any = _compile_cpp(program["source"], setup["work"], setup["compiler"])
            else:
                _limit(resource.RLIMIT_AS, program["limits"]["memory_mib"] * _MIB + 256 * _MIB)
                # a few lines can take the compiler hours, and it hears of no handler meanwhile: the signal kills
                signal.setitimer(signal.ITIMER_PROF, program["limits"]["cpu_s"])
                try:
                    built = compile(program["source"], "solution.py", "exec", dont_inherit=True)
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError, _NotCompiled) as error:
            detail = f"{type(error).__name__}: {error}" if not isinstance(error, _NotCompiled) else str(error)
            _send({"status": "compile error", "seconds": time.monotonic() - started, "detail": detail[:_DETAIL_BYTES]})
        else:
            _send({"status": "ok"})
            while (frame := _receive())[:1] == b"T":
                _send(*_test(built, program, memoryview(frame)[1:], setup))
        if program["language"] == "cpp":
            _empty(setup["work"])
    finally:
        os._exit(0)


def _test(built: Any, program: dict[str, Any], data: memoryview, setup: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Run one test in a child; what it wrote, and how it ended."""
    limits = program["limits"]
    stdin = _input(b"" if program["function"] else data)
    out, child_out = os.pipe()
    err, child_err = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            if program["function"]:
                _become(program, stdin, 0, child_err, child_out)
            else:
                _become(program, stdin, child_out, child_err)
            if program["language"] == "cpp":
                _filter(setup, "inner_filter_cpp")
                os.execve(built, ["solution"], {})
            _filter(setup, "inner_filter")
            run_python(built, program["function"], bytes(data) if program["function"] else b"", _VALUE)
        finally:
            os._exit(1)
    for descriptor in (stdin, child_out, child_err):
        os.close(descriptor)
    deadline = started + limits["wall_s"]
    output, tail, verdict = _collect(out, err, limits["output_bytes"], deadline)
    status, used = _ended(child, deadline, verdict is not None)
    seconds = time.monotonic() - started
    for descriptor in (out, err):
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(status)
    if verdict is None:
        cpu = used.ru_utime + used.ru_stime
        if code == -signal.SIGKILL and (time.monotonic() >= deadline or cpu >= 0.7 * limits["cpu_s"]):
            verdict = "time limit"
        elif code == OUT_OF_MEMORY and program["language"] == "python":
            verdict = "memory limit"
        else:
            verdict = "ok" if code == 0 else "error"
    detail = tail.decode(errors="replace").strip() if code else ""
    if verdict == "error" and not detail:
        detail = f"exit status {code}" if code > 0 else f"signal {-code}"
    return {"status": verdict, "seconds": seconds, "detail": detail}, bytes(output)


def _input(data: bytes | memoryview) -> int:
    """A sealed file in memory: a program reads it at its own pace, and cannot change it."""
    stdin = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    while data:
        data = data[os.write(stdin, data) :]
    os.lseek(stdin, 0, os.SEEK_SET)
    fcntl.fcntl(stdin, _ADD_SEALS, _NO_CHANGE)
    return stdin


def _become(program: dict[str, Any], *descriptors: int) -> None:
    """In the child: nothing open but ``descriptors``, as 0, 1, 2, ..., and the test's limits."""
    confine.die_with_parent()
    high = [os.dup2(descriptor, 200 + place) for place, descriptor in enumerate(descriptors)]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)
    os.closerange(len(descriptors), 256)
    limits = program["limits"]
    memory = limits["memory_mib"] * _MIB
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_STACK, memory if program["language"] == "cpp" else 64 * _MIB)
    _limit(resource.RLIMIT_CPU, max(1, -int(-limits["cpu_s"] // 1)))
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them; a fresh program does not
        signal.signal(number, signal.SIG_DFL)


def _filter(setup: dict[str, Any], name: str) -> None:
    if setup[name]:
        steps = bytes.fromhex(setup[name])
        confine.seccomp(steps.replace(setup["pid"].to_bytes(4, "little"), os.getpid().to_bytes(4, "little")))


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _collect(out: int, err: int, most: int, deadline: float) -> tuple[bytearray, bytearray, str | None]:
    """Read both pipes until they close or a limit is met; stdout, the end of stderr, and which limit."""
    kept, tail, counted = bytearray(), bytearray(), 0
    poll = select.poll()
    for pipe in (out, err):
        poll.register(pipe, select.POLLIN)
    left = 2
    while left:
        rest = deadline - time.monotonic()
        if rest <= 0:
            return kept, tail, "time limit"
        for descriptor, _ in poll.poll(rest * 1000 + 1):
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                poll.unregister(descriptor)
                left -= 1
            elif descriptor == out:
                kept += chunk
            else:
                counted += len(chunk)
                tail = (tail + chunk)[-_DETAIL_BYTES:]
        if len(kept) > most or counted > most:
            return kept[:most], tail, "output limit"
    return kept, tail, None


def _ended(child: int, deadline: float, kill: bool) -> tuple[int, Any]:
    """Wait for the child, which may live on with its pipes closed; kill it at once or at the deadline."""
    while not kill:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            return status, used
        rest = deadline - time.monotonic()
        kill = rest <= 0 or signal.sigtimedwait([signal.SIGCHLD], rest) is None
    os.kill(child, signal.SIGKILL)
    return os.wait4(child, 0)[1:]


class _NotCompiled(Exception):
    """The compiler's message."""


def _compile_cpp(source: str, work: str, compiler: Sequence[str]) -> str:
    """Compile in ``work``, which is closed to the program afterwards; the path of the binary."""
    _empty(work)
    os.chmod(work, 0o700)
    with open(os.path.join(work, "solution.cpp"), "w", encoding="utf-8", errors="replace") as file:
        file.write(source)
    err, child_err = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            confine.die_with_parent()
            os.dup2(child_err, 2)
            os.closerange(3, 256)
            os.chdir(work)
            _limit(resource.RLIMIT_AS, _COMPILE_MEMORY)
            _limit(resource.RLIMIT_CPU, _COMPILE_CPU_S)
            _limit(resource.RLIMIT_FSIZE, _COMPILE_FILE)
            os.execve(
                compiler[0], [*compiler, "-o", "solution", "solution.cpp"], {"PATH": "/usr/bin:/bin", "TMPDIR": work}
            )
        finally:
            os._exit(1)
    os.close(child_err)
    message = b""
    with io.FileIO(err) as reader:
        while chunk := reader.read(1 << 16):
            message = (message + chunk)[:_DETAIL_BYTES]
    if os.waitpid(child, 0)[1] != 0:
        raise _NotCompiled(message.decode(errors="replace") or "the compiler was killed by a limit")
    # the program's user owns its files as well: what one test could write there the next would read, or run
    os.unlink(os.path.join(work, "solution.cpp"))
    os.chmod(os.path.join(work, "solution"), _CLOSED)
    os.chmod(work, _CLOSED)
    return os.path.join(work, "solution")


def _empty(work: str) -> None:
    os.chmod(work, 0o700)
    for entry in os.listdir(work):
        os.unlink(os.path.join(work, entry))
    os.chmod(work, _CLOSED)


def _receive() -> bytearray:
    return _exactly(int.from_bytes(_exactly(4), "big"))


def _exactly(count: int) -> bytearray:
    data = bytearray()
    while len(data) < count:
        chunk = os.read(_IN, min(count - len(data), 1 << 20))
        if not chunk:
            os._exit(0)
        data += chunk
    return data


def _send(header: dict[str, Any], output: bytes = b"") -> None:
    payload = json.dumps(header).encode() + b"\n" + output
    data = memoryview(len(payload).to_bytes(4, "big") + payload)
    while data:
        data = data[os.write(_OUT, data) :]
