"""Narrow: of an index that was found, the image of one platform, or an index of some.

Law: reads documents, never a layer. Where an index says what each of its entries runs on, none of the images is asked.
Of an index all that stays is carried as it is, in its order: the same platforms give the same bytes, and who wants all
that there are gets the very index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from builder.finding import FoundImage
from builder.multi import chosen, document, entry_of, fits, tells_about
from builder.oci.descriptor import REF_NAME, Descriptor, verified
from builder.oci.edit import pointing
from builder.oci.layout import IMAGE_NAME
from builder.oci.manifest import parse
from builder.oci.mediatypes import INDEXES
from rootfs.digest import Digest, canonical_json
from rootfs.errors import UsageError
from rootfs.ports import Reporter


def narrowed(found: FoundImage, platforms: Sequence[str], reporter: Reporter, *, one: bool = False) -> FoundImage:
    """What these platforms (`os/architecture[/variant]`) are of a found image: one image, or a new index of several;
    where none is named, this machine's image. With `one` there is room for no more.

    `taken_of` says the index that it is a part of. UsageError that lists the platforms there are when one is not.
    """
    images = [_of(found, platform) for platform in (platforms or (None,))]
    digests = {image.digest for image in images}
    if one and len(digests) > 1:
        raise UsageError("several platforms where one has room", because=", ".join(platforms), hint="choose one")
    if found.descriptor.digest in digests:
        return found
    names = {key: text for key, text in found.descriptor.annotations.items() if key in (REF_NAME, IMAGE_NAME)}
    if len(digests) == 1:
        image = images[0]
        if not platforms:
            shown = image.platform or image.digest
            reporter.note(f"taken of the index {found.name}: {shown}; --platform says another")
        notes = {**image.annotations, **names}
        return replace(found, descriptor=replace(image, annotations=notes), taken_of=found.descriptor)
    made: dict[Digest, bytes] = {}
    entry = _only(entry_of(found.descriptor), found, frozenset(map(str, digests)), made)
    assert entry is not None
    descriptor = Descriptor.from_dict(entry)
    if not made:
        return found
    reporter.note(f"{descriptor.digest} is a new index, of {', '.join(platforms)}")

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        data = made.get(wanted.digest)
        return found.fetch(wanted) if data is None else verified([data], wanted, str(wanted.digest))

    return replace(found, descriptor=replace(descriptor, annotations=names), fetch=fetch, taken_of=found.descriptor)


def _of(found: FoundImage, platform: str | None) -> Descriptor:
    """The image of a platform: by its entry, where all entries say what they run on; else by the images themselves."""
    if platform is not None and found.descriptor.media_type in INDEXES:
        entries = _read(found.descriptor, found)["manifests"]
        runs = [entry for entry in entries if tells_about(entry) is None]
        known = all(entry.get("platform") and entry["mediaType"] not in INDEXES for entry in runs)
        fitting = [entry for entry in runs if known and fits(entry["platform"], platform)]
        if len({entry["digest"] for entry in fitting}) == 1:
            return Descriptor.from_dict(fitting[0])
    return chosen(found, platform).descriptor


def _only(
    entry: Mapping[str, Any], found: FoundImage, kept: frozenset[str], made: dict[Digest, bytes]
) -> dict[str, Any] | None:
    """The entry of an index with these images, and what tells about them, alone; None for one that has none of them.

    Documents that are others now are put into `made`.
    """
    descriptor = Descriptor.from_dict(entry)
    if descriptor.media_type not in INDEXES or tells_about(entry) is not None:
        return dict(entry) if {str(descriptor.digest), tells_about(entry)} & kept else None
    value = _read(descriptor, found)
    inner = [_only(one, found, kept, made) for one in value["manifests"]]
    rest = [one for one in inner if one is not None]
    if rest == value["manifests"]:
        return dict(entry)
    if not rest:
        return None
    data = canonical_json({**value, "manifests": rest})
    made[Digest.of(data)] = data
    return pointing(entry, Descriptor.of(descriptor.media_type, data))


def _read(descriptor: Descriptor, found: FoundImage) -> dict[str, Any]:
    """An index as JSON, which was found to be one."""
    data = document(descriptor, found.fetch)
    parse(descriptor.media_type, data)
    value: dict[str, Any] = json.loads(data)
    return value
