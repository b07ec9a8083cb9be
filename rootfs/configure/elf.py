"""Elf: the soname of a shared object (System V ABI, chapters 4 and 5).

Law: pure; bytes to a value, None for whatever is not a shared object of the architecture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rootfs.architecture import Architecture

_MACHINES = {"amd64": 62, "arm64": 183, "armhf": 40, "ppc64el": 21, "riscv64": 243, "s390x": 22}
_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_STRTAB, _DT_SONAME = 0, 5, 14


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedObject:
    """A shared object; `soname` is None when it has no DT_SONAME."""

    soname: str | None


def read_shared_object(data: bytes, architecture: Architecture) -> SharedObject | None:
    """Read the dynamic section; None for a file that is no shared object of this architecture, or is damaged."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return None
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", data, 16)
    if kind != _ET_DYN or machine != _MACHINES[architecture.debian]:
        return None
    try:
        return _read_dynamic(data, order, wide=wide)
    except (struct.error, ValueError):
        return None


def _read_dynamic(data: bytes, order: str, *, wide: bool) -> SharedObject | None:
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), data, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", data, 54 if wide else 42)
    segments = [_segment(data, start + index * size, order, wide=wide) for index in range(count)]
    dynamic = next((segment for segment in segments if segment[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    tags: dict[int, int] = {}
    step = order + ("qQ" if wide else "iI")
    for at in range(dynamic[1], dynamic[1] + dynamic[3], struct.calcsize(step)):
        tag, value = struct.unpack_from(step, data, at)
        if tag == _DT_NULL:
            break
        tags[tag] = value
    if _DT_SONAME not in tags:
        return SharedObject(soname=None)
    table = tags[_DT_STRTAB]
    for kind, offset, address, length in segments:
        if kind == _PT_LOAD and address <= table < address + length:
            at = table - address + offset + tags[_DT_SONAME]
            return SharedObject(soname=data[at : data.index(b"\0", at)].decode("utf-8", "surrogateescape"))
    return None


def _segment(data: bytes, at: int, order: str, *, wide: bool) -> tuple[int, int, int, int]:
    """(type, file offset, address, length in the file) of a program header."""
    if wide:
        kind, _flags, offset, address, _physical, length = struct.unpack_from(order + "IIQQQQ", data, at)
    else:
        kind, offset, address, _physical, length = struct.unpack_from(order + "IIIII", data, at)
    return kind, offset, address, length
