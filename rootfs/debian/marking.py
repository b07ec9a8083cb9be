"""Marking: choosing packages one after the other, in the order and with the rules of `apt-get install`.

Law: pure. This is the behaviour of apt 3.0's classic solver (apt-pkg/depcache.cc, MarkInstall) for one architecture and
no upgrades, rewritten from its description in docs/explanation/solver.md. It never takes back a choice that worked
alone, so its result may be broken: the caller checks `broken` and searches instead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import groupby

from rootfs.debian.offers import DEPENDS, FORBIDS, Offers, Wish
from rootfs.debian.package import Package
from rootfs.debian.relation import Clause, Relation

_Task = Generator["_Task", bool, bool]


class Chosen:
    """Packages by name, and by what they provide."""

    def __init__(self, packages: Iterable[Package] = ()) -> None:
        self.packages: dict[str, Package] = {}
        self._provided: dict[str, list[Package]] = {}
        for package in packages:
            self.add(package)

    def add(self, package: Package) -> None:
        """Take a package; one that is there already stays."""
        if package.name not in self.packages:
            self.packages[package.name] = package
            for name in package.provided:
                self._provided.setdefault(name, []).append(package)

    def remove(self, name: str) -> None:
        """Leave out a package, if it is there."""
        package = self.packages.pop(name, None)
        if package is not None:
            for virtual in package.provided:
                self._provided[virtual].remove(package)

    def satisfying(self, relation: Relation) -> list[Package]:
        """The packages that are what a relation asks for."""
        named = self.packages.get(relation.name)
        packages = ([named] if named else []) + self._provided.get(relation.name, [])
        return [package for package in packages if package.satisfies(relation)]

    def any_satisfying(self, clause: Clause) -> Iterator[Package]:
        """The packages that are what one of the alternatives asks for."""
        return (package for relation in clause for package in self.satisfying(relation))

    def satisfy(self, clause: Clause) -> bool:
        """Whether one of the alternatives is there."""
        return any(True for _ in self.any_satisfying(clause))


class Marking:
    """What is chosen so far. `base` is there already and stays; `fields` are those whose relations are followed.

    Fixed packages are those that must be as they are now (chosen, or left out): the wishes, and what they need without
    any choice. What a fixed package conflicts with is given up, so that no alternative leads to it.
    """

    def __init__(self, offers: Offers, base: Mapping[str, Package], fields: tuple[str, ...]) -> None:
        self._offers = offers
        self._base = base
        self._fields = fields
        self.chosen = Chosen(base.values())
        self._given_up: set[str] = set()
        self._fixed: set[str] = set()

    def mark(self, wishes: Iterable[Wish]) -> None:
        """Choose for the wishes: first the packages they name, then what these need."""
        named: list[Package] = []
        open_: list[Wish] = []
        for wish in wishes:
            package = self._named(wish.clause)
            if package is None:
                open_.append(wish)
                continue
            named.append(package)
            self._fixed.add(package.name)
            self.chosen.add(package)
        for package in named:
            _run(self._install(package.name))
        for wish in open_:
            _run(self._satisfy(wish.clause, held=True, critical=True))

    def broken(self) -> bool:
        """Whether a chosen package lacks something, or stands against another."""
        packages = list(self.chosen.packages.values())
        return any(
            not self.chosen.satisfy(clause) for package in packages for clause in package.relations(*DEPENDS)
        ) or any(self._against(package, relation) for package, relation in self._forbidden())

    def _forbidden(self) -> Iterator[tuple[Package, Relation]]:
        for package in self.chosen.packages.values():
            for clause in package.relations(*FORBIDS):
                yield package, clause[0]

    def _against(self, package: Package, relation: Relation) -> bool:
        """Whether a Conflicts or Breaks of the package hits another one that is chosen (policy 7.4: never itself)."""
        return any(other.name != package.name for other in self.chosen.satisfying(relation))

    def _named(self, clause: Clause) -> Package | None:
        package = self._offers.candidate(clause[0].name) if len(clause) == 1 else None
        return package if package is not None and package.satisfies(clause[0]) else None

    def _candidate(self, name: str) -> Package | None:
        if name in self._base:
            return self._base[name]
        return None if name in self._given_up else self._offers.candidate(name)

    def _candidates(self, relation: Relation) -> list[Package]:
        """What could be taken for a relation, fixed packages first."""
        found = [p for p in self._offers.satisfying(relation) if self._candidate(p.name) is p]
        return sorted(found, key=lambda package: package.name not in self._fixed)

    def _solutions(self, clause: Clause) -> list[Package]:
        """What could be taken for a clause; left out what must stay out."""
        found = [package for relation in clause for package in self._candidates(relation)]
        once = [package for _, (package, *_) in groupby(found, key=lambda package: package.name)]
        return [package for package in once if package.name in self.chosen.packages or package.name not in self._fixed]

    def _install(self, name: str) -> _Task:
        """Choose a package and all it needs; the answer is whether that succeeded.

        What fails is left out and given up, but a fixed package stays. Dependencies that succeeded stay in any case.
        """
        package = self._candidate(name)
        there = name in self.chosen.packages
        held = name in self._fixed
        if package is None or (held and not there):
            return False
        if there and not held:
            return True
        if name not in self._base and not self._satisfiable(package):
            if not held:
                self._given_up.add(name)
            return False
        lacking = [(f, c) for f in self._fields for c in package.relations(f) if held or not self.chosen.satisfy(c)]
        succeeded = self._clear(package, held=held)
        if succeeded or held:
            self.chosen.add(package)
            self._fixed.add(name)
            for field, clause in lacking:
                critical = field in DEPENDS
                succeeded &= (yield self._satisfy(clause, held=held, critical=critical)) or not critical
                if not (succeeded or held):
                    self.chosen.remove(name)
                    self._given_up.add(name)
                    break
            if not held:
                self._fixed.discard(name)
        return succeeded

    def _satisfiable(self, package: Package) -> bool:
        """Whether each dependency has a candidate at all."""
        return all(
            self.chosen.satisfy(clause) or any(self._candidates(relation) for relation in clause)
            for clause in package.relations(*DEPENDS)
        )

    def _clear(self, package: Package, *, held: bool) -> bool:
        """Leave out what a package conflicts with; what is fixed, or in the base, stays, and the answer is False."""
        cleared = True
        for clause in package.relations(*FORBIDS):
            if not held and not self._against(package, clause[0]):
                continue
            for other in self._candidates(clause[0]):
                if other.name == package.name:
                    continue
                if other.name in self._base or (other.name in self.chosen.packages and other.name in self._fixed):
                    if not held:
                        return False
                    cleared = False
                    continue
                self.chosen.remove(other.name)
                if held:
                    self._given_up.add(other.name)
                    self._fixed.add(other.name)
        return cleared

    def _satisfy(self, clause: Clause, *, held: bool, critical: bool) -> _Task:
        """Meet one dependency with the first alternative that can be installed.

        Where the package that states it is fixed and there is one solution only, that is fixed, too.
        """
        there = self.chosen.satisfy(clause)
        if there and not (held and critical):
            return True
        solutions = self._solutions(clause)
        only = held and critical and len({package.name for package in solutions}) == 1
        if there:
            if not only or solutions[0].name in self._fixed:
                return True
            self._fixed.add(solutions[0].name)
            return (yield self._install(solutions[0].name))
        for package in solutions:
            if self._candidate(package.name) is not package:
                continue
            if only:
                self.chosen.add(package)
                self._fixed.add(package.name)
            if (yield self._install(package.name)):
                return True
        return False


def _run(task: _Task) -> bool:
    """Run a task and the tasks it waits for, on a stack of our own: chains of dependencies get long."""
    stack = [task]
    answer: bool | None = None
    while stack:
        try:
            stack.append(stack[-1].send(answer))  # type: ignore[arg-type] # a generator is started with None
            answer = None
        except StopIteration as end:
            stack.pop()
            answer = end.value
    return bool(answer)
