"""Finding: what the user calls IMAGE -> where it is and how its blobs are had: a layout, an archive, a registry.

Law: finds, reads no layer, changes nothing. A path's form is told by its bytes, not by its name; every blob that is
fetched is checked against its digest on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from builder.oci.descriptor import REF_NAME, Descriptor, Fetch, verified
from builder.oci.layout import IMAGE_NAME, is_attached, read_layout
from builder.oci.manifest import parse
from builder.oci.mediatypes import DOCUMENTS, FOREIGN
from builder.registry.reference import SCHEME, Reference, refuse_account
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Store, read_blob

if TYPE_CHECKING:
    from builder.registry.client import Registry

Connect = Callable[[Reference], "Registry"]

BUILT = Path("dist")
"""Where `ocibuild recipe` puts layouts: an image may be named as its recipe is."""

_MADE = "`ocibuild recipe RECIPE` makes one in dist/, `ocibuild pack` of directories and tars"
_CHUNK = 1 << 20
_PREFIXES = ("oci:", "oci-archive:", "docker-archive:")
_NOT_READ = ("tar:", "dir:", "bundle:", "docker-daemon:", "containers-storage:")


def _always(_: Descriptor) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """Where an image is: its (or its index's) descriptor, and how its blobs are had; `near` when that costs nothing.

    `holds` says whether a blob is there: a foreign layer's may not be. `layout` is the directory, if it is in one;
    `listed` is what that, or the archive of one, lists; `registry` is set where it is in a registry. `taken_of` is the
    index of which this is a part, when more of it was found and not wanted.
    """

    name: str
    descriptor: Descriptor
    fetch: Fetch
    near: bool
    holds: Callable[[Descriptor], bool] = field(default=_always)
    layout: Path | None = None
    listed: tuple[Descriptor, ...] = ()
    registry: Registry | None = None
    taken_of: Descriptor | None = None


def find_image(text: str, *, connect: Connect | None = None) -> FoundImage:
    """Where an image is that is named as `open_image` has it; of an index, the index itself. No layer is read yet."""
    if not text.startswith(_PREFIXES):
        refuse_account(text)
    return _at_path(text) or _in_registry(text, connect)


def stored_image(descriptor: Descriptor, store: Store, name: str) -> FoundImage:
    """An image of the store."""

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        with store.open(wanted.digest) as stream:
            yield from verified(iter(lambda: stream.read(_CHUNK), b""), wanted, str(wanted.digest))

    return FoundImage(
        name=name, descriptor=descriptor, fetch=fetch, near=False, holds=lambda wanted: store.exists(wanted.digest)
    )


def bring(found: FoundImage, store: Store) -> None:
    """Have in the store all that a found image (or index) refers to, itself included; every blob is checked.

    A foreign layer that is not where the image is stays where its `urls` say.
    """
    _bring(found.descriptor, found, store, set())


def _bring(descriptor: Descriptor, found: FoundImage, store: Store, seen: set[Digest]) -> None:
    if descriptor.digest in seen:
        return
    seen.add(descriptor.digest)
    if not store.exists(descriptor.digest):
        if descriptor.media_type in FOREIGN and not found.holds(descriptor):
            return
        store.put(found.fetch(descriptor), expect=descriptor.digest, size=descriptor.size)
    if descriptor.media_type in DOCUMENTS:
        for child in parse(descriptor.media_type, read_blob(store, descriptor.digest)).children:
            _bring(child, found, store, seen)


def _at_path(text: str) -> FoundImage | None:
    """The image in a directory or a file; None when neither is meant."""
    if text.startswith(SCHEME):
        return None
    for prefix in _NOT_READ:
        if text.startswith(prefix):
            hint = "give a layout, an archive of one, what `docker save` wrote, or host/repository:tag"
            raise UsageError(f"{prefix.rstrip(':')} is not read as an image", at=text, hint=hint)
    form = next((prefix for prefix in _PREFIXES if text.startswith(prefix)), "")
    plain, _, digest = text.removeprefix(form).partition("@")
    _check_digest(digest, text)
    for name, tag in _cuts(plain):
        for place in _places(name, form):
            if (place / "oci-layout").is_file() and form in ("", "oci:"):
                return _in_layout(place, tag, digest)
            if form != "oci:" and (name == "-" or (place.is_file() and (form or _is_archive(place)))):
                return _in_archive(place, tag, digest)
    if form or Path(plain).exists():
        what = {"": "image layout or archive", "oci:": "image layout"}.get(form, "image archive")
        hint = "the path is before the first :" if form.endswith("archive:") else _MADE
        raise UsageError(f"no {what} there", at=plain or repr(text), hint=hint)
    return None


def _is_archive(place: Path) -> bool:
    from builder.oci.archive import looks_like_archive  # noqa: PLC0415 (most images lie elsewhere)

    return looks_like_archive(place)


def _check_digest(digest: str, text: str) -> None:
    """The user's own words are no damage: what is not a digest is a UsageError here."""
    try:
        Digest.parse(digest or str(Digest.of(b"")))
    except IntegrityError as error:
        raise UsageError(error.message, at=text[:300], hint=error.hint) from error


def _cuts(plain: str) -> Iterator[tuple[str, str]]:
    """All that a text may mean as path and tag, the longest path first."""
    yield plain, ""
    at = plain.rfind(":")
    while at > 0:
        yield plain[:at], plain[at + 1 :]
        at = plain.rfind(":", 0, at)


def _places(name: str, form: str) -> Iterator[Path]:
    """The path itself; then what a recipe of this name made: `wee`, or a path `recipes/wee.toml`, no repository."""
    yield Path(name)
    if form in ("", "oci:") and ("/" not in name or name.endswith(".toml")):
        yield BUILT / Path(name.removesuffix(".toml")).name


def _in_layout(place: Path, tag: str, digest: str) -> FoundImage:
    def path_of(descriptor: Descriptor) -> Path:
        return place / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex

    def fetch(descriptor: Descriptor) -> Iterator[bytes]:
        path = path_of(descriptor)
        try:
            with path.open("rb") as stream:
                yield from verified(iter(lambda: stream.read(_CHUNK), b""), descriptor, str(path))
        except FileNotFoundError as error:
            raise IntegrityError("the layout lacks a blob", at=str(path)) from error

    listed = read_layout(place).manifests
    return FoundImage(
        name=f"{place}:{tag}" if tag else str(place),
        descriptor=_choose(listed, place, tag, digest),
        fetch=fetch,
        near=True,
        holds=lambda descriptor: path_of(descriptor).exists(),
        layout=place,
        listed=listed,
    )


def _in_archive(place: Path, tag: str, digest: str) -> FoundImage:
    from builder.oci.archive import read_archive  # noqa: PLC0415
    from builder.oci.dockerarchive import classic  # noqa: PLC0415

    archive = read_archive(place)
    name = f"{place}:{tag}" if tag else str(place)
    if archive.is_layout:
        listed = archive.index().manifests
        descriptor = _choose(listed, place, tag, digest)
        return FoundImage(
            name=name, descriptor=descriptor, fetch=archive.fetch, near=True, holds=archive.holds, listed=listed
        )
    found = classic(archive, tag)
    if digest and found.descriptor.digest != Digest.parse(digest):
        because = f"what is made of it is {found.descriptor.digest}"
        raise UsageError("no such image in the archive", at=str(place), because=because)
    return FoundImage(name=name, descriptor=found.descriptor, fetch=found.fetch, near=True, holds=found.holds)


def _choose(descriptors: Iterable[Descriptor], place: Path, tag: str, digest: str) -> Descriptor:
    """The one descriptor of a layout's index that is meant: by its reference name, or the one containerd gives it."""
    known = [one for one in descriptors if tag or digest or not is_attached(one)]
    wanted = [one for one in known if not tag or one.annotations.get(REF_NAME) == tag]
    if not wanted:
        from builder.oci.dockerarchive import is_named  # noqa: PLC0415 (few images are named like this)

        wanted = [one for one in known if is_named(tag, tuple(filter(None, [one.annotations.get(IMAGE_NAME)])))]
    if digest:
        wanted = [one for one in wanted if one.digest == Digest.parse(digest)]
    if len({one.digest for one in wanted}) == 1:
        return wanted[0]
    images = [one for one in known if not is_attached(one)]
    names = {one.annotations.get(REF_NAME) or one.annotations.get(IMAGE_NAME) or f"@{one.digest}" for one in images}
    message = "the layout holds several images" if wanted else "no such image in the layout"
    raise UsageError(
        message, at=str(place), hint=f"write {place}:TAG; it holds {', '.join(sorted(names)) or 'nothing'}"
    )


def _in_registry(text: str, connect: Connect | None) -> FoundImage:
    try:
        reference = Reference.parse(text)
    except UsageError as error:
        hint = "give a layout or archive (dist/NAME, PATH:TAG), a recipe's name, or host/repository:tag"
        raise UsageError(f"no such image: {text}", because=error.message, hint=hint) from error
    name = reference.digest or reference.tag
    if connect is None or name is None:
        raise UsageError(f"no such image: {text}", hint=None if connect is None else "name a tag or a digest")
    registry = connect(reference)
    descriptor, data = registry.get_manifest(name)
    try:
        parse(descriptor.media_type, data)  # what nobody can read is refused before anything is fetched
    except IntegrityError as error:
        error.at = f"{text}: {error.at}" if error.at else text
        raise

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        if wanted.media_type in DOCUMENTS:
            yield from verified([registry.get_manifest(wanted.digest)[1]], wanted, registry.reference.name)
        else:
            yield from registry.open(wanted)

    return FoundImage(
        name=f"{reference.name}:{reference.tag}" if reference.tag else reference.name,
        descriptor=descriptor,
        fetch=fetch,
        near=False,
        holds=registry.exists,
        registry=registry,
    )
