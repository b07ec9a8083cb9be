"""Images: what the user calls IMAGE -> manifest, config and file system, wherever the image lies.

Law: finds and reads, changes nothing. Every byte that is read is checked against its digest; the Tree is kept in the
store under the manifest's digest, so that the layers of an image are decompressed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, INDEX, MANIFEST, REF_NAME, SIZE_LIMIT, Descriptor, Platform, verified
from builder.oci.flatten import Fetch, flatten
from builder.oci.layout import read_layout
from builder.oci.manifest import Index, Manifest, parse
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.tools import Tools
from builder.work import extracted
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Store, read_blob
from rootfs.tree import Tree, blobs_of, directory

Connect = Callable[[Reference], Registry]

BUILT = Path("dist")
"""Where `ocibuild recipe` puts layouts: an image may be named as its recipe is."""

_CHUNK = 1 << 20
_MOUNT_POINTS = ("dev", "proc", "tmp")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage:
    """An image of one platform. `name` is what the user called it, less a digest; `tree` has all layers applied."""

    name: str
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    tree: Tree

    def __str__(self) -> str:
        return f"{self.name}@{self.descriptor.digest}"

    @property
    def environment(self) -> dict[str, str]:
        """The config's environment variables."""
        return dict(pair.split("=", 1) for pair in self.config.env)


def open_image(text: str, tools: Tools, *, connect: Connect | None = None) -> OpenedImage:
    """Read an image: a layout `PATH[:TAG]` (also `oci:PATH[:TAG]`), a recipe's name whose layout lies in dist/, or,
    with `connect`, `host/repository[:tag]`; each also with `@sha256:...`. Of an index this machine's platform is taken.

    UsageError when there is no such image, or several; IntegrityError when what is there is damaged or no image.
    """
    found = find_image(text, connect=connect)
    data = _document(found.descriptor, found.fetch)
    document = parse(found.descriptor.media_type, data)
    if isinstance(document, Index):
        descriptor = _of_this_machine(document, found.name)
        document = parse(descriptor.media_type, _document(descriptor, found.fetch))
    else:
        descriptor = found.descriptor
    if isinstance(document, Index) or document.config.media_type != CONFIG:
        raise IntegrityError("not an image", at=found.name, because="it is an index of indexes, or an artifact")
    config = ImageConfig.parse(_document(document.config, found.fetch))
    return OpenedImage(
        name=found.name,
        descriptor=descriptor,
        manifest=document,
        config=config,
        tree=_tree(descriptor.digest, document, config, found, tools),
    )


