"""The CPython releases ocibuild can build: where their source lies and what its digest is.

Law: data and one look-up; no I/O. A release enters the table when its source tarball was read and hashed and a plain
build of it passed `builder.python.verify`. Debian's `.orig.tar.xz` is the upstream tarball, byte for byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from rootfs.digest import Digest
from rootfs.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonRelease:
    """One final CPython release.

    `source` and `size` (bytes) are those of the upstream `.tar.xz`; `pool` is the same file's path on a Debian mirror;
    `suite` is the Debian suite it is built on.
    """

    version: str
    source: Digest
    size: int
    pool: str
    suite: str = "trixie"

    @property
    def numbers(self) -> tuple[int, ...]:
        """(3, 14, 7)."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def line(self) -> str:
        """The series a release belongs to: `3.14`."""
        return self.version.rpartition(".")[0]

    @property
    def upstream(self) -> str:
        """Where python.org serves the source."""
        return f"https://www.python.org/ftp/python/{self.version}/Python-{self.version}.tar.xz"


def _release(version: str, sha256: str, size: int) -> PythonRelease:
    line = version.rpartition(".")[0]
    return PythonRelease(
        version=version,
        source=Digest("sha256", sha256),
        size=size,
        pool=f"pool/main/p/python{line}/python{line}_{version}.orig.tar.xz",
    )


RELEASES = (
    _release("3.14.7", "3b48dac8fb59f62eaa67ac83c1eb12bda1b7a08406dd286e252c11a66be27f81", 24053924),
    _release("3.14.6", "143b1dddefaec3bd2e21e3b839b34a2b7fb9842272883c576420d605e9f30c63", 23921184),
    _release("3.14.5", "7e32597b99e5d9a39abed35de4693fa169df3e5850d4c334337ffd6a19a36db6", 23903332),
    _release("3.13.15", "1e66a7945a48390ee4c2a4268a0e4185884059a13c4aab6d148aa208deea4a76", 23160540),
    _release("3.13.14", "639e43243c620a308f968213df9e00f2f8f62332f7adbaa7a7eeb9783057c690", 23021880),
    _release("3.13.5", "93e583f243454e6e9e4588ca2c2662206ad961659863277afcdb96801647d640", 22856016),
)
"""Newest first."""


def find(text: str) -> PythonRelease:
    """The release named by `3.14.7`, or the newest of the line named by `3.14`; RecipeError when there is none."""
    for release in RELEASES:
        if text in (release.version, release.line):
            return release
    known = ", ".join(release.version for release in sorted(RELEASES, key=lambda r: _distance(text, r)))
    raise RecipeError(f"CPython {text} cannot be built yet", hint=f"known releases: {known}")


def _distance(text: str, release: PythonRelease) -> tuple[int, ...]:
    """Sort key: how far a release is from the version asked for, the first number weighing most."""
    asked = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split(".")]
    asked += [0] * (3 - len(asked))
    return tuple(abs(have - want) for have, want in zip(release.numbers, asked, strict=False))
