"""Contents: what an image is made of, as values: packages, the interpreter, distributions, and the files of each.

Law: pure values; says nothing of the format in which it is told. Equal contents have equal digests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from rootfs.digest import Digest

ComponentKind = Literal["deb", "cpython", "pypi"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """A licence expression (SPDX 2.3, annex D), and the texts of its `LicenseRef-...` by that name."""

    expression: str
    texts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a component came from: a source package or tarball, or, for `Component.stored`, the very .deb or wheel.

    `url` and `digest` are what the lock says; without one they are empty and None.
    """

    name: str
    version: str
    purl: str
    url: str = ""
    digest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One thing that was installed. `depends` are purls of other components; `paths` are the files that are its."""

    kind: ComponentKind
    name: str
    version: str
    purl: str
    summary: str = ""
    supplier: str = ""
    homepage: str = ""
    cpe: str = ""
    licence: Licence | None = None
    source: Origin | None = None
    stored: Origin | None = None
    depends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file: its path, the digests of its bytes, and the purl of whose it is ("" when it is nobody's)."""

    path: str
    sha1: str
    sha256: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An image's contents; `digest` is the manifest's, `created` its config's time (seconds), `files` None unasked."""

    name: str
    digest: Digest
    created: int
    architecture: str
    components: tuple[Component, ...]
    files: tuple[File, ...] | None = None
    own: Digest = field(init=False)

    def __post_init__(self) -> None:
        value = (self.name, str(self.digest), self.created, self.architecture, self.components, self.files)
        object.__setattr__(self, "own", Digest.of(msgspec.json.encode(value, order="sorted")))

    @property
    def purl(self) -> str:
        """The image's own package URL (purl-spec, type `oci`)."""
        from packageurl import PackageURL  # noqa: PLC0415 (only where something is written)

        qualifiers = {"arch": self.architecture}
        return PackageURL("oci", None, self.name.lower(), str(self.digest), qualifiers).to_string()
