"""A TCP proxy on the loopback that counts what clients send, and may stop to pass it on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Gate:
    """`host` is where clients connect; `sent` the bytes that clients sent through.

    Before each piece is passed on, `holds(piece, sent)` says whether everything stops; `held` is set when it did.
    """

    def __init__(self, upstream: str) -> None:
        name, _, port = upstream.rpartition(":")
        self._upstream = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.host = f"localhost:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.held = threading.Event()
        self.holds: Callable[[bytes, int], bool] = lambda piece, sent: False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Cut everything."""
        self.cut()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Cut the connections there are; new ones are welcome."""
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(self._upstream)
                except OSError:  # nobody is there at the moment
                    client.close()
                    continue
                self._ends += [client, server]
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if counted and (self.held.is_set() or self.holds(data, self.sent)):
                    self.held.set()
                    while source.recv(65536):  # swallow it until the client is gone
                        pass
                    break
                if counted:
                    self.sent += len(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def gate(upstream: str) -> Iterator[Gate]:
    """A Gate before `host:port`, as long as the `with` lasts."""
    found = Gate(upstream)
    try:
        yield found
    finally:
        found.close()
