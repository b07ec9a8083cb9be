"""Multi: the images behind one name, and one index of many images (image-spec 1.1, image-index.md).

Law: reads manifests and configs, never a layer; every document is checked before it is believed. An index's entries
are carried as JSON values, so that members unknown to us survive. The order of an index is its platforms', not that of
the arguments: the same images give the same index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from builder.finding import FoundImage, bring
from builder.oci.config import ImageConfig
from builder.oci.descriptor import INDEX, REF_NAME, SIZE_LIMIT, Descriptor, Fetch
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import CONFIGS
from builder.oci.rebase import Documents
from rootfs.architecture import Architecture
from rootfs.digest import canonical_json
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Reporter, Store

ABOUT = "vnd.docker.reference.digest"
"""BuildKit's annotation of an entry that tells about another one of the same index: that one's digest."""

_DEEPEST = 8
_MOST = 1000
_MEMBERS = ("os", "architecture", "variant", "os.version", "os.features")
_MEANT = {("amd64", "v1"): "", ("arm64", "v8"): "", ("arm", "v7"): ""}  # what containerd takes these variants for


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A manifest that a name leads to: its entry in the index as it stands there; of an image also its documents."""

    entry: Mapping[str, Any]
    descriptor: Descriptor
    documents: Documents | None

    @property
    def platform(self) -> dict[str, Any]:
        """What the image runs on by its config, or what its entry adds to that; IntegrityError when they differ."""
        assert self.documents is not None
        config, said = self.documents.config, self.entry.get("platform") or {}
        for name in ("os", "architecture"):
            if said and said.get(name) != config[name]:
                because = f"its entry says {said.get(name)}, its config {config[name]}"
                raise IntegrityError(
                    f"{self.documents.name}: two platforms", at=str(self.descriptor.digest), because=because
                )
        known = {name: config.get(name) or said.get(name) for name in _MEMBERS}
        return {name: value for name, value in known.items() if value}

    @property
    def meant(self) -> tuple[str, ...]:
        """The platform as runtimes compare it."""
        return _meant(self.platform)


def document(descriptor: Descriptor, fetch: Fetch) -> bytes:
    """The bytes of a manifest, index or config; IntegrityError when they are too many."""
    if descriptor.size > SIZE_LIMIT:
        because = f"{descriptor.size} bytes, {SIZE_LIMIT} are allowed"
        raise IntegrityError("document is too large", at=str(descriptor.digest), because=because)
    return b"".join(fetch(descriptor))


def leaves(found: FoundImage) -> list[Leaf]:
    """Every manifest behind a name, each once: the image itself, or those of its index and of the indexes in that.

    IntegrityError for what is damaged, nested deeper than 8 or holds more than 1000 entries.
    """
    known: dict[str, Leaf] = {}
    walked: set[str] = set()

    def walk(entry: Mapping[str, Any], depth: int) -> None:
        descriptor = Descriptor.from_dict(entry)
        if str(descriptor.digest) in walked:
            return
        walked.add(str(descriptor.digest))
        if depth > _DEEPEST or len(walked) > _MOST:
            because = f"more than {_DEEPEST} deep" if depth > _DEEPEST else f"more than {_MOST} entries"
            raise IntegrityError("an index of indexes without end", at=found.name, because=because)
        data = document(descriptor, found.fetch)
        content = parse(descriptor.media_type, data)
        if isinstance(content, Index):
            for inner in json.loads(data)["manifests"]:
                walk(inner, depth + 1)
        else:
            known[str(descriptor.digest)] = _leaf(entry, descriptor, content, data, found)

    walk(entry_of(found.descriptor), 0)
    return list(known.values())


