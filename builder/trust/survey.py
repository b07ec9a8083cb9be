"""Survey: an image's file system -> its Contents: Debian's packages, CPython, what pip installed, whose each file is.

Law: pure but for reading contents from the store; runs nothing. Believes dpkg's database, `dist-info` and the lock, as
a scanner does. Whoever built the image: a recipe's lock only adds where the bytes came from. Sources: deb-control(5),
PyPA "Core metadata" and "Recording installed projects", purl-spec (types deb, generic, pypi), os-release(5).
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser

from packageurl import PackageURL

from builder.lock import Lock, LockedPackage, LockedSource
from builder.python.anatomy import Part, Python, parts, pythons
from builder.trust.contents import Component, Contents, File, Licence, Origin
from builder.trust.licences import licence_of
from rootfs.debian.dpkg import ADMIN, STATUS_FILES
from rootfs.debian.package import Package
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError
from rootfs.ports import Store, read_content
from rootfs.sizes import owners
from rootfs.tree import Kind, Tree, parent
from rootfs.url import without_user

_OURS = "ocibuild-python"  # builder.python.register
_METADATA = re.compile(r"(?P<site>.*(?:site|dist)-packages)/(?P<info>[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO))")
_PATCHLEVEL = re.compile(rb'^#define PY_VERSION\s+"([^"]+?)\+?"', re.MULTILINE)
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
_HOPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What is surveyed: a name for it, its manifest's digest, its config's time, platform and environment, its Tree."""

    name: str
    digest: Digest
    created: int
    architecture: str
    environment: Mapping[str, str]
    tree: Tree


def survey(image: Surveyed, store: Store, *, lock: Lock | None = None, files: bool = False) -> Contents:
    """What the image is made of; with `files` also every regular file. IntegrityError for a database that is damaged.

    The lock must be the one that the image was built from.
    """
    reading = _Reading(image, store, lock)
    found = {one.purl: one for one in (*reading.debs(), *reading.interpreters(), *reading.distributions())}
    return Contents(
        name=image.name,
        digest=image.digest,
        created=image.created,
        architecture=image.architecture,
        components=tuple(found[purl] for purl in sorted(found)),
        files=tuple(reading.files()) if files else None,
    )


