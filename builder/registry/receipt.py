"""Receipt: what a push did, or would do, as a JSON value for programs (docs/reference/receipt.md).

Law: pure. It holds names, digests, numbers and the registry's warnings; no URL, no header and no account, so nothing
secret can be in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.oci.descriptor import Descriptor
from builder.registry.client import Registry
from builder.registry.source import Graph
from builder.registry.survey import Standing
from builder.registry.transfer import Outcome, Transfer
from builder.registry.upload import RESUMABLE
from rootfs.digest import Digest

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a push would do with one blob or manifest: `action` is exists, mount or upload; `bytes` would be sent, by
    at least so many requests."""

    descriptor: Descriptor
    action: str
    bytes: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a push would do. `tags` and whether each would move; the referrers that are yet to be listed."""

    target: str
    digest: Digest
    blobs: tuple[Planned, ...]
    manifests: tuple[Planned, ...]
    tags: Mapping[str, bool]
    unlisted: int

    @property
    def bytes(self) -> int:
        """How many bytes would be sent."""
        return sum(one.bytes for one in (*self.blobs, *self.manifests))

    @property
    def requests(self) -> int:
        """How many requests that takes at least, after those that were made for the plan."""
        moved = sum(self.tags.values())
        return sum(one.requests for one in (*self.blobs, *self.manifests)) + 2 * moved + 4 * (self.unlisted > 0)

    def to_dict(self) -> dict[str, Any]:
        """The JSON value."""
        return {
            "version": VERSION,
            "target": self.target,
            "digest": str(self.digest),
            "blobs": [_planned(one) for one in self.blobs],
            "manifests": [_planned(one) for one in self.manifests],
            "tags": [{"tag": tag, "moves": moves} for tag, moves in self.tags.items()],
            "bytes": self.bytes,
            "requests": self.requests,
        }


def make_plan(graph: Graph, registry: Registry, standing: Standing, tags: Iterable[str], known: set[Digest]) -> Plan:
    """The plan of a push from what the repository has: `known` are the blobs that are there.

    A mount is what is planned where another repository is known to have the blob; the registry may refuse it.
    """
    digest = graph.root.descriptor.digest
    wanted = {blob.digest for node in standing.needed for blob in graph.blobs(node)}
    blobs = []
    for blob in graph.held.values():
        if blob.digest in known or blob.digest not in wanted:
            blobs.append(Planned(descriptor=blob, action="exists", bytes=0, requests=int(blob.digest in wanted)))
        elif registry.may_mount(blob):
            blobs.append(Planned(descriptor=blob, action="mount", bytes=0, requests=2))
        else:
            chunks = 1 + (blob.size // RESUMABLE if registry.facts.chunks is not False else 0)
            blobs.append(Planned(descriptor=blob, action="upload", bytes=blob.size, requests=2 + chunks))
    manifests = [
        Planned(descriptor=node.descriptor, action="exists", bytes=0, requests=0)
        if name in standing.there
        else Planned(descriptor=node.descriptor, action="upload", bytes=len(node.data), requests=2)
        for name, node in graph.nodes.items()
    ]
    moves = {tag: standing.tags[tag] != digest for tag in tags}
    moves |= {tag: standing.moves(tag, named) for tag, named in graph.tagged.items()}
    return Plan(
        target=registry.reference.name,
        digest=digest,
        blobs=tuple(blobs),
        manifests=tuple(manifests),
        tags=moves,
        unlisted=sum(len(standing.unlisted(subject)) for subject in standing.lists),
    )


def receipt(registry: Registry, outcome: Outcome, *, retries: int) -> dict[str, Any]:
    """What a push did; `retries` are those of the transport."""
    return {
        "version": VERSION,
        "target": registry.reference.name,
        "digest": str(outcome.digest),
        "tags": [{"tag": tag, "moved": moved} for tag, moved in outcome.tags.items()],
        "blobs": [_done(one) for one in outcome.blobs],
        "manifests": [_done(one) for one in outcome.manifests],
        "referrers": [
            {"subject": str(subject), "digest": str(digest), "listed": "now" if now else "before"}
            for (subject, digest), now in outcome.referrers.items()
        ],
        "bytesSent": sum(one.bytes for one in outcome.transfers),
        "bytesAgain": sum(one.again for one in outcome.transfers),
        "retries": retries,
        "warnings": list(registry.warnings),
        "seconds": round(outcome.seconds, 3),
    }


def _done(one: Transfer) -> dict[str, Any]:
    value = _described(one.descriptor) | {
        "action": str(one.action),
        "sent": one.bytes,
        "seconds": round(one.seconds, 3),
    }
    return value | ({"again": one.again} if one.again else {}) | ({"resumedAt": one.resumed} if one.resumed else {})


def _planned(one: Planned) -> dict[str, Any]:
    return _described(one.descriptor) | {"action": one.action, "bytes": one.bytes, "requests": one.requests}


def _described(one: Descriptor) -> dict[str, Any]:
    return {"digest": str(one.digest), "mediaType": one.media_type, "size": one.size}
