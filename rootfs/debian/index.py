"""Index: the Packages files of one or more suites, read by name.

Law: pure; bytes in, Packages out. A Packages file has 70,000 stanzas (57 MB) of which one selection reads some hundred,
so a file is scanned once into a table of where each stanza lies, a stanza is parsed when it is asked for, and the table
can be kept (`to_bytes`, `from_bytes`) beside the file it was made from.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from rootfs.debian.package import Package
from rootfs.errors import IntegrityError

TABLE_REVISION = 1
"""Raised with every change of the table's form or of what the scan puts into it."""

Text = bytes | bytearray
"""A Packages file; libdeflate gives a bytearray, and to copy 57 MB takes as long as to resolve."""

_HEADER = f"packages-table {TABLE_REVISION}"
_NAME = re.compile(rb"^Package:[ \t]*([!-~]+)[ \t]*$", re.MULTILINE)
_PROVIDED = re.compile(rb"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)")
# What a scan stops at: the end of a stanza (with the name the next begins with, as nearly all do), what it provides,
# and that it is Essential or of a priority above optional. One pass over the text takes half the time of several.
_STOPS = re.compile(
    rb"\n(?:(\n+|\Z)(?:Package: ([!-~]+)(?=\n))?"
    rb"|Provides:(.*(?:\n[ \t].*)*)"
    rb"|(?:Essential|Priority): *(yes|required|important|standard) *(?=\n|\Z))"
)
_PROVIDES, _MARK = 3, 4  # groups of _STOPS
# What a hollow package has no more: all that leads to another package, or against one.
_RELATIONS = frozenset(
    {"Pre-Depends", "Depends", "Recommends", "Suggests", "Enhances", "Breaks", "Conflicts", "Replaces"}
)
# The order in which apt reads a stanza, and so meets the names in it (apt-pkg/deb/deblistparser.cc, NewVersion).
_MENTIONS = (
    *("Package", "Pre-Depends", "Depends", "Conflicts", "Breaks"),
    *("Recommends", "Suggests", "Replaces", "Enhances", "Provides"),
)
_MENTION_LINE = re.compile(rf"^({'|'.join(_MENTIONS)}):(.*)$".encode(), re.MULTILINE)


class PackagesFile:
    """One Packages file and its table: three sorted lists of lines, searched by their first word.

    `NAME OFFSET LENGTH` (bytes) for each stanza, `VIRTUAL NAME` for each Provides, and `FLAG NAME`, where FLAG is
    `essential` or a priority above optional.
    """

    def __init__(self, text: Text, stanzas: list[str], provides: list[str], flags: list[str]) -> None:
        self.text = text
        self._stanzas, self._provides, self._flags = stanzas, provides, flags

    @classmethod
    def scan(cls, text: Text) -> PackagesFile:
        """From the file's bytes; IntegrityError for a stanza without a Package field."""
        stanzas: list[str] = []
        provides: set[str] = set()
        flags: set[str] = set()
        for name, begin, end, virtuals, marks in _scanned(text):
            stanzas.append(f"{name} {begin} {end - begin}")
            for virtual in virtuals:
                provides.add(f"{virtual.decode()} {name}")
            for mark in marks:
                flags.add(f"{'essential' if mark == b'yes' else mark.decode()} {name}")
        return cls(text, sorted(stanzas), sorted(provides), sorted(flags))

    @classmethod
    def from_bytes(cls, text: Text, table: bytes) -> PackagesFile:
        """From the file's bytes and what `to_bytes` gave for them; IntegrityError when it is no such table."""
        header, *sections = table.decode("utf-8", "replace").split("\n\n")
        if header != _HEADER or len(sections) != 3:
            raise IntegrityError("not a table of a Packages file")
        stanzas, provides, flags = (section.split("\n") if section else [] for section in sections)
        return cls(text, stanzas, provides, flags)

    def to_bytes(self) -> bytes:
        """The table; the same bytes for the same file."""
        return "\n\n".join([_HEADER, *("\n".join(s) for s in (self._stanzas, self._provides, self._flags))]).encode()

    def stanzas(self, name: str) -> Iterator[str]:
        """The stanzas of a package, in the file's order."""
        places = sorted((int(offset), int(length)) for offset, length in map(str.split, _after(self._stanzas, name)))
        for offset, length in places:
            stanza = self.text[offset : offset + length]
            if _stanza_name(stanza) != name:
                raise IntegrityError("the table does not belong to this Packages file")
            try:
                yield stanza.decode()
            except UnicodeDecodeError as error:
                raise IntegrityError(f"the stanza of {name} is not UTF-8", because=str(error)) from error

    def providers(self, virtual: str) -> list[str]:
        """The names of the packages whose Provides names this, sorted."""
        return list(_after(self._provides, virtual))

    def flagged(self, flag: str) -> list[str]:
        """The names of the packages that are `essential`, or of a priority above optional; sorted."""
        return list(_after(self._flags, flag))

    def names(self) -> Iterator[str]:
        """Every package's name, sorted; one with two versions twice."""
        return (line.partition(" ")[0] for line in self._stanzas)

    def mention(self, name: str) -> tuple[int, int, int] | None:
        """Where apt first meets a name: offset of the stanza, number of the field, offset in the field."""
        word = name.encode()
        whole = re.compile(rb"(?:^|[\s,|])" + re.escape(word) + rb"(?![a-z0-9+.:-])")
        offset = self.text.find(word)
        while offset >= 0:
            begin = self.text.rfind(b"\n\n", 0, offset) + 2
            begin = 0 if begin < 2 else begin
            end = self.text.find(b"\n\n", offset)
            end = len(self.text) if end < 0 else end
            hits = [
                (_MENTIONS.index(line[1].decode()), hit.start())
                for line in _MENTION_LINE.finditer(self.text, begin, end)
                if (hit := whole.search(line[2]))
            ]
            if hits:
                return (begin, *min(hits))
            offset = self.text.find(word, end)
        return None


