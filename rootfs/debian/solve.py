"""Solve: (package index, what is wanted) -> the packages to install, or the chain of reasons why there are none.

Law: pure and deterministic. Rules are policy's (chapter 7), choices those of `apt-get install` on trixie: first the
Essential packages and what they need, then the wishes as if those were installed (`rootfs.debian.marking`), and what
turned out to be needless is left out. Where that ends in a conflict, all is searched at once (`rootfs.debian.search`).
docs/explanation/solver.md says how far it equals apt.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from rootfs.debian.index import PackageIndex
from rootfs.debian.marking import Chosen, Marking
from rootfs.debian.offers import ASKED, DEPENDS, Offers, Wish
from rootfs.debian.package import Package
from rootfs.debian.relation import Clause, Relation, parse_relations
from rootfs.debian.search import chain, search
from rootfs.debian.version import Version
from rootfs.errors import IntegrityError, RecipeError, ResolveError

_FORMS = "as in `git`, `git (>= 1:2.40)`, `exim4 | postfix`, `git=1:2.47.3-0+deb13u1`, `git/trixie-backports`"
_PINNED = re.compile(r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?:=(?P<version>\S+)|/(?P<suite>\S+))\s*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chosen packages by name, and for each the wish that pulls it: the one nearest to what was asked for."""

    packages: tuple[Package, ...]
    reasons: Mapping[str, Wish]

    def explain(self, name: str) -> str:
        """Who pulls a package, in lines: itself, the chain of relations up to the request, and who else needs it.

        A virtual package is explained by those that provide it. ResolveError when it was not chosen.
        """
        packages = [package for package in self.packages if name == package.name]
        packages = packages or [package for package in self.packages if name in package.provided]
        if not packages:
            near = get_close_matches(name, [package.name for package in self.packages])
            hint = f"did you mean {', '.join(near)}?" if near else None
            raise ResolveError(f"{name} is not among the {len(self.packages)} packages", hint=hint)
        return "\n".join(line for package in packages for line in self._lines(package, name))

    def dependents(self, package: Package) -> Iterator[Wish]:
        """Every wish of a chosen package that this one satisfies, by who states it."""
        for other in self.packages:
            for field in DEPENDS:
                for clause in other.relations(field):
                    if other is not package and any(package.satisfies(relation) for relation in clause):
                        yield Wish(clause=clause, by=other.name, field=field)

    def _lines(self, package: Package, asked: str) -> Iterator[str]:
        yield f"{package}{'' if asked == package.name else f' provides {asked}'}: {chain(self.reasons, package.name)}"
        wish: Wish | None = self.reasons[package.name]
        first = wish
        while wish is not None:
            yield f"  {_stated(wish)}"
            wish = self.reasons.get(wish.by) if wish.by else None
        others = [other for other in self.dependents(package) if other != first]
        if others:
            yield f"  also needed by {len(others)}:"
            yield from (f"    {_stated(other)}" for other in others)


def solve(
    index: PackageIndex,
    wanted: Sequence[str],
    *,
    deny: Iterable[str] = (),
    omit: Iterable[str] = (),
    essential: bool = True,
    recommends: bool = False,
) -> Selection:
    """Choose packages for what is `wanted`, Essential ones added.

    A wish is a relation (`name`, `name (>= version)`, `a | b`), `name=version`, or `name/suite`. `deny` names packages
    that must not be chosen, `omit` those that are taken to be there, so that what depends on them can be chosen
    without them and all that they need. RecipeError for a malformed wish, or a package to omit that there is not;
    ResolveError names the wish that cannot be met and why.
    """
    omitted = _omitted(index, omit)
    offers = Offers(index.hollowed(omitted) if omitted else index, frozenset(deny).difference(omitted))
    wishes = [wish for text in wanted for wish in _wishes(offers, text)]
    needed = [Wish(clause=(Relation(name=name),), field="omit") for name in sorted(omitted)]
    needed += [
        Wish(clause=(Relation(name=package.name),), field="Essential")
        for package in (index.essential() if essential else ())
    ]
    packages = _marked(offers, needed, wishes, recommends=recommends)
    if packages is None:
        packages = search(offers, [*wishes, *needed])
    packages = {name: package for name, package in packages.items() if name not in omitted}
    reasons = _reached(Chosen(packages.values()), [*wishes, *needed], {})
    return Selection(packages=tuple(packages[name] for name in sorted(packages)), reasons=reasons)


def _omitted(index: PackageIndex, names: Iterable[str]) -> frozenset[str]:
    """The names, each a package's."""
    omitted = frozenset(names)
    for name in sorted(omitted):
        if not index.named(name):
            near = get_close_matches(name, index.names(), n=1)
            raise RecipeError(f"no package to omit: {name}", hint=f"did you mean {near[0]}?" if near else None)
    return omitted


