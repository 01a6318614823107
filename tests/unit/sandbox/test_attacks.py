"""A model's program gains nothing by attacking: no secret, no file, no process, no test passed, no time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from helpers import attacks
from helpers.sandboxes import QUICK, descendants, no_more_than, one
from lightning_r1.sandbox.base import Limits, Program, Sandbox, Status, TestRun
from lightning_r1.sandbox.session import CLEAN_ENVIRONMENT

SHORT = Limits(wall_s=0.3, cpu_s=1.0, memory_mib=128)
PLACES = ("/", "/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/usr/lib", "/usr/bin", "/etc", tempfile.gettempdir())


@dataclass
class Outside:
    """What a program could get at, were there a way."""

    secret: str
    folder: Path
    tcp: socket.socket
    udp: socket.socket
    unix: list[socket.socket]

    def fill(self, source: str) -> str:
        words = {
            "SECRET": self.secret, "FOLDER": self.folder, "KEY": self.folder / "key", "PARENT": os.getpid(),
            "TCP": self.tcp.getsockname()[1], "UDP": self.udp.getsockname()[1], "TEMPORARY": tempfile.gettempdir(),
        }  # fmt: skip
        for name, word in words.items():
            source = source.replace(f"@{name}@", str(word))
        return source

    def heard(self) -> list[str]:
        found = []
        for line in (self.tcp, *self.unix):
            line.settimeout(0)
            with contextlib.suppress(OSError):
                line.accept()[0].close()
                found.append(str(line))
        self.udp.settimeout(0)
        with contextlib.suppress(OSError):
            found.append(str(self.udp.recv(100)))
        return found


@pytest.fixture
def outside() -> Iterator[Outside]:
    """A key that anyone on this machine may read, and lines on which anyone may call."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "key").write_text(f'"{secret}"')
        (folder / "key_module.py").write_text(f"key = '{secret}'")
        (folder / "key").chmod(0o666)
        unix = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        unix[0].bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix[1].bind(f"\0{secret}")
        for line in unix:
            line.listen()
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            yield Outside(secret, folder, tcp, udp, unix)
        for line in unix:
            line.close()


@pytest.fixture(autouse=True)
def nothing_stays(sandbox: Sandbox) -> Iterator[None]:
    """No process more, and the sandbox still works."""
    assert one(sandbox, "print(42)").output == b"42\n"
    before = descendants()
    yield
    assert one(sandbox, "print(42)").output == b"42\n"
    assert len(no_more_than(before)) <= len(before - descendants()), "a process stayed"


def attack(sandbox: Sandbox, outside: Outside, source: str, limits: Limits = QUICK) -> TestRun:
    """Run it, then an honest test of the same program: an attack must not reach the next test."""
    source = f"x = input()\nif x == 'honest': print('honest'); raise SystemExit\n{outside.fill(source)}"
    run, next_run = sandbox.run(Program(source), ["attack", "honest"], limits)
    assert (next_run.status, next_run.output) == (Status.OK, b"honest\n")
    assert run.status is not Status.BROKEN
    assert outside.secret not in run.output.decode(errors="replace")
    assert outside.secret not in run.detail
    assert not any(line.startswith(b"got") for line in run.output.splitlines()), run.output.decode(errors="replace")
    assert outside.heard() == []
    return run


@pytest.mark.parametrize("name", attacks.REACH)
def test_nobody_is_reached(sandbox: Sandbox, outside: Outside, name: str) -> None:
    run = attack(sandbox, outside, attacks.REACH[name])
    assert (run.status, run.output) == (Status.OK, b""), run.detail


@pytest.mark.parametrize("name", attacks.READ)
def test_no_file_is_read(sandbox: Sandbox, outside: Outside, name: str) -> None:
    attack(sandbox, outside, attacks.READ[name])


def test_the_environment_is_clean(sandbox: Sandbox, outside: Outside) -> None:
    run = attack(sandbox, outside, attacks.ENVIRONMENT)
    assert run.status is Status.OK
    given = {f"{name}={value}".encode() for name, value in CLEAN_ENVIRONMENT.items()}
    for line in set(Path("/proc/self/environ").read_bytes().split(b"\0")) - given:
        assert len(line) < 12 or line not in run.output
    assert str(os.getpid()).encode() not in run.output.replace(outside.secret.encode(), b"")