class _Reading:
    """One Tree, with what its databases say."""

    def __init__(self, image: Surveyed, store: Store, lock: Lock | None) -> None:
        self._image = image
        self._tree = image.tree
        self._store = store
        self._lock = lock
        self._distro, self._codename = self._release()
        self._packages = {one.name: one for one in self._installed()}
        self._purls = {name: self._deb_purl(one) for name, one in self._packages.items()}
        self._owners = {path: stem.partition(":")[0] for path, stem in owners(self._tree, store).items()}
        self._pythons = pythons(self._tree)

    # What is read

    def _read(self, path: str) -> bytes | None:
        """The bytes of a file, through links; None when there is no such file."""
        for _ in range(_HOPS):
            path = self._tree.resolve(path)
            entry = self._tree.get(path)
            if entry is None:
                return None
            if entry.kind is Kind.FILE:
                return read_content(self._store, entry.content)
            if entry.kind is Kind.HARDLINK:
                path = entry.link
            elif entry.kind is Kind.SYMLINK:
                path = entry.link if entry.link.startswith("/") else f"{parent(path)}/{entry.link}"
            else:
                return None
        return None

    def _text(self, path: str) -> str | None:
        data = self._read(path)
        return None if data is None else data.decode("utf-8", "replace")

    def _release(self) -> tuple[str, str]:
        """ID and codename of the distribution (os-release(5))."""
        text = self._text("etc/os-release") or self._text("usr/lib/os-release") or ""
        pairs = dict(line.split("=", 1) for line in text.split("\n") if "=" in line and not line.startswith("#"))
        said = {name: value.strip().strip("\"'") for name, value in pairs.items()}
        version = said.get("VERSION_CODENAME") or said.get("VERSION_ID") or ""
        return said.get("ID") or "debian", version

    def _installed(self) -> Iterator[Package]:
        """dpkg's packages, in the order of its database."""
        places = [f"{ADMIN}/status"] if f"{ADMIN}/status" in self._tree else []
        places += [e.path for e in self._tree.below(STATUS_FILES) if not e.path.endswith(".md5sums")]
        for place in places:
            for stanza in re.split(r"\n[ \t]*\n", (self._text(place) or "").strip("\n")):
                try:
                    package = Package.parse(stanza) if stanza.strip() else None
                except IntegrityError as error:
                    raise IntegrityError(error.message, at=f"/{place}", because=error.because) from error
                if package is not None and package.fields.get("Status", "installed").endswith("installed"):
                    yield package

    # Debian's packages

    def debs(self) -> Iterator[Component]:
        """The packages that dpkg knows, less the interpreter that we told it of."""
        locked = self._locked()
        providers: dict[str, list[Package]] = {}
        for package in self._packages.values():
            for name in (package.name, *package.provided):
                providers.setdefault(name, []).append(package)
        for package in self._packages.values():
            if package.name.startswith(_OURS):
                continue
            purl, version = self._purls[package.name], package.fields["Version"]
            one = locked.get((package.name, version))
            yield Component(
                kind="deb",
                name=package.name,
                version=version,
                purl=purl,
                summary=package.fields.get("Description", "").partition("\n")[0].strip(),
                supplier=package.fields.get("Maintainer", ""),
                homepage=package.fields.get("Homepage", ""),
                licence=self._licence(package),
                source=self._source(package),
                stored=None if one is None else _deb(one, purl),
                depends=tuple(sorted(set(self._depends(package, providers)))),
            )

    def _locked(self) -> dict[tuple[str, str], LockedPackage]:
        """The lock's packages; LockError when the image has others."""
        if self._lock is None:
            return {}
        locked = {(one.name, one.version): one for one in self._lock.packages("runtime")}
        own = {(one.name, one.fields["Version"]) for one in self._packages.values() if not one.name.startswith(_OURS)}
        if foreign := sorted(own - locked.keys()):
            name, version = foreign[0]
            raise LockError(
                "the lock is that of another image",
                at=self._image.name,
                because=f"it does not name {name} {version}, which is in the image",
                hint="give the lock that the image was built from, or none",
            )
        return locked

    def _deb_purl(self, package: Package) -> str:
        source = self._source(package)
        upstream = source.name if source.version == package.fields["Version"] else f"{source.name}@{source.version}"
        qualifiers = {"arch": package.architecture, "distro": self._codename}
        if upstream != package.name:
            qualifiers["upstream"] = upstream
        return _purl("deb", self._distro, package.name, package.fields["Version"], qualifiers)

    def _source(self, package: Package) -> Origin:
        """The source package; its version is the binary's unless the field says otherwise (policy 5.6.1)."""
        name, _, rest = package.fields.get("Source", package.name).partition(" ")
        version = rest.strip().strip("()") or package.fields["Version"]
        qualifiers = {"arch": "source", "distro": self._codename}
        return Origin(name=name, version=version, purl=_purl("deb", self._distro, name, version, qualifiers))

    def _licence(self, package: Package) -> Licence | None:
        text = self._text(f"usr/share/doc/{package.name}/copyright")
        return None if text is None else licence_of(text, package.source)

    def _depends(self, package: Package, providers: Mapping[str, list[Package]]) -> Iterator[str]:
        """purls of the packages that satisfy what it depends on."""
        for clause in package.relations("Pre-Depends", "Depends"):
            for relation in clause:
                for other in providers.get(relation.name, ()):
                    if other is not package and other.satisfies(relation) and not other.name.startswith(_OURS):
                        yield self._purls[other.name]

    # CPython

    def interpreters(self) -> Iterator[Component]:
        """The CPythons that are of no Debian package."""
        for python in self._pythons:
            version = self._python_version(python)
            if version is None:
                continue
            said = None if self._lock is None else self._lock.source_named("cpython")
            source = None if said is None or said.version != version else _locked(said, self._generic(version))
            stanza = self._packages.get(f"{_OURS}{python.line}")
            yield Component(
                kind="cpython",
                name="cpython",
                version=version,
                purl=self._generic(version),
                summary=f"The Python interpreter, {python}",
                supplier="Python Software Foundation",
                homepage="https://www.python.org/",
                cpe=_cpe(version),
                licence=Licence(expression="PSF-2.0"),
                source=source,
                depends=() if stanza is None else tuple(sorted(self._named(stanza))),
            )

    def _generic(self, version: str) -> str:
        return _purl("generic", None, "cpython", version)

    def _named(self, package: Package) -> Iterator[str]:
        for clause in package.relations("Depends"):
            yield from (self._purls[one.name] for one in clause if one.name in self._packages)

    def _python_version(self, python: Python) -> str | None:
        """Its version, by what we told dpkg, its headers, or the image's environment; None for Debian's own."""
        owner = self._owners.get(f"{python.library}/os.py", "")
        if owner and not owner.startswith(_OURS):
            return None
        if owner in self._packages:
            return self._packages[owner].fields["Version"].partition("-")[0].replace("~", "")
        header = self._read(f"{python.prefix}include/{python.name}/patchlevel.h") or b""
        if match := _PATCHLEVEL.search(header):
            return match[1].decode("ascii", "replace")
        said = self._image.environment.get("PYTHON_VERSION", "")
        return said if _VERSION.fullmatch(said) and said.startswith(f"{python.line}.") else f"{python.line}"

    # What pip installed

    def distributions(self) -> Iterator[Component]:
        """What has a `dist-info` or `egg-info` below site-packages or dist-packages."""
        said = None if self._lock is None else self._lock.source_named("pip")
        for path, _ in self._metadata():
            fields = HeaderParser().parsestr(self._text(path) or "")
            name, version = str(fields.get("Name", "")).strip(), str(fields.get("Version", "")).strip()
            if not name or not version:
                raise IntegrityError("a distribution without a name or version", at=f"/{path}")
            purl = _pypi(name, version)
            is_locked = said is not None and (_normal(name), version) == ("pip", said.version)
            yield Component(
                kind="pypi",
                name=name,
                version=version,
                purl=purl,
                summary=str(fields.get("Summary", "")).strip(),
                supplier=str(fields.get("Author") or fields.get("Author-email") or "").strip(),
                homepage=str(fields.get("Home-page", "")).strip(),
                licence=_spdx(str(fields.get("License-Expression") or fields.get("License") or "")),
                stored=_locked(said, purl) if said is not None and is_locked else None,
            )

    def _metadata(self) -> Iterator[tuple[str, str]]:
        """(path of the metadata, the directory that its RECORD is relative to)."""
        for path, entry in self._tree.items():
            if entry.kind is not Kind.DIRECTORY and (match := _METADATA.fullmatch(path)):
                yield path, match["site"]

    # Files

    def files(self) -> Iterator[File]:
        """Every regular file, in the order of the Tree, with whose it is."""
        recorded, by_name = self._recorded()
        claims = parts(self._tree, self._pythons)
        for path, entry in self._tree.items():
            target = self._tree.get(entry.link) if entry.kind is Kind.HARDLINK else entry
            if target is None or target.kind is not Kind.FILE:
                continue
            content = read_content(self._store, target.content)
            yield File(
                path=_printable(path),
                sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
                sha256=hashlib.sha256(content).hexdigest(),
                owner=recorded.get(path) or self._owner(path, claims.get(path), by_name),
            )

    def _owner(self, path: str, claim: tuple[Python, Part] | None, by_name: Mapping[str, str]) -> str:
        package = self._owners.get(path, "")
        if package and not package.startswith(_OURS):
            return self._purls.get(package, "")
        if claim is None:
            return ""
        python, part = claim
        if part.kind == "installed" and _normal(part.name) in by_name:
            return by_name[_normal(part.name)]
        version = self._python_version(python)
        return "" if version is None else self._generic(version)

    def _recorded(self) -> tuple[dict[str, str], dict[str, str]]:
        """path -> purl by every RECORD, and normalised name -> purl."""
        recorded: dict[str, str] = {}
        by_name: dict[str, str] = {}
        for (path, site), one in zip(self._metadata(), self.distributions(), strict=True):
            by_name.setdefault(_normal(one.name), one.purl)
            listing = self._text(f"{parent(path)}/RECORD") or ""
            for row in csv.reader(io.StringIO(listing)):
                if row and not row[0].startswith("/"):
                    recorded[self._tree.resolve(f"{site}/{row[0]}")] = one.purl
        return recorded, by_name


