"""What a profile holds: one canonical tar of counters (GCC's .gcda files, gcov-io.h), and how two of them differ.

Law: pure. A profile comes from a registry as well as from our own training, and its files are written beside sources:
so it may hold nothing but counters. GCC reads the counters themselves; here they are read to be compared only, because
equal counts can come in other bytes (the values of a TOPN counter stand in the order in which runs were merged).
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.tree import normalise

SUFFIX = ".gcda"
CLANG_PROFILE = "code.profclangd"

_MAGIC = b"adcg"  # GCOV_DATA_MAGIC of a little-endian machine; we build for no other
_FUNCTION = 0x01000000
_COUNTER_BASE, _COUNTER_STEP = 0x01A10000, 1 << 17
# gcov-counter.def, in its order; a TOPN counter is a list: its total, how many values, then each value and its count.
_KINDS = ("arcs", "interval", "pow2", "topn", "indirect call", "average", "ior", "time profiler", "conditions")
_TOPN = ("topn", "indirect call")
_IN_BYTES = 12  # since GCC 12 a header has a checksum, and lengths are bytes, not words of 4

_Value = int | tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far two profiles are the same: files by name, and the counters (GCC's only) of the files that are in both.

    Of the files that differ `in_bytes_only` have equal counters. `kinds` is, by kind of counter, how many there are in
    the files that differ, and how many of these differ.
    """

    identical: int
    differing: tuple[str, ...] = ()
    in_bytes_only: int = 0
    only_in_one: tuple[str, ...] = ()
    counters: int = 0
    kinds: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)

    @property
    def counters_differing(self) -> int:
        """How many counters differ."""
        return sum(differing for _, differing in self.kinds.values())

    def to_value(self) -> dict[str, object]:
        """A JSON value."""
        return {
            "files": {
                "identical": self.identical,
                "differing": list(self.differing),
                "in_bytes_only": self.in_bytes_only,
                "only_in_one": list(self.only_in_one),
            },
            "counters": {"all": self.counters, "differing": self.counters_differing},
            "kinds": {kind: {"of": of, "differing": differing} for kind, (of, differing) in self.kinds.items()},
        }

    def __str__(self) -> str:
        files = self.identical + len(self.differing) + len(self.only_in_one)
        if self.identical == files:
            return f"all {files} files are identical"
        text = f"{self.identical} of {files} files are identical, {len(self.differing)} differ"
        text += f" ({self.in_bytes_only} in bytes only)" if self.in_bytes_only else ""
        text += f", {len(self.only_in_one)} are in one only" if self.only_in_one else ""
        which = ", ".join(f"{differing} of {of} {kind}" for kind, (of, differing) in self.kinds.items() if differing)
        text += f"; {self.counters_differing} of {self.counters} counters differ"
        return text + (f" ({which})" if which else "")


def members(profile: bytes, *, at: str) -> dict[str, bytes]:
    """The files of a profile's tar by path below /build; IntegrityError for a tar of anything but counters."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(profile), mode="r:") as archive:
            for member in archive:
                path = normalise(member.name)
                if member.isdir():
                    continue
                content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None or not path.endswith((SUFFIX, CLANG_PROFILE)):
                    raise IntegrityError("not a profile", at=at, because=f"it holds {path}, and that is no counter")
                files[path] = content.read()
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise IntegrityError("not a profile", at=at, because=str(error)) from error
    if not files:
        raise IntegrityError("not a profile", at=at, because="it holds no counters")
    return files


def compare(first: bytes, second: bytes) -> Comparison:
    """Compare two profiles (their tars) file by file and counter by counter; IntegrityError when one cannot be read."""
    sides = [members(profile, at=str(Digest.of(profile))) for profile in (first, second)]
    common = [path for path in sides[0] if path in sides[1]]
    differing = [path for path in common if sides[0][path] != sides[1][path]]
    all_of: Counter[str] = Counter()
    unlike: Counter[str] = Counter()
    counters = in_bytes_only = 0
    for path in common:
        if not path.endswith(SUFFIX):
            continue
        mine = _counters(sides[0][path], path)
        counters += sum(len(values) for values in mine.values())
        if path in differing:
            theirs = _counters(sides[1][path], path)
            before = unlike.total()
            for function, kind in {**mine, **theirs}:
                pairs = list(zip_longest(mine.get((function, kind), ()), theirs.get((function, kind), ()), fillvalue=0))
                all_of[kind] += len(pairs)
                unlike[kind] += sum(one != other for one, other in pairs)
            in_bytes_only += unlike.total() == before
    return Comparison(
        identical=len(common) - len(differing),
        differing=tuple(differing),
        in_bytes_only=in_bytes_only,
        only_in_one=tuple(sorted(sides[0].keys() ^ sides[1].keys())),
        counters=counters,
        kinds={kind: (all_of[kind], unlike[kind]) for kind in _KINDS if all_of[kind]},
    )


def _counters(data: bytes, at: str) -> dict[tuple[int, str], Sequence[_Value]]:
    """The counters of a .gcda file by function and kind; IntegrityError for a file that is none."""
    if data[:4] != _MAGIC:
        raise IntegrityError("not a file of counters", at=at, because=f"it begins with {data[:4]!r}")
    found: dict[tuple[int, str], Sequence[_Value]] = {}
    function = 0
    try:
        for tag, payload, count in _records(data):
            kind, rest = divmod(tag - _COUNTER_BASE, _COUNTER_STEP)
            if tag == _FUNCTION and payload:
                (function,) = struct.unpack_from("<I", payload)
            elif not rest and 0 <= kind < len(_KINDS):
                numbers = struct.unpack(f"<{count}q", payload) if payload else (0,) * count
                found[function, _KINDS[kind]] = _lists(numbers) if _KINDS[kind] in _TOPN else numbers
    except (struct.error, IndexError, OverflowError) as error:
        raise IntegrityError("counters cannot be read", at=at, because=str(error)) from error
    return found


def _records(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Tag, payload and number of 64-bit counters of each record; counters that are all zero have no payload."""
    (version,) = struct.unpack_from("<I", data, 4)
    letter, digit = version >> 24, version >> 16 & 0xFF  # 14.2 is "B42*"
    is_new = 10 * (letter - ord("A")) + digit - ord("0") >= _IN_BYTES
    place, unit = (16, 1) if is_new else (12, 4)
    while (tag := struct.unpack_from("<I", data, place)[0]) != 0:  # a zero ends the file
        (length,) = struct.unpack_from("<i", data, place + 4)
        place += 8
        size = max(length, 0) * unit
        if place + size > len(data):
            raise IndexError(f"a record of {size} bytes, and {len(data) - place} are left")
        yield tag, data[place : place + size], abs(length) * unit // 8
        place += size


def _lists(numbers: Sequence[int]) -> list[_Value]:
    """TOPN counters: each with its total and its values, in the order of the values; 0 for an empty one."""
    found: list[_Value] = []
    place = 0
    while place < len(numbers):
        total, length = numbers[place], numbers[place + 1]
        end = place + 2 + 2 * length
        if length < 0 or end > len(numbers):
            raise IndexError(f"a list of {length} values")
        values = sorted(zip(numbers[place + 2 : end : 2], numbers[place + 3 : end : 2], strict=True))
        found.append((total, *values) if total or values else 0)
        place = end
    return found
