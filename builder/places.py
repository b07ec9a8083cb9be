"""Places: an image of the store, written to where it goes, in each of the forms that people load.

Law: chooses the module that writes a form, and imports that alone; what is written appears whole or not at all. Forms
of one platform take this machine's out of an index.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from builder.finding import stored_image
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.layout import COSIGN_TAG, IMAGE_NAME, check_name, relist, write_layout
from builder.oci.mediatypes import MANIFESTS
from builder.target import Place
from rootfs.digest import Digest
from rootfs.ports import Reporter, Store

WHOLE = ("oci", "oci-archive")
"""The forms that hold an index, and what is attached to an image."""
_UNNAMED = "latest"


def write_place(
    place: Place, store: Store, descriptor: Descriptor, *, reporter: Reporter, attached: Sequence[Descriptor] = ()
) -> Digest:
    """Write an image (or index) of the store, with all it refers to, to its place, whole or not at all.

    `attached` are artifacts of the store about it, which a layout lists, by themselves or under the name they have, and
    an archive of one, without a name. Other forms have no room for them, and say so.

    Gives the digest of what is there now: the image's, in a layout or an archive of one the very one it had; of a tar
    of the files, the file's. UsageError when the form cannot hold it, HostError when the disk does not take it.
    """
    if attached and place.form not in WHOLE:
        reporter.note(f"a {place.form} has no room for what is attached: {', '.join(str(a.digest) for a in attached)}")
    match place.form:
        case "oci" | "oci-archive":
            notes = _notes(place, descriptor)
            named = replace(descriptor, annotations=notes)
            if place.form == "oci":
                write_layout(place.path, store, named, ref_name=notes[REF_NAME])
                _attach(place.path, attached, store)
            else:
                from builder.oci.archive import write_archive

                write_archive(place.path, store, named, listed=map(_nameless, attached))
            return descriptor.digest
        case "docker-archive":
            from builder.oci.dockerarchive import write_docker_archive

            one = _one(place, descriptor, store, reporter)
            write_docker_archive(place.path, store, one, name=place.name or one.annotations.get(IMAGE_NAME, ""))
            return one.digest
        case _:
            from builder.asfiles import write_files

            return write_files(place, store, _one(place, descriptor, store, reporter), reporter)


def _attach(layout: Path, attached: Sequence[Descriptor], store: Store) -> None:
    """List artifacts in a layout beside the image."""
    if plain := [one for one in attached if _is_artifact(one)]:
        from builder.trust.attach import attach

        attach(layout, plain, store)
    for one in attached:
        if REF_NAME in one.annotations:
            write_layout(layout, store, one, ref_name=one.annotations[REF_NAME])
        elif not _is_artifact(one):
            relist(layout, store, add=[one], drop=frozenset())


def _nameless(one: Descriptor) -> Descriptor:
    """As an archive lists what is attached: `ctr images import` fails at each name that no image has."""
    notes = {COSIGN_TAG if name == REF_NAME else name: text for name, text in one.annotations.items()}
    return replace(one, annotations=notes)


def _is_artifact(one: Descriptor) -> bool:
    return REF_NAME not in one.annotations and one.media_type in MANIFESTS


def _one(place: Place, descriptor: Descriptor, store: Store, reporter: Reporter) -> Descriptor:
    """The image of this machine's platform, or the only one, in a stored index, which is said; it keeps its name."""
    from builder.multi import chosen

    one = chosen(stored_image(descriptor, store, str(descriptor.digest)), None).descriptor
    if one.digest != descriptor.digest:
        reporter.note(f"a {place.form} holds one platform, and of the index gets {one.platform or one.digest}")
    names = {key: value for key, value in descriptor.annotations.items() if key in (REF_NAME, IMAGE_NAME)}
    return replace(one, annotations={**one.annotations, **names})


def _notes(place: Place, descriptor: Descriptor) -> dict[str, str]:
    """The annotations of the image in a layout's index: a name that it had stays until it is given another."""
    notes = {**descriptor.annotations}
    if place.tag:
        notes.pop(IMAGE_NAME, None)
    if place.name:
        from builder.oci.dockerarchive import ImageName

        notes |= {IMAGE_NAME: (name := ImageName.parse(place.name)).full, REF_NAME: name.tag}
    notes[REF_NAME] = place.tag or notes.get(REF_NAME) or _UNNAMED
    check_name(notes[REF_NAME])
    return notes
