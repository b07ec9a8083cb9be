"""Bodies of requests: inside the kernel where it can be, read and sent where not; the same bytes, and as many."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from rootfs.errors import TransferError
from rootfs.ports import Request, Upload
from rootfs.transport import HttpTransport
from tests.peers.misbehaving import BODY, Clock, Server, page, serving, transport

LARGE = BODY * 20  # 14 MB: more than a socket takes at once


class FileBody(io.RawIOBase):
    """A file that sends itself, or refuses to; `read_calls` counts what was read instead."""

    def __init__(self, path: Path, refusal: int = 0) -> None:
        self._stream = path.open("rb")
        self._refusal = refusal
        self._position = 0
        self.kernel = self.read_calls = 0

    def send_to(self, target: int, size: int) -> int:
        if self._refusal:
            raise OSError(self._refusal, os.strerror(self._refusal))
        sent = os.sendfile(target, self._stream.fileno(), self._position, size)
        self._position += sent
        self.kernel += sent
        return sent

    def read(self, size: int = -1) -> bytes:
        self.read_calls += 1
        return self._stream.read(size)

    def close(self) -> None:
        self._stream.close()
        super().close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.answers = {"/": [page()]}
        yield server


@pytest.fixture
def http() -> Iterator[HttpTransport]:
    with transport(Clock()) as real:
        yield real


def send(http: HttpTransport, server: Server, body: FileBody, size: int) -> None:
    upload = Upload(open=lambda: cast(BinaryIO, body), size=size)
    with http.send(Request(method="PUT", url=f"{server.url}/", body=upload)) as response:
        assert response.status == 200


@pytest.mark.parametrize("data", [b"x", BODY, LARGE], ids=["one byte", "some", "large"])
def test_a_file_goes_inside_the_kernel(server: Server, http: HttpTransport, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "blob").write_bytes(data)
    body = FileBody(tmp_path / "blob")
    send(http, server, body, len(data))
    assert server.seen[0][3] == data
    assert server.seen[0][2]["content-length"] == str(len(data))
    assert (body.kernel, body.read_calls) == (len(data), 0)


def test_what_cannot_is_read(server: Server, http: HttpTransport, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(LARGE)
    body = FileBody(tmp_path / "blob", errno.EINVAL)
    send(http, server, body, len(LARGE))
    assert server.seen[0][3] == LARGE
    assert body.kernel == 0
    assert body.read_calls < len(LARGE) / 100_000  # not in the library's pieces of 16 KiB


def test_no_more_than_announced_is_sent(server: Server, http: HttpTransport, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BODY)
    send(http, server, FileBody(tmp_path / "blob"), 1000)
    assert server.seen[0][3] == BODY[:1000]


def test_a_file_that_is_too_short(server: Server, http: HttpTransport, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(BODY)
    with pytest.raises(TransferError, match="the body is 5 bytes shorter than announced"):
        send(http, server, FileBody(tmp_path / "blob"), len(BODY) + 5)
