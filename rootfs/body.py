"""The body of a request as it goes over a connection: in pieces, and where nothing is encrypted inside the kernel.

Law: knows streams and sockets, no HTTP beyond who sends what. A body is exactly as long as was announced.

What sends inside the kernel has a method `send_to` (see `SendsItself`); everything else is read and sent.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, runtime_checkable

from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection

from rootfs.errors import TransferError
from rootfs.ports import Upload

CHUNK = 1 << 18
_AT_ONCE = 1 << 20


@runtime_checkable
class SendsItself(Protocol):
    """A stream that can be sent without being read."""

    def send_to(self, target: int, size: int) -> int:
        """Send up to `size` bytes from here on to a socket, by sendfile(2); how many it took, 0 at the end.

        BlockingIOError when it takes none just now; another OSError when this cannot be done, or the connection broke.
        """


class Sized:
    """A stream of which exactly `size` bytes are sent; its length is the Content-Length.

    It has no `read`, lest it be read in the library's small pieces; what it iterates over is the whole of it.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._size = size
        self._rest = _Rest(stream, size)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[_Rest]:
        yield self._rest


class _Rest:
    """What is left of a body: read in pieces, or sent as a file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, _size: int = -1) -> bytes:
        """The next piece, of a size of its own (http.client wants 16 KiB)."""
        data = self._stream.read(min(CHUNK, self._left))
        self._took(len(data))
        return data

    def send_to(self, sock: socket.socket) -> bool:
        """Send all of it inside the kernel; False when that cannot be done, and nothing was sent."""
        stream = self._stream
        if not isinstance(stream, SendsItself):
            return False
        begun = False
        while self._left:
            try:
                sent = stream.send_to(sock.fileno(), min(_AT_ONCE, self._left))
            except BlockingIOError:
                _wait(sock)
                continue
            except OSError:
                if begun or not _connected(sock):
                    raise
                return False
            begun = True
            self._took(sent)
        return True

    def _took(self, amount: int) -> None:
        if not amount and self._left:
            raise TransferError(f"the body is {self._left} bytes shorter than announced")
        self._left -= amount


def _wait(sock: socket.socket) -> None:
    """Until the socket takes something again, as long as its timeout allows."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    timeout = sock.gettimeout()
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")


def _connected(sock: socket.socket) -> bool:
    """Whether nothing is wrong with the connection itself."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


@contextmanager
def opened(body: bytes | Upload | None) -> Iterator[bytes | Sized | None]:
    """A body from its beginning; an empty one is no stream, which would be sent in chunks."""
    if isinstance(body, Upload):
        with body.open() as stream:
            yield Sized(stream, body.size) if body.size else b""
    else:
        yield body


class _Connection(HTTPConnection):
    def send(self, data: Any) -> None:
        """Called for each piece of a body."""
        if isinstance(data, _Rest) and self.sock is not None and data.send_to(self.sock):
            return
        super().send(data)


class PlainPool(HTTPConnectionPool):
    """urllib3's connections to a host over plain http, which send files inside the kernel."""

    ConnectionCls = _Connection