def root_of(image: OpenedImage, tools: Tools) -> Path:
    """A directory with the image's files, for a sandbox: extracted once, shared by all who read it."""
    points = (directory(name) for name in _MOUNT_POINTS if name not in image.tree)
    tree = tools.store.put([image.tree.with_entries(points).to_bytes()]).digest
    return extracted(tree, tools, image.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """Where an image is: its (or its index's) descriptor, and how its blobs are had; `near` when that costs nothing."""

    name: str
    descriptor: Descriptor
    fetch: Fetch
    near: bool


def find_image(text: str, *, connect: Connect | None = None) -> FoundImage:
    """Where an image is that is named as `open_image` has it; of an index, the index itself. Nothing is read yet."""
    return _in_layout(text) or _in_registry(text, connect)


def bring(found: FoundImage, store: Store) -> None:
    """Have in the store all that a found image (or index) refers to, itself included; every blob is checked."""
    _bring(found.descriptor, found.fetch, store)


def _bring(descriptor: Descriptor, fetch: Fetch, store: Store) -> None:
    if not store.exists(descriptor.digest):
        store.put(fetch(descriptor), expect=descriptor.digest, size=descriptor.size)
    if descriptor.media_type in (MANIFEST, INDEX):
        for child in parse(descriptor.media_type, read_blob(store, descriptor.digest)).children:
            _bring(child, fetch, store)


def _in_layout(text: str) -> FoundImage | None:
    """The image in a directory; None when no directory is meant."""
    plain, _, digest = text.removeprefix("oci:").partition("@")
    path, colon, tag = plain.rpartition(":")
    for name, tag_ in ((plain, ""), *([(path, tag)] if colon else [])):
        for place in (Path(name), BUILT / Path(name.removesuffix(".toml")).name):
            if (place / "oci-layout").is_file():
                descriptor = _choose(read_layout(place).manifests, place, tag_, digest)
                shown = f"{place}:{tag_}" if tag_ else str(place)
                return FoundImage(name=shown, descriptor=descriptor, fetch=_reader(place), near=True)
    if text.startswith("oci:") or Path(plain).exists():
        raise UsageError("no image layout there", at=plain, hint="`ocibuild recipe RECIPE` makes one in dist/")
    return None


def _reader(layout: Path) -> Fetch:
    def fetch(descriptor: Descriptor) -> Iterator[bytes]:
        path = layout / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex
        try:
            with path.open("rb") as stream:
                yield from verified(iter(lambda: stream.read(_CHUNK), b""), descriptor, str(path))
        except FileNotFoundError as error:
            raise IntegrityError("the layout lacks a blob", at=str(path)) from error

    return fetch


def _choose(descriptors: Iterable[Descriptor], layout: Path, tag: str, digest: str) -> Descriptor:
    """The one descriptor of a layout's index that is meant."""
    known = list(descriptors)
    wanted = [one for one in known if not tag or one.annotations.get(REF_NAME) == tag]
    if digest:
        wanted = [one for one in wanted if one.digest == Digest.parse(digest)]
    if len({one.digest for one in wanted}) == 1:
        return wanted[0]
    tags = ", ".join(sorted(one.annotations.get(REF_NAME) or f"@{one.digest}" for one in known))
    message = "the layout holds several images" if wanted else "no such image in the layout"
    raise UsageError(message, at=str(layout), hint=f"write {layout}:TAG; it holds {tags or 'nothing'}")


def _in_registry(text: str, connect: Connect | None) -> FoundImage:
    try:
        reference = Reference.parse(text)
    except UsageError as error:
        hint = "give a layout (dist/NAME, oci:PATH:TAG), a recipe's name, or host/repository:tag"
        raise UsageError(f"no such image: {text}", because=error.message, hint=hint) from error
    name = reference.digest or reference.tag
    if connect is None or name is None:
        raise UsageError(f"no such image: {text}", hint=None if connect is None else "name a tag or a digest")
    registry = connect(reference)
    descriptor, _ = registry.get_manifest(name)

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        if wanted.media_type in (MANIFEST, INDEX):
            yield registry.get_manifest(wanted.digest)[1]
        else:
            yield from registry.open(wanted)

    return FoundImage(name=reference.name, descriptor=descriptor, fetch=fetch, near=False)


def _of_this_machine(index: Index, name: str) -> Descriptor:
    platform = Platform.of(Architecture.host())
    for descriptor in index.manifests:
        if descriptor.platform == platform:
            return descriptor
    known = ", ".join(str(one.platform) for one in index.manifests)
    raise UsageError(f"no image for {platform}", at=name, hint=f"the index holds {known or 'nothing'}")


def _document(descriptor: Descriptor, fetch: Fetch) -> bytes:
    if descriptor.size > SIZE_LIMIT:
        raise IntegrityError("document is too large", at=str(descriptor.digest), because=f"{descriptor.size} bytes")
    return b"".join(fetch(descriptor))


def _tree(digest: Digest, manifest: Manifest, config: ImageConfig, found: FoundImage, tools: Tools) -> Tree:
    """The flattened layers, from the store when they were read before; a layout's blobs are checked every time."""
    if len(manifest.layers) != len(config.diff_ids):
        because = f"{len(manifest.layers)} layers and {len(config.diff_ids)} diff ids"
        raise IntegrityError("manifest and config do not fit each other", at=found.name, because=because)
    key = Digest.of_value({"kind": "flattened", "revision": 1, "manifest": str(digest)})
    known = _kept(key, tools.store)
    if known is not None:
        for layer in manifest.layers if found.near else ():
            for _ in found.fetch(layer):
                pass
        return Tree.from_bytes(known)
    task = f"read {found.name}"
    tools.reporter.begin(task)
    layers = zip(manifest.layers, config.diff_ids, strict=True)
    tree = flatten(layers, found.fetch, tools.store)
    tools.store.link(key, tools.store.put([tree.to_bytes()]).digest)
    tools.reporter.finish(task)
    return tree


def _kept(key: Digest, store: Store) -> bytes | None:
    """A stored Tree whose contents are all here."""
    result = store.lookup(key)
    data = None if result is None else read_blob(store, result)
    return data if data is not None and all(store.exists(blob) for blob in blobs_of(data)) else None
