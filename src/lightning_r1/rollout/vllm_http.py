"""A vLLM server's routes, each call with a deadline and errors by name."""

from __future__ import annotations

import json
import os
from http.client import HTTPException
from typing import Any

from lightning_r1.remote.post import Post, ReplyTooLong
from lightning_r1.rollout.engine import EngineError

_MOST_BYTES = 1 << 30
FIX = "look at the server's log, and start it with python -m lightning_r1.rollout.serve_vllm MODEL"


class VLLMRoutes:
    """Asks a server; threads may share it.

    Args:
        url: of the server, without ``/v1``.
        api_key_env: variable with the key that it asks for, if it asks for one.
        timeout_s: of a request, if nothing else is said.
        sync_s: of a call of a worker's method.
    """

    def __init__(self, url: str, api_key_env: str, *, timeout_s: float, sync_s: float) -> None:
        self.url, self.api_key_env, self.timeout_s, self.sync_s = url, api_key_env, timeout_s, sync_s
        self.post = Post(_MOST_BYTES)

    def remote(self, method: str, *arguments: Any) -> Any:
        """Call a method of :class:`.WeightReceiver` in every process that serves; what the first one says."""
        call = {"method": method, "args": arguments, "timeout": self.sync_s}
        return (self.ask("/collective_rpc", call, seconds=self.sync_s).get("results") or [None])[0]

    def ask(self, path: str, body: Any, *, seconds: float | None = None, method: str = "POST") -> dict[str, Any]:
        """The JSON object that comes back.

        Args:
            path: of the route.
            body: sent as JSON; None sends nothing.
            seconds: it may take.
            method: of the request.

        Raises:
            EngineError: for whatever else happens; names the address, and the seconds or what was said.
        """
        url, seconds = self.url + path, self.timeout_s if seconds is None else seconds
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            reply = self.post.send(url, data, headers, timeout_s=seconds, method=method)
            told = json.loads(reply.body) if reply.status == 200 and reply.body.strip() else {}
        except TimeoutError as error:
            raise EngineError(f"{url}: no whole answer within {seconds:g} s; {FIX}") from error
        except (OSError, HTTPException, ReplyTooLong, ValueError, RecursionError) as error:
            said = " ".join(str(error).split())
            raise EngineError(f"{url}: {type(error).__name__}: {said}; {FIX}") from error
        if reply.status == 401:
            fix = f"it asks for a key: put it into the variable {self.api_key_env} (rollout.api_key_env)"
            raise EngineError(f"{url}: HTTP {reply.status}; {fix}")
        if reply.status != 200:
            said = " ".join(reply.body.decode(errors="replace").split())
            raise EngineError(f"{url}: HTTP {reply.status}: {said}; {FIX}")
        if not isinstance(told, dict):
            raise EngineError(f"{url}: the reply is no JSON object; {FIX}")
        return told
