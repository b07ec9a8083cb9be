"""Budget: which source packages share a layer, so that an update of one of them changes as few bytes as can be.

Law: pure. The cost of a grouping is, summed over its layers, bytes times how often the layer changes: the bytes that
updates have everybody fetch anew. Of all groupings that follow the order of the packages by bytes, by updates or by
their ratio the best is found exactly; then packages move one by one to another layer as long as that makes it cheaper.
Sizes count by their order of magnitude, so that the grouping itself outlives an update.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import NamedTuple

# How often each was updated in a stable release: the revision (+deb12uN) that bookworm and its security archive have
# three and a half years after its release; of openssl, systemd and tzdata, whose updates are new upstream releases, an
# estimate of the same kind. What is not here was not updated, and counts as one: so will everything be some day.
UPDATES: Mapping[str, int] = MappingProxyType(
    {
        "apt": 1,
        "base-files": 15,
        "ca-certificates": 2,
        "curl": 15,
        "debian-archive-keyring": 2,
        "expat": 5,
        "freetype": 4,
        "glibc": 14,
        "gnutls28": 7,
        "krb5": 5,
        "libcap2": 4,
        "libgcrypt20": 1,
        "libseccomp": 1,
        "libssh2": 1,
        "libtasn1-6": 2,
        "libx11": 2,
        "libxml2": 6,
        "openssl": 13,
        "pam": 2,
        "pcre2": 2,
        "perl": 4,
        "sed": 1,
        "shadow": 2,
        "sqlite3": 2,
        "systemd": 10,
        "tar": 1,
        "tzdata": 10,
        "util-linux": 3,
        "xz-utils": 2,
    }
)


def grouped(sizes: Mapping[str, int], most: int) -> list[tuple[str, ...]]:
    """At most `most` groups of the source packages of these sizes (bytes), the one that changes least often first.

    Names in a group are in alphabetical order. The arguments' order does not matter.
    """
    weights = {name: _Weight(1 << max(sizes[name], 1).bit_length(), 1 + UPDATES.get(name, 0)) for name in sorted(sizes)}
    if not weights:
        return []
    count = max(1, min(most, len(weights)))
    orders: tuple[Callable[[_Weight], Fraction], ...] = (
        lambda one: Fraction(one.size, one.rate),
        lambda one: Fraction(one.size),
        lambda one: Fraction(one.rate),
    )
    runs = [_best_runs(sorted(weights, key=lambda name: order(weights[name])), weights, count) for order in orders]
    groups = _moved([list(run) for run in min(runs, key=lambda one: _cost(one, weights))], weights)
    full = [tuple(sorted(group)) for group in groups if group]
    return sorted(full, key=lambda group: (sum(weights[name].rate for name in group), group))


class _Weight(NamedTuple):
    """A source package's bytes, to a power of two, and how often it is updated."""

    size: int
    rate: int


def _cost(groups: Iterable[Iterable[str]], weights: Mapping[str, _Weight]) -> int:
    total = 0
    for group in groups:
        members = [weights[name] for name in group]
        total += sum(one.size for one in members) * sum(one.rate for one in members)
    return total


def _best_runs(order: Sequence[str], weights: Mapping[str, _Weight], most: int) -> list[Sequence[str]]:
    """The order cut into at most that many runs, at least cost."""
    sizes = list(accumulate((weights[name].size for name in order), initial=0))
    rates = list(accumulate((weights[name].rate for name in order), initial=0))

    def cost(start: int, end: int) -> int:
        return (sizes[end] - sizes[start]) * (rates[end] - rates[start])

    best: list[tuple[int, tuple[int, ...]]] = [(cost(0, end), (0, end)) for end in range(len(order) + 1)]
    for _ in range(most - 1):
        best = [
            min([best[end], *((best[start][0] + cost(start, end), (*best[start][1], end)) for start in range(1, end))])
            for end in range(len(order) + 1)
        ]
    return [order[start:end] for start, end in pairwise(best[-1][1])]


def _moved(groups: list[list[str]], weights: Mapping[str, _Weight]) -> list[list[str]]:
    """The groups after every single move that makes them cheaper."""
    sums = [[sum(weights[name].size for name in group), sum(weights[name].rate for name in group)] for group in groups]
    improved = True
    while improved:
        improved = False
        for name in weights:
            home = next(number for number, group in enumerate(groups) if name in group)
            (size, rate), (size_left, rate_left) = weights[name], sums[home]
            # what a group costs more with a package than without: its own bytes and updates, and both ways
            saved = size * (rate_left - rate) + rate * (size_left - size)
            costs = [size * rates + rate * sizes for sizes, rates in sums]
            target = min(
                (number for number in range(len(groups)) if number != home), key=costs.__getitem__, default=home
            )
            if target != home and costs[target] < saved:
                groups[home].remove(name)
                groups[target].append(name)
                sums[home] = [size_left - size, rate_left - rate]
                sums[target] = [sums[target][0] + size, sums[target][1] + rate]
                improved = True
    return groups
