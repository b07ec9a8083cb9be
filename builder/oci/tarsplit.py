"""Tar-split: all of a tar but the contents of its files, as lines of JSON (vbatts/tar-split, tar/storage).

Law: pure. With it and the files a reader that never had the tar makes it again, to the byte, and so checks its diff id.
A line is a segment (a header, after the padding of the file before it) or a file, which has the CRC-64 of its content.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from rootfs.digest import canonical_json

_BLOCK = 512
_PIECE = 1 << 16  # as much as fits the second cache together with what is made of it
CRC_BEGIN = (1 << 64) - 1
"""The CRC of no bytes, before `crc_end`."""


class TarSplit:
    """The lines of one archive, made as its members come."""

    def __init__(self) -> None:
        self._position = 0
        self._padding = b""

    def member(self, name: str, header: bytes, size: int, crc: int) -> Iterator[bytes]:
        """A member's two lines; `size` and `crc` are its content's."""
        yield self._line({"type": 2, "payload": _base64(self._padding + header)})
        file = {"type": 1, "name": name, "payload": None}
        if size:
            file |= {"size": size, "payload": _base64(crc.to_bytes(8, "big"))}
        yield self._line(file)
        self._padding = bytes(-size % _BLOCK)

    def end(self, data: bytes) -> bytes:
        """The last line: what ends the archive."""
        return self._line({"type": 2, "payload": _base64(self._padding + data)})

    def _line(self, value: dict[str, object]) -> bytes:
        value["position"] = self._position
        self._position += 1
        return canonical_json(value) + b"\n"


def crc_update(crc: int, content: memoryview) -> int:
    """The CRC-64 of ISO 3309 (x^64 + x^4 + x^3 + x + 1) with these bytes more; begins with CRC_BEGIN.

    The bytes are one large number, a polynomial with the highest degree in the lowest bit, and its remainder is wanted.
    (1 + x)(1 + x^3) is the divisor less x^64, and squaring it squares each term. So the terms from x^(64k) on, where k
    is a power of two, fold into the others by two shifts: half of the number is gone at once, at memory's speed.
    """
    for start in range(0, len(content), _PIECE):
        piece = content[start : start + _PIECE]
        crc = _remainder(int.from_bytes(piece, "little") ^ crc, 8 * len(piece) + 64)
    return crc


def crc_end(crc: int) -> int:
    """The CRC of all bytes that `crc_update` has had."""
    return crc ^ CRC_BEGIN


def _remainder(number: int, width: int) -> int:
    """What a polynomial of `width` bits leaves: 64 bits."""
    while width > 64:
        kept = 64 << (((width - 1) // 64).bit_length() - 1)
        if kept >= width:
            kept //= 2
        step = kept // 64
        high = number & ((1 << (width - kept)) - 1)
        high ^= high << step
        high ^= high << 3 * step
        number >>= width - kept
        width, over = max(kept, width - kept + 4 * step), width - kept + 4 * step - kept
        number = number << over ^ high if over > 0 else number ^ high << -over
    return number


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
