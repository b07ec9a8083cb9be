"""Lock: everything a build needs, named by digest; made once from a recipe, read by every build after.

Law: pure. URLs are the archives' own, never a mirror's: the mirror is a setting, and a lock is good anywhere.
"""

from __future__ import annotations

import tomllib

import msgspec
import tomli_w
from msgspec import Struct

from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError

SCHEMA = 1
_HEADER = "# Made by `ocibuild lock`. Commit it beside the recipe: whoever has both makes the same image.\n"


class LockedRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A verified Release: `digest` is the signed InRelease's, `signers` the certificates that vouch for it."""

    archive: str
    suite: str
    codename: str
    date: int
    digest: str
    signers: tuple[str, ...]


class LockedSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source tarball; `urls` in the order in which they are tried; sizes in bytes."""

    name: str
    version: str
    urls: tuple[str, ...]
    size: int
    sha256: str


class LockedPackage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A .deb; `sets` says where it is used: in the runtime rootfs, the toolchain, or both."""

    name: str
    version: str
    architecture: str
    sets: tuple[str, ...]
    url: str
    size: int
    sha256: str

    @property
    def digest(self) -> Digest:
        """The .deb's digest."""
        return Digest("sha256", self.sha256)


class Lock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe came to on one platform. `epoch` is the time stamp of everything made (seconds)."""

    schema: int
    recipe: str
    platform: str
    epoch: int
    release: tuple[LockedRelease, ...]
    source: tuple[LockedSource, ...]
    package: tuple[LockedPackage, ...]

    @classmethod
    def parse(cls, data: bytes, *, at: str) -> Lock:
        """From its file; LockError when it is not a lock this version can read."""
        try:
            lock = msgspec.convert(tomllib.loads(data.decode("utf-8")), cls)
            for sha256 in (*(s.sha256 for s in lock.source), *(p.sha256 for p in lock.package)):
                Digest("sha256", sha256)
            if lock.schema != SCHEMA:
                raise ValueError(f"schema {lock.schema}; this version reads {SCHEMA}")
        except (ValueError, IntegrityError) as error:
            raise LockError(
                "the lock cannot be read", at=at, because=str(error), hint="make it anew with `ocibuild lock RECIPE`"
            ) from error
        return lock

    def matches(self, recipe: Digest, platform: str) -> bool:
        """Whether it was made for just this recipe (or base: its digest) and platform."""
        return self.recipe == str(recipe) and self.platform == platform

    def to_bytes(self) -> bytes:
        """The lock file."""
        return (_HEADER + tomli_w.dumps(msgspec.to_builtins(self))).encode()

    @property
    def python(self) -> LockedSource:
        """CPython's source; LockError when the lock is of a rootfs alone."""
        for source in self.source:
            if source.name == "cpython":
                return source
        raise LockError("the lock names no source of CPython", hint="make it anew with `ocibuild lock RECIPE`")

    def packages(self, set_name: str) -> tuple[LockedPackage, ...]:
        """The packages of one set, by name."""
        return tuple(package for package in self.package if set_name in package.sets)
