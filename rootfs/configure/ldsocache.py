"""Ld.so.cache: what ldconfig(8) writes, format `glibc-ld.so.cache1.1` (glibc sysdeps/generic/dl-cache.h, elf/cache.c).

Law: handlers, one for each form the file had. Byte for byte ldconfig's, glibc-hwcaps subdirectories included; the
older ones named after a processor's features (until glibc 2.36) are left out: the loader then uses the baseline library
beside them. Links that ldconfig would make are expected in the packages (policy 8.1) and not made here.
"""

from __future__ import annotations

import fnmatch
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rootfs.architecture import Architecture
from rootfs.configure.elf import SharedObject, read_shared_object
from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, directory, file

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
_HEADER, _ENTRY, _EXTENSION, _SECTION = "20sIIB3xI12x", "iIIIQ", "II", "IIII"
_TAG_GENERATOR, _TAG_HWCAPS = 0, 1
_HWCAP_EXTENSION = 1 << 62
_HWCAPS = "glibc-hwcaps"
CACHE = "etc/ld.so.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A name the loader may ask for and the path it is found at; both as bytes, the path absolute.

    `hwcaps` names the subdirectory of glibc-hwcaps it lies in (`x86-64-v3`), "" for the baseline; the rest as in
    `rootfs.configure.elf`.
    """

    name: bytes
    path: bytes
    hwcaps: bytes = b""
    os_version: int = 0
    isa_level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What differs between architectures: the flags of an entry, and the byte order as struct writes it."""

    flags: int
    order: str = "<"

    @classmethod
    def of(cls, architecture: Architecture) -> Form:
        return cls(flags=_FLAGS[architecture.debian], order=">" if architecture.debian == "s390x" else "<")

    def header(self, count: int, strings: int, extension: int) -> bytes:
        endian = _BIG if self.order == ">" else _LITTLE
        return struct.pack(self.order + _HEADER, _MAGIC, count, strings, endian, extension)

    def entry(self, name: int, path: int, os_version: int = 0, hwcap: int = 0) -> bytes:
        return struct.pack(self.order + _ENTRY, self.flags, name, path, os_version, hwcap)


def write_cache(root: Root, _script: Script) -> Iterable[FileEntry]:
    """/etc/ld.so.cache as glibc writes it from 2.33 on."""
    libraries, subdirectories = _found(root, hwcaps=True)
    program = "usr/sbin/ldconfig" if "usr/sbin/ldconfig" in root.tree else "sbin/ldconfig"
    match = _GENERATOR.search(root.read(program))
    if match is None:
        raise BuildError("ldconfig does not say which version it is", at=f"/{program}")
    yield file(CACHE, to_bytes(libraries, match[0], Form.of(root.architecture), subdirectories))


def renewed_cache(root: Root) -> FileEntry | None:
    """/etc/ld.so.cache as ldconfig would write it now, in the form it has; None when there is none.

    It itself says which ldconfig it is of: that may be gone, and is not needed to read it.
    """
    entry = root.tree.get(CACHE)
    if entry is None:
        return None
    match = _GENERATOR.search(root.content(entry))
    libraries, subdirectories = _found(root, hwcaps=match is not None)
    form = Form.of(root.architecture)
    content = to_bytes(libraries, match[0], form, subdirectories) if match else to_old_bytes(libraries, form)
    return replace(entry, content=content)


def write_old_cache(root: Root, _script: Script) -> Iterable[FileEntry]:
    """/etc/ld.so.cache as Debian's glibc 2.31 writes it; ldconfig keeps an empty directory for a cache of its own."""
    libraries, _ = _found(root, hwcaps=False)
    yield directory("var/cache/ldconfig", 0o700)
    yield file(CACHE, to_old_bytes(libraries, Form.of(root.architecture)))


def to_bytes(
    libraries: Iterable[Library], generator: bytes, form: Form, subdirectories: Collection[bytes] = ()
) -> bytes:
    """The cache file; `subdirectories` are the names in glibc-hwcaps directories, those without a library too."""
    ordered = _in_loader_order(libraries)
    start = struct.calcsize("=" + _HEADER) + len(ordered) * struct.calcsize("=" + _ENTRY)
    texts = {text for library in ordered for text in (library.name, library.path)}
    offsets, strings = _string_table(texts.union(subdirectories))
    hwcaps = sorted({library.hwcaps for library in ordered} - {b""})
    entries = b"".join(
        form.entry(start + offsets[one.name], start + offsets[one.path], 0, _hwcap(one, hwcaps)) for one in ordered
    )
    extension = start + len(strings)
    padding = -extension % 4
    extension += padding
    section = _extension(extension, generator, [start + offsets[name] for name in hwcaps], form.order)
    return form.header(len(ordered), len(strings), extension) + entries + strings + bytes(padding) + section


