"""Transit: images that were found, with all that belongs to them, into registries, and into the store.

Law: calls survey, transfer and receipt in their order for every target; where an image lies is `sources`' affair. What
goes from one registry to another never touches the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from builder.finding import Connect, FoundImage
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.mediatypes import INDEXES
from builder.registry.client import Registry
from builder.registry.receipt import Plan, make_plan, receipt
from builder.registry.reference import Reference
from builder.registry.source import AT_ONCE, Graph, Source, gather, listings
from builder.registry.survey import survey
from builder.registry.transfer import Earlier, Outcome, send
from builder.sources import source_of, tag_of
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import TransferError, UsageError

if TYPE_CHECKING:
    from builder.registry.ahead import Ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be moved: where it lies, all that belongs to it, and the image or index itself, with its names."""

    source: Source
    graph: Graph
    root: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A repository, and the tags to set there; none when it is pushed by its digest alone."""

    registry: Registry
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What a push to one repository did, and its receipt."""

    reference: Reference
    outcome: Outcome
    receipt: dict[str, Any]


def load(found: FoundImage, tools: Tools, *, referrers: bool = True) -> Load:
    """Read all documents of a found image; what is attached to an index that it is a part of stays, and is told."""
    source = source_of(found, tools.store)
    whole = found.taken_of if referrers else None
    if whole is None or source.registry is None:  # what lies on the disk is read by one at a time
        graph = gather(source, found.descriptor, referrers=referrers)
        left = _attached(source, whole.digest) if whole else ""
    else:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(_attached, source, whole.digest)
            graph = gather(source, found.descriptor, referrers=referrers)
            left = asked.result()
    if whole and left:
        tools.reporter.note(f"left behind, as it is about all of {found.name}@{whole.digest}: {left}")
    return Load(source=source, graph=graph, root=found.descriptor)


def _attached(source: Source, subject: Digest) -> str:
    """What is attached to a manifest, in words; "" when nothing is."""
    artifacts = [one.artifact_type or str(one.digest) for one in source.attached(subject)]
    return ", ".join([*artifacts, *(one.annotations[REF_NAME] for one in source.tagged(subject))])


def targets(
    references: Sequence[Reference], tags: Sequence[str], found: FoundImage, connect: Connect
) -> tuple[Target, ...]:
    """Each repository once, with the tags its references have and those for all; without any, the image's own name.

    A reference with a digest must mean the image, which is then pushed without a tag unless it has one.
    """
    wanted: dict[str, tuple[Reference, list[str]]] = {}
    for reference in references:
        if reference.digest is not None and reference.digest != found.descriptor.digest:
            raise UsageError("the image has another digest", at=str(reference), because=f"{found.descriptor.digest}")
        _, named = wanted.setdefault(reference.name, (reference, []))
        named += [reference.tag] if reference.tag else []
        if not reference.tag and not tags and reference.digest is None:
            named.append(tag_of(found))
    for reference, named in wanted.values():
        for tag in (*named, *tags):
            replace(reference, tag=tag)
    return tuple(
        Target(registry=connect(replace(reference, tag=None, digest=None)), tags=tuple(dict.fromkeys((*named, *tags))))
        for reference, named in wanted.values()
    )


def plan_push(what: Load, target: Target, *, check: bool = False) -> Plan:
    """What a push would do; asks the registry, and writes nothing."""
    graph, registry = what.graph, target.registry
    standing = survey(graph, registry, target.tags, check=check)
    blobs = {blob.digest: blob for node in standing.needed for blob in graph.blobs(node)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        known = {
            digest for digest, there in zip(blobs, pool.map(registry.exists, blobs.values()), strict=True) if there
        }
    return make_plan(graph, registry, standing, target.tags, known)


def push_to(
    what: Load, target: Target, tools: Tools, *, check: bool = False, earlier: Earlier | None = None
) -> Delivered:
    """Push to one repository; see `registry.transfer.send`."""
    before = _retries(tools)
    outcome = send(what.graph, what.source, target.registry, target.tags, tools.reporter, check=check, earlier=earlier)
    made = receipt(target.registry, outcome, retries=_retries(tools) - before)
    return Delivered(reference=target.registry.reference, outcome=outcome, receipt=made)


def push_each(
    what: Load, targets: Sequence[Target], tools: Tools, *, check: bool = False, ahead: Ahead | None = None
) -> Iterator[Delivered]:
    """Push to one repository after the other, each told where there are several."""
    for target in targets:
        if len(targets) > 1:
            tools.reporter.note(f"to {target.registry.reference.name}")
        yield push_to(what, target, tools, check=check, earlier=ahead.of(target.registry) if ahead else None)


def fetch_in(found: FoundImage, tools: Tools, *, referrers: bool = True) -> tuple[Load, tuple[Descriptor, ...]]:
    """See `load` and `bring_in`; the blobs of one image come while its registry is asked what is attached to it."""
    if found.registry is None or not referrers or found.descriptor.media_type in INDEXES:
        what = load(found, tools, referrers=referrers)
        return what, bring_in(what, tools)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(bring_in, load(found, tools, referrers=False), tools, stop)
        try:
            what = load(found, tools)
            coming.result()
        except BaseException:
            stop.set()
            raise
    return what, bring_in(what, tools)


def bring_in(what: Load, tools: Tools, stop: threading.Event | None = None) -> tuple[Descriptor, ...]:
    """Have all of it in the store; what is attached, as a layout lists it.

    Blobs come several at a time, big ones of a registry in ranges; the first failure (or Ctrl-C, or `stop`) ends the
    others. IntegrityError when one is not what it should be.
    """
    graph, store = what.graph, tools.store
    missing = [blob for blob in graph.held.values() if not store.exists(blob.digest)]
    stop = stop or threading.Event()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ordered = sorted(missing, key=lambda blob: -blob.size)
        sizes = [blob.size for blob in ordered]
        coming = [pool.submit(_bring, blob, what.source, tools, stop, sizes) for blob in ordered]
        try:
            for one in as_completed(coming):
                one.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for node in graph.nodes.values():
        store.put([node.data])
    attached = {
        one.digest: one for every in listings(graph).values() for one in every if one.digest != what.root.digest
    }
    named = {tag: graph.nodes[digest].descriptor for tag, digest in graph.tagged.items()}
    return (*attached.values(), *(replace(one, annotations={REF_NAME: tag}) for tag, one in named.items()))


def _bring(blob: Descriptor, source: Source, tools: Tools, stop: threading.Event, together: Sequence[int]) -> None:
    task = f"fetch {blob.digest.hex[:12]}"

    def advance(amount: int) -> None:
        if stop.is_set():
            raise TransferError("stopped, because another download failed")
        tools.reporter.advance(task, amount)

    tools.reporter.begin(task, blob.size)
    result = "failed"
    try:
        if source.registry is None:
            tools.store.put(source.fetch(blob), expect=blob.digest, size=blob.size)
        else:
            source.registry.fetch(blob, tools.store, advance=advance, together=together)
        result = "done"
    finally:
        tools.reporter.finish(task, result)


def _retries(tools: Tools) -> int:
    return int(getattr(tools.transport, "retries", 0))  # a port need not count them
