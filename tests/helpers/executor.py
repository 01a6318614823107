"""A reference server of the remote executor's protocol, on 127.0.0.1: it wraps a sandbox of this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lightning_r1.sandbox.base import Limits, Program, Sandbox

Answer = bytes | int | Iterable[bytes]
"""A body with status 200, or a status; or a body in pieces, as they come."""


def answer_with(sandbox: Sandbox) -> Callable[[dict[str, Any]], Answer]:
    """What an executor answers a question."""

    def answer(question: dict[str, Any]) -> Answer:
        runs = sandbox.run(Program(**question["program"]), question["inputs"], Limits(**question["limits"]))
        told = [
            {
                "status": run.status, "output": base64.b64encode(run.output).decode(),
                "seconds": run.seconds, "detail": run.detail,
            }
            for run in runs
        ]  # fmt: skip
        return json.dumps({"runs": told}).encode()

    return answer


@contextmanager
def executor(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve until the block ends; gives the address, and the questions so far."""
    questions: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            questions.append({**question, "headers": dict(self.headers)})
            answered = answer(question)
            if not isinstance(answered, bytes | int):
                self._drip(answered)
                return
            body = answered if isinstance(answered, bytes) else b"told to"
            self.send_response(answered if isinstance(answered, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _drip(self, pieces: Iterable[bytes]) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # nobody listens any more
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/run", questions
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
