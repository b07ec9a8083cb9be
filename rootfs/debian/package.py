"""Package: a binary package's control data (policy 5.3), and what it satisfies.

Law: pure. A Package is only made from an index whose digest a verified Release vouches for (`rootfs.archive`), or from
the control file of a .deb whose digest such an index vouches for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from rootfs.debian.control import parse_stanza
from rootfs.debian.relation import Clause, Relation, parse_relations
from rootfs.debian.version import Version
from rootfs.digest import Digest
from rootfs.errors import IntegrityError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*\Z")  # what dpkg takes; policy 5.6.7 asks for less
PRIORITIES = ("required", "important", "standard", "optional", "extra")


@dataclass(frozen=True)
class Package:
    """One binary package (policy 5.3). `fields` is the whole stanza; the properties below give the typed part.

    `origin` names the archive it came from ("debian", "debian-security"): where `filename` is relative to. `suites` are
    the names of the suite it came from (suite, codename), `pin` is that suite's priority (apt_preferences(5)).
    """

    fields: dict[str, str]
    origin: str = ""
    suites: frozenset[str] = frozenset()
    pin: int = 500

    @classmethod
    def parse(cls, stanza: str, origin: str = "", *, suites: frozenset[str] = frozenset(), pin: int = 500) -> Package:
        """From a stanza; IntegrityError when Package, Version or Architecture is missing or malformed."""
        package = cls(parse_stanza(stanza), origin, suites, pin)
        for name in ("Package", "Version", "Architecture"):
            if not package.fields.get(name):
                raise IntegrityError(f"a package without the field {name}", because=stanza[:80])
        for name in (package.name, package.architecture):
            if not _NAME.match(name):
                raise IntegrityError(f"not a name of a package or an architecture: {name[:80]!r}")
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
    def important(self) -> bool:
        """Whether it is Protected (deb-control(5)), or Important as apt's older field has it."""
        return "yes" in (self.fields.get("Protected"), self.fields.get("Important"))

    @property
    def multi_arch(self) -> str:
        """`no`, `same`, `foreign` or `allowed` (deb-control(5))."""
        return self.fields.get("Multi-Arch", "no")

    @property
    def priority(self) -> str:
        return self.fields.get("Priority", "optional")

    @property
    def filename(self) -> str:
        """Path of the .deb below its archive's root."""
        return self._listed("Filename")

    @property
    def size(self) -> int:
        """Bytes of the .deb."""
        text = self._listed("Size")
        if not re.fullmatch("[0-9]{1,18}", text):
            raise IntegrityError(f"the Size of {self} is no number: {text[:80]!r}")
        return int(text)

    @property
    def digest(self) -> Digest:
        """Digest of the .deb."""
        return Digest("sha256", self._listed("SHA256"))

    def _listed(self, field: str) -> str:
        """A field that the Packages index adds to the control data."""
        if field not in self.fields:
            raise IntegrityError(f"the index lists {self} without the field {field}")
        return self.fields[field]

    def relations(self, *names: str) -> Iterator[Clause]:
        """The clauses of the named relationship fields, in field order."""
        for name in names:
            yield from parse_relations(self.fields.get(name, ""))

    @cached_property
    def provides(self) -> tuple[Relation, ...]:
        """What it provides; a version constraint there is always `=` (policy 7.5)."""
        return tuple(clause[0] for clause in self.relations("Provides"))

    @cached_property
    def provided(self) -> dict[str, tuple[Relation, ...]]:
        """`provides` by name."""
        found: dict[str, tuple[Relation, ...]] = {}
        for relation in self.provides:
            found[relation.name] = (*found.get(relation.name, ()), relation)
        return found

    def satisfies(self, relation: Relation) -> bool:
        """Whether it is what a relation asks for, by its own name or by what it provides (policy 7.5).

        An unversioned Provides never satisfies a versioned relation. Of the architecture qualifiers `any` asks for
        `Multi-Arch: allowed`, and an architecture's name for a package built for it or for all.
        """
        qualifier = relation.qualifier
        if relation.name == self.name and self._qualifies(qualifier) and relation.accepts(self.version):
            return True
        return any(
            (offer.qualifier == qualifier or (offer.qualifier is None and self._qualifies(qualifier)))
            and (relation.version is None or (offer.version is not None and relation.accepts(offer.version)))
            for offer in self.provided.get(relation.name, ())
        )

    def _qualifies(self, qualifier: str | None) -> bool:
        if qualifier == "any":
            return self.multi_arch == "allowed"
        return qualifier in (None, "native", self.architecture) or self.architecture == "all"

    def __str__(self) -> str:
        return f"{self.name} {self.fields['Version']}"
