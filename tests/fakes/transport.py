"""A Transport without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload


class FakeTransport:
    """`rootfs.ports.Transport` whose answers a function makes; it keeps every request it saw."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self.requests: list[Request] = []
        self._answer = answer
        self._lock = threading.Lock()

    def send(self, request: Request) -> Response:
        with self._lock:
            self.requests.append(request)
        return self._answer(request)


def reply(request: Request, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Response:
    """An answer with a Content-Length, and without a body for HEAD."""
    chunks = iter([body] if body and request.method != "HEAD" else [])
    given = {"Content-Length": str(len(body)), **(headers or {})}
    return Response(status=status, url=request.url, headers=given, chunks=chunks)


def pages(contents: Mapping[str, bytes | Exception]) -> FakeTransport:
    """A web of fixed pages: GET and HEAD of a known URL, 404 for the rest; an exception is raised."""

    def answer(request: Request) -> Response:
        content = contents.get(request.url)
        if isinstance(content, Exception):
            raise content
        if content is None:
            return reply(request, 404, b"no such page")
        return reply(request, 200, content)

    return FakeTransport(answer)


def body_of(request: Request) -> bytes:
    """What a request would send."""
    if isinstance(request.body, Upload):
        data = bytearray()
        with request.body.open() as stream:
            while chunk := stream.read(min(1 << 14, request.body.size - len(data))):
                data += chunk
        if len(data) != request.body.size:
            raise TransferError("the body is shorter than announced")
        return bytes(data)
    return request.body or b""
