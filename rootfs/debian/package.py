"""Package: a binary package's control data; PackageIndex: the packages of one or more suites by name.

Law: pure. A Package is only made from an index whose digest a verified Release vouches for (`rootfs.archive`), or from
the control file of a .deb whose digest such an index vouches for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from rootfs.debian.control import parse_stanza, split_stanzas
from rootfs.debian.relation import Clause, Relation, parse_relations
from rootfs.debian.version import Version
from rootfs.digest import Digest
from rootfs.errors import IntegrityError

_NAME = re.compile(r"^Package: *(\S+)", re.MULTILINE)
_PROVIDES = re.compile(r"^Provides: *(.*(?:\n[ \t].*)*)", re.MULTILINE)
PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True)
class Package:
    """One binary package (policy 5.3). `fields` is the whole stanza; the properties below give the typed part.

    `origin` names the archive it came from ("debian", "debian-security"): where `filename` is relative to.
    """

    fields: dict[str, str]
    origin: str = ""

    @classmethod
    def parse(cls, stanza: str, origin: str = "") -> Package:
        """From a stanza; IntegrityError when Package, Version or Architecture is missing or malformed."""
        package = cls(parse_stanza(stanza), origin)
        for name in ("Package", "Version", "Architecture"):
            if not package.fields.get(name):
                raise IntegrityError(f"a package without the field {name}", because=stanza[:80])
        return package

    @property
    def name(self) -> str:
        return self.fields["Package"]

    @cached_property
    def version(self) -> Version:
        return Version.parse(self.fields["Version"])

    @property
    def architecture(self) -> str:
        return self.fields["Architecture"]

    @property
    def source(self) -> str:
        """The source package's name (the version in parentheses is left off)."""
        return self.fields.get("Source", self.name).partition(" ")[0]

    @property
    def essential(self) -> bool:
        return self.fields.get("Essential") == "yes"

    @property
    def priority(self) -> str:
        return self.fields.get("Priority", "optional")

    @property
    def filename(self) -> str:
        """Path of the .deb below its archive's root."""
        return self.fields["Filename"]

    @property
    def size(self) -> int:
        """Bytes of the .deb."""
        return int(self.fields["Size"])

    @property
    def digest(self) -> Digest:
        """Digest of the .deb."""
        return Digest("sha256", self.fields["SHA256"])

    def relations(self, *names: str) -> Iterator[Clause]:
        """The clauses of the named relationship fields, in field order."""
        for name in names:
            yield from parse_relations(self.fields.get(name, ""))

    @cached_property
    def provides(self) -> tuple[Relation, ...]:
        """What it provides; a version constraint there is always `=` (policy 7.5)."""
        return tuple(clause[0] for clause in self.relations("Provides"))

    def __str__(self) -> str:
        return f"{self.name} {self.fields['Version']}"


class PackageIndex:
    """Packages by name and by what they provide. Stanzas are parsed when first asked for: 70,000 of them cost a second.

    Several versions of a package may be there; `named` gives the newest first.
    """

    def __init__(self) -> None:
        self._stanzas: dict[str, list[tuple[str, str]]] = {}
        self._providers: dict[str, set[str]] = {}
        self._parsed: dict[str, tuple[Package, ...]] = {}

    def add(self, text: str, origin: str) -> None:
        """Add the stanzas of a Packages file; `origin` as in Package."""
        for stanza in split_stanzas(text):
            match = _NAME.search(stanza)
            if not match:
                raise IntegrityError("a stanza of the Packages index has no Package field", because=stanza[:80])
            name = match[1]
            self._stanzas.setdefault(name, []).append((stanza, origin))
            self._parsed.pop(name, None)
            provides = _PROVIDES.search(stanza)
            if provides:
                for clause in parse_relations(provides[1]):
                    self._providers.setdefault(clause[0].name, set()).add(name)

    def named(self, name: str) -> tuple[Package, ...]:
        """The versions of a real package, newest first; empty when there is none."""
        if name not in self._parsed:
            found = [Package.parse(stanza, origin) for stanza, origin in self._stanzas.get(name, ())]
            # sorted() is stable: of equal versions the suite added first wins, as in apt's sources.list
            self._parsed[name] = tuple(sorted(found, key=lambda package: package.version, reverse=True))
        return self._parsed[name]

    def providers(self, name: str) -> tuple[Package, ...]:
        """The packages whose Provides names this, by name."""
        names = sorted(self._providers.get(name, ()))
        return tuple(
            package
            for provider in names
            for package in self.named(provider)
            if any(provided.name == name for provided in package.provides)
        )

    def names(self) -> Iterable[str]:
        """Every real package's name."""
        return self._stanzas.keys()

    def essential(self) -> tuple[Package, ...]:
        """The newest version of every Essential package, by name."""
        return tuple(package for package in self._newest_with("\nEssential: yes") if package.essential)

    def with_priority(self, priority: str) -> tuple[Package, ...]:
        """The newest version of every package of this Priority, by name."""
        return tuple(package for package in self._newest_with(f"\nPriority: {priority}") if package.priority == priority)

    def _newest_with(self, field: str) -> Iterator[Package]:
        names = sorted(name for name, found in self._stanzas.items() if any(field in stanza for stanza, _ in found))
        return (self.named(name)[0] for name in names)
