"""Installed: which Debian packages, CPythons and Python distributions an image holds, by its own files.

Law: reads a Tree and the few contents that say so (`builder.oci.listing.PRECIOUS`); runs nothing. What an image's files
do not say is not guessed: a CPython that names no patch release is of its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from builder.python.anatomy import Python, pythons
from rootfs.debian.control import parse_stanza
from rootfs.debian.dpkg import ADMIN, STATUS_FILES
from rootfs.errors import IntegrityError
from rootfs.ports import Store, read_content
from rootfs.sizes import NO_PACKAGE, package_sizes
from rootfs.tree import Kind, Tree

_PATCHLEVEL = re.compile(rb'^#define\s+PY_VERSION\s+"([^"]+)"', re.MULTILINE)
_DISTRIBUTION = re.compile(
    r"(?:.*/)?(?:site|dist)-packages/(?P<name>[^/-]+)-(?P<version>[^/-]+)[^/]*\.(?:dist|egg)-info"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Debian package: version, and bytes of its files' contents in the image."""

    name: str
    version: str
    architecture: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """name -> package; CPython's place and name -> version; directory and name of a distribution -> version.

    `unowned` is how many bytes lie in files of no package.
    """

    packages: Mapping[str, Package]
    pythons: Mapping[str, str]
    distributions: Mapping[str, str]
    unowned: int


NOTHING = Installed(packages={}, pythons={}, distributions={}, unowned=0)


def installed(tree: Tree, store: Store, environment: Mapping[str, str]) -> Installed:
    """What is installed in a Tree; `environment` is the image config's. IntegrityError for a damaged database."""
    sizes: dict[str, int] = {}
    for row in package_sizes(tree, store):
        name = row.name.partition(":")[0]
        sizes[name] = sizes.get(name, 0) + row.size
    packages: dict[str, Package] = {}
    for stanza in _stanzas(tree, store):
        found = Package(
            name=stanza["Package"],
            version=stanza.get("Version", ""),
            architecture=stanza.get("Architecture", ""),
            size=sizes.get(stanza["Package"], 0),
        )
        both = found.name in packages  # for a second architecture
        packages[f"{found.name}:{found.architecture}" if both else found.name] = found
    return Installed(
        packages=packages,
        pythons={str(one): _version(one, tree, store, environment, packages) for one in pythons(tree)},
        distributions=dict(_distributions(tree)),
        unowned=sizes.get(NO_PACKAGE, 0),
    )


def _stanzas(tree: Tree, store: Store) -> Iterator[dict[str, str]]:
    """The stanzas of packages that are unpacked, in the order of the database."""
    database = tree.get(f"{ADMIN}/status")
    entries = [database, *tree.below(STATUS_FILES)] if database else list(tree.below(STATUS_FILES))
    for entry in entries:
        if entry.kind is not Kind.FILE or entry.path.endswith(".md5sums"):
            continue
        text = read_content(store, entry.content).decode("utf-8", "surrogateescape")
        for stanza in text.split("\n\n"):
            try:
                fields = parse_stanza(stanza)
            except IntegrityError as error:
                raise IntegrityError("dpkg's database cannot be read", at=entry.path, because=error.message) from error
            status = fields.get("Status", "install ok installed").rpartition(" ")[2]
            if fields.get("Package") and status not in ("not-installed", "config-files"):
                yield fields


def _version(
    python: Python, tree: Tree, store: Store, environment: Mapping[str, str], packages: Mapping[str, Package]
) -> str:
    """The version that its headers, its own details, its package or the image's environment name."""
    headers = tree.get(f"{python.prefix}include/{python.name}/patchlevel.h")
    if headers and (match := _PATCHLEVEL.search(read_content(store, headers.content))):
        return match[1].decode("ascii", "replace")
    details = tree.get(f"{python.library}/build-details.json")
    if details:
        try:
            version = json.loads(read_content(store, details.content))["implementation"]["version"]
            return ".".join(str(version[part]) for part in ("major", "minor", "micro"))
        except (ValueError, KeyError, TypeError):
            pass
    for package in (f"ocibuild-{python.name}", f"lib{python.name}-minimal", f"{python.name}-minimal"):
        if package in packages and not (package.startswith("ocibuild-") and python.prefix != "usr/local/"):
            return packages[package].version.partition("-")[0]
    named = environment.get("PYTHON_VERSION", "")
    return named if named.startswith(f"{python.line}.") else python.line


def _distributions(tree: Tree) -> Iterator[tuple[str, str]]:
    """`name (directory)` -> version, by the names of dist-info directories (PEP 376, PEP 427)."""
    for path in tree:
        if path.endswith((".dist-info", ".egg-info")) and (match := _DISTRIBUTION.fullmatch(path)):
            yield f"{match['name']} (/{path.rpartition('/')[0]})", match["version"]
