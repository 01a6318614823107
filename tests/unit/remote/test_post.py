"""One request against a server that does what it should not: it ends in time and in memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

import pytest

from helpers.endpoint import Answer, drips, endpoint, floods, hangs, http, sends
from lightning_r1.remote.post import Post, Reply, ReplyTooLong


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def send(answer: Answer, *, timeout_s: float = 20.0, most_bytes: int = 1000) -> Reply:
    with endpoint(lambda body: answer) as server:
        return Post(most_bytes).send(server.url, b"{}", {"X-Mine": "1"}, timeout_s=timeout_s)


def test_a_reply() -> None:
    reply = send(sends(http(b"hello", "X-Its: 2")))
    assert (reply.status, reply.body, reply.headers["X-Its"]) == (200, b"hello", "2")
    assert send((503, {"Retry-After": "7"})) == Reply(503, send((503, {"Retry-After": "7"})).headers, b"told to")


@pytest.mark.parametrize(
    "answer",
    [
        hangs,
        drips(http(b"a" * 60)),
        drips(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12),
        drips(b"HTTP/1.1 503 Busy\r\nContent-Length: 60\r\n\r\n" + b"a" * 60),
        drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 12),
    ],
    ids=["silence", "body", "headers", "error", "chunks"],
)
def test_it_ends_in_time_however_little_comes(answer: Callable[..., None]) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"nothing whole within 0\.4 s|timed out"):
        send(answer, timeout_s=0.4)
    assert time.monotonic() - started < 5


def test_it_ends_in_time_if_it_is_connected_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a host has two addresses, of which the first does not answer."""
    connect = socket.create_connection

    def late(*arguments: Any, **options: Any) -> socket.socket:
        time.sleep(0.6)
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", late)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"nothing whole within 0\.4 s"):
        send(drips(http(b"a" * 400)), timeout_s=0.4)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("answer", [floods(1 << 26), sends(http(b"a" * 1001)), sends(http(b"a" * 1001, length=10**12))])
def test_it_reads_no_more_than_it_may(answer: Answer) -> None:
    with pytest.raises(ReplyTooLong, match="more than 1,000 bytes"):
        send(answer)
    assert len(send(sends(http(b"a" * 1000))).body) == 1000


@pytest.mark.parametrize(
    "answer",
    [
        sends(b""),
        sends(b"nonsense"),
        sends(http(b"cut", length=10)),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        sends(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000),
    ],
    ids=["hangs up", "no HTTP", "cut short", "cut chunk", "endless header"],
)
def test_what_is_not_whole_is_an_error(answer: Answer) -> None:
    with pytest.raises((OSError, HTTPException)):
        send(answer)


def test_a_redirection_is_not_followed() -> None:
    with endpoint(lambda body: b"stolen") as other:
        assert send((302, {"Location": other.url})).status == 302
        assert send((307, {"Location": other.url})).status == 307
        assert other.requests == []
