"""Version: dpkg's order of version numbers (Debian policy 5.6.12).

Law: pure. `[epoch:]upstream[-revision]`; `~` sorts before the end, the end before letters, letters before the rest;
runs of digits compare as numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from rootfs.errors import IntegrityError

_VALID = re.compile(r"(?:([0-9]+):)?([0-9][A-Za-z0-9.+~:-]*?)(?:-([A-Za-z0-9.+~]+))?\Z")
_RUNS = re.compile(r"(\D*)(\d*)")
_LONGEST = 1024  # characters; the longest in Debian have some 60
_LARGEST_EPOCH = 2**31 - 1  # dpkg's (lib/dpkg/parsehelp.c)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version number; equal versions may be written differently (`1.0` and `1.0-0`)."""

    text: str
    _key: tuple[object, ...]

    @classmethod
    def parse(cls, text: str) -> Version:
        """From its text; IntegrityError when it is not a version."""
        match = _VALID.match(text) if len(text) <= _LONGEST else None
        if not match or (match[1] is None and ":" in match[2]):
            raise IntegrityError(f"not a Debian version: {text[:80]!r}")
        epoch, upstream, revision = match.groups()
        if int(epoch or 0) > _LARGEST_EPOCH:
            raise IntegrityError(f"a Debian version's epoch is too big: {text[:80]!r}")
        return cls(text, (int(epoch or 0), _part_key(upstream), _part_key(revision or "")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        return self.text


def _part_key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """(non-digits, number) pairs; every run of non-digits, and the whole, ends in 0, the rank of "end".

    There is always a first pair, so that a missing part equals `0`.
    """
    runs = _RUNS.findall(part)
    first, rest = runs[0], [run for run in runs[1:] if run != ("", "")]
    pairs = [((*(_rank(char) for char in letters), 0), int(digits or 0)) for letters, digits in (first, *rest)]
    return (*pairs, ((0,), 0))


def _rank(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