@pytest.mark.parametrize("name", attacks.MULTIPLY)
def test_no_process_and_no_thread_is_started(sandbox: Sandbox, outside: Outside, name: str) -> None:
    if name == "system calls" and platform.machine() != "x86_64":
        pytest.fail("write this attack for this machine")
    run = attack(sandbox, outside, attacks.MULTIPLY[name])
    assert run.status in (Status.OK, Status.ERROR)


@pytest.mark.parametrize("name", attacks.BREAK_OUT)
def test_nothing_else_is_touched(sandbox: Sandbox, outside: Outside, name: str) -> None:
    run = attack(sandbox, outside, attacks.BREAK_OUT[name])
    assert (run.status, run.output) == (Status.OK, b""), run.detail


def test_nothing_is_written(sandbox: Sandbox, outside: Outside) -> None:
    run = attack(sandbox, outside, attacks.WRITE)
    assert (run.status, run.output) == (Status.OK, b""), run.detail
    assert [place for place in (*PLACES, outside.folder) if Path(place, outside.secret).exists()] == []
    assert (outside.folder / "key").read_text() == f'"{outside.secret}"'
    assert sorted(path.name for path in outside.folder.iterdir()) == ["key", "key_module.py", "socket"]


@pytest.mark.parametrize("name", attacks.COSTLY)
def test_nothing_costs_more_than_its_limit(sandbox: Sandbox, outside: Outside, name: str) -> None:
    source, status = attacks.COSTLY[name]
    limits = SHORT if status == Status.TIME_LIMIT else replace(SHORT, wall_s=30.0, cpu_s=20.0)
    started = time.monotonic()
    run = one(sandbox, source, limits=limits)
    assert run.status in ([Status(status)] if status else [Status.ERROR, Status.MEMORY_LIMIT]), run.detail
    assert time.monotonic() - started < 25, "killed much too late"
    assert len(run.output) <= limits.output_bytes


def test_memory_is_limited_to_what_was_said(sandbox: Sandbox) -> None:
    source = "x = bytearray(int(input()) << 20)\nprint(len(x))"
    runs = sandbox.run(Program(source), ["150", "300"], replace(QUICK, memory_mib=256))
    assert [run.status for run in runs] == [Status.OK, Status.MEMORY_LIMIT]


def test_processor_time_is_limited_too(sandbox: Sandbox) -> None:
    run = one(sandbox, "while True: pass", limits=Limits(wall_s=60, cpu_s=1))
    assert run.status is Status.TIME_LIMIT, run
    assert run.seconds < 50


def test_compiling_costs_no_more_than_a_test(sandbox: Sandbox) -> None:
    """Each ``finally`` stands twice or more in the code, and those within it as well."""
    source = "def f(a):\n"
    for depth in range(1, 13):
        source += "".join(f"{' ' * depth}{line}\n" for line in ("try:", " if a: return", " pass", "finally:"))
    source += f"{' ' * 13}pass\n"
    run = one(sandbox, source, limits=Limits(wall_s=0.1, cpu_s=0.1))
    assert (run.status, run.detail) == (Status.COMPILE_ERROR, "compiling it takes longer than a test may")


@pytest.mark.parametrize("name", attacks.FORGE)
def test_a_forged_value_is_no_more_than_a_value(sandbox: Sandbox, name: str) -> None:
    run = one(sandbox, attacks.FORGE[name], "[0]", function="f")
    assert run.status is not Status.BROKEN
    assert not passes(run, [1, 2, 3])


def passes(run: TestRun, expected: object) -> bool:
    """As a careful grader decides: on plain data, outside."""
    try:
        return run.status is Status.OK and json.loads(run.output) == expected
    except (ValueError, RecursionError):
        return False


def test_a_correct_prefix_is_only_a_prefix(sandbox: Sandbox) -> None:
    run = one(sandbox, "print(1)\nprint(2, end='', flush=True)\nimport os\nos._exit(0)")
    assert (run.status, run.output) == (Status.OK, b"1\n2")


