"""A socket that is written without waiting and read line by line, for one thread with a selector."""

from __future__ import annotations

import array
import contextlib
import os
import selectors
import socket
from collections import deque
from collections.abc import Iterator

MAX_LINE = 1 << 20
"""Bytes; who writes more without an end of line is not one of ours."""


class Channel:
    """One end of a socket pair.

    Args:
        connection: the socket; closed with the channel.
        selector: in which the channel registers itself, its data.
    """

    def __init__(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        connection.setblocking(False)
        self.connection, self.selector = connection, selector
        self.outbox: deque[tuple[memoryview, int | None]] = deque()
        self.inbox = b""
        self.open = True
        selector.register(connection, selectors.EVENT_READ, self)

    def send(self, data: bytes, fd: int | None = None) -> None:
        """Write as soon as there is room; ``fd`` goes along, and is closed here."""
        self.outbox.append((memoryview(data), fd))
        if len(self.outbox) == 1:
            self.flush()

    def flush(self) -> None:
        """Write what there is room for."""
        while self.outbox and self.open:
            data, fd = self.outbox[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
            try:
                sent = self.connection.sendmsg([data], rights)
            except BlockingIOError:
                break
            except OSError:  # the other end is gone; whoever reads will see it
                self.outbox.clear()
                break
            if fd is not None:
                os.close(fd)
            if sent == len(data):
                self.outbox.popleft()
            else:
                self.outbox[0] = (data[sent:], None)
        if self.open:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outbox else 0)
            self.selector.modify(self.connection, wanted, self)

    def lines(self) -> Iterator[bytes]:
        """The lines that are whole by now; ``open`` is False behind the end."""
        while self.open:
            try:
                data = self.connection.recv(1 << 18)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.close()
                break
            *lines, self.inbox = (self.inbox + data).split(b"\n")
            yield from lines
            if len(self.inbox) > MAX_LINE:
                self.close()

    def close(self) -> None:
        """Let go of the socket, and of what was not written."""
        if self.open:
            self.open = False
            self.selector.unregister(self.connection)
            with contextlib.suppress(OSError):
                # also for copies: a process that the trainer forked may hold this end open
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()
        for _, fd in self.outbox:
            if fd is not None:
                os.close(fd)
        self.outbox.clear()
