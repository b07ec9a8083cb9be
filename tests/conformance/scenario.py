"""A scenario: what a registry does, and what must hold once a client has pushed to it, pulled from it, or the like."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.conformance.checks import Check
from tests.peers.quirky import Fault, Quirks

UPLOAD = r"^(PUT|PATCH|POST) .*(uploads/\w|/far/upload/|digest=)"
DOWNLOAD = r"^GET .*/blobs?/sha256"
MANIFEST = r"^PUT .*/manifests/"
DECILES = tuple(tenth / 10 for tenth in range(1, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A row. Each of `quirks` is a run of its own, and all must pass.

    `task`: push, pull, copy (within the registry), tags, or attach (push, then push what is about it). `login`: the
    client has an account, whose secrets must turn up nowhere. `held`: the repository has the blobs already; `beside`:
    another one has them.
    """

    name: str
    source: str
    does: str
    holds: str
    check: Check
    task: str = "push"
    sample: str = "small"
    quirks: tuple[Quirks, ...] = (Quirks(),)
    login: bool = False
    held: bool = False
    beside: bool = False
    tags: tuple[str, ...] = ()


ALL = "all of the image is there, byte for byte, and the tag"
HERE = "the layout has all of the image, byte for byte"
SAFE = "it fails, and says so; nothing wrong is left behind"
QUIET = "no password or token goes to another host"


def at(*faults: Fault, **quirks: object) -> tuple[Quirks, ...]:
    """One run for each fault."""
    return tuple(replace(Quirks(faults=(fault,)), **quirks) for fault in faults)  # type: ignore[arg-type]
