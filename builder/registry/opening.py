"""Opening: the POST that an upload begins with, sent while the registry is still asked whether it has the blob.

Law: knows two requests that are under way at a time, not what their answers mean: that is `upload`'s. A session that
turns out not to be wanted is given back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from builder.registry.upload import location
from rootfs.errors import TransferError
from rootfs.ports import Request, Response


class Opening:
    """A request that was sent ahead by `send`, for a dialogue that may come to it; end it with a `with`."""

    def __init__(self, send: Callable[[Request], Response], request: Request) -> None:
        self._send = send
        self._request = request
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(send, request)
        self._taken = False

    def send(self, request: Request) -> Response:
        """The answer to a request; what was sent ahead is not sent a second time."""
        if self._taken or (request.method, request.url) != (self._request.method, self._request.url):
            return self._send(request)
        self._taken = True
        return self._answer.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if self._taken:
            return
        with suppress(TransferError):
            with self._answer.result() as response:
                found = location(response, None) if response.status == 202 else None
            if found:
                self._send(Request(method="DELETE", url=found, attempts=1)).close()
