"""Batches: in which order dpkg gets the packages of a complete selection (policy 7.2, dpkg(1) --install).

Law: pure. dpkg unpacks a batch, whose Pre-Depends must be configured by then, and configures it in an order of its own,
for which all it Depends on must be there. Versions are not looked at: whoever selected the packages did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rootfs.debian.package import Package

_Needs = Mapping[str, Sequence[frozenset[str]]]
"""by package, for each clause the names in the selection that satisfy it; clauses nobody satisfies are left out"""


def batches(packages: Sequence[Package]) -> Iterator[tuple[str, ...]]:
    """Names in batches: first the Essential packages with all they need, which dpkg itself cannot do without."""
    before, after = _needs(packages, "Pre-Depends"), _needs(packages, "Pre-Depends", "Depends")
    batch = _closure({package.name for package in packages if package.essential}, after)
    done: set[str] = set()
    left = {package.name for package in packages}
    while True:
        if batch:
            yield tuple(sorted(batch))
        done |= batch
        left -= batch
        if not left:
            return
        batch = _ready(left, done, before, after) or set(left)  # a circle of Pre-Depends: dpkg must be forced


def _needs(packages: Sequence[Package], *fields: str) -> _Needs:
    providers: dict[str, set[str]] = {}
    for package in packages:
        for name in (package.name, *(provided.name for provided in package.provides)):
            providers.setdefault(name, set()).add(package.name)
    found = {
        package.name: [
            frozenset().union(*(providers.get(alternative.name, ()) for alternative in clause))
            for clause in package.relations(*fields)
        ]
        for package in packages
    }
    return {name: [clause for clause in clauses if clause] for name, clauses in found.items()}


def _closure(names: set[str], needs: _Needs) -> set[str]:
    found, todo = set(names), list(names)
    while todo:
        more = frozenset().union(*needs[todo.pop()]) - found
        found |= more
        todo += more
    return found


def _ready(left: set[str], done: set[str], before: _Needs, after: _Needs) -> set[str]:
    """What can be unpacked now, as long as it can be configured with nothing but itself and what is done."""
    ready = {name for name in left if all(clause & done for clause in before[name])}
    while blocked := {name for name in ready if not all(clause & (done | ready) for clause in after[name])}:
        ready -= blocked
    return ready
