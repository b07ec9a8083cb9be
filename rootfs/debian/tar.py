"""Tar: the members of a tar archive in the forms that deb(5) allows: v7, ustar, and GNU's long names and big numbers.

Law: pure; reads headers and never a member's content. As strict as dpkg (lib/dpkg/tarfn.c), which reads no pax header
and no sparse file, and stricter: a field holds its number and nothing else, what is no file has no content, and no
member reaches beyond the archive's end. What is refused is refused by name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from rootfs.errors import IntegrityError
from rootfs.tree import Kind

_BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s82x155s12x")  # name to prefix; version, user, group, device left out
_END = bytes(_BLOCK)
_LONGEST_NAME = 4096  # bytes; PATH_MAX of Linux
_IDS = 0xFFFFFFFF  # 32 bits, less the one that chown(2) takes for "leave it"
_NUMBERS = 1 << 63
_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.DIRECTORY,
}
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"S": "a sparse file",
    b"x": "a pax header, which dpkg does not read either",
    b"g": "a pax header, which dpkg does not read either",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member. `name` and `link` as they are written (undecodable bytes as surrogate escapes); `mtime` in seconds
    since the epoch; the content of a file is `size` bytes at `offset` of the archive.
    """

    name: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    link: str
    offset: int
    size: int


def members(archive: BinaryIO, length: int) -> Iterator[Member]:
    """The members of an archive of `length` bytes, in order; IntegrityError when it is not well formed."""
    position, long_name, long_link = 0, "", ""
    while (header := _block(archive, position, length)) != _END:
        offset = position + _BLOCK
        name, mode, uid, gid, size_field, mtime, checksum, flag, link, magic, prefix = _HEADER.unpack(header)
        shown = long_name or _text(name)
        if not shown:
            raise IntegrityError("a tar member has no name")
        if _number(checksum, shown) != sum(header) - sum(checksum) + 8 * 0x20:
            raise IntegrityError("a tar header's checksum is wrong", at=shown)
        size = _number(size_field, shown)
        position = offset + size + -size % _BLOCK
        if position > length:
            raise IntegrityError("a tar member reaches beyond the end of its archive", at=shown)
        if flag == b"L":
            long_name = _long(archive, offset, size)
        elif flag == b"K":
            long_link = _long(archive, offset, size)
        else:
            if magic == b"ustar\0" and prefix[0] and not long_name:
                shown = f"{_text(prefix)}/{shown}"
            yield Member(
                name=shown,
                kind=_kind(flag, size, shown),
                mode=_number(mode, shown) & 0o7777,
                uid=_number(uid, shown, _IDS),
                gid=_number(gid, shown, _IDS),
                mtime=_number(mtime, shown),
                link=long_link or _text(link),
                offset=offset,
                size=size,
            )
            long_name = long_link = ""
    if long_name or long_link:
        raise IntegrityError("a tar archive ends after a long name", at=long_name or long_link)


def _block(archive: BinaryIO, position: int, length: int) -> bytes:
    if position + _BLOCK > length:
        raise IntegrityError("a tar archive is cut short", because="no block of zeros marks its end")
    archive.seek(position)
    return archive.read(_BLOCK)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _long(archive: BinaryIO, offset: int, size: int) -> str:
    """The name that GNU tar keeps in a member's content."""
    archive.seek(offset)
    name = _text(archive.read(min(size, _LONGEST_NAME)))
    if size > _LONGEST_NAME:
        raise IntegrityError("a name in a tar archive is longer than any path", at=name[:80], because=f"{size} bytes")
    if not name:
        raise IntegrityError("a long name in a tar archive is empty")
    return name


def _number(field: bytes, name: str, below: int = _NUMBERS) -> int:
    """Octal digits among blanks, or GNU's big-endian form after 0x80; a negative number has no place in a .deb."""
    digits = field.strip(b" \0")
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    elif digits.translate(None, b"01234567"):
        raise IntegrityError("a tar header holds what is no number", at=name, because=repr(field))
    else:
        value = int(digits or b"0", 8)
    if value >= below:
        raise IntegrityError("a tar header holds a number that is too big", at=name, because=str(value))
    return value


def _kind(flag: bytes, size: int, name: str) -> Kind:
    kind = _KINDS.get(flag)
    if kind is None:
        raise IntegrityError(
            "a tar member is of a kind no package may hold", at=name, because=_REFUSED.get(flag, repr(flag))
        )
    if kind is Kind.FILE and name.endswith("/"):  # v7 had no directories
        kind = Kind.DIRECTORY
    if size and kind is not Kind.FILE:
        raise IntegrityError("a tar member that is no file has content", at=name, because=f"{kind} of {size} bytes")
    return kind
