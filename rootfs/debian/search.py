"""Search: packages for all wishes at once, with choices taken back; or the reasons why there are none.

Law: pure and deterministic. It runs where marking, which never takes back a choice, left something broken. Clauses that
leave one candidate are taken before any choice is made; a choice that leads into a conflict is taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from rootfs.debian.offers import ASKED, DEPENDS, FORBIDS, Offers, Wish
from rootfs.debian.package import Package
from rootfs.debian.relation import Clause, Relation
from rootfs.errors import ResolveError

_PATIENCE = 1000
"""Choices taken back before the search is given up: archives have few conflicts, and what is unsolvable has no end."""


@dataclass(slots=True)
class _State:
    """One branch of the search; `forbidden`: name -> who forbids it, and how."""

    chosen: dict[str, Package] = field(default_factory=dict)
    reasons: dict[str, Wish] = field(default_factory=dict)
    provided: dict[str, tuple[Package, ...]] = field(default_factory=dict)
    forbidden: dict[str, tuple[tuple[Package, Relation], ...]] = field(default_factory=dict)
    open: list[Wish] = field(default_factory=list)

    def copy(self) -> _State:
        return _State(dict(self.chosen), dict(self.reasons), dict(self.provided), dict(self.forbidden), list(self.open))

    def choose(self, package: Package, wish: Wish) -> None:
        self.chosen[package.name] = package
        self.reasons[package.name] = wish
        for name in package.provided:
            self.provided[name] = (*self.provided.get(name, ()), package)
        for clause in package.relations(*FORBIDS):
            self.forbidden[clause[0].name] = (*self.forbidden.get(clause[0].name, ()), (package, clause[0]))
        for kind in DEPENDS:
            self.open += [Wish(clause=clause, by=package.name, field=kind) for clause in package.relations(kind)]

    def satisfied(self, relation: Relation) -> bool:
        return any(package.satisfies(relation) for package in self.holding(relation.name))

    def holding(self, name: str) -> tuple[Package, ...]:
        """The chosen packages of this name, real or provided."""
        package = self.chosen.get(name)
        return (*((package,) if package else ()), *self.provided.get(name, ()))

    def conflict(self, package: Package) -> str | None:
        """Who stands in the way of a package: the name of a chosen one that it forbids or that forbids it."""
        for clause in package.relations(*FORBIDS):
            for other in self.holding(clause[0].name):
                if other.name != package.name and other.satisfies(clause[0]):
                    return other.name
        for name in (package.name, *package.provided):
            for other, relation in self.forbidden.get(name, ()):
                if other.name != package.name and package.satisfies(relation):
                    return other.name
        return None


def search(offers: Offers, wishes: list[Wish]) -> dict[str, Package]:
    """Packages by name; ResolveError names the wish that cannot be met, and why not."""
    choices: list[tuple[_State, Wish, list[Package]]] = []
    state = _State(open=list(wishes))
    dead_end: ResolveError | None = None
    patience = _PATIENCE
    while True:
        wish, candidates = _next(offers, state)
        if wish is None:
            return state.chosen
        if not candidates:
            dead_end = dead_end or _unsatisfiable(offers, state, wish)
            if not choices or not patience:
                raise dead_end
            patience -= 1
            state, wish, candidates = choices.pop()
        if len(candidates) > 1:
            choices.append((state.copy(), wish, candidates[1:]))
        state.choose(candidates[0], wish)


def _next(offers: Offers, state: _State) -> tuple[Wish | None, list[Package]]:
    """The next wish to act on, taken off the open ones: the first that leaves no choice, else the oldest."""
    waiting: list[tuple[Wish, list[Package]]] = []
    pending, state.open = state.open, []
    for position, wish in enumerate(pending):
        if any(state.satisfied(relation) for relation in wish.clause):
            continue
        candidates = list(_candidates(offers, state, wish.clause))
        if len(candidates) < 2:
            state.open = [waited for waited, _ in waiting] + pending[position + 1 :]
            return wish, candidates
        waiting.append((wish, candidates))
    if not waiting:
        return None, []
    state.open = [waited for waited, _ in waiting[1:]]
    return waiting[0]


def _candidates(offers: Offers, state: _State, clause: Clause) -> Iterator[Package]:
    """The packages that could satisfy a clause beside what is chosen, best first, each once."""
    seen: list[Package] = []
    for relation in clause:
        for package in offers.any_version(relation):
            if package.name not in state.chosen and package not in seen and state.conflict(package) is None:
                seen.append(package)
                yield package


def _unsatisfiable(offers: Offers, state: _State, wish: Wish) -> ResolveError:
    """Why nothing satisfies a wish: each alternative with its own reason, and the chain that led here."""
    reasons = [reason for relation in wish.clause for reason in _why_not(offers, state, relation)]
    hint = "check the name and suite, what is denied (`[base] deny`, --exclude), and what else is asked for"
    if wish.by is None and not any(offers.index.named(relation.name) for relation in wish.clause):
        near = get_close_matches(wish.clause[0].name, offers.index.names(), cutoff=0.8)
        hint = f"did you mean {', '.join(near)}?" if near else hint
    return ResolveError(
        f"cannot satisfy `{wish}`",
        at=f"wanted by {chain(state.reasons, wish.by) if wish.by else wish.field}",
        because=("\n    " if len(reasons) > 1 else "") + "\n    ".join(reasons),
        hint=hint,
    )


def _why_not(offers: Offers, state: _State, relation: Relation) -> Iterator[str]:
    index = offers.index
    named = index.named(relation.name)
    fitting = [p for p in (*named, *index.providers(relation.name)) if p.satisfies(relation)]
    if not fitting:
        versions = ", ".join(str(package.version) for package in named)
        yield f"{relation}: {f'only {versions} is there' if versions else 'no such package'}"
    for package in fitting:
        if package.name in offers.denied:
            yield f"{package}: denied"
        elif package.name in state.chosen:
            yield f"{package}: version {state.chosen[package.name].version} is already chosen"
        elif (other := state.conflict(package)) is not None:
            yield f"{package}: conflicts with {state.chosen[other]} (wanted by {chain(state.reasons, other)})"
        else:
            yield f"{package}: another version was picked"


def chain(reasons: Mapping[str, Wish], name: str) -> str:
    """Who pulls a package: `libexpat1 <- python-runtime <- request`."""
    names = [name]
    last = reasons.get(name)
    while last is not None and last.by is not None:
        names.append(last.by)
        last = reasons.get(last.by)
    return " <- ".join([*names, last.field if last else ASKED])
