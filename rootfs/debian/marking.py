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


class Marking:
    """What is chosen so far. `base` is there already and stays; `fields` are those whose relations are followed.

    Fixed packages are those that must be as they are now (chosen, or left out): the wishes, and what they need without
    any choice. What a fixed package conflicts with is given up, so that no alternative leads to it.
    """

    def __init__(
        self, offers: Offers, base: Mapping[str, Package], reasons: Mapping[str, Wish], fields: tuple[str, ...]
    ):
        self._offers = offers
        self._base = base
        self._fields = fields
        self.chosen = dict(base)
        self.reasons = dict(reasons)
        self._provided: dict[str, list[Package]] = {}
        self._given_up: set[str] = set()
        self._fixed: set[str] = set()
        for package in base.values():
            self._provide(package)

    def mark(self, wishes: Iterable[Wish]) -> None:
        """Choose for the wishes: first the packages they name, then what these need."""
        named: list[str] = []
        open_: list[Wish] = []
        for wish in wishes:
            package = self._named(wish.clause)
            if package is None:
                open_.append(wish)
                continue
            named.append(package.name)
            self._fixed.add(package.name)
            if package.name not in self._base:
                self._choose(package, wish)
        for name in named:
            _run(self._install(name, self.reasons[name], user=True))
        for wish in open_:
            _run(self._satisfy(wish, held=True, critical=True))

    def broken(self) -> bool:
        """Whether a chosen package lacks something, or stands against another."""
        return any(
            not self._any(clause) for package in self.chosen.values() for clause in package.relations(*DEPENDS)
        ) or any(self._against(package, relation) for package, relation in self._forbidden())

    def satisfied(self, relation: Relation) -> list[Package]:
        """The chosen packages that are what a relation asks for."""
        named = self.chosen.get(relation.name)
        packages = ([named] if named else []) + self._provided.get(relation.name, [])
        return [package for package in packages if package.satisfies(relation)]

    def _any(self, clause: Clause) -> bool:
        return any(self.satisfied(relation) for relation in clause)

    def _forbidden(self) -> Iterator[tuple[Package, Relation]]:
        for package in self.chosen.values():
            for clause in package.relations(*FORBIDS):
                yield package, clause[0]

    def _against(self, package: Package, relation: Relation) -> bool:
        """Whether a Conflicts or Breaks of the package hits another one that is chosen (policy 7.4: never itself)."""
        return any(other.name != package.name for other in self.satisfied(relation))

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
        return [package for package in once if package.name in self.chosen or package.name not in self._fixed]

    def _choose(self, package: Package, wish: Wish) -> None:
        if package.name not in self.chosen:
            self.chosen[package.name] = package
            self.reasons[package.name] = wish
            self._provide(package)

    def _provide(self, package: Package) -> None:
        for name in package.provided:
            self._provided.setdefault(name, []).append(package)

    def _leave_out(self, name: str) -> None:
        package = self.chosen.pop(name, None)
        if package is not None:
            del self.reasons[name]
            for virtual in package.provided:
                self._provided[virtual].remove(package)

    def _install(self, name: str, wish: Wish, *, user: bool = False) -> _Task:
        """Choose a package and all it needs; the answer is whether that succeeded.

        What fails is left out and given up, but a fixed package stays. Dependencies that succeeded stay in any case.
        """
        package = self._candidate(name)
        held = name in self._fixed
        if package is None or (held and name not in self.chosen):
            return False
        if name in self.chosen and not held:
            return True
        if name not in self._base and not self._satisfiable(package):
            if not held:
                self._given_up.add(name)
            return False
        lacking = [wish for wish in self._wishes(package) if held or not self._any(wish.clause)]
        cleared = self._clear(package, held=held)
        if not (cleared or held or user):
            return False
        self._choose(package, wish)
        self._fixed.add(name)
        succeeded = cleared
        for lack in lacking:
            critical = lack.field in DEPENDS
            succeeded &= (yield self._satisfy(lack, held=held, critical=critical)) or not critical
            if not (succeeded or held or user):
                break
        if not held:
            self._fixed.discard(name)
        if not (succeeded or held or user):
            self._leave_out(name)
            self._given_up.add(name)
        return succeeded

    def _wishes(self, package: Package) -> Iterator[Wish]:
        for field in self._fields:
            for clause in package.relations(field):
                yield Wish(clause=clause, by=package.name, field=field)

    def _satisfiable(self, package: Package) -> bool:
        """Whether each dependency has a candidate at all."""
        return all(
            self._any(clause) or any(self._candidates(relation) for relation in clause)
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
                if other.name in self._base or (other.name in self.chosen and other.name in self._fixed):
                    if not held:
                        return False
                    cleared = False
                    continue
                self._leave_out(other.name)
                if held:
                    self._given_up.add(other.name)
                    self._fixed.add(other.name)
        return cleared

    def _satisfy(self, wish: Wish, *, held: bool, critical: bool) -> _Task:
        """Meet one dependency with the first alternative that can be installed.

        Where the package that states it is fixed and there is one solution only, that is fixed, too.
        """
        there = self._any(wish.clause)
        if there and not (held and critical):
            return True
        solutions = self._solutions(wish.clause)
        only = held and critical and len({package.name for package in solutions}) == 1
        if there:
            if not only or solutions[0].name in self._fixed:
                return True
            self._fixed.add(solutions[0].name)
            return (yield self._install(solutions[0].name, wish))
        for package in solutions:
            if self._candidate(package.name) is not package:
                continue
            if only:
                self._choose(package, wish)
                self._fixed.add(package.name)
            if (yield self._install(package.name, wish)):
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
