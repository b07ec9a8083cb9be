"""A target of the fuzzers, and what their seeds are made with."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from rootfs.errors import OcibuildError


@dataclass(frozen=True)
class Target:
    """`read` may raise OcibuildError; `longest` is the size in bytes of the largest input to try."""

    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    longest: int

    def run(self, data: bytes) -> None:
        """Read; an OcibuildError is an answer."""
        with suppress(OcibuildError):
            self.read(data)


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive with as little at its end as may be."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset
    return stream.getvalue()[: end + 512]


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a tar."""
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def checked(data: bytes) -> bytes:
    """A tar with the checksums of its headers made good, unless the last byte says otherwise."""
    blocks = bytearray(data)
    if data[-1:] != b"\xff":
        for start in range(0, len(blocks) - 511, 512):
            if blocks[start + 257 : start + 262] == b"ustar":
                blocks[start + 148 : start + 156] = b" " * 8
                blocks[start + 148 : start + 156] = f"{sum(blocks[start : start + 512]):06o}\0 ".encode()
    return bytes(blocks)
