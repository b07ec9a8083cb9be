"""Offers: what is wished for, and which package would be taken for it, best first, as apt ranks them.

Law: pure. Of each package there is one candidate: the version of the highest pin, of those the newest, unless a wish
names another; a denied package has none. Ranking is that of apt 3.0, apt-pkg/depcache.cc, CompareProviders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from rootfs.debian.index import PackageIndex
from rootfs.debian.package import PRIORITIES, Package
from rootfs.debian.relation import Clause, Relation

DEPENDS = ("Pre-Depends", "Depends")
FORBIDS = ("Conflicts", "Breaks")
ASKED = "request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A clause to satisfy, the package that states it, and in which field.

    `by` is None for what the user asks for; then `field` is ASKED, or "Essential" for a package that is.
    """

    clause: Clause
    by: str | None = None
    field: str = ASKED

    def __str__(self) -> str:
        return " | ".join(str(relation) for relation in self.clause)


class Offers:
    """A package index as seen through a deny-list and the versions that wishes picked (`pick`)."""

    def __init__(self, index: PackageIndex, denied: frozenset[str]) -> None:
        self.index = index
        self.denied = denied
        self._picked: dict[str, Package] = {}
        self._found: dict[Relation, tuple[Package, ...]] = {}

    def pick(self, package: Package) -> None:
        """Make this version the candidate of its name."""
        self._picked[package.name] = package
        self._found.clear()

    def candidate(self, name: str) -> Package | None:
        """The version of a real package that would be taken."""
        if name in self.denied:
            return None
        return self._picked.get(name) or next(iter(self.index.named(name)), None)

    def satisfying(self, relation: Relation) -> tuple[Package, ...]:
        """The candidates that are what a relation asks for, the one to take first."""
        if relation not in self._found:
            names = {relation.name, *(package.name for package in self.index.providers(relation.name))}
            candidates = filter(None, map(self.candidate, sorted(names)))
            found = [package for package in candidates if package.satisfies(relation)]
            self._found[relation] = tuple(self._ranked(relation.name, found))
        return self._found[relation]

    def any_version(self, relation: Relation) -> list[Package]:
        """As `satisfying`, and after the candidates every other version that would do."""
        first = self.satisfying(relation)
        packages = (*self.index.named(relation.name), *self.index.providers(relation.name))
        others = [p for p in packages if p.name not in self.denied | self._picked.keys() and p.satisfies(relation)]
        return [*first, *(package for package in others if not any(package is one for one in first))]

    def follow(self, package: Package, suite: str) -> None:
        """Pick a package from a suite, and with it what of its dependencies only that suite can satisfy."""
        self.pick(package)
        for clause in package.relations(*DEPENDS):
            if not any(self.satisfying(relation) for relation in clause):
                for one in [one for one in self._in_suite(clause, suite) if self.candidate(one.name) is not one][:1]:
                    self.follow(one, suite)

    def _in_suite(self, clause: Clause, suite: str) -> Iterator[Package]:
        for relation in clause:
            for package in (*self.index.named(relation.name), *self.index.providers(relation.name)):
                if suite in package.suites and package.name not in self.denied and package.satisfies(relation):
                    yield package

    def _ranked(self, name: str, packages: Iterable[Package]) -> Iterator[Package]:
        """The real package, then Essential, Protected, Priority; what is equal then, the one apt met last."""

        def rank(package: Package) -> tuple[bool, bool, bool, int]:
            order = PRIORITIES.index(package.priority) if package.priority in PRIORITIES else len(PRIORITIES)
            return package.name != name, not package.essential, not package.important, order

        for _, group in groupby(sorted(packages, key=rank), key=rank):
            equal = list(group)
            if len(equal) > 1:
                equal.sort(key=lambda package: self.index.mention(package.name), reverse=True)
            yield from equal
