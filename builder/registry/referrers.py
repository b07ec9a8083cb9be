"""Referrers: what is attached to a manifest in a registry, listed by its API, or by the fallback tag where there is
none (distribution-spec 1.1, "Listing Referrers", "Referrers Tag Schema"); also cosign's tags, which name what they are
about by its digest.

Law: a registry without the API keeps the list in a tag that its clients write, and several may at once. So who writes
waits until every other one that began before must have ended, reads back, and begins again until its own entries are
there; what others wrote is kept as it is. `If-Match` is sent where there is an ETag; few registries look at it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from builder.oci.descriptor import INDEX, REF_NAME, SIZE_LIMIT, Descriptor
from builder.oci.layout import referrers_tag
from builder.oci.manifest import Index
from builder.oci.mediatypes import INDEXES
from builder.registry.client import Registry
from builder.registry.listing import referrers
from builder.registry.quirks import Facts
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, TransferError
from rootfs.hosts import by_chance

COSIGN = ("sig", "att", "sbom")
"""The ends of the tags `sha256-<hex>.sig` and so on, in which cosign keeps what belongs to a manifest."""
_TRIES = 30
_SETTLE = 0.25  # seconds after which another writer's turn is over, at least
_TURNS = 3  # and in turns of our own


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign would keep what belongs to a manifest."""
    return tuple(f"{referrers_tag(subject)}.{end}" for end in COSIGN)


def entry(descriptor: Descriptor, data: bytes) -> Descriptor:
    """A manifest as the list of its subject's referrers has it: with its type and all its annotations."""
    value = json.loads(data)
    config = value.get("config") or {}
    kind = value.get("artifactType") or config.get("mediaType")
    plain = Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
    return replace(plain, artifact_type=kind or None, annotations=value.get("annotations") or {})


def subject_of(data: bytes) -> Digest | None:
    """What a manifest or index, which was found to be one, is about."""
    subject = json.loads(data).get("subject")
    return Descriptor.from_dict(subject, "subject").digest if subject else None


def listed(registry: Registry, subject: Digest, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
    """What refers to a manifest, by digest; of one type if it is given. The manifest itself need not be there."""
    found = None
    if registry.facts.referrers is not False:
        found = registry.hold(referrers(registry.url, subject, artifact_type), "pull")
        if registry.facts.referrers is None:
            registry.learn(Facts(referrers=found is not None))
    if found is None:
        found = in_fallback(registry, subject)
    chosen = {one.digest: one for one in found if artifact_type in (None, one.artifact_type)}
    return tuple(chosen[digest] for digest in sorted(chosen))


def in_fallback(registry: Registry, subject: Digest) -> tuple[Descriptor, ...]:
    """What the fallback tag lists; nothing when there is none, IntegrityError when it holds something else."""
    value = _read(registry, referrers_tag(subject)).value
    return Index.parse(canonical_json(value), INDEX).manifests if value else ()


def tagged(registry: Registry, subject: Digest) -> tuple[Descriptor, ...]:
    """What cosign's tags hold about a manifest; each named by its tag (`ref.name`)."""
    found = []
    tags = cosign_tags(subject)
    with ThreadPoolExecutor(len(tags)) as pool:
        asked = list(pool.map(registry.head_manifest, tags))
    for tag in (tag for tag, digest in zip(tags, asked, strict=True) if digest is not None):
        descriptor, _ = registry.get_manifest(tag)
        found.append(replace(descriptor, annotations={REF_NAME: tag}))
    return tuple(found)


def enlist(
    registry: Registry,
    subject: Digest,
    new: Sequence[Descriptor],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    jitter: Callable[[], float] = by_chance,
) -> bool:
    """Have these listed in the fallback tag of their subject, beside what is; False when they were before.

    IntegrityError when the tag holds something else than an index; TransferError when others write without end.
    """
    tag = referrers_tag(subject)
    written = False
    for _ in range(_TRIES):
        began = clock()
        before = _read(registry, tag)
        value = _merged(before.value, new)
        if value is None:
            return written
        data = canonical_json(value)
        if len(data) > SIZE_LIMIT:
            raise TransferError("the list of referrers is full", at=f"{registry.reference.name}:{tag}")
        now, etag = registry.look(tag)
        if now == before.digest:
            try:
                registry.put_manifest(tag, Descriptor.of(INDEX, data), data, etag=etag)
            except TransferError as error:
                if not error.retryable:
                    raise
            written = True
            sleep(max(_SETTLE, _TURNS * (clock() - began)))
        sleep(jitter() * _SETTLE)
    raise TransferError(
        "the list of referrers is written by others all the time",
        at=f"{registry.reference.name}:{tag}",
        because=f"{', '.join(str(one.digest) for one in new)} did not stay in it",
        hint="the manifests are there; run the same command again, later",
        retryable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """What the tag stands for now, as JSON with all its members; None when there is no such tag."""

    value: dict[str, Any] | None
    digest: Digest | None


def _read(registry: Registry, tag: str) -> _Before:
    try:
        descriptor, data = registry.get_manifest(tag)
    except TransferError as error:
        if (error.because or "").startswith("404"):
            return _Before(value=None, digest=None)
        raise
    if descriptor.media_type not in INDEXES:
        because = f"it holds {descriptor.media_type or 'something without a media type'}, where an index belongs"
        hint = "what it is nobody can tell; remove the tag if it is of no use"
        raise IntegrityError(
            "the tag of the referrers is something else",
            at=f"{registry.reference.name}:{tag}",
            because=because,
            hint=hint,
        )
    Index.parse(data, descriptor.media_type)
    return _Before(value=json.loads(data), digest=descriptor.digest)


def _merged(value: dict[str, Any] | None, new: Iterable[Descriptor]) -> dict[str, Any] | None:
    """The index with these in it as well; None when they are."""
    entries = list((value or {}).get("manifests") or [])
    known = {one["digest"] for one in entries}
    missing = {str(one.digest): one for one in new if str(one.digest) not in known}
    if not missing:
        return None
    base = value or {"schemaVersion": 2, "mediaType": INDEX}
    return base | {"mediaType": INDEX, "manifests": [*entries, *(missing[name].to_dict() for name in sorted(missing))]}