def _marked(
    offers: Offers, needed: Sequence[Wish], wishes: Sequence[Wish], *, recommends: bool
) -> dict[str, Package] | None:
    """As apt does it: the Essential packages, then the wishes; None when that ends in a conflict."""
    base: dict[str, Package] = {}
    for stage, fields in ((needed, DEPENDS), (wishes, (*DEPENDS, "Recommends") if recommends else DEPENDS)):
        marking = Marking(offers, base, fields)
        marking.mark(stage)
        if marking.broken() or not all(marking.chosen.satisfy(wish.clause) for wish in stage):
            return None
        kept = _reached(marking.chosen, [*wishes, *needed], base)
        base = {name: package for name, package in marking.chosen.packages.items() if name in kept}
    return base


def _reached(chosen: Chosen, roots: Iterable[Wish], base: Mapping[str, Package]) -> dict[str, Wish]:
    """Of what is chosen, all that is needed, and the wish nearest to the roots that needs it.

    apt tries alternatives and drops what they left behind, but nothing that something still recommends or suggests.
    """
    strong = deque((package, wish) for wish in roots for package in chosen.any_satisfying(wish.clause))
    weak = deque((package, _flagged(package)) for package in chosen.packages.values() if package.important)
    reasons: dict[str, Wish] = {}
    while strong or weak:
        package, reason = (strong or weak).popleft()
        if package.name in reasons:
            continue
        reasons[package.name] = reason
        for field in (*DEPENDS, "Recommends", "Suggests"):
            for clause in package.relations(field):
                wish = Wish(clause=clause, by=package.name, field=field)
                queue = strong if field in DEPENDS else weak
                queue += (
                    (found, wish) for relation in clause for found in _followed(chosen.satisfying(relation), base)
                )
    return reasons


def _followed(found: list[Package], base: Mapping[str, Package]) -> list[Package]:
    """Of several providers apt follows those that were there before, if any was."""
    there = [package for package in found if package.name in base]
    return there if there and len({package.source for package in found}) > 1 else found


def _flagged(package: Package) -> Wish:
    return Wish(clause=(Relation(name=package.name),), field="Protected")


def check_wish(text: str) -> None:
    """RecipeError for what is no wish for packages, whatever packages there are."""
    _parsed(text)


def _parsed(text: str) -> tuple[re.Match[str] | None, Version | None, tuple[Clause, ...]]:
    """The name with a version or a suite, that version, or else relations."""
    match = _PINNED.match(text)
    try:
        version = Version.parse(match["version"]) if match and match["version"] else None
        return match, version, () if match else parse_relations(text)
    except IntegrityError as error:
        raise RecipeError(f"not a wish for a package: {text}", hint=_FORMS) from error


def _wishes(offers: Offers, text: str) -> Iterator[Wish]:
    """A wish as clauses; the version or suite it names becomes the candidate."""
    match, version, clauses = _parsed(text)
    if match and version:
        yield _version(offers, text, match["name"], version)
    elif match:
        yield _suite(offers, text, match["name"], match["suite"])
    for clause in clauses:
        _pick(offers, clause)
        yield Wish(clause=clause)


def _version(offers: Offers, text: str, name: str, version: Version) -> Wish:
    for package in offers.index.named(name):
        if package.version == version:
            offers.pick(package)
            return Wish(clause=(Relation(name=name, operator="=", version=version),))
    raise _not_there(offers, text, name)


def _suite(offers: Offers, text: str, name: str, suite: str) -> Wish:
    for package in offers.index.named(name):
        if suite in package.suites:
            offers.follow(package, suite)
            return Wish(clause=(Relation(name=name, operator="=", version=package.version),))
    raise _not_there(offers, text, name)


def _not_there(offers: Offers, text: str, name: str) -> ResolveError:
    versions = offers.index.named(name)
    there = [f"{package.version} ({', '.join(sorted(package.suites)) or package.origin})" for package in versions]
    because = f"there is {', '.join(there)}" if there else "no such package"
    return ResolveError(f"cannot satisfy `{text}`", at=f"wanted by {ASKED}", because=because)


def _pick(offers: Offers, clause: tuple[Relation, ...]) -> None:
    """The version a wish insists on becomes the candidate."""
    candidate = offers.candidate(clause[0].name)
    if len(clause) == 1 and candidate is not None and not candidate.satisfies(clause[0]):
        for package in [package for package in offers.index.named(clause[0].name) if package.satisfies(clause[0])][:1]:
            offers.pick(package)


def _stated(wish: Wish) -> str:
    return f"{wish.by} {wish.field}: {wish}" if wish.by else f"{wish.field}: {wish}"
