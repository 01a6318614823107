"""A real server on 127.0.0.1, vLLM's above all, started by the project's own command, ended with the block."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning_r1.rollout.serve_vllm import serve_command, serve_environment

SMALL = ("--enforce-eager", "--max-num-seqs", "64", "--kv-cache-memory-bytes", str(1 << 28), "--dtype", "float32")


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()[-4000:]
        with suppress(OSError), urllib.request.urlopen(health, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(f"the server did not get up: {log.read_text()[-4000:]}")


@contextmanager
def vllm_server(model: Path, log: Path) -> Iterator[str]:
    """Its address, once it is up.

    Args:
        model: a folder.
        log: what it prints.
    """
    environment = serve_environment({**os.environ, "PYTHONUNBUFFERED": "1"})
    with http_server(lambda port: serve_command(str(model), *SMALL, port=port), log, environment) as address:
        yield address


@contextmanager
def http_server(command: Callable[[int], list[str]], log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a server with ``/health``, once it is up; it is ended with the block.

    Args:
        command: its command line, for a port of 127.0.0.1.
        log: what it prints.
        environment: of the process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as file:
        process = subprocess.Popen(
            command(port),
            env=dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, that can be ended as one
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
