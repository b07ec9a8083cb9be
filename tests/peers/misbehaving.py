"""A client whose clock never waits, and a server in a thread that misbehaves on purpose: it is scripted by path."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rootfs.errors import TransferError
from rootfs.ports import Request, Transport
from rootfs.transport import HttpTransport

BODY = hashlib.shake_256(b"a body of no special content").digest(700_000)
Answer = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """Each path has its answers, given in order; the last one stays. `seen` is what came in."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.lock = threading.Lock()

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.seen]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news here."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.seen.append((self.command, self.path, headers, body))
            answers = self.server.answers[self.path]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815 - the names http.server looks for

    def log_message(self, *_: object) -> None:
        """Silence."""


def page(body: bytes = b"", status: int = 200, sent: int | None = None, **headers: Any) -> Answer:
    """An answer; only the first `sent` bytes of its body come, then the connection ends."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[:sent])
        handler.close_connection = sent is not None

    return answer


def ranged(body: bytes, **headers: Any) -> Answer:
    """The part of the body that Range asks for."""

    def answer(handler: Handler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        told = f"bytes {start}-{len(body) - 1}/{len(body)}"
        page(body[start:], 206, Content_Range=told, **headers)(handler)

    return answer


def dropped(handler: Handler) -> None:
    handler.close_connection = True


def reset(handler: Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def half_chunked(handler: Handler) -> None:
    """A body of unknown length that breaks off after 1000 bytes."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%s\r\n" % (1000, BODY[:1000]))
    handler.close_connection = True


def until_closed(body: bytes) -> Answer:
    """A body of unknown length that ends with the connection."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


@contextmanager
def serving() -> Iterator[Server]:
    """The server, as long as the `with` lasts."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port of the loopback that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@contextmanager
def transport(clock: Clock, **options: object) -> Iterator[HttpTransport]:
    settings: dict[str, object] = {"timeouts": (2.0, 2.0), "jitter": lambda: 1.0, **options}
    with HttpTransport(clock=lambda: clock.now, sleep=clock.sleep, **settings) as real:  # type: ignore[arg-type]
        yield real


def get(http: Transport, url: str, **options: object) -> bytes:
    with http.send(Request(method="GET", url=url, **options)) as response:  # type: ignore[arg-type]
        assert response.status == 200
        return response.read()


def failure(http: Transport, request: Request) -> TransferError:
    with pytest.raises(TransferError) as caught, http.send(request) as response:
        response.read()
    return caught.value