def entry_of(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor's value in an index: without the name it has in a layout."""
    kept = {name: text for name, text in descriptor.annotations.items() if name != REF_NAME}
    return replace(descriptor, annotations=kept).to_dict()


def _leaf(entry: Mapping[str, Any], descriptor: Descriptor, content: Manifest, data: bytes, found: FoundImage) -> Leaf:
    documents = None
    if content.config.media_type in CONFIGS and tells_about(entry) is None:
        config = document(content.config, found.fetch)
        if len(content.layers) != len(ImageConfig.parse(config).diff_ids):
            because = f"{len(content.layers)} layers, {len(ImageConfig.parse(config).diff_ids)} diff ids"
            raise IntegrityError("manifest and config do not fit each other", at=found.name, because=because)
        documents = Documents(name=found.name, manifest=json.loads(data), config=json.loads(config))
    return Leaf(entry=entry, descriptor=descriptor, documents=documents)


def tells_about(entry: Mapping[str, Any]) -> str | None:
    """The digest of the entry that this one is about, an attestation, which runs nowhere; "" when it does not say
    which, None when it is about none."""
    about: str | None = (entry.get("annotations") or {}).get(ABOUT)
    return "" if about is None and (entry.get("platform") or {}).get("os") == "unknown" else about


def chosen(found: FoundImage, platform: str | None) -> Leaf:
    """The one image of a platform (`os/architecture[/variant]`; None: this machine's, or the only one there is)."""
    images = [leaf for leaf in leaves(found) if leaf.documents]
    if not images:
        raise UsageError("not an image", at=found.name, because="it is an artifact, or an index without images")
    if platform is None and len(images) == 1:
        return images[0]
    wanted = platform or f"linux/{Architecture.host().oci}"
    fitting = [leaf for leaf in images if fits(leaf.platform, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(sorted(_shown(leaf) for leaf in images))
    message = f"several images for {wanted}" if fitting else f"no image for {wanted}"
    raise UsageError(message, at=found.name, hint=f"there is {known}")


def fits(platform: Mapping[str, Any], wanted: str) -> bool:
    """Whether an image for this platform is one for `os/architecture[/variant]`."""
    parts = wanted.split("/")
    os, architecture, variant, _ = _meant(platform)
    if len(parts) == 3:
        return (os, architecture, variant) == (*parts[:2], _MEANT.get((parts[1], parts[2]), parts[2]))
    return [os, architecture] == parts


def _meant(platform: Mapping[str, Any]) -> tuple[str, ...]:
    os, architecture, variant, version, *_ = (str(platform.get(name) or "") for name in _MEMBERS)
    return os, architecture, _MEANT.get((architecture, variant), variant), version


def _shown(leaf: Leaf) -> str:
    return "/".join(filter(None, leaf.meant[:3]))


def make_index(
    found: Sequence[FoundImage], store: Store, *, annotations: Mapping[str, str], reporter: Reporter
) -> Descriptor:
    """An index in the store of all images behind these names, with everything they refer to.

    What an index among them says about its images (attestations) comes along. UsageError for two images of one
    platform, and for a name with no image behind it.
    """
    places: dict[str, tuple[Leaf, FoundImage]] = {}
    for one in found:
        behind = leaves(one)
        if not any(leaf.documents for leaf in behind):
            raise UsageError("not an image", at=one.name, because="it is an artifact, or an index without images")
        for leaf in behind:
            places.setdefault(str(leaf.descriptor.digest), (leaf, one))
    _require_one_each(leaf for leaf, _ in places.values())
    for leaf, one in places.values():
        if not one.near:
            reporter.note(f"fetching {one.name}@{leaf.descriptor.digest}")
        bring(replace(one, descriptor=leaf.descriptor), store)
    data = index_bytes(list(_ordered([leaf for leaf, _ in places.values()])), annotations)
    store.put([data])
    return Descriptor.of(INDEX, data)


def index_bytes(entries: Sequence[Mapping[str, Any]], annotations: Mapping[str, str]) -> bytes:
    """An index of these entries, which were found to be right."""
    value: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
    return canonical_json(value | ({"annotations": dict(annotations)} if annotations else {}))


def _require_one_each(every: Iterable[Leaf]) -> None:
    seen: dict[tuple[str, ...], Leaf] = {}
    for leaf in every:
        if leaf.documents is None:
            continue
        other = seen.setdefault(leaf.meant, leaf)
        if other is not leaf and other.documents:
            because = " and ".join(
                f"{one.documents.name}@{one.descriptor.digest}" for one in (other, leaf) if one.documents
            )
            raise UsageError(
                f"two images for {_shown(leaf)}", because=because, hint="an index has one for each platform"
            )


def _ordered(every: Sequence[Leaf]) -> Iterator[dict[str, Any]]:
    """The entries: images by platform, each followed by what tells about it, then the rest by digest."""
    about: dict[str, list[Leaf]] = {}
    for leaf in every:
        if leaf.documents is None:
            about.setdefault((leaf.entry.get("annotations") or {}).get(ABOUT, ""), []).append(leaf)
    for image in sorted((leaf for leaf in every if leaf.documents), key=lambda leaf: leaf.meant):
        yield {**image.entry, "platform": image.platform}
        yield from _by_digest(about.pop(str(image.descriptor.digest), []))
    yield from _by_digest([leaf for rest in about.values() for leaf in rest])


def _by_digest(every: Iterable[Leaf]) -> Iterator[dict[str, Any]]:
    return (dict(leaf.entry) for leaf in sorted(every, key=lambda leaf: str(leaf.descriptor.digest)))
