"""Source: where what is pushed or copied lies, as three questions: a blob's bytes, what refers to a manifest, and what
cosign's tags hold about it; and the graph of all that belongs to an image.

Law: reads, and believes nothing: every document is checked against its descriptor. A body that is passed on without
touching a disk is one whose stream asks the other registry again from where it is moved to.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from builder.oci.descriptor import REF_NAME, SIZE_LIMIT, Descriptor, Fetch, verified
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import DOCUMENTS, FOREIGN
from builder.registry.client import Registry
from builder.registry.referrers import entry, listed, subject_of, tagged
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Response, Store, Upload

AT_ONCE = 8
_CHUNK = 1 << 20
_DEEPEST = 8
_MOST = 10_000
Attached = Callable[[Digest], Sequence[Descriptor]]


def _nothing(_: Digest) -> tuple[Descriptor, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`fetch` gives a blob's or a document's checked bytes, `body` a blob as something to upload, `holds` whether a
    foreign layer is there. `attached` gives what has a manifest as its subject, `tagged` what cosign's tags hold about
    it, each named by its tag. `registry` is set when it lies in one.
    """

    name: str
    fetch: Fetch
    body: Callable[[Descriptor], Upload]
    holds: Callable[[Descriptor], bool]
    attached: Attached = _nothing
    tagged: Attached = _nothing
    registry: Registry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A manifest or index: where it is pointed to, its bytes, what they say, and the manifest they are about."""

    descriptor: Descriptor
    data: bytes = field(repr=False)
    content: Manifest | Index
    subject: Digest | None

    @property
    def documents(self) -> tuple[Descriptor, ...]:
        """The manifests and indexes it needs to be whole."""
        return tuple(child for child in self.content.children if child.media_type in DOCUMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """All that belongs to an image: `nodes` by digest, children before parents; `attached`, referrers by subject, as
    their list has them; `tagged`, cosign's: tag -> digest; `held`, the blobs of the nodes, but foreign ones that are
    not where the image is.
    """

    root: Node
    nodes: Mapping[Digest, Node]
    attached: Mapping[Digest, tuple[Descriptor, ...]]
    tagged: Mapping[str, Digest]
    held: Mapping[Digest, Descriptor]

    @property
    def tops(self) -> tuple[Node, ...]:
        """The nodes that no other one lists: the image itself first, then what is attached."""
        below = {child.digest for node in self.nodes.values() for child in node.documents}
        others = (node for digest, node in self.nodes.items() if digest not in below and node is not self.root)
        return (self.root, *others)

    def closure(self, node: Node) -> Iterator[Node]:
        """The node and all it lists, itself first."""
        yield node
        for child in node.documents:
            yield from self.closure(self.nodes[child.digest])

    def blobs(self, node: Node) -> tuple[Descriptor, ...]:
        """What a manifest needs beside other documents, each once."""
        children = {child.digest: child for child in node.content.children if child.media_type not in DOCUMENTS}
        return tuple(child for digest, child in children.items() if digest in self.held)


def store_source(store: Store, attached: Iterable[Descriptor] = ()) -> Source:
    """An image of the store, and the artifacts about it."""

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        with store.open(wanted.digest) as stream:
            yield from verified(iter(lambda: stream.read(_CHUNK), b""), wanted, str(wanted.digest))

    def body(wanted: Descriptor) -> Upload:
        return Upload(open=lambda: store.open(wanted.digest), size=wanted.size)

    about: dict[Digest, list[Descriptor]] = {}
    for one in attached:
        subject = subject_of(b"".join(fetch(one)))
        if subject is None:
            raise IntegrityError("an artifact without a subject", at=str(one.digest))
        about.setdefault(subject, []).append(one)
    return Source(
        name="the store",
        fetch=fetch,
        body=body,
        holds=lambda wanted: store.exists(wanted.digest),
        attached=lambda subject: about.get(subject, ()),
    )


def registry_source(registry: Registry) -> Source:
    """What a repository holds."""

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        if wanted.media_type in DOCUMENTS:
            yield from verified([registry.get_manifest(wanted.digest)[1]], wanted, registry.reference.name)
        else:
            yield from registry.open(wanted)

    return Source(
        name=registry.reference.name,
        fetch=fetch,
        body=lambda wanted: Upload(open=lambda: cast(BinaryIO, _Remote(registry, wanted)), size=wanted.size),
        holds=registry.exists,
        attached=lambda subject: listed(registry, subject),
        tagged=lambda subject: tagged(registry, subject),
        registry=registry,
    )


def gather(source: Source, root: Descriptor, *, referrers: bool = True) -> Graph:
    """Read all documents that belong to an image: its own, those it lists, and what is attached to any of them.

    IntegrityError for what is missing, damaged, too large, or has no end.
    """
    read = _Read(source, referrers=referrers)
    read.run(root)
    nodes: dict[Digest, Node] = {}

    def put(digest: Digest) -> None:
        if digest not in nodes:
            for child in read.nodes[digest].documents:
                put(child.digest)
            nodes[digest] = read.nodes[digest]

    for digest in (root.digest, *(one for one in read.nodes if one != root.digest)):
        put(digest)
    return Graph(
        root=nodes[root.digest], nodes=nodes, attached=read.attached, tagged=read.tagged, held=_held(source, nodes)
    )


class _Read:
    """The reading of a graph, a generation at a time, the documents of one at once."""

    def __init__(self, source: Source, *, referrers: bool) -> None:
        self._source = source
        self._referrers = referrers
        self.nodes: dict[Digest, Node] = {}
        self.attached: dict[Digest, tuple[Descriptor, ...]] = {}
        self.tagged: dict[str, Digest] = {}

    def run(self, root: Descriptor) -> None:
        wave = [root]
        with ThreadPoolExecutor(AT_ONCE if self._source.registry else 1) as pool:
            for _ in range(_DEEPEST + 1):
                found = pool.map(self._one, wave)
                following: dict[Digest, Descriptor] = {}
                for node, attached, named in found:
                    self.nodes[node.descriptor.digest] = node
                    if attached:
                        self.attached[node.descriptor.digest] = attached
                    self.tagged |= {one.annotations[REF_NAME]: one.digest for one in named}
                    following |= {one.digest: one for one in (*node.documents, *attached, *named)}
                wave = [one for digest, one in following.items() if digest not in self.nodes]
                if not wave:
                    return
                if len(self.nodes) + len(wave) > _MOST:
                    break
        because = f"more than {_DEEPEST} deep, or {_MOST} documents"
        raise IntegrityError("an image without end", at=self._source.name, because=because)

    def _one(self, wanted: Descriptor) -> tuple[Node, tuple[Descriptor, ...], tuple[Descriptor, ...]]:
        if wanted.size > SIZE_LIMIT:
            because = f"{wanted.size} bytes, {SIZE_LIMIT} are allowed"
            raise IntegrityError("document is too large", at=str(wanted.digest), because=because)
        data = b"".join(self._source.fetch(wanted))
        content = parse(wanted.media_type, data)
        plain = replace(wanted, annotations={})
        node = Node(descriptor=plain, data=data, content=content, subject=subject_of(data))
        if not self._referrers:
            return node, (), ()
        if self._source.registry is None:
            return node, tuple(self._source.attached(wanted.digest)), tuple(self._source.tagged(wanted.digest))
        with ThreadPoolExecutor(1) as pool:
            named = pool.submit(self._source.tagged, wanted.digest)
            return node, tuple(self._source.attached(wanted.digest)), tuple(named.result())


def _held(source: Source, nodes: Mapping[Digest, Node]) -> dict[Digest, Descriptor]:
    blobs = {
        child.digest: child
        for node in nodes.values()
        for child in node.content.children
        if child.media_type not in DOCUMENTS
    }
    return {digest: blob for digest, blob in blobs.items() if blob.media_type not in FOREIGN or source.holds(blob)}


def listings(graph: Graph) -> dict[Digest, tuple[Descriptor, ...]]:
    """subject -> its referrers as the specification wants them listed: as their own manifests say, not as who lists
    them does."""
    found: dict[Digest, dict[Digest, Descriptor]] = {}
    pairs = [(subject, one.digest) for subject, attached in graph.attached.items() for one in attached]
    pairs += [(node.subject, digest) for digest, node in graph.nodes.items() if node.subject]
    for subject, digest in pairs:
        node = graph.nodes[digest]
        found.setdefault(subject, {})[digest] = entry(node.descriptor, node.data)
    return {subject: tuple(one[digest] for digest in sorted(one)) for subject, one in found.items()}


class _Remote(io.RawIOBase):
    """A blob of another registry as a stream: moved, it asks for what follows by Range."""

    def __init__(self, registry: Registry, blob: Descriptor) -> None:
        self._registry = registry
        self._blob = blob
        self._position = 0
        self._answer: Response | None = None
        self._rest = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if not self._rest and self._position < self._blob.size:
            if self._answer is None:
                self._answer = self._registry.open_at(self._blob, self._position)
            self._rest = next(self._answer.chunks, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(piece)
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        wanted = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._blob.size}[whence]
        if wanted != self._position:
            self._end()
            self._position = wanted
        return wanted

    def close(self) -> None:
        self._end()
        super().close()

    def _end(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer, self._rest = None, b""
