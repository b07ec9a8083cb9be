"""Solve: (package index, what is wanted) -> the packages to install, or the chain of reasons why there are none.

Law: pure and deterministic. Rules are policy's (chapter 7), choices are apt's: the newest version; an alternative in
the order written; among providers Essential first, then Priority, then name. No Recommends. Clauses that leave one
candidate are taken before any choice is made; a choice that leads into a conflict is taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rootfs.debian.package import PRIORITIES, Package, PackageIndex
from rootfs.debian.relation import Clause, Relation, parse_relations
from rootfs.errors import ResolveError

_DEPENDS = ("Pre-Depends", "Depends")
_FORBIDS = ("Conflicts", "Breaks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A clause to satisfy and the package that states it (None: the recipe)."""

    clause: Clause
    by: str | None = None

    def __str__(self) -> str:
        return " | ".join(str(relation) for relation in self.clause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen packages by name, and for each the wish that first pulled it."""

    packages: tuple[Package, ...]
    reasons: Mapping[str, Wish]

    def explain(self, name: str) -> str:
        """Who pulls a package: `libexpat1 <- python-runtime <- recipe`."""
        return _chain(self.reasons, name)


@dataclass(slots=True)
class _State:
    """One branch of the search."""

    chosen: dict[str, Package] = field(default_factory=dict)
    reasons: dict[str, Wish] = field(default_factory=dict)
    provided: dict[str, list[Package]] = field(default_factory=dict)
    open: list[Wish] = field(default_factory=list)

    def copy(self) -> _State:
        provided = {name: list(packages) for name, packages in self.provided.items()}
        return _State(dict(self.chosen), dict(self.reasons), provided, list(self.open))

    def choose(self, package: Package, wish: Wish) -> None:
        self.chosen[package.name] = package
        self.reasons[package.name] = wish
        for relation in package.provides:
            self.provided.setdefault(relation.name, []).append(package)
        self.open += [Wish(clause=clause, by=package.name) for clause in package.relations(*_DEPENDS)]

    def satisfied(self, relation: Relation) -> bool:
        package = self.chosen.get(relation.name)
        if package is not None and relation.accepts(package.version):
            return True
        return any(_provides(provider, relation) for provider in self.provided.get(relation.name, ()))


def solve(index: PackageIndex, wanted: Sequence[str], *, deny: Iterable[str] = (), essential: bool = True) -> Selection:
    """Choose packages for the relations in `wanted` (`name`, `name (= version)`, `a | b`), Essential ones added.

    `deny` names packages that must not be chosen. ResolveError names the wish that cannot be met and who has it.
    """
    denied = frozenset(deny)
    wishes = [Wish(clause=clause) for text in wanted for clause in parse_relations(text)]
    if essential:
        wishes += [Wish(clause=parse_relations(package.name)[0]) for package in index.essential()]
    choices: list[tuple[_State, Wish, list[Package]]] = []
    state = _State(open=wishes)
    dead_end: ResolveError | None = None
    while state.open:
        wish, candidates = _next(index, state, denied)
        if wish is None:
            break
        while not candidates:
            dead_end = dead_end or _unsatisfiable(index, state, wish, denied)
            if not choices:
                raise dead_end
            state, wish, candidates = choices.pop()
        if len(candidates) > 1:
            choices.append((state.copy(), wish, candidates[1:]))
        state.choose(candidates[0], wish)
    packages = tuple(state.chosen[name] for name in sorted(state.chosen))
    return Selection(packages=packages, reasons=state.reasons)


def _next(index: PackageIndex, state: _State, denied: frozenset[str]) -> tuple[Wish | None, list[Package]]:
    """The next wish to act on, taken off the open ones: the first that leaves no choice, else the oldest."""
    waiting: list[tuple[Wish, list[Package]]] = []
    pending, state.open = state.open, []
    for position, wish in enumerate(pending):
        if any(state.satisfied(relation) for relation in wish.clause):
            continue
        candidates = list(_candidates(index, state, wish.clause, denied))
        if len(candidates) < 2:
            state.open = [waited for waited, _ in waiting] + pending[position + 1 :]
            return wish, candidates
        waiting.append((wish, candidates))
    if not waiting:
        return None, []
    state.open = [waited for waited, _ in waiting[1:]]
    return waiting[0]


def _candidates(index: PackageIndex, state: _State, clause: Clause, denied: frozenset[str]) -> Iterator[Package]:
    """The packages that could satisfy a clause beside what is chosen, best first, each once."""
    seen: set[str] = set()
    for relation in clause:
        for package in _offers(index, relation):
            usable = package.name not in denied and package.name not in state.chosen
            if usable and package.name not in seen and _conflict(state, package) is None:
                seen.add(package.name)
                yield package


def _offers(index: PackageIndex, relation: Relation) -> list[Package]:
    """The newest acceptable version of the real package, then the providers as apt ranks them (depcache.cc)."""
    real = [package for package in index.named(relation.name) if relation.accepts(package.version)][:1]
    providers = [p for p in index.providers(relation.name) if _provides(p, relation) and _newest(index, p)]
    return real + sorted(providers, key=_rank)


def _newest(index: PackageIndex, package: Package) -> bool:
    return index.named(package.name)[0] is package


def _rank(package: Package) -> tuple[bool, bool, int, str]:
    priority = PRIORITIES.index(package.priority) if package.priority in PRIORITIES else len(PRIORITIES)
    return (not package.essential, package.fields.get("Important") != "yes", priority, package.name)


def _provides(package: Package, relation: Relation) -> bool:
    """Policy 7.5: an unversioned Provides never satisfies a versioned relation."""
    return any(
        provided.name == relation.name
        and (relation.version is None or (provided.version is not None and relation.accepts(provided.version)))
        for provided in package.provides
    )


def _conflict(state: _State, package: Package) -> str | None:
    """Who stands in the way of a package: the name of a chosen package that forbids it or that it forbids."""
    for clause in package.relations(*_FORBIDS):
        for relation in clause:
            other = state.chosen.get(relation.name)
            if other is not None and other.name != package.name and relation.accepts(other.version):
                return other.name
            for provider in state.provided.get(relation.name, ()):
                if provider.name != package.name and _provides(provider, relation):
                    return provider.name
    for other in state.chosen.values():
        for clause in other.relations(*_FORBIDS):
            for relation in clause:
                same = relation.name == package.name and relation.accepts(package.version)
                if same or (other.name != package.name and _provides(package, relation)):
                    return other.name
    return None


def _unsatisfiable(index: PackageIndex, state: _State, wish: Wish, denied: frozenset[str]) -> ResolveError:
    """Why nothing satisfies a wish: each alternative with its own reason, and the chain that led here."""
    reasons: list[str] = []
    for relation in wish.clause:
        offers = _offers(index, relation)
        if not offers:
            versions = ", ".join(str(package.version) for package in index.named(relation.name))
            reasons.append(f"{relation}: {'only ' + versions + ' is there' if versions else 'no such package'}")
        for package in offers:
            if package.name in denied:
                reasons.append(f"{package}: denied by the recipe")
            elif package.name in state.chosen:
                reasons.append(f"{package}: version {state.chosen[package.name].version} is already chosen")
            else:
                reasons.append(f"{package}: conflicts with {_conflict(state, package)}")
    wanted_by = _chain(state.reasons, wish.by) if wish.by else "recipe"
    return ResolveError(
        f"cannot satisfy `{wish}`",
        at=f"wanted by {wanted_by}",
        because="; ".join(reasons),
        hint="check the name and suite, `[base] deny`, and what else the recipe asks for",
    )


def _chain(reasons: Mapping[str, Wish], name: str) -> str:
    names = [name]
    while (wish := reasons.get(names[-1])) is not None and wish.by is not None:
        names.append(wish.by)
    return " <- ".join([*names, "recipe"])
