"""One HTTP request that ends in time and in memory, whatever the other side does."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR, socket
from typing import Any

_MOST_OF_AN_ERROR = 300


class ReplyTooLong(ValueError):
    """The body has more bytes than are read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; of an error only its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Post:
    """Posts to one address after the other; threads may share it. Redirections are not followed.

    Args:
        most_bytes: of a reply's body.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._opener = urllib.request.build_opener(_NoRedirect(), _Http(), _Https())

    def send(
        self, url: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float, method: str = "POST"
    ) -> Reply:
        """Send and read.

        Args:
            url: where to.
            body: sent as it is, if there is one.
            headers: besides the usual.
            timeout_s: of all of it. A socket's own timeout begins anew with every byte.
            method: of the request.

        Raises:
            TimeoutError: if the reply was not whole in time.
            OSError: if there is no connection.
            HTTPException: if what comes is not HTTP, or is cut short.
            ReplyTooLong: for a body of more than ``most_bytes``.
        """
        request = urllib.request.Request(url, data=body, headers=dict(headers), method=method)
        with _wall_clock(request, timeout_s):
            try:
                with self._opener.open(request, timeout=timeout_s) as response:
                    read = response.read(self.most_bytes + 1)
                    short = response.length  # bytes that were announced and did not come
            except urllib.error.HTTPError as error:
                with error:
                    return Reply(error.code, dict(error.headers), error.read(_MOST_OF_AN_ERROR))
        if len(read) > self.most_bytes:
            raise ReplyTooLong(f"the reply has more than {self.most_bytes:,} bytes")
        if short:
            raise HTTPException(f"the reply ended {short} bytes before its end")
        return Reply(response.status, dict(response.headers), read)


@contextmanager
def _wall_clock(request: urllib.request.Request, timeout_s: float) -> Iterator[None]:
    """Cut the request's connection when its time is up."""
    up = vars(request)["up"] = threading.Event()

    def cut() -> None:
        up.set()
        for connection in vars(request).get("connections", ()):
            if connection.held is not None:
                with suppress(OSError):  # closed already
                    connection.held.shutdown(SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if up.is_set():
            raise TimeoutError(f"nothing whole within {timeout_s:g} s") from error
        raise
    finally:
        timer.cancel()
    if up.is_set():
        raise TimeoutError(f"nothing whole within {timeout_s:g} s")


class _Held:
    """A connection that keeps hold of its socket, which urllib takes away from it."""

    held: socket | None = None
    sock: socket
    up: threading.Event
    """Set when its time is up; it may be connected only then, at the second of a host's addresses, say."""

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.held = self.sock
        if self.up.is_set():
            raise TimeoutError


class _HeldConnection(_Held, HTTPConnection):
    """Plain."""


class _HeldSecureConnection(_Held, HTTPSConnection):
    """With TLS."""


def _remember(request: Any, kind: type) -> Any:
    def connection(*arguments: Any, **options: Any) -> Any:
        made = kind(*arguments, **options)
        made.up = vars(request)["up"]
        vars(request).setdefault("connections", []).append(made)
        return made

    return connection


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_remember(req, _HeldConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_remember(req, _HeldSecureConnection), req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for the host it was given for."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Leave a redirection an error."""
        return
