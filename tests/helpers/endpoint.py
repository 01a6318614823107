"""An OpenAI-compatible endpoint on 127.0.0.1 that answers what the test says."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

Misbehave = Callable[[socket.socket, threading.Event], None]
"""Writes to the socket whatever it likes; the event is set when the server ends."""
Answer = str | int | bytes | tuple[int, dict[str, str]] | Misbehave
"""Of the assistant; or a status code, a raw body, a status code with headers, anything else."""


class Endpoint:
    """Where it listens, and what it was asked: ``requests`` holds ``(path, headers, body)``."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.url = ""


@contextmanager
def endpoint(answer: Callable[[dict[str, Any]], Answer], *, port: int = 0) -> Iterator[Endpoint]:
    """Serve until the block ends.

    Args:
        answer: is given the request's body.
        port: to listen on; 0 is any that is free.
    """
    told = Endpoint(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
            with told.lock:
                told.requests.append((self.path, dict(self.headers), body))
                answered = told.answer(body)
            if callable(answered):
                self.close_connection = True
                with suppress(OSError):  # the client has gone
                    answered(self.connection, told.ended)
            elif isinstance(answered, bytes):
                self._send(200, {}, answered)
            elif isinstance(answered, str):
                self._send(200, {}, reply_body(answered))
            else:
                status, headers = answered if isinstance(answered, tuple) else (answered, {})
                self._send(status, headers, b"told to")

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            with suppress(OSError):
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # a sixth connection at a time would be a second late

    server = Server(("127.0.0.1", port), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        told.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def reply_body(text: str, **more: Any) -> bytes:
    """What an endpoint sends when its model says a text."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], **more}).encode()


def http(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A whole reply; ``length`` is the one that is announced, if not the body's."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def sends(data: bytes) -> Misbehave:
    """Sends this and hangs up."""
    return lambda connection, ended: connection.sendall(data)


def hangs(connection: socket.socket, ended: threading.Event) -> None:
    """Takes the question and says nothing."""
    ended.wait(60)


def drips(data: bytes, *, every_s: float = 0.05) -> Misbehave:
    """A byte now and then: a socket's timeout begins anew with each."""

    def drip(connection: socket.socket, ended: threading.Event) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            if ended.wait(every_s):
                return

    return drip


def floods(most: int) -> Misbehave:
    """Announces nothing and sends JSON without end, up to ``most`` bytes."""

    def flood(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"choices": "')
        for _ in range(most >> 16):
            connection.sendall(b"a" * (1 << 16))

    return flood


def skip_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries pass at once, and a client's clock is put forward by them.

    So a deadline can be long enough for honest requests on a loaded machine, and is over as soon as it is waited for.
    """
    skipped = [0.0]

    def sleep(seconds: float) -> None:
        skipped[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped[0], sleep=sleep)
    monkeypatch.setattr("lightning_r1.remote.chat.time", clock)
