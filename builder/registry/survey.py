"""Survey: what a repository has of an image already, asked for in as few round trips as there can be.

Law: asks, and changes nothing. A manifest that is there was accepted with all it lists, so nothing below it is asked
for, unless that is wanted (`check`): registries lose blobs only by accidents of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from builder.oci.descriptor import Descriptor
from builder.oci.manifest import Index, Manifest, parse
from builder.registry.client import Registry
from builder.registry.referrers import listed
from builder.registry.source import AT_ONCE, Graph, Node, listings
from rootfs.digest import Digest, canonical_json
from rootfs.errors import TransferError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the repository has: manifests, what each tag stands for, and which referrers it lists of each subject.

    `needed` are the manifests whose blobs have to be looked for; `lists` is what has to be listed; `kept` are cosign's
    tags that hold all that is to be there, and more.
    """

    there: frozenset[Digest]
    tags: Mapping[str, Digest | None]
    listed: Mapping[Digest, frozenset[Digest]]
    needed: tuple[Node, ...]
    lists: Mapping[Digest, tuple[Descriptor, ...]]
    kept: frozenset[str] = frozenset()

    def moves(self, tag: str, digest: Digest) -> bool:
        """Whether the tag has to be set."""
        return self.tags[tag] != digest and tag not in self.kept

    def unlisted(self, subject: Digest) -> tuple[Descriptor, ...]:
        """The referrers of a subject that the repository does not list."""
        return tuple(one for one in self.lists[subject] if one.digest not in self.listed[subject])


def survey(graph: Graph, registry: Registry, tags: Iterable[str], *, check: bool = False) -> Standing:
    """Ask for the image, what is attached to it, their lists and the tags, all at once; UsageError for a bad tag.

    Then for what an index lists that is not there; with `check` for every manifest. TransferError when signatures that
    are there would be lost.
    """
    names = list(dict.fromkeys((*tags, *graph.tagged)))
    for name in names:
        replace(registry.reference, tag=name)
    lists = listings(graph)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wave = list(graph.nodes.values()) if check else list(graph.tops)
        heads = _ask(pool, registry.head_manifest, [node.descriptor.digest for node in wave])
        told = _ask(pool, registry.head_manifest, names)
        known = _ask(pool, lambda subject: listed(registry, subject), list(lists))
        there: set[Digest] = set()
        while wave:
            found = {digest for digest in heads if heads[digest].result() == digest}
            there |= found
            below: dict[Digest, Node] = {}
            for node in [] if check else wave:
                if node.descriptor.digest in found:
                    there.update(one.descriptor.digest for one in graph.closure(node))
                else:
                    below |= {child.digest: graph.nodes[child.digest] for child in node.documents}
            wave = [node for digest, node in below.items() if digest not in there]
            heads = _ask(pool, registry.head_manifest, [node.descriptor.digest for node in wave])
        stand = {name: told[name].result() for name in names}
        return Standing(
            there=frozenset(there),
            tags=stand,
            listed={subject: frozenset(one.digest for one in known[subject].result()) for subject in lists},
            needed=tuple(node for digest, node in graph.nodes.items() if check or digest not in there),
            lists=lists,
            kept=frozenset(tag for tag in graph.tagged if _is_kept(tag, stand[tag], graph, registry)),
        )


def _is_kept(tag: str, there: Digest | None, graph: Graph, registry: Registry) -> bool:
    """Whether one of cosign's tags holds all that ours does, and more, so that it stays.

    cosign adds signatures and attestations to what a tag holds; an SBOM takes the other one's place. TransferError
    where each side has what the other one lacks.
    """
    digest = graph.tagged[tag]
    if there is None or there == digest or tag.endswith(".sbom"):
        return False
    descriptor, data = registry.get_manifest(tag)
    ours, theirs = _signatures(graph.nodes[digest].content), _signatures(parse(descriptor.media_type, data))
    if ours <= theirs:
        return True
    if lost := theirs - ours:
        raise TransferError(
            "signatures in the registry would be lost",
            at=f"{registry.reference.name}:{tag}",
            because=f"it holds {len(lost)} that this image comes without, and lacks {len(ours - theirs)} of its own",
            hint="leave all that is attached behind with --no-referrers; or, if they are of no use, `ocibuild delete`"
            " that tag",
        )
    return False


def _signatures(content: Manifest | Index) -> frozenset[bytes]:
    """Layers with their annotations: two who signed the same words differ in these alone."""
    layers = content.layers if isinstance(content, Manifest) else content.manifests
    return frozenset(canonical_json(layer.to_dict()) for layer in layers)


_K = TypeVar("_K")


def _ask(pool: ThreadPoolExecutor, verb: Callable[[_K], _T], questions: Sequence[_K]) -> dict[_K, Future[_T]]:
    return {question: pool.submit(verb, question) for question in questions}
