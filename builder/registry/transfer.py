"""Transfer: an image or index, and all that is attached to it, into a repository: children first and tags last
(distribution-spec 1.1, "Pushing an Image").

Law: decides the order and what is done in parallel; knows nothing of HTTP. The largest blob begins, then come the small
ones, so that manifests can follow while big ones are under way. A tag moves only when all it stands for is there and
was read back, and what the registry then has under it is compared with what was pushed. No referrer is lost without a
word.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from graphlib import TopologicalSorter
from typing import BinaryIO, TypeVar, cast

from builder.oci.descriptor import Descriptor
from builder.registry.client import Accepted, Registry
from builder.registry.quirks import MIB, Facts
from builder.registry.referrers import enlist, listed
from builder.registry.source import AT_ONCE, Graph, Node, Source, gather, store_source
from builder.registry.survey import Standing, survey
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Reporter, Store, Upload

_BEGINNINGS = 3  # how often one request is begun before its failure is the push's
_LAGS = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds: a list of referrers may come a little later than what it lists
_T = TypeVar("_T")
_Key = tuple[str, Hashable]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What became of one blob or manifest: how many bytes of it were sent, how many once more, where it was resumed,
    and how many seconds that took."""

    descriptor: Descriptor
    action: Action
    bytes: int = 0
    again: int = 0
    resumed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a push did: a Transfer for each blob and manifest, the image's own last but for what is attached; the tags,
    and which of them were moved; referrers as (subject, referrer), and which of these lists were written."""

    digest: Digest
    blobs: tuple[Transfer, ...]
    manifests: tuple[Transfer, ...]
    tags: Mapping[str, bool]
    referrers: Mapping[tuple[Digest, Digest], bool]
    seconds: float = 0.0

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """Blobs, then manifests."""
        return (*self.blobs, *self.manifests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """Uploads that began before the push they belong to: what became of each, or None where the push has to see to it
    itself. `stop` ends them, and the push."""

    uploads: Mapping[Digest, Future[Transfer | None]]
    stop: threading.Event

    def upload(self, digest: Digest) -> Transfer | None:
        """What became of one, when it has ended; None as well when there was none."""
        future = self.uploads.get(digest)
        return future.result() if future else None


def push(
    store: Store,
    manifest: Descriptor,
    registry: Registry,
    tags: Sequence[str],
    reporter: Reporter,
    *,
    attached: Iterable[Descriptor] = (),
) -> tuple[Transfer, ...]:
    """Push an image of the store, and artifacts about it; see `send`."""
    source = store_source(store, attached)
    return send(gather(source, manifest), source, registry, tags, reporter).transfers


def send(
    graph: Graph,
    source: Source,
    registry: Registry,
    tags: Sequence[str],
    reporter: Reporter,
    *,
    check: bool = False,
    earlier: Earlier | None = None,
) -> Outcome:
    """Have all of a graph in the repository, then set the tags of its root.

    What is there is not sent; with `check` every blob is asked for, also of manifests that are there. What `earlier`
    has under way is waited for. UsageError for a bad tag, before any request; IntegrityError when the registry ends up
    with something else, or without what is attached; TransferError when it refuses, or cannot be reached.
    """
    began = time.monotonic()
    earlier = earlier or Earlier(uploads={}, stop=threading.Event())
    registry.will_push([blob for digest, blob in graph.held.items() if digest not in earlier.uploads])
    standing = survey(graph, registry, tags, check=check)
    sending = _Sending(
        graph=graph, source=source, registry=registry, reporter=reporter, standing=standing, earlier=earlier
    )
    sending.run()
    moved = sending.tag(tags)
    return Outcome(
        digest=graph.root.descriptor.digest,
        blobs=tuple(sending.blob(digest) for digest in graph.held),
        manifests=tuple(sending.node(digest) for digest in graph.nodes),
        tags=moved,
        referrers={
            (subject, one.digest): one in standing.unlisted(subject)
            for subject, every in standing.lists.items()
            for one in every
        },
        seconds=time.monotonic() - began,
    )


@dataclass(kw_only=True)
class _Sending:
    """One push under way; what was done is in `done`."""

    graph: Graph
    source: Source
    registry: Registry
    reporter: Reporter
    standing: Standing
    earlier: Earlier
    done: dict[Digest, Transfer] = field(default_factory=dict)
    acknowledged: set[Digest] = field(default_factory=set)
    turns: dict[Digest | None, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @property
    def _is_new(self) -> bool:
        """Whether the repository seems to have nothing of it."""
        return not self.standing.there and not any(self.standing.tags.values())

    def blob(self, digest: Digest) -> Transfer:
        """What became of a blob; one that was not looked for is there."""
        known = Transfer(descriptor=self.graph.held[digest], action=Action.EXISTS)
        return self.done.get(digest) or self.earlier.upload(digest) or known

    def node(self, digest: Digest) -> Transfer:
        """What became of a manifest."""
        known = Transfer(descriptor=self.graph.nodes[digest].descriptor, action=Action.EXISTS)
        return self.done.get(digest) or known

    def run(self) -> None:
        """Blobs, manifests and lists of referrers, each when all is there that it needs."""
        tasks: dict[_Key, Callable[[], None]] = {}
        before: dict[_Key, list[_Key]] = {}
        blobs = {blob.digest: blob for node in self.standing.needed for blob in self.graph.blobs(node)}
        for blob in _first_to_last(blobs.values()):
            tasks["blob", blob.digest] = partial(self._push_blob, blob)
        for node in self.standing.needed:
            digest = node.descriptor.digest
            if digest not in self.standing.there:
                tasks["node", digest] = partial(self._push_node, node)
                before["node", digest] = [("blob", blob.digest) for blob in self.graph.blobs(node)]
                before["node", digest] += [("node", child.digest) for child in node.documents]
                before["node", digest] += [("node", node.subject)] if node.subject else []
        for subject in self.standing.lists:
            if unlisted := self.standing.unlisted(subject):
                tasks["list", subject] = partial(self._list, subject, unlisted)
                before["list", subject] = [("node", one.digest) for one in unlisted]
        _in_order(tasks, before, self.earlier.stop)

    def tag(self, tags: Sequence[str]) -> dict[str, bool]:
        """Set the tags that stand for something else; whether each was moved. What cosign tagged comes first."""
        named = [(name, digest) for name, digest in self.graph.tagged.items() if self.standing.moves(name, digest)]
        each(lambda pair: self._set(pair[0], self.graph.nodes[pair[1]]), named)
        root = self.graph.root
        moved = [name for name in dict.fromkeys(tags) if self.standing.tags[name] != root.descriptor.digest]
        each(lambda name: self._set(name, root, at_once=False), self._tag_at_once(moved))
        each(lambda name: _read_back(name, root.descriptor.digest, self.registry), moved)
        return {name: name in moved for name in dict.fromkeys(tags)}

    def _tag_at_once(self, names: Sequence[str]) -> list[str]:
        """Set several tags by one request; those that are left to be set one by one."""
        if len(names) < 2 or self.registry.facts.several_tags is False:
            return list(names)
        accepted = self._put(self.graph.root.descriptor.digest, self.graph.root, names)
        if self.registry.facts.several_tags is None:
            self.registry.learn(Facts(several_tags=bool(accepted.tags)))
        return [name for name in names if name not in accepted.tags]

    def _set(self, name: str, node: Node, *, at_once: bool = True) -> None:
        self._put(name, node)
        if at_once:
            _read_back(name, node.descriptor.digest, self.registry)

    def _put(self, name: str | Digest, node: Node, tags: Sequence[str] = ()) -> Accepted:
        return _begun_anew(partial(self.registry.put_manifest, name, node.descriptor, node.data, tags=tags))

    def _push_node(self, node: Node) -> None:
        began, digest = time.monotonic(), node.descriptor.digest
        try:
            with self.turns[node.subject] if node.subject else nullcontext():  # olareg 0.2 loses one of two at a time
                if self._put(digest, node).lists:
                    self.acknowledged.add(digest)
        except TransferError as error:
            if node not in self.graph.closure(self.graph.root):
                rest = "it is attached to the image: --no-referrers leaves that behind"
                error.hint = f"{error.hint}; {rest}" if error.hint else rest
            raise
        _read_back(digest, digest, self.registry)
        self.done[digest] = Transfer(
            descriptor=node.descriptor,
            action=Action.UPLOADED,
            bytes=len(node.data),
            seconds=time.monotonic() - began,
        )

    def _push_blob(self, blob: Descriptor) -> None:
        sent = self.earlier.upload(blob.digest)
        if sent is not None and self.registry.exists(blob):  # what no manifest wants may be collected after a while
            self.done[blob.digest] = sent
            return
        source = self.source.registry
        same = source is not None and source.name == self.registry.name
        known = [source.reference.repository] if source and same else []
        body = self.source.body(blob)
        try:
            self.done[blob.digest] = push_blob(
                blob, body, self.registry, self.reporter, self.earlier.stop, mount_from=known, is_new=self._is_new
            )
        except TransferError:
            for _ in () if source or self.earlier.stop.is_set() else self.source.fetch(blob):
                pass  # IntegrityError when the blob is damaged here, which is why it was not taken
            raise

    def _list(self, subject: Digest, unlisted: Sequence[Descriptor]) -> None:
        """See that the repository lists these; where it does not do so by itself, in the fallback tag."""
        if ours := [one for one in unlisted if one.digest not in self.acknowledged]:
            enlist(self.registry, subject, ours)
        wanted = {one.digest for one in unlisted} - {one.digest for one in ours}
        for lag in _LAGS if wanted else ():
            time.sleep(lag)
            wanted -= {one.digest for one in listed(self.registry, subject)}
            if not wanted:
                break
            for digest in sorted(wanted) if lag else ():
                self._put(digest, self.graph.nodes[digest])  # another push may have written the list meanwhile
        if wanted:
            raise IntegrityError(
                "the registry dropped what was attached",
                at=f"{self.registry.reference.name}@{subject}",
                because=f"it does not list {', '.join(map(str, sorted(wanted)))}",
            )


def _first_to_last(blobs: Iterable[Descriptor]) -> list[Descriptor]:
    """The largest, which takes longest, then the small ones, which manifests may wait for, then all others."""
    largest = max(blobs, key=lambda one: one.size, default=None)

    def turn(one: Descriptor) -> tuple[bool, bool, int]:
        return one is not largest, one.size > MIB, -one.size if one.size > MIB else one.size

    return sorted(blobs, key=turn)


def push_blob(
    blob: Descriptor,
    body: Upload,
    registry: Registry,
    reporter: Reporter,
    stop: threading.Event,
    *,
    mount_from: Iterable[str] = (),
    task: str | None = None,
    is_new: bool = False,
) -> Transfer:
    """Have one blob in the repository, and say how it goes, by the name of `task`; `stop` ends it.

    See `Registry.upload`.
    """
    task = task or f"push {blob.digest.hex[:12]}"
    began = time.monotonic()
    reporter.begin(task, blob.size)
    meter = _Meter(lambda amount: reporter.advance(task, amount), stop)
    metered = Upload(open=lambda: cast(BinaryIO, _Metered(body.open(), meter)), size=blob.size)
    result = "failed"
    try:
        pushed = registry.upload(blob, metered, mount_from=mount_from, is_new=is_new)
        result = f"resumed at {pushed.resumed / 1e6:.1f} MB" if pushed.resumed else str(pushed.action)
    finally:
        reporter.finish(task, result)
    sent = blob.size - pushed.resumed if pushed.action is Action.UPLOADED else 0
    again = max(0, meter.read - sent)
    return Transfer(
        descriptor=blob,
        action=pushed.action,
        bytes=sent,
        again=again,
        resumed=pushed.resumed,
        seconds=time.monotonic() - began,
    )


def each(verb: Callable[[_T], None], items: Sequence[_T]) -> None:
    """The verb for every item, several at once; the first failure is raised when all have ended."""
    if len(items) == 1:
        verb(items[0])
    elif items:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(verb, items))


def _in_order(
    tasks: Mapping[_Key, Callable[[], None]], before: Mapping[_Key, Iterable[_Key]], stop: threading.Event
) -> None:
    """Run the tasks, each after those before it; the first failure (or Ctrl-C) ends the others and is raised."""
    sorter = TopologicalSorter({key: [one for one in before.get(key, ()) if one in tasks] for key in tasks})
    sorter.prepare()
    running: dict[Future[None], _Key] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            while sorter.is_active():
                running |= {pool.submit(tasks[key]): key for key in sorter.get_ready()}
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    sorter.done(running.pop(future))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _read_back(name: str | Digest, expected: Digest, registry: Registry) -> None:
    found = registry.head_manifest(name)
    if found != expected:
        raise IntegrityError(
            "the registry holds something else than what was pushed",
            at=f"{registry.reference.name}{'@' if isinstance(name, Digest) else ':'}{name}",
            because=f"expected {expected}, got {found or 'nothing'}",
            hint="is something else pushing to the same tag?",
        )


def _begun_anew(verb: Callable[[], _T]) -> _T:
    """The verb's result; it is begun again when the transport could not know whether repeating a part was safe."""
    for _ in range(_BEGINNINGS - 1):
        try:
            return verb()
        except TransferError as error:
            if not error.retryable:
                raise
    return verb()


class _Meter:
    """Reports the bytes of a body once, also when it is sent more than once; stops the sending when told."""

    def __init__(self, advance: Callable[[int], None], stop: threading.Event) -> None:
        self._advance = advance
        self._stop = stop
        self._seen = 0
        self.read = 0

    def pass_to(self, position: int, amount: int) -> None:
        """So many bytes of the body were read, up to this position."""
        if self._stop.is_set():
            raise TransferError("stopped, because another upload failed")
        self.read += amount
        if position > self._seen:
            self._advance(position - self._seen)
            self._seen = position


class _Metered(io.RawIOBase):
    """A stream whose reads go through a meter."""

    def __init__(self, stream: BinaryIO, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self._meter.pass_to(self._position, len(data))
        return data

    def send_to(self, target: int, size: int) -> int:
        """See `rootfs.body.SendsItself`: a file is sent inside the kernel."""
        sent = os.sendfile(target, self._stream.fileno(), self._position, size)
        self._position += sent
        self._meter.pass_to(self._position, sent)
        return sent

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = self._stream.seek(offset, whence)
        return self._position

    def close(self) -> None:
        self._stream.close()
        super().close()
