"""Mutate: another config, another base or other annotations for an image that is there; its layers stay as they are.

Law: no layer is unpacked or compressed: they go over as blobs, checked against their digests. The same image and the
same words give the same bytes; no history entry tells of it, so a change taken back gives the first image again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.finding import Connect, FoundImage, bring, find_image
from builder.multi import ABOUT, Leaf, chosen, document, entry_of, leaves
from builder.oci.annotations import BASE_DIGEST, BASE_NAME, fault_of
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, INDEX, MANIFEST, Descriptor
from builder.oci.edit import Edit, pointing, with_oci_names
from builder.oci.manifest import Manifest
from builder.oci.mediatypes import INDEXES
from builder.oci.rebase import Documents, rebased
from rootfs.digest import canonical_json
from rootfs.errors import UsageError
from rootfs.ports import Reporter, Store


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
    """All that is wanted. `platform` takes that one image out of an index; else all in it are changed."""

    edit: Edit = field(default_factory=Edit)
    rebase: Rebase | None = None
    platform: str | None = None


def mutate(
    found: FoundImage, wanted: Mutation, store: Store, *, reporter: Reporter, connect: Connect | None = None
) -> Descriptor:
    """The changed image (or index) in the store, with all it refers to; its descriptor.

    UsageError for an image that lies upon another base than the one named, or a platform that is not there;
    IntegrityError for what is damaged. Entries of an index that told about an image which is another one now
    (attestations) are left out, and it is said so.
    """
    work = _Mutating(found=found, wanted=wanted, store=store, reporter=reporter, connect=connect)
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
    store: Store
    reporter: Reporter
    connect: Connect | None

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
            self.reporter.note(
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
            bring(replace(self.found, descriptor=leaf.descriptor), self.store)
            return dict(leaf.entry)
        after = self._based(leaf, before)
        config, manifest = self.wanted.edit.config(after.config), self.wanted.edit.annotated(after.manifest)
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
            self.store.put([data])
            return dict(entry)
        changed = canonical_json(after)
        self.store.put([changed])
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
        own = {layer["digest"] for layer in before.layers}
        for layer in manifest.layers:
            rebase = self.wanted.rebase
            source = rebase.new if rebase and str(layer.digest) not in own else self.found
            if not source.near and not self.store.exists(layer.digest):
                self.reporter.note(f"fetching layer {layer.digest}")
            bring(replace(source, descriptor=layer), self.store)
