"""Ld.so.cache: what ldconfig(8) writes, format `glibc-ld.so.cache1.1` (glibc sysdeps/generic/dl-cache.h, elf/cache.c).

Law: one handler. Byte for byte ldconfig's, but for libraries in glibc-hwcaps subdirectories, which are left out: the
loader then uses the baseline library beside them. Links that ldconfig would make are expected in the packages (policy
8.1) and not made here.
"""

from __future__ import annotations

import fnmatch
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rootfs.configure.elf import read_shared_object
from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, file

_MAGIC = b"glibc-ld.so.cache1.1"
_EXTENSION_MAGIC = 0xEAA42174
_LITTLE, _BIG = 2, 3
# FLAG_ELF_LIBC6 and the ABI's flag (sysdeps/generic/ldconfig.h), by Debian's name
_FLAGS = {
    "amd64": 0x0303,
    "s390x": 0x0403,
    "ppc64el": 0x0503,
    "armhf": 0x0903,
    "arm64": 0x0A03,
    "riscv64": 0x1003,
}
_GENERATOR = re.compile(rb"ldconfig \([^)\0]{1,80}\) [a-z]+ release version [0-9.]+")
_RUNS = re.compile(rb"[0-9]+|[^0-9]")
_HEADER, _ENTRY, _SECTIONS = "20sIIB3xI12x", "iIIIQ", "IIIIII"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A name the loader may ask for and the path it is found at; both as bytes, the path absolute."""

    name: bytes
    path: bytes


def write_cache(root: Root, _script: Script) -> Iterable[FileEntry]:
    """/etc/ld.so.cache for the directories of ld.so.conf and the loader's own."""
    libraries = [library for path in _directories(root) for library in _scan(root, path)]
    match = _GENERATOR.search(root.read("usr/sbin/ldconfig"))
    if match is None:
        raise BuildError("ldconfig does not say which version it is", at="/usr/sbin/ldconfig")
    order = ">" if root.architecture.debian == "s390x" else "<"
    yield file("etc/ld.so.cache", to_bytes(libraries, _FLAGS[root.architecture.debian], match[0], order))


def to_bytes(libraries: Iterable[Library], flags: int, generator: bytes, order: str = "<") -> bytes:
    """The cache file; `order` is the byte order as struct writes it."""
    ordered = sorted(libraries, key=lambda library: _loader_order(library.name), reverse=True)
    start = struct.calcsize("=" + _HEADER) + len(ordered) * struct.calcsize("=" + _ENTRY)
    offsets, strings = _string_table({text for library in ordered for text in (library.name, library.path)})
    entries = b"".join(
        struct.pack(order + _ENTRY, flags, start + offsets[one.name], start + offsets[one.path], 0, 0)
        for one in ordered
    )
    extension = start + len(strings)
    padding = -extension % 4
    extension += padding
    endian = _BIG if order == ">" else _LITTLE
    header = struct.pack(order + _HEADER, _MAGIC, len(ordered), len(strings), endian, extension)
    after = extension + struct.calcsize("=" + _SECTIONS)
    sections = struct.pack(order + _SECTIONS, _EXTENSION_MAGIC, 1, 0, 0, after, len(generator))
    return header + entries + strings + bytes(padding) + sections + generator


def _loader_order(name: bytes) -> tuple[tuple[int, int], ...]:
    """`_dl_cache_libcmp`: the end below characters, those below runs of digits, which compare as numbers."""
    runs = _RUNS.findall(name)
    return (*((2, int(run)) if run.isdigit() else (1, run[0]) for run in runs), (0, 0))


def _string_table(strings: Iterable[bytes]) -> tuple[dict[bytes, int], bytes]:
    """elf/stringtable.c: falling order of the reversed texts; what ends the one before shares its bytes."""
    table, offsets, previous, at = b"", {}, b"", 0
    for text in sorted(strings, key=lambda text: text[::-1], reverse=True):
        if previous.endswith(text):
            at += len(previous) - len(text)
        else:
            at = len(table)
            table += text + b"\0"
        offsets[text], previous = at, text
    return offsets, table


def _directories(root: Root) -> Iterator[str]:
    """The directories in ldconfig's order, absolute, spelled as first named; none twice under another name."""
    triplet = root.architecture.triplet
    seen: set[str] = set()
    system = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib", "/usr/lib")
    for path in (*_configured(root, "etc/ld.so.conf"), *system):
        real = root.tree.resolve(f"{path}/.")
        if real in root.tree and real not in seen:
            seen.add(real)
            yield path


def _configured(root: Root, path: str) -> Iterator[str]:
    for line in root.read(path).decode().splitlines() if path in root.tree else ():
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                directory, _, name = pattern.lstrip("/").rpartition("/")
                for found in fnmatch.filter(root.names(directory), name):
                    yield from _configured(root, f"{directory}/{found}")
        elif words:
            yield words[0].rstrip("/")


def _scan(root: Root, path: str) -> Iterator[Library]:
    """One entry for each soname of a directory; see `search_dir` in elf/ldconfig.c."""
    sonames: dict[str, None] = {}
    for name in root.names(path.lstrip("/")):
        if not name.startswith(("lib", "ld-", "ld.so.", "ld64.so.")) or ".so" not in name or name.endswith("-gdb.py"):
            continue
        entry = root.follow(f"{path}/{name}".lstrip("/"))
        if entry is None or entry.kind is not Kind.FILE:
            continue
        shared = read_shared_object(root.content(entry), root.architecture)
        if shared is None:
            continue
        soname = shared.soname or name
        there = root.tree[root.tree.resolve(f"{path}/{name}".lstrip("/"))]
        # A development link (libz.so) goes by its own name, any other link by its target's soname.
        if there.kind is Kind.SYMLINK and name.endswith(".so") and soname.startswith(name):
            soname = name
        sonames[soname] = None
    for soname in sonames:
        encoded = soname.encode("utf-8", "surrogateescape")
        yield Library(name=encoded, path=f"{path}/".encode() + encoded)
