"""The CPython releases that are known: where the source of each lies, and what its digest is.

Law: data and one look-up; no I/O. Digests are those that python.org publishes. Where Debian's pool has the tarball it
is the same, byte for byte, and was read and hashed before it entered here; the others are pinned on upstream's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.python.lines import Line, line_of
from rootfs.digest import Digest
from rootfs.errors import RecipeError

_CANDIDATE = re.compile(r"(a|b|rc)(\d+)$")
_STAGES = {"a": 0, "b": 1, "rc": 2}
_FINAL = (3, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonRelease:
    """One CPython release.

    `source` and `size` (bytes; None where the file was never seen here) are those of upstream's tarball, which ends in
    `suffix`. `pool` is the same file's path on a Debian mirror, empty where there is none; `listed` the suite whose
    signed Sources index names it, if one does; `signed` whether the pool has its OpenPGP signature, too.
    """

    version: str
    source: Digest
    size: int | None
    suffix: str = "tar.xz"
    pool: str = ""
    listed: str = ""
    signed: bool = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """(3, 14, 7); of a candidate, those of the release it is a candidate for."""
        return tuple(int(part) for part in _CANDIDATE.sub("", self.version).split("."))

    @property
    def order(self) -> tuple[int, ...]:
        """By which releases sort: a candidate comes before its release."""
        candidate = _CANDIDATE.search(self.version)
        return (*self.numbers, *((_STAGES[candidate[1]], int(candidate[2])) if candidate else _FINAL))

    @property
    def is_final(self) -> bool:
        """Whether it is no alpha, beta or release candidate."""
        return not _CANDIDATE.search(self.version)

    @property
    def line(self) -> str:
        """The line it belongs to: `3.14`."""
        return self.facts.name

    @property
    def facts(self) -> Line:
        """What holds for its whole line."""
        return line_of(self.version)

    @property
    def suite(self) -> str:
        """The Debian suite it is built on when the recipe names none."""
        return self.facts.suite

    @property
    def file_name(self) -> str:
        """`Python-3.14.7.tar.xz`."""
        return f"Python-{self.version}.{self.suffix}"

    @property
    def upstream(self) -> str:
        """Where python.org serves the source; candidates lie beside their release."""
        return f"https://www.python.org/ftp/python/{_CANDIDATE.sub('', self.version)}/{self.file_name}"


def _pooled(version: str, sha256: str, size: int, *, listed: str = "", signed: bool = False) -> PythonRelease:
    """A release that Debian's pool has."""
    gzipped = version in ("2.7.18", "3.11.2")
    line = line_of(version).name
    debian = _CANDIDATE.sub(r"~\1\2", version)
    return PythonRelease(
        version=version,
        source=Digest("sha256", sha256),
        size=size,
        suffix="tgz" if gzipped else "tar.xz",
        pool=f"pool/main/p/python{line}/python{line}_{debian}.orig.tar.{'gz' if gzipped else 'xz'}",
        listed=listed,
        signed=signed,
    )


def _upstream_only(version: str, sha256: str) -> PythonRelease:
    """A release that python.org alone has: nobody has built it here."""
    return PythonRelease(version=version, source=Digest("sha256", sha256), size=None)


RELEASES = (
    _pooled("3.15.0rc2", "8d93af5eaaaea5adfd41bd786a7ba3f03f2ad1ab57c6a65e0b963deab91d5ad7", 35544464),
    _pooled("3.15.0rc1", "f84dad680ab2147417d2739355c2678f0f9acffe4ae8ef77895de1454b384b07", 35516700),
    _pooled("3.14.7", "3b48dac8fb59f62eaa67ac83c1eb12bda1b7a08406dd286e252c11a66be27f81", 24053924),
    _pooled("3.14.6", "143b1dddefaec3bd2e21e3b839b34a2b7fb9842272883c576420d605e9f30c63", 23921184),
    _pooled("3.14.5", "7e32597b99e5d9a39abed35de4693fa169df3e5850d4c334337ffd6a19a36db6", 23903332),
    _pooled("3.13.15", "1e66a7945a48390ee4c2a4268a0e4185884059a13c4aab6d148aa208deea4a76", 23160540, listed="forky"),
    _pooled("3.13.14", "639e43243c620a308f968213df9e00f2f8f62332f7adbaa7a7eeb9783057c690", 23021880, signed=True),
    _pooled(
        "3.13.5",
        "93e583f243454e6e9e4588ca2c2662206ad961659863277afcdb96801647d640",
        22856016,
        listed="trixie",
        signed=True,
    ),
    _upstream_only("3.12.14", "5c8462af5790baf43a321a1559dbe0db06d1be4300fb85fb53c40060668e548a"),
    _upstream_only("3.11.16", "91bcdebfdde239a003ae93738a7fce0f9230fee5c4bc2b86f6e6e8c6f98aabe8"),
    _pooled("3.11.2", "2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849", 26437858, listed="bookworm"),
    _upstream_only("3.10.21", "a0da1e72132e950154eca0f6f47d5db828454700de20e5113667940d81e0db04"),
    _upstream_only("3.9.25", "00e07d7c0f2f0cc002432d1ee84d2a40dae404a99303e3f97701c10966c91834"),
    _pooled("3.9.2", "3c2034c54f811448f516668dce09d24008a0716c3a794dd8639b5388cbde247d", 18889164, listed="bullseye"),
    _upstream_only("3.8.20", "6fb89a7124201c61125c0ab4cf7f6894df339a40c02833bfd28ab4d7691fafb4"),
    _upstream_only("3.7.17", "7911051ed0422fd54b8f59ffc030f7cf2ae30e0f61bda191800bb040dce4f9d2"),
    _upstream_only("3.6.15", "6e28d7cdd6dd513dd190e49bca3972e20fcf455090ccf2ef3f1a227614135d91"),
    _upstream_only("3.5.10", "0f0fa8685c1dc1f1dacb0b4e7779796b90aef99dc1fa4967a71b9da7b57d4a28"),
    _pooled("2.7.18", "da3080e3b488f648a3d7a4560ddee895284c3380b11d6de75edb986526b9a814", 17539408, listed="bullseye"),
)
"""Newest first."""


def find(text: str) -> PythonRelease:
    """The release named by `3.14.7`, or the newest of the line named by `3.14`: a candidate only where none is final.

    RecipeError with the nearest known ones when there is none.
    """
    line = [release for release in RELEASES if release.line == text]
    named = [release for release in RELEASES if release.version == text]
    for release in (*named, *(release for release in line if release.is_final), *line):
        return release
    known = ", ".join(release.version for release in sorted(RELEASES, key=lambda r: _distance(text, r)))
    raise RecipeError(f"CPython {text} is not known", hint=f"known releases: {known}")


def _distance(text: str, release: PythonRelease) -> tuple[int, ...]:
    """Sort key: how far a release is from the version asked for, the first number weighing most."""
    parts = _CANDIDATE.sub("", text).split(".")
    asked = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
    asked += [0] * (3 - len(asked))
    return tuple(abs(have - want) for have, want in zip(release.numbers, asked, strict=False))
