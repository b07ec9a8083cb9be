"""Table of contents: what a seekable layer says of each member, and where its content lies in the blob.

Law: pure. What it says of a member it reads from the very header that stands in the tar, so the two agree. eStargz and
zstd:chunked have the same words for it, both from CRFS; it is JSON, so it cannot say what is not UTF-8.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from rootfs.errors import IntegrityError

CHUNK_SIZE = 4 << 20  # bytes of a file that are compressed together; part of the form: a change changes digests

_BLOCK = 512
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 # no zone and no host's library: seconds are counted from here
_XATTR = b"SCHILY.xattr."
_TYPES: Mapping[bytes, str] = MappingProxyType(
    {
        b"0": "reg",
        b"1": "hardlink",
        b"2": "symlink",
        b"3": "char",
        b"4": "block",
        b"5": "dir",
        b"6": "fifo",
    }
)
_HINT = "gzip and zstd layers have no table of contents and can hold it"


@dataclass(slots=True, kw_only=True)
class Chunk:
    """A part of a file that can be read alone: `at` in the file, `size` bytes of it; `begin` and `end` in the blob."""

    at: int
    size: int
    digest: str = ""
    begin: int = 0
    end: int = 0


@dataclass(slots=True, kw_only=True)
class Entry:
    """A member while it is packed: its header's bytes, what that says, its content's digest, CRC and chunks.

    `missing` is how many chunks have no place in the blob yet.
    """

    header: bytes
    said: dict[str, Any]
    digest: str = ""
    crc: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    missing: int = 0


def described(header: bytes) -> dict[str, Any]:
    """What a header of `builder.oci.tar` says, in the words of a table of contents.

    IntegrityError for a name that is not UTF-8, or a time that RFC 3339 cannot say (years 1 to 9999).
    """
    records = _records(header) if len(header) > _BLOCK else {}
    block = header[-_BLOCK:]
    name = records.get(b"path") or _joined(block)
    at = name.decode("utf-8", "surrogateescape")
    kind = _TYPES[block[156:157]]
    said: dict[str, Any] = {
        "type": kind,
        "name": _text(name, at),
        "mode": int(block[100:107], 8),
        "uid": _number(records, b"uid", block[108:115]),
        "gid": _number(records, b"gid", block[116:123]),
        "modtime": _time(_number(records, b"mtime", block[136:147]), at),
    }
    if kind == "reg" and (size := _number(records, b"size", block[124:135])):
        said["size"] = size
    elif kind in ("hardlink", "symlink"):
        said["linkName"] = _text(records.get(b"linkpath") or _field(block[157:257]), at)
    elif kind in ("char", "block"):
        said["devMajor"], said["devMinor"] = int(block[329:336], 8), int(block[337:344], 8)
    if xattrs := {key: value for key, value in records.items() if key.startswith(_XATTR)}:
        said["xattrs"] = {
            _text(key.removeprefix(_XATTR), at): base64.b64encode(value).decode() for key, value in xattrs.items()
        }
    return said


def _records(header: bytes) -> dict[bytes, bytes]:
    """The records of the extended header that stands before a header block."""
    data = header[_BLOCK : _BLOCK + int(header[124:135], 8)]
    records = {}
    while data:
        length = int(data[: data.index(b" ")])
        keyword, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        records[keyword] = value
        data = data[length:]
    return records


def _joined(block: bytes) -> bytes:
    prefix = _field(block[345:500])
    return prefix + b"/" + _field(block[:100]) if prefix else _field(block[:100])


def _field(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _number(records: Mapping[bytes, bytes], keyword: bytes, digits: bytes) -> int:
    return int(records[keyword]) if keyword in records else int(digits, 8)


def _text(data: bytes, at: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        because = f"{data!r:.200} is not UTF-8"
        raise IntegrityError("a table of contents cannot say this name", at=at, because=because, hint=_HINT) from error


def _time(seconds: int, at: str) -> str:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat() + "Z"
    except OverflowError as error:
        because = f"{seconds} seconds after 1970"
        raise IntegrityError("a table of contents cannot say this time", at=at, because=because, hint=_HINT) from error
