"""Attach: a document about an image as an artifact with `subject`, and the artifacts that a layout has of an image.

Law: knows manifests and layouts; not what a document says, nor registries. The image's own manifest, and so its
digest, is never touched. Sources: image-spec 1.1, manifest.md ("Guidelines for Artifact Usage"), image-layout.md;
distribution-spec 1.1, "Listing Referrers".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.oci.config import rfc3339
from builder.oci.descriptor import EMPTY, INDEX, MANIFEST, REF_NAME, SIZE_LIMIT, Descriptor, verified
from builder.oci.layout import is_attached, read_layout, referrers_tag, revise
from builder.oci.manifest import Index, Manifest
from builder.oci.mediatypes import INDEXES, MANIFESTS
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Store, read_blob

PREDICATE_TYPE = "in-toto.io/predicate-type"
"""The annotation by which BuildKit's and other tools tell in-toto statements apart."""

_TITLE = "org.opencontainers.image.title"  # the name under which oras writes a layer
_CREATED = "org.opencontainers.image.created"
_MADE_BY = "vnd.ocibuild.attached"  # what a later run may put its own in place of
_NOTHING = b"{}"
_CHUNK = 1 << 20

_Kind = tuple[str | None, str | None]
"""What a document is: its artifact type, and its predicate's type."""
_What = tuple[Digest, _Kind]
"""A subject, and what is said of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is attached: its media type, the file name it is known by, its bytes, annotations of its manifest."""

    media_type: str
    file_name: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


def artifact(document: Document, subject: Descriptor, store: Store, *, created: int) -> Descriptor:
    """Have the artifact of a document in the store: its manifest, as the referrers of `subject` list it.

    `created` is seconds since the epoch. The same document, subject and time give the same digest.
    """
    annotations = {**document.annotations, _CREATED: rfc3339(created), _MADE_BY: "1"}
    layer = replace(
        Descriptor.of(document.media_type, document.data),
        annotations={**document.annotations, _TITLE: document.file_name},
    )
    manifest = Manifest(
        config=Descriptor.of(EMPTY, _NOTHING),
        layers=(layer,),
        annotations=annotations,
        artifact_type=document.media_type,
        subject=Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size),
    ).to_bytes()
    for blob in (_NOTHING, document.data, manifest):
        store.put([blob])
    found = Descriptor.of(MANIFEST, manifest)
    return replace(found, artifact_type=document.media_type, annotations=annotations)


def attach(layout: Path, artifacts: Sequence[Descriptor], store: Store) -> None:
    """List artifacts of the store in a layout: each by itself, as oras and others read it, and for regctl in the index
    that a registry without the referrers API would have of the subject.

    What we attached earlier makes way for the same kind with the same subject, and when the layout has lost its image.
    What others attached stays.
    """
    subjects = {one.digest: _subject(Manifest.parse(read_blob(store, one.digest)), one) for one in artifacts}

    def revision() -> tuple[Sequence[Descriptor], AbstractSet[Digest]]:
        gone = _outdated(layout, {(subjects[one.digest], _kind(one)) for one in artifacts}) - subjects.keys()
        listings = []
        for subject in dict.fromkeys(subjects.values()):
            new = (one for one in artifacts if subjects[one.digest] == subject)
            old = (one for one in attached_to(layout, subject) if one.digest not in gone)
            listings.append(_listing(subject, (*old, *new), store))
        return [*artifacts, *listings], gone

    read_layout(layout)  # what is none is not made one
    revise(layout, store, revision)


