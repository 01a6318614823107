"""A W&B server that keeps what it is sent and gives wandb's own process the answers it needs; or is out of order."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

WORKS, HANGS = 200, 0


class WandbServer(ThreadingHTTPServer):
    """Answers on a free port of this machine.

    Attributes:
        state: ``WORKS``, ``HANGS``, or the status with which everything is refused.
        asked: of every GraphQL request its operation and variables.
        history: every line of every run's history, in the order of arrival.
        files: by name, what was uploaded.
    """

    daemon_threads = True

    def __init__(self, state: int = WORKS) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state, self.released = state, threading.Event()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.history: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """For ``WANDB_BASE_URL``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, operation: str) -> list[dict[str, Any]]:
        """Variables of every request of an operation."""
        return [variables for name, variables in self.asked if name == operation]


@contextmanager
def serve(state: int = WORKS) -> Iterator[WandbServer]:
    """A server while it is wanted."""
    server = WandbServer(state)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def log_in(patch: pytest.MonkeyPatch, url: str) -> None:
    """As somebody whom only that server knows."""
    patch.setenv("WANDB_API_KEY", "a" * 40)
    patch.setenv("WANDB_BASE_URL", url)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *words: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self._body()
        if self._out_of_order():
            return
        if self.path.endswith("/graphql"):
            request = json.loads(body)
            (operation,) = re.findall(r"(?:query|mutation)\s+(\w+)", request["query"])[:1]
            variables = request.get("variables") or {}
            self.server.asked.append((operation, variables))
            self._answer({"data": _data(operation, variables, self.server.url)})
            return
        if self.path.endswith("/file_stream"):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.server.history += [json.loads(line) for line in lines]
        self._answer({})

    def do_PUT(self) -> None:
        body = self._body()
        if not self._out_of_order():
            self.server.files[self.path.removeprefix("/upload/")] = body
            self._answer({})

    def do_GET(self) -> None:
        if not self._out_of_order():
            self._answer({})

    def _out_of_order(self) -> bool:
        if self.server.state == HANGS:
            self.server.released.wait()
        if self.server.state != WORKS:
            self._answer({"errors": [{"message": "out of order"}]})
        return self.server.state != WORKS

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, said: dict[str, Any]) -> None:
        body = json.dumps(said).encode()
        self.send_response(self.server.state or 503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _data(operation: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    """What an operation is answered with; artifacts are known by their digest, as W&B does."""
    asked = variables.get("input", variables)
    project = {"id": "p", "name": "project", "entity": {"id": "e", "name": "me"}}
    upload = {"uploadUrl": f"{url}/upload/manifest", "uploadHeaders": []}
    if operation == "Viewer":
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
    if operation == "ServerFeaturesQuery":
        return {"serverInfo": {"features": []}}
    if operation == "RunResumeStatus":
        return {"model": {**project, "bucket": None}}
    if operation == "UpsertBucket":
        bucket = {"id": "b", "name": asked["name"], "displayName": asked["displayName"], "config": "{}",
                  "historyLineCount": 0, "project": project}  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
    if operation == "CreateArtifact":
        artifact = {"id": asked["digest"], "digest": asked["digest"], "state": "PENDING", "aliases": [],
                    "artifactSequence": {"id": "s", "latestArtifact": None}}  # fmt: skip
        return {"createArtifact": {"artifact": artifact}}
    if operation in ("CreateArtifactManifest", "UpdateArtifactManifest"):
        answer = operation[0].lower() + operation[1:]
        return {
            answer: {"artifactManifest": {"id": "m", "file": {"id": "f", "name": "m", "displayName": "m", **upload}}}
        }
    if operation == "CreateArtifactFiles":
        nodes = [
            {"id": "f", "name": file["name"], "displayName": file["name"], "uploadHeaders": [],
             "uploadUrl": f"{url}/upload/artifact/{file['name']}", "artifact": {"id": file["artifactID"]}}
            for file in asked["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
    if operation == "CommitArtifact":
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": asked["artifactID"]}}}
    if operation == "UseArtifact":
        return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}
    if operation == "NotifyScriptableRunAlert":
        return {"notifyScriptableRunAlert": {"success": True}}
    return {}
