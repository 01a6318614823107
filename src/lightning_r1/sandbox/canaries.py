"""A sandbox proves itself before it is trusted: programs that must work, and programs that must fail.

Each canary prints what it got hold of; the trainer's side compares that with what it planted outside.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning_r1.sandbox.base import SECRET, Limits, Program, Sandbox, SandboxError, Status, TestRun
from lightning_r1.sandbox.session import CLEAN_ENVIRONMENT

_QUICK = Limits(wall_s=10.0, cpu_s=10.0, memory_mib=512)

_NETWORK = """
import socket
for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_STREAM)):
    try:
        with socket.socket(family, kind) as line:
            line.settimeout(2)
            line.connect((HOST, PORT))
            print("connected")
    except OSError:
        pass
"""
_FILES = """
import os
for path in PATHS:
    try:
        print(open(path, "rb").read(1000))
    except OSError:
        pass
"""
_ENVIRONMENT = """
import os
found = [f"{name}={value}".encode() for name, value in os.environ.items()]
try:
    processes = os.listdir("/proc")
except OSError:
    processes = []
for process in [*processes, "self", "1", str(os.getppid())]:
    try:
        found += open(f"/proc/{process}/environ", "rb").read().split(bytes(1))
    except OSError:
        pass
print(ascii(sorted(set(found))))
"""
_FORK = """
import os, subprocess
try:
    if os.fork() == 0:
        os._exit(0)
    print("forked")
except OSError:
    pass
try:
    print(subprocess.run(["/bin/true"]))
except OSError:
    pass
"""
_WRITE = """
import os
for folder in FOLDERS:
    path = os.path.join(folder, NAME)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        print(path)
    except OSError:
        pass