def test_forged_frames_are_output_at_most(sandbox: Sandbox, outside: Outside) -> None:
    source = f"x = input()\n{outside.fill(attacks.FRAMES).replace('@FORGED@', outside.secret)}\nprint(x)"
    runs = sandbox.run(Program(source), ["1", "2"], QUICK)
    payload = json.dumps({"status": "ok", "seconds": 0.0, "detail": ""}).encode() + b"\n" + outside.secret.encode()
    frames = 3 * (len(payload).to_bytes(4, "big") + payload)
    assert [run.status for run in runs] == [Status.OK, Status.OK]
    for run, data in zip(runs, (b"1\n", b"2\n"), strict=True):
        assert run.output.endswith(frames + data)  # /proc may lead back to its own stdout
        assert run.output.replace(frames, b"") == data
    function = f"def f(x):\n    exec({source!r}, {{'input': str}})\n    return x"
    runs = sandbox.run(Program(function, "python", "f"), ["[1]", "[2]"], QUICK)
    assert [passes(run, value) for run, value in zip(runs, (1, 2), strict=True)] == [False, False]


def test_only_its_own_input_is_in_sight(sandbox: Sandbox) -> None:
    """Neither the tests to come, nor those before, nor another program's: the words stand reversed in the source."""
    words = [secrets.token_hex(8) for _ in range(3)]
    assert sandbox.run(Program(f"print(input())\n'{words[0]}'"), [words[0]], QUICK)[0].status is Status.OK
    look = attacks.LOOK_AROUND.replace("@WORDS@", ",".join(repr(word[::-1]) for word in words))
    runs = sandbox.run(Program("data = input()\n" + look), [f"{words[1]}", f"{words[2]}"], QUICK)
    assert [run.status for run in runs] == [Status.OK, Status.OK], runs[0].detail
    assert [run.output.decode() for run in runs] == [f"True ['{word[::-1]}']\n" for word in words[1:]]


X32_AND_32_BITS = {
    "x32": "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)\nprint('got x32')",
    "32 bits": """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("got 32 bits")
""",
}


@pytest.mark.parametrize("name", X32_AND_32_BITS)
def test_another_calling_convention_kills(sandbox: Sandbox, outside: Outside, name: str) -> None:
    assert attack(sandbox, outside, X32_AND_32_BITS[name]).status is Status.ERROR


@pytest.mark.parametrize("name", attacks.CPP_STEAL)
def test_a_compiler_reads_nothing_for_a_program(sandbox: Sandbox, outside: Outside, name: str) -> None:
    runs = sandbox.run(Program(outside.fill(attacks.CPP_STEAL[name]), "cpp"), [""], QUICK)
    assert runs[0].status is (Status.OK if name == "read" else Status.COMPILE_ERROR)
    assert outside.secret not in runs[0].output.decode(errors="replace") + runs[0].detail


def test_a_compiled_program_does_nothing_else_either(sandbox: Sandbox, outside: Outside) -> None:
    run = one(sandbox, outside.fill(attacks.CPP_DO), language="cpp")
    assert (run.status, run.output) == (Status.OK, b""), run.detail
    assert [place for place in (*PLACES, outside.folder) if Path(place, outside.secret).exists()] == []


def test_a_compiled_program_leaves_nothing_for_its_next_test(sandbox: Sandbox) -> None:
    run, next_run = sandbox.run(Program(attacks.CPP_STAY, "cpp"), ["attack", "honest"], QUICK)
    assert not any(line.startswith(b"got") for line in run.output.splitlines()), run.output
    assert (next_run.status, next_run.output) == (Status.OK, b"honest\n")


def test_a_compiled_program_has_its_limits(sandbox: Sandbox) -> None:
    loop = "int main() { volatile int x = 1; while (x); }"
    assert one(sandbox, loop, limits=SHORT, language="cpp").status is Status.TIME_LIMIT
    memory = "#include <vector>\nint main() { std::vector<char> v(1u << 30, 1); return v[5] - 1; }"
    assert one(sandbox, memory, limits=SHORT, language="cpp").status in (Status.ERROR, Status.TIME_LIMIT)


def test_a_compiler_has_its_limits(sandbox: Sandbox) -> None:
    big = "int x[1ul << 33] = {1};\nint main() {}"
    assert one(sandbox, big, language="cpp").status is Status.COMPILE_ERROR
    device = '#include "/dev/zero"\nint main() {}'
    assert one(sandbox, device, language="cpp").status is Status.COMPILE_ERROR