def _scanned(text: Text) -> Iterator[tuple[str, int, int, list[bytes], list[bytes]]]:
    """Every stanza: its name, where it begins and ends, what it provides, and what else _STOPS tells of it."""
    begin, name = 0, b""
    virtuals: list[bytes] = []
    marks: list[bytes] = []
    for stop in _STOPS.finditer(text):
        kind = stop.lastindex
        if kind == _PROVIDES:
            virtuals += _PROVIDED.findall(stop[kind])
        elif kind == _MARK:
            marks.append(stop[kind])
        else:
            end = stop.start()
            if end > begin:
                yield name.decode() or _stanza_name(text[begin:end]), begin, end, virtuals, marks
                if virtuals or marks:
                    virtuals, marks = [], []
            begin, name = stop.end(1), stop[2] or b""
    if begin < len(text):  # the last line without its end
        yield name.decode() or _stanza_name(text[begin:]), begin, len(text), virtuals, marks


def _stanza_name(stanza: Text) -> str:
    match = _NAME.search(stanza)
    if not match:
        text = stanza[:80].decode("utf-8", "replace")
        raise IntegrityError("a stanza of the Packages index has no Package field", because=text)
    return match[1].decode()


def _after(lines: list[str], word: str) -> Iterator[str]:
    """What follows `WORD ` in the sorted lines that begin with it."""
    start = f"{word} "
    place = bisect_left(lines, start)
    while place < len(lines) and lines[place].startswith(start):
        yield lines[place][len(start) :]
        place += 1


@dataclass(frozen=True, slots=True)
class _Part:
    """A Packages file, and what is said of the packages in it; see Package."""

    file: PackagesFile
    origin: str
    suites: frozenset[str]
    pin: int


class PackageIndex:
    """Packages by name and by what they provide, of several Packages files; several versions of one may be there."""

    def __init__(self, *, hollow: Collection[str] = ()) -> None:
        self._hollow = frozenset(hollow)
        self._parts: list[_Part] = []
        self._parsed: dict[str, tuple[Package, ...]] = {}
        self._providing: dict[str, tuple[Package, ...]] = {}

    def add(self, text: str, origin: str, *, suites: Collection[str] = (), pin: int = 500) -> None:
        """Add the stanzas of a Packages file; `origin`, `suites` and `pin` as in Package."""
        self.add_file(PackagesFile.scan(text.encode()), origin, suites=suites, pin=pin)

    def add_file(self, file: PackagesFile, origin: str, *, suites: Collection[str] = (), pin: int = 500) -> None:
        """Add a Packages file that was scanned; of equal versions the one added first is preferred."""
        self._parts.append(_Part(file, origin, frozenset(suites), pin))
        self._parsed.clear()
        self._providing.clear()

    def hollowed(self, names: Collection[str]) -> PackageIndex:
        """The same packages, those of these names without any relation to others: what equivs(1) would make of them."""
        index = PackageIndex(hollow=names)
        index._parts = list(self._parts)
        return index

    def named(self, name: str) -> tuple[Package, ...]:
        """The versions of a real package, the one to take first: by pin, then the newest. Empty when there is none."""
        if name not in self._parsed:
            found = [
                Package.parse(stanza, part.origin, suites=part.suites, pin=part.pin)
                for part in self._parts
                for stanza in part.file.stanzas(name)
            ]
            # sorted() is stable: of equal versions the suite added first wins, as in apt's sources.list
            ranked = sorted(found, key=lambda package: (package.pin, package.version), reverse=True)
            self._parsed[name] = tuple(map(_hollowed, ranked) if name in self._hollow else ranked)
        return self._parsed[name]

    def providers(self, name: str) -> tuple[Package, ...]:
        """The packages whose Provides names this, by name."""
        if name not in self._providing:
            names = sorted({provider for part in self._parts for provider in part.file.providers(name)})
            found = (package for provider in names for package in self.named(provider))
            self._providing[name] = tuple(package for package in found if name in package.provided)
        return self._providing[name]

    def names(self) -> list[str]:
        """Every real package's name, sorted."""
        return sorted({name for part in self._parts for name in part.file.names()})

    def essential(self) -> tuple[Package, ...]:
        """The first choice of every Essential package, by name."""
        return tuple(package for package in self._flagged("essential") if package.essential)

    def with_priority(self, priority: str) -> tuple[Package, ...]:
        """The first choice of every package of this Priority (`required`, `important`, `standard`), by name."""
        return tuple(package for package in self._flagged(priority) if package.priority == priority)

    def mention(self, name: str) -> tuple[int, ...]:
        """The order in which apt meets names when it reads the files; what no file mentions comes last."""
        for number, part in enumerate(self._parts):
            place = part.file.mention(name)
            if place is not None:
                return (number, *place)
        return (len(self._parts),)

    def _flagged(self, flag: str) -> Iterator[Package]:
        for name in sorted({name for part in self._parts for name in part.file.flagged(flag)}):
            yield self.named(name)[0]


def _hollowed(package: Package) -> Package:
    return replace(package, fields={name: text for name, text in package.fields.items() if name not in _RELATIONS})
