"""Mutate: another config, another base, other layers or other annotations for an image that is there.

Law: layers that need not change go over as blobs, checked against their digests: none of them is unpacked or
compressed. The same image and the same words give the same bytes; no history entry tells of a change that makes no
layer, so one that is taken back gives the first image again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.change.restack import Restack, Restacking
from builder.finding import Connect, FoundImage, bring, find_image, stored_image
from builder.multi import ABOUT, Leaf, chosen, document, entry_of, leaves
from builder.oci.annotations import BASE_DIGEST, BASE_NAME, fault_of
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, INDEX, MANIFEST, Descriptor
from builder.oci.edit import Edit, pointing, with_oci_names
from builder.oci.manifest import Manifest
from builder.oci.mediatypes import INDEXES
from builder.oci.rebase import Documents, rebased
from builder.registry.source import Source, registry_source, store_source
from builder.tools import Tools
from rootfs.digest import canonical_json
from rootfs.errors import UsageError
from rootfs.ports import Store, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase:
    """From one base to another, each found. `old` is None where each image's own annotations name its base;
    `reference` is the new one's name in a registry, None when it is in none.
    """

    old: FoundImage | None
    new: FoundImage
    reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """All that is wanted: the rebase first, then the layers. `platform` takes that one image out of an index; else all
    in it are changed.
    """

    edit: Edit = field(default_factory=Edit)
    rebase: Rebase | None = None
    restack: Restack = field(default_factory=Restack)
    platform: str | None = None


def mutate(
    found: FoundImage, wanted: Mutation, tools: Tools, *, connect: Connect | None = None, whole: bool = True
) -> Descriptor:
    """The changed image (or index) in the store, with all it refers to; its descriptor. Unless it is to be there as a
    `whole`, layers of an image in a registry stay there: `lying` finds them.

    UsageError for an image that lies upon another base than the one named, or a platform that is not there;
    IntegrityError for what is damaged. Entries of an index that told about an image which is another one now
    (attestations) are left out, and it is said so.
    """
    work = _Mutating(
        found=found,
        wanted=wanted,
        tools=tools,
        connect=connect,
        leave=found.registry is not None and not whole,
        restacking=Restacking(wanted=wanted.restack, tools=tools),
    )
    if wanted.platform is not None:
        leaf = chosen(found, wanted.platform)
        return Descriptor.from_dict({**work.image(leaf), "platform": leaf.platform})
    known = {str(leaf.descriptor.digest): leaf for leaf in leaves(found)}
    if not any(leaf.documents for leaf in known.values()):
        raise UsageError("not an image", at=found.name, because="it is an artifact, or an index without images")
    return Descriptor.from_dict(work.entry(entry_of(found.descriptor), known))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mutating:
    """One run over an image or an index."""

    found: FoundImage
    wanted: Mutation
    tools: Tools
    connect: Connect | None
    leave: bool
    restacking: Restacking

    def entry(self, entry: Mapping[str, Any], known: Mapping[str, Leaf]) -> dict[str, Any]:
        """An entry as it is afterwards, and in the store all that it leads to."""
        if entry["mediaType"] not in INDEXES:
            return self.image(replace(known[entry["digest"]], entry=entry))
        data = document(Descriptor.from_dict(entry), self.found.fetch)
        value = json.loads(data)
        before = value["manifests"]
        after = [self.entry(one, known) for one in before]
        replaced = {one["digest"] for one, other in zip(before, after, strict=True) if one["digest"] != other["digest"]}
        kept = [one for one in after if (one.get("annotations") or {}).get(ABOUT) not in replaced]
        if len(kept) < len(after):
            self.tools.reporter.note(
                f"{len(after) - len(kept)} attestations left out: they are about the images as they were"
            )
        changed = self.wanted.edit.annotated({**value, "manifests": kept})
        if changed != value:
            changed = with_oci_names(changed)
        return self._pointed(entry, INDEX, data, value, changed)

    def image(self, leaf: Leaf) -> dict[str, Any]:
        """The entry of one image; what is none is carried."""
        before = leaf.documents
        if before is None:
            bring(replace(self.found, descriptor=leaf.descriptor), self.tools.store)
            return dict(leaf.entry)
        after = self._based(leaf, before)
        after = replace(after, config=self.wanted.edit.config(after.config))
        if self.wanted.restack:
            after = self.restacking.image(after, self._everywhere(leaf, before))
        config, manifest = after.config, self.wanted.edit.annotated(after.manifest)
        if config != before.config or manifest != before.manifest:
            manifest = with_oci_names(manifest)
        config_data = document(Descriptor.from_dict(before.manifest["config"]), self.found.fetch)
        manifest["config"] = self._pointed(manifest["config"], CONFIG, config_data, before.config, config)
        entry = self._pointed(
            leaf.entry, MANIFEST, document(leaf.descriptor, self.found.fetch), before.manifest, manifest
        )
        ImageConfig.parse(canonical_json(config))  # what was asked for may be none
        self._carry(Manifest.parse(canonical_json(manifest), entry["mediaType"]), before)
        return entry

    def _pointed(
        self, entry: Mapping[str, Any], media_type: str, data: bytes, before: object, after: object
    ) -> dict[str, Any]:
        """Store a document and point the entry to it; one in which nothing changed stays as it was written."""
        if before == after:
            self.tools.store.put([data])
            return dict(entry)
        changed = canonical_json(after)
        self.tools.store.put([changed])
        return pointing(entry, Descriptor.of(media_type, changed))

    def _based(self, leaf: Leaf, image: Documents) -> Documents:
        """The image upon its new base, if there is to be one."""
        rebase = self.wanted.rebase
        if rebase is None:
            return image
        platform = "/".join(filter(None, leaf.meant[:3]))
        old, new = chosen(rebase.old or self._named(image), platform), chosen(rebase.new, platform)
        assert old.documents
        assert new.documents
        after = rebased(image, old.documents, new.documents)
        said = Edit(annotations={BASE_NAME: rebase.reference, BASE_DIGEST: str(new.descriptor.digest)})
        return replace(after, manifest=said.annotated(after.manifest))

    def _named(self, image: Documents) -> FoundImage:
        """The base that an image's own annotations name."""
        annotations = image.manifest.get("annotations") or {}
        name, digest = annotations.get(BASE_NAME), annotations.get(BASE_DIGEST)
        if not name or fault_of(BASE_NAME, name):
            because = f"its manifest has no annotation {BASE_NAME} with a registry's reference"
            raise UsageError(f"{image.name} does not say its base", because=because, hint="name it with --rebase-from")
        return find_image(name if not digest or "@" in name else f"{name}@{digest}", connect=self.connect)

    def _carry(self, manifest: Manifest, before: Documents) -> None:
        """Have the layers in the store, each from where it is."""
        for layer in manifest.layers:
            source = self._source(layer, before)
            if self.leave and source is self.found:
                continue
            if not source.near and not self.tools.store.exists(layer.digest):
                self.tools.reporter.note(f"fetching layer {layer.digest}")
            bring(replace(source, descriptor=layer), self.tools.store)

    def _source(self, layer: Descriptor, before: Documents) -> FoundImage:
        """Where a layer is: in the store, in the image as it was, or in the new base."""
        if self.tools.store.exists(layer.digest):
            return stored_image(layer, self.tools.store, "the store")
        base = self.wanted.rebase.new if self.wanted.rebase else self.wanted.restack.onto
        own = any(str(layer.digest) == one["digest"] for one in before.layers)
        return self.found if own or base is None else base

    def _everywhere(self, leaf: Leaf, before: Documents) -> FoundImage:
        """The image, its layers had from wherever they are."""

        def fetch(wanted: Descriptor) -> Iterator[bytes]:
            return self._source(wanted, before).fetch(wanted)

        def holds(wanted: Descriptor) -> bool:
            return self._source(wanted, before).holds(wanted)

        return replace(self.found, descriptor=leaf.descriptor, fetch=fetch, holds=holds)


def lying(found: FoundImage, store: Store) -> Source:
    """Where all of a mutated image lies: what is not in the store is where the image was found, if that is a registry.

    Whoever pushes to the same registry has the layers mounted from there; to another one they go without touching the
    disk.
    """
    near = store_source(store)
    if found.registry is None:
        return near
    far = registry_source(found.registry)

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        return (near if store.exists(wanted.digest) else far).fetch(wanted)

    def body(wanted: Descriptor) -> Upload:
        return (near if store.exists(wanted.digest) else far).body(wanted)

    def holds(wanted: Descriptor) -> bool:
        return near.holds(wanted) or far.holds(wanted)

    return replace(near, name=far.name, fetch=fetch, body=body, holds=holds, registry=far.registry)
