"""Elf: what ldconfig(8) reads of a shared object, and what ld.so(8) loads for it (System V ABI, chapters 4 and 5; the
Linux extensions to gABI).

Law: pure; bytes to a value, None for whatever is not a shared object of the architecture. Of a file only those
pieces are asked for that say something: a few hundred bytes of megabytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rootfs.architecture import Architecture

_MACHINES = {"amd64": 62, "arm64": 183, "armhf": 40, "ppc64el": 21, "riscv64": 243, "s390x": 22}
_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC, _PT_NOTE, _PT_GNU_PROPERTY = 1, 2, 4, 0x6474E553
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME = 0, 1, 5, 14
_HEADER_SIZE = 56  # of a program header, at most
_NT_GNU_ABI_TAG, _NT_GNU_PROPERTY_TYPE_0 = 1, 5
_X86_ISA_1_NEEDED = 0xC0008002

Segment = tuple[int, int, int, int]
Tag = tuple[int, int]
Read = Callable[[int, int], bytes]
"""(offset, size) -> the bytes of a file there; fewer where it ends."""

_TEXT_SIZE = 256  # read at once, in the hope that a text ends within


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedObject:
    """A shared object; `soname` is None when it has no DT_SONAME.

    `os_version` is the least kernel of its NT_GNU_ABI_TAG note, a byte a number (0x030200 is 3.2.0); `isa_level` the
    number of the highest bit of its GNU_PROPERTY_X86_ISA_1_NEEDED (2 is x86-64-v3); each 0 when it says none.
    """

    soname: str | None
    os_version: int = 0
    isa_level: int = 0


def read_shared_object(data: bytes | Read, architecture: Architecture) -> SharedObject | None:
    """Read the dynamic section; None for a file that is no shared object of this architecture, or is damaged."""
    read = _reader(data)
    head = read(0, 64)
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return None
    wide = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if kind != _ET_DYN or machine != _MACHINES[architecture.debian]:
        return None
    try:
        return _read_dynamic(read, order, wide=wide)
    except (struct.error, ValueError, KeyError, OverflowError):
        return None


def needed(data: bytes) -> tuple[str, ...]:
    """The names of the libraries a program or shared object wants loaded (DT_NEEDED), in its order, whatever its
    architecture; none for what is no ELF file, is linked statically, or is damaged.
    """
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return ()
    read, order = _reader(data), "<" if data[5] == 1 else ">"
    try:
        segments = _segments(read, order, wide=data[4] == 2)
        tags = _tags(read, segments, order, wide=data[4] == 2) or []
        return tuple(_text(read, dict(tags), segments, value) for tag, value in tags if tag == _DT_NEEDED)
    except (struct.error, ValueError, KeyError, OverflowError):
        return ()


def _reader(data: bytes | Read) -> Read:
    return (lambda at, size: data[at : at + size]) if isinstance(data, bytes) else data


def _all(read: Read, at: int, size: int) -> bytes:
    """ValueError where the file is too short."""
    data = read(at, size)
    if len(data) < size:
        raise ValueError("a segment goes beyond the file's end")
    return data


def _read_dynamic(read: Read, order: str, *, wide: bool) -> SharedObject | None:
    segments = _segments(read, order, wide=wide)
    found = _tags(read, segments, order, wide=wide)
    if found is None:
        return None
    tags = dict(found)
    return SharedObject(
        soname=_text(read, tags, segments, tags[_DT_SONAME]) if _DT_SONAME in tags else None,
        os_version=_os_version(read, segments, order),
        isa_level=_isa_level(read, segments, order),
    )


def _segments(read: Read, order: str, *, wide: bool) -> list[Segment]:
    """The program headers."""
    head = read(0, 64)
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    table = read(start, max(size, _HEADER_SIZE) * count)
    return [_segment(table, index * size, order, wide=wide) for index in range(count)]


def _tags(read: Read, segments: Iterable[Segment], order: str, *, wide: bool) -> list[Tag] | None:
    """(tag, value) of each entry of the dynamic section; None when there is no such section."""
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    tags: list[Tag] = []
    step = order + ("qQ" if wide else "iI")
    data = read(dynamic[1], dynamic[3])
    for at in range(0, dynamic[3], struct.calcsize(step)):
        tag, value = struct.unpack_from(step, data, at)
        if tag == _DT_NULL:
            break
        tags.append((tag, value))
    return tags


def _text(read: Read, tags: Mapping[int, int], segments: Iterable[Segment], start: int) -> str:
    """The text at an offset of the string table. ValueError when it leads nowhere."""
    table = tags[_DT_STRTAB]
    for kind, offset, address, length in segments:
        if kind == _PT_LOAD and address <= table < address + length:
            at = table - address + offset + start
            size = _TEXT_SIZE
            while b"\0" not in (text := read(at, size)) and len(text) == size:
                size *= 8
            return text[: text.index(b"\0")].decode("utf-8", "surrogateescape")
    raise ValueError("no segment holds the string table")


def _os_version(read: Read, segments: Iterable[Segment], order: str) -> int:
    for kind, offset, _address, length in segments:
        for tag, value in _notes(_all(read, offset, length), 4, order) if kind == _PT_NOTE else ():
            if tag == _NT_GNU_ABI_TAG and len(value) == 16:
                system, major, minor, patch = struct.unpack(order + "IIII", value)
                return int(system << 24 | major << 16 | minor << 8 | patch)
    return 0


def _isa_level(read: Read, segments: Iterable[Segment], order: str) -> int:
    for kind, offset, _address, length in segments:
        for tag, value in _notes(_all(read, offset, length), 8, order) if kind == _PT_GNU_PROPERTY else ():
            at = 0
            while tag == _NT_GNU_PROPERTY_TYPE_0 and at < len(value):
                name, size, level = struct.unpack_from(order + "III", value, at)
                if name == _X86_ISA_1_NEEDED:
                    return max(int(level).bit_length() - 1, 0)
                at += (8 + size + 7) // 8 * 8
    return 0


def _notes(data: bytes, align: int, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of each note of the owner GNU in a segment."""
    at = 0
    while at + 12 <= len(data):
        name, size, kind = struct.unpack_from(order + "III", data, at)
        value = at + (12 + name + align - 1) // align * align
        if data[at + 12 : at + 12 + name] == b"GNU\0":
            yield kind, data[value : value + size]
        at = value + (size + align - 1) // align * align


def _segment(data: bytes, at: int, order: str, *, wide: bool) -> Segment:
    """(type, file offset, address, length in the file) of a program header."""
    if wide:
        kind, _flags, offset, address, _physical, length = struct.unpack_from(order + "IIQQQQ", data, at)
    else:
        kind, offset, address, _physical, length = struct.unpack_from(order + "IIIII", data, at)
    return kind, offset, address, length