def _outdated(layout: Path, replaced: AbstractSet[_What]) -> set[Digest]:
    """Entries that make way for new ones of these subjects and kinds, and what we attached to images that are gone."""
    known = read_layout(layout).manifests
    plain = [one for one in known if not is_attached(one)]
    images = {one.digest for one in plain} | {child.digest for one in plain for child in _children(layout, one)}
    rewritten = {referrers_tag(subject) for subject, _ in replaced}
    living = {referrers_tag(digest) for digest in images}
    gone = set()
    for one in known:
        name, ours = one.annotations.get(REF_NAME, ""), _MADE_BY in one.annotations
        if not is_attached(one):
            continue
        if name:
            outdated = name in rewritten or (ours and name not in living)
        else:
            subject = _subject(_manifest(layout, one), one) if ours else None
            outdated = subject is not None and (subject not in images or (subject, _kind(one)) in replaced)
        if outdated:
            gone.add(one.digest)
    return gone


def _listing(subject: Digest, listed: Iterable[Descriptor], store: Store) -> Descriptor:
    """The index of a subject's referrers, in the store, under its name."""
    by_digest = {one.digest: one for one in listed}
    data = Index(manifests=tuple(by_digest[digest] for digest in sorted(by_digest))).to_bytes()
    store.put([data])
    return replace(Descriptor.of(INDEX, data), annotations={REF_NAME: referrers_tag(subject), _MADE_BY: "1"})


def attached_to(layout: Path, image: Digest) -> tuple[Descriptor, ...]:
    """The artifacts in a layout whose subject is this manifest, by digest; also what only a referrers index lists.

    IntegrityError when a manifest that the layout lists is missing, damaged, or none.
    """
    listed = read_layout(layout).manifests
    nested = [child for one in listed if is_attached(one) for child in _children(layout, one)]
    found: dict[Digest, Descriptor] = {}
    for one in (*listed, *nested):
        if one.media_type in MANIFESTS and one.digest != image and one.digest not in found:
            manifest = _manifest(layout, one)
            if manifest.subject is not None and manifest.subject.digest == image:
                kind = manifest.artifact_type or manifest.config.media_type
                found[one.digest] = replace(one, artifact_type=kind, annotations=manifest.annotations, platform=None)
    return tuple(found[digest] for digest in sorted(found))


def content(layout: Path, attached: Descriptor) -> bytes:
    """The document of an attached artifact; IntegrityError when it has not just one, or that is damaged."""
    layers = _manifest(layout, attached).layers
    if len(layers) != 1:
        raise IntegrityError("not one document", at=str(attached.digest), because=f"it has {len(layers)} layers")
    return _blob(layout, layers[0])


def is_whole(attached: Iterable[Descriptor], store: Store) -> bool:
    """Whether artifacts are in the store with all that they lead to."""
    return all(
        store.exists(one.digest)
        and all(store.exists(child.digest) for child in Manifest.parse(read_blob(store, one.digest)).children)
        for one in attached
    )


def _kind(one: Descriptor) -> _Kind:
    return one.artifact_type, one.annotations.get(PREDICATE_TYPE)


def _subject(manifest: Manifest, one: Descriptor) -> Digest:
    if manifest.subject is None:
        raise IntegrityError("an artifact without a subject", at=str(one.digest))
    return manifest.subject.digest


def _children(layout: Path, one: Descriptor) -> tuple[Descriptor, ...]:
    """What an index of the layout lists; of anything else nothing."""
    if one.media_type not in INDEXES:
        return ()
    return Index.parse(_blob(layout, one, limit=SIZE_LIMIT), one.media_type).manifests


def _manifest(layout: Path, one: Descriptor) -> Manifest:
    return Manifest.parse(_blob(layout, one, limit=SIZE_LIMIT), one.media_type)


def _blob(layout: Path, one: Descriptor, *, limit: int | None = None) -> bytes:
    """A blob of a layout, checked."""
    path = layout / "blobs" / one.digest.algorithm / one.digest.hex
    if limit is not None and one.size > limit:
        raise IntegrityError("document is too large", at=str(path), because=f"{one.size} bytes, {limit} are allowed")
    try:
        with path.open("rb") as stream:
            return b"".join(verified(iter(lambda: stream.read(_CHUNK), b""), one, str(path)))
    except FileNotFoundError as error:
        raise IntegrityError("the layout lacks a blob", at=str(path)) from error
