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


class LockedSource(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A source tarball, or pip's wheel; `urls` in the order in which they are tried.

    `size` is in bytes, None where nobody has said; `vouched` names what spoke for the digest when the lock was made.
    """

    name: str
    version: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str
    vouched: tuple[str, ...] = ()


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


class LockedProfile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The profile that leads a build, and what it was trained for: it fits nothing else (see `python.profile`).

    `digest` is that of its canonical tar. `source` is CPython's sha256, `commands` the digest of what configured,
    compiled and trained it; `compiler` and `headers` are packages with their versions. `layout` is the digest of the
    counts by which the interpreter is laid out, empty when it is not, and `laid` what they fit: BOLT's package, and
    digests of what compiled and counted it.
    """

    digest: str
    source: str
    commands: str
    compiler: tuple[str, ...]
    headers: tuple[str, ...]
    layout: str = ""
    laid: tuple[str, ...] = ()

    @property
    def digests(self) -> tuple[Digest, ...]:
        """Its blobs: the counters, and the layout's counts if it has any; IntegrityError for what is no digest."""
        return tuple(Digest.parse(text) for text in (self.digest, self.layout) if text)

    @property
    def counters(self) -> LockedProfile:
        """The profile without a layout."""
        return msgspec.structs.replace(self, layout="", laid=())


class Lock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a recipe came to on one platform. `epoch` is the time stamp of everything made (seconds)."""

    schema: int
    recipe: str
    platform: str
    epoch: int
    release: tuple[LockedRelease, ...]
    source: tuple[LockedSource, ...]
    package: tuple[LockedPackage, ...]
    profile: LockedProfile | None = None

    @classmethod
    def parse(cls, data: bytes, *, at: str) -> Lock:
        """From its file; LockError when it is not a lock this version can read."""
        try:
            lock = msgspec.convert(tomllib.loads(data.decode("utf-8")), cls)
            for sha256 in (*(s.sha256 for s in lock.source), *(p.sha256 for p in lock.package)):
                Digest("sha256", sha256)
            if lock.profile is not None:
                _ = lock.profile.digests
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
        value = {name: part for name, part in msgspec.to_builtins(self).items() if part is not None}
        return (_HEADER + tomli_w.dumps(value)).encode()

    @property
    def python(self) -> LockedSource:
        """CPython's source; LockError when the lock is of a rootfs alone."""
        source = self.source_named("cpython")
        if source is not None:
            return source
        raise LockError("the lock names no source of CPython", hint="make it anew with `ocibuild lock RECIPE`")

    def source_named(self, name: str) -> LockedSource | None:
        """The source of this name, if there is one."""
        return next((source for source in self.source if source.name == name), None)

    def packages(self, set_name: str) -> tuple[LockedPackage, ...]:
        """The packages of one set, by name."""
        return tuple(package for package in self.package if set_name in package.sets)