def to_old_bytes(libraries: Iterable[Library], form: Form) -> bytes:
    """The cache file before 2.33: no extension, each name and path spelled out, the least kernel of each library."""
    ordered = _in_loader_order(libraries)
    at = struct.calcsize("=" + _HEADER) + len(ordered) * struct.calcsize("=" + _ENTRY)
    entries, strings = b"", b""
    for one in ordered:
        name = at + len(strings)
        strings += one.name + b"\0"
        entries += form.entry(name, at + len(strings), one.os_version)
        strings += one.path + b"\0"
    return form.header(len(ordered), len(strings), 0) + entries + strings


def _hwcap(library: Library, hwcaps: Sequence[bytes]) -> int:
    if not library.hwcaps:
        return 0
    return _HWCAP_EXTENSION | library.isa_level << 32 | hwcaps.index(library.hwcaps)


def _extension(at: int, generator: bytes, hwcaps: Sequence[int], order: str) -> bytes:
    """The extension at its offset: who wrote the file, and the offsets of the hwcaps' names, when there are any."""
    count = 2 if hwcaps else 1
    after = at + struct.calcsize("=" + _EXTENSION) + count * struct.calcsize("=" + _SECTION)
    names = struct.pack(f"{order}{len(hwcaps)}I", *hwcaps)
    sections = struct.pack(order + _SECTION, _TAG_GENERATOR, 0, after + len(names), len(generator))
    if hwcaps:
        sections += struct.pack(order + _SECTION, _TAG_HWCAPS, 0, after, len(names))
    return struct.pack(order + _EXTENSION, _EXTENSION_MAGIC, count) + sections + names + generator


def _in_loader_order(libraries: Iterable[Library]) -> list[Library]:
    """`compare` of elf/cache.c: names as the loader's binary search wants them, of one name the hwcaps ones first."""
    ordered = sorted(libraries, key=lambda library: (not library.hwcaps, library.hwcaps))
    return sorted(ordered, key=lambda library: _loader_order(library.name), reverse=True)


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


def _found(root: Root, *, hwcaps: bool) -> tuple[list[Library], set[bytes]]:
    """The libraries of all directories, and the names in their glibc-hwcaps."""
    libraries: list[Library] = []
    subdirectories: set[bytes] = set()
    for path in _directories(root):
        libraries += _scan(root, path)
        for name in root.names(f"{path}/{_HWCAPS}".lstrip("/")) if hwcaps else ():
            within = f"{path}/{_HWCAPS}/{name}"
            entry = root.follow(within.lstrip("/"))
            if entry is not None and entry.kind is Kind.DIRECTORY and not name.startswith("."):
                subdirectories.add(_encode(name))
                libraries += (replace(library, hwcaps=_encode(name)) for library in _scan(root, within))
    return libraries, subdirectories


def _scan(root: Root, path: str) -> Iterator[Library]:
    """One entry for each soname of a directory; see `search_dir` in elf/ldconfig.c."""
    found: dict[str, SharedObject] = {}
    known: dict[str, SharedObject | None] = {}  # by path: most have two names or three
    for name in root.names(path.lstrip("/")):
        if not name.startswith(("lib", "ld-", "ld.so.", "ld64.so.")) or ".so" not in name or name.endswith("-gdb.py"):
            continue
        entry = root.follow(f"{path}/{name}".lstrip("/"))
        if entry is None or entry.kind is not Kind.FILE:
            continue
        if entry.path not in known:
            with root.reading(entry) as read:
                known[entry.path] = read_shared_object(read, root.architecture)
        shared = known[entry.path]
        if shared is None:
            continue
        soname = shared.soname or name
        there = root.tree[root.tree.resolve(f"{path}/{name}".lstrip("/"))]
        # A development link (libz.so) goes by its own name, any other link by its target's soname.
        if there.kind is Kind.SYMLINK and name.endswith(".so") and soname.startswith(name):
            soname = name
        found.setdefault(soname, shared)
    for soname, shared in found.items():
        encoded, place = _encode(soname), _encode(f"{path}/{soname}")
        yield Library(name=encoded, path=place, os_version=shared.os_version, isa_level=shared.isa_level)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