def _deb(package: LockedPackage, purl: str) -> Origin:
    url = without_user(package.url)
    return Origin(name=package.name, version=package.version, purl=purl, url=url, digest=package.digest)


def _locked(source: LockedSource, purl: str) -> Origin:
    """A source of the lock; the first of its URLs is upstream's own."""
    url = without_user(source.urls[0]) if source.urls else ""
    digest = Digest("sha256", source.sha256)
    return Origin(name=source.name, version=source.version, purl=purl, url=url, digest=digest)


def _purl(
    kind: str, namespace: str | None, name: str, version: str, qualifiers: Mapping[str, str] | None = None
) -> str:
    given = {key: value for key, value in (qualifiers or {}).items() if value}
    return PackageURL(kind, namespace, name, version, given).to_string()


def _pypi(name: str, version: str) -> str:
    return _purl("pypi", None, _normal(name), version)


def _normal(name: str) -> str:
    """A distribution's name as the index writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpe(version: str) -> str:
    """The name under which the NVD knows a release of CPython (CPE 2.3, formatted string)."""
    match = re.fullmatch(r"([\d.]+)((?:a|b|rc)\d+)?", version)
    number, update = (match[1], match[2] or "*") if match else ("*", "*")
    return f"cpe:2.3:a:python:python:{number}:{update}:*:*:*:*:*:*"


def _spdx(text: str) -> Licence | None:
    """An SPDX expression that is one; None for a licence in other words."""
    from license_expression import get_spdx_licensing  # noqa: PLC0415 (reads SPDX's list of licences)

    if not text.strip() or "\n" in text.strip():
        return None
    info = get_spdx_licensing().validate(text.strip())
    return None if info.errors else Licence(expression=str(info.normalized_expression))


def _printable(path: str) -> str:
    """A path as text that JSON can carry: bytes that are not UTF-8 as \\xNN."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
