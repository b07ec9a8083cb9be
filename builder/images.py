"""Images: what the user calls IMAGE -> manifest, config and file system, wherever the image lies.

Law: finds and reads, changes nothing. Every byte that is read is checked against its digest; the Tree is kept in the
store under the manifest's digest, so that the layers of an image are decompressed once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from builder.finding import Connect, FoundImage, find_image
from builder.multi import chosen
from builder.oci.config import ImageConfig
from builder.oci.descriptor import SIZE_LIMIT, Descriptor, Fetch, Platform
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import CONFIGS, FOREIGN, INDEXES
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError
from rootfs.ports import Origin, Reporter, Store, read_blob
from rootfs.tree import Tree, blobs_of, directory

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
    """Read an image: a layout `PATH[:TAG]` (also `oci:PATH[:TAG]`), a recipe's name whose layout lies in dist/, an
    archive `FILE[:TAG]` of a layout or of `docker save` (also `oci-archive:`, `docker-archive:`), or, with `connect`,
    `host/repository[:tag]`; each also with `@sha256:...`. Of an index this machine's platform is taken.

    UsageError when there is no such image, or several; IntegrityError when what is there is damaged or no image.
    """
    return open_found(find_image(text, connect=connect), tools)


def open_found(found: FoundImage, tools: Tools) -> OpenedImage:
    """Read a found image; the errors of `open_image`."""
    image = read_found(found)
    return OpenedImage(
        name=image.found.name,
        descriptor=image.descriptor,
        manifest=image.manifest,
        config=image.config,
        tree=tree_of(image, tools.store, tools.reporter),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """The documents of an image of one platform, and where its layers are had: `layers` lowest first, with diff ids,
    less those that are `absent`.
    """

    found: FoundImage
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    absent: frozenset[Digest] = frozenset()

    def __str__(self) -> str:
        return f"{self.found.name}@{self.descriptor.digest}"

    @property
    def layers(self) -> list[tuple[Descriptor, Digest]]:
        """IntegrityError when manifest and config do not have the same number."""
        if len(self.manifest.layers) != len(self.config.diff_ids):
            because = f"{len(self.manifest.layers)} layers and {len(self.config.diff_ids)} diff ids"
            raise IntegrityError("manifest and config do not fit each other", at=self.found.name, because=because)
        pairs = zip(self.manifest.layers, self.config.diff_ids, strict=True)
        return [(layer, diff_id) for layer, diff_id in pairs if layer.digest not in self.absent]


def read_image(text: str, *, connect: Connect | None = None, platform: Platform | None = None) -> ReadImage:
    """Manifest and config of an image named as `open_image` has it, for `platform` (this machine's); reads no layer."""
    return read_found(find_image(text, connect=connect), platform=platform)


def read_found(found: FoundImage, *, platform: Platform | None = None) -> ReadImage:
    """Manifest and config of a found image, as `read_image` has it."""
    descriptor = found.descriptor
    document = parse(descriptor.media_type, _document(descriptor, found.fetch))
    if isinstance(document, Index):
        wanted = platform or Platform.of(Architecture.host())
        descriptor = _of_platform(document, wanted) or chosen(found, str(wanted)).descriptor
        document = parse(descriptor.media_type, _document(descriptor, found.fetch))
    elif platform is not None:
        chosen(found, str(platform))  # the one there is has to be it
    if isinstance(document, Index) or document.config.media_type not in CONFIGS:
        raise IntegrityError("not an image", at=found.name, because="it is an artifact")
    config = ImageConfig.parse(_document(document.config, found.fetch))
    return ReadImage(found=found, descriptor=descriptor, manifest=document, config=config)


def present(image: ReadImage, reporter: Reporter) -> ReadImage:
    """The image as far as it is here: less foreign layers that were left where their maker has them, which is noted."""
    absent = {layer for layer, _ in image.layers if layer.media_type in FOREIGN and not image.found.holds(layer)}
    for layer in sorted(absent, key=lambda one: str(one.digest)):
        where = ", ".join(layer.urls) or "nobody says where"
        reporter.note(f"{layer.digest} is left out: a foreign layer, which its maker has: {where}")
    return replace(image, absent=frozenset(layer.digest for layer in absent))


def root_of(image: OpenedImage, tools: Tools) -> Path:
    """A directory with the image's files, for a sandbox: extracted once, shared by all who read it."""
    from builder.work import extracted  # noqa: PLC0415 (all that makes a build: who only looks does without)

    points = (directory(name) for name in _MOUNT_POINTS if name not in image.tree)
    tree = tools.store.put([image.tree.with_entries(points).to_bytes()]).digest
    return extracted(tree, tools, image.name)


def _of_platform(index: Index, platform: Platform) -> Descriptor | None:
    """The one entry that says just this platform; None when there is none, or are several: `chosen` reads them all."""
    fitting = [one for one in index.manifests if one.platform == platform and one.media_type not in INDEXES]
    return fitting[0] if len(fitting) == 1 else None


def _document(descriptor: Descriptor, fetch: Fetch) -> bytes:
    if descriptor.size > SIZE_LIMIT:
        raise IntegrityError("document is too large", at=str(descriptor.digest), because=f"{descriptor.size} bytes")
    return b"".join(fetch(descriptor))


def tree_of(image: ReadImage, store: Store, reporter: Reporter) -> Tree:
    """The flattened layers, from the store when they were read before; a layout's blobs are checked every time."""
    found, layers = image.found, image.layers
    for layer, _ in layers:
        if layer.media_type in FOREIGN and not found.holds(layer):
            because = f"it was left where its maker has it: {', '.join(layer.urls) or 'nobody says where'}"
            raise UsageError("a foreign layer is not here", at=f"{found.name}: {layer.digest}", because=because)
    less = {"without": sorted(map(str, image.absent))} if image.absent else {}
    key = Digest.of_value({"kind": "flattened", "revision": 2, "manifest": str(image.descriptor.digest), **less})
    known = _kept(key, store)
    if known is not None:
        for layer, _ in layers if found.near else ():
            for _ in found.fetch(layer):
                pass
        return Tree.from_bytes(known)
    task = f"read {found.name}"
    from builder.oci.flatten import flatten  # noqa: PLC0415 (most images were read before)

    reporter.begin(task)
    tree = flatten(layers, found.fetch, store)
    store.link(key, store.put([tree.to_bytes()]).digest, Origin(kind="flattened"))
    reporter.finish(task)
    return tree


def _kept(key: Digest, store: Store) -> bytes | None:
    """A stored Tree whose contents are all here."""
    result = store.lookup(key)
    data = None if result is None else read_blob(store, result)
    return data if data is not None and all(store.exists(blob) for blob in blobs_of(data)) else None