"""
_NAMES = re.compile(r"b['\"](\w+)=")
_LOOP = "while True: pass"
_MEMORY = "held = bytearray(1 << 32)\nprint('held')"
_CPP = '#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b << "\\n"; }'


def prove(
    sandbox: Sandbox,
    languages: Sequence[str] = ("python",),
    *,
    address: tuple[str, int] | None = None,
    protects: bool = True,
) -> None:
    """Run all canaries.

    Args:
        address: to which no program may connect; a listener on this machine without it. A sandbox on another
            machine is given its own address, and is not asked for the files of this one.
        protects: without it, only limits and the environment are proven.

    Raises:
        SandboxError: naming the first canary that misbehaved, and what it got.
    """
    here = address is None
    _expect("hello", _says_hello(sandbox))
    _expect("loop", _ends_a_loop(sandbox))
    _expect("memory", _ends_a_memory_bomb(sandbox))
    if protects:
        _expect("fork", _no_fork(sandbox))
        _expect("environment", _clean_environment(sandbox))
        with _listener() as own:
            _expect("network", _no_network(sandbox, address or own))
    if protects and here:
        _expect("files", _no_files(sandbox))
        _expect("writing", _no_writing(sandbox))
    if "cpp" in languages:
        _expect("cpp", _compiles(sandbox))
        if protects and here:
            _expect("include", _no_include(sandbox))


def _expect(canary: str, fault: str) -> None:
    if fault:
        raise SandboxError(f"canary {canary!r}: {fault}")


def _run(sandbox: Sandbox, source: str, data: str = "", limits: Limits = _QUICK) -> TestRun:
    return sandbox.run(Program(source), [data], limits)[0]


def _nothing_printed(run: TestRun) -> str:
    if run.status is Status.OK and not run.output.strip():
        return ""
    got = run.output[:200].decode(errors="replace").strip() or run.detail
    return f"expected to print nothing, got {run.status}: {got!r}"


def _says_hello(sandbox: Sandbox) -> str:
    run = _run(sandbox, "print(sum(map(int, input().split())))", "20 22\n")
    if (run.status, run.output) != (Status.OK, b"42\n"):
        return f"20 + 22 gave {run.status}: {run.output[:100]!r} {run.detail}"
    run = sandbox.run(Program("def add(a, b): return a + b", function="add"), ["[20, 22]"], _QUICK)[0]
    return "" if (run.status, run.output) == (Status.OK, b"42") else f"add(20, 22) gave {run.status}: {run.detail}"


def _ends_a_loop(sandbox: Sandbox) -> str:
    started = time.monotonic()
    run = _run(sandbox, _LOOP, limits=Limits(wall_s=0.3))
    if run.status is not Status.TIME_LIMIT:
        return f"an endless loop gave {run.status}"
    return "" if time.monotonic() - started < 10 else f"an endless loop cost {time.monotonic() - started:.0f} s"


def _ends_a_memory_bomb(sandbox: Sandbox) -> str:
    run = _run(sandbox, _MEMORY, limits=Limits(memory_mib=256))
    return "4 GiB were held within 256 MiB" if run.status is Status.OK or b"held" in run.output else ""


def _no_fork(sandbox: Sandbox) -> str:
    return _nothing_printed(_run(sandbox, _FORK))


def _clean_environment(sandbox: Sandbox) -> str:
    run = _run(sandbox, _ENVIRONMENT)
    if run.status is not Status.OK:
        return f"{run.status}: {run.detail}"
    ours = {name: value for name, value in os.environ.items() if CLEAN_ENVIRONMENT.get(name) != value}
    # A short value ("1", "root") may well be another program's too.
    leaked = [
        name
        for name, value in ours.items()
        if len(value) >= 8 and ascii(f"{name}={value}".encode()) in run.output.decode()
    ]
    leaked += [name for name in _NAMES.findall(run.output.decode()) if SECRET.search(name)]
    return f"{', '.join(leaked)} of an environment can be read" if leaked else ""


def _no_files(sandbox: Sandbox) -> str:
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text(secret, encoding="utf-8")
        os.chmod(folder, 0o755)
        os.chmod(key, 0o644)
        paths = [str(key), f"/proc/{os.getpid()}/root{key}", "/etc/shadow", "/etc/passwd"]
        paths += [str(path) for path in _files_at_home()]
        return _nothing_printed(_run(sandbox, f"PATHS = {paths!r}\n{_FILES}"))


def _files_at_home() -> list[Path]:
    try:
        return [path for path in Path.home().iterdir() if path.is_file()][:20]
    except (OSError, RuntimeError):
        return []


def _no_writing(sandbox: Sandbox) -> str:
    name = f"canary-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        folders = [
            folder,
            "/",
            "/tmp",
            "/var/tmp",
            "/dev/shm",
            "/dev",
            "/run",
            os.path.expanduser("~"),
            os.getcwd(),
            ".",
        ]
        run = _run(sandbox, f"FOLDERS, NAME = {folders!r}, {name!r}\n{_WRITE}")
        made = [path for path in (os.path.join(folder, name) for folder in folders[:-1]) if os.path.exists(path)]
        for path in made:
            os.unlink(path)
        return f"it wrote {', '.join(made)}" if made else _nothing_printed(run)


def _no_network(sandbox: Sandbox, address: tuple[str, int]) -> str:
    host, port = address
    return _nothing_printed(_run(sandbox, f"HOST, PORT = {host!r}, {port}\n{_NETWORK}"))


def _compiles(sandbox: Sandbox) -> str:
    runs = sandbox.run(Program(_CPP, "cpp"), ["20 22\n"], _QUICK)
    return "" if runs[0].output == b"42\n" else f"20 + 22 gave {runs[0].status}: {runs[0].detail}"


def _no_include(sandbox: Sandbox) -> str:
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text(f'"{secret}"', encoding="utf-8")
        os.chmod(folder, 0o755)
        os.chmod(key, 0o644)
        source = f'#include <cstdio>\nint main() {{ puts(\n#include "{key}"\n); }}'
        run = sandbox.run(Program(source, "cpp"), [""], _QUICK)[0]
    return "" if run.status is Status.COMPILE_ERROR and secret not in run.detail else "a file outside was included"


@contextmanager
def _listener() -> Iterator[tuple[str, int]]:
    """A place on this machine that can be reached, were there a way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    server.accept()[0].close()
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            done.set()
            thread.join()
