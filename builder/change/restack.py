"""Restack: more layers upon an image, all of them in one (over a base, if wanted), or all compressed another way.

Law: makes layers in the store and says so in the documents (`builder.oci.stack`); reads only the layers it must. Equal
images and equal sources give equal bytes: what is appended has no time later than the image's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from builder.change.pack import QUICK, Packing, Source, pack_layer
from builder.change.relayer import difference, squashed
from builder.finding import FoundImage
from builder.images import ReadImage
from builder.multi import chosen
from builder.oci.annotations import BASE_DIGEST, BASE_NAME
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.edit import Edit
from builder.oci.layer import Layer
from builder.oci.manifest import Manifest
from builder.oci.mediatypes import FOREIGN, LAYERS
from builder.oci.rebase import Documents
from builder.oci.recompress import recompressed
from builder.oci.stack import with_appended, with_blobs, with_one, with_upper
from builder.tools import Tools
from rootfs.digest import Digest, canonical_json
from rootfs.errors import UsageError

_APPENDED = "ocibuild mutate --append"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restack:
    """What becomes of the layers: `append` goes on top in its order; with `squash` all are one then. `compression`
    (`builder.oci.layer.pack`) is that of every layer afterwards; None leaves them, and new ones have the lowest one's.
    Without a level it has that of `pack`. With `onto` the layers are that base's and one more, of what the image has
    over it; `compression` is that one's. `reference` is the base's name in a registry, None when it is in none.
    """

    append: tuple[Source, ...] = ()
    squash: bool = False
    compression: str | None = None
    onto: FoundImage | None = None
    reference: str | None = None

    def __bool__(self) -> bool:
        return bool(self.append or self.squash or self.compression or self.onto)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restacking:
    """One run over the images of an index. `packed` holds what was appended to one of them, for the next one."""

    wanted: Restack
    tools: Tools
    packed: dict[tuple[int, str, bool], tuple[Layer, ...]] = field(default_factory=dict)

    def image(self, image: Documents, found: FoundImage) -> Documents:
        """The image's documents afterwards, and all new layers in the store; `found` has the others.

        UsageError for a foreign layer that is not there, and for a stream that is to be read twice; else the errors of
        `pack_layer` and of reading a layer.
        """
        kind = next((LAYERS[layer["mediaType"]] for layer in image.layers if layer["mediaType"] in LAYERS), "gzip")
        compression = self.wanted.compression or kind
        compression = QUICK.get(compression, compression)
        is_one = self.wanted.squash or self.wanted.onto is not None
        if self.wanted.compression and not is_one:
            blobs = [
                None if layer.media_type in FOREIGN else self._recompressed(layer, diff_id, found, compression)
                for layer, diff_id in _read(image, found).layers
            ]
            image = with_blobs(image, blobs)
        if self.wanted.append:
            image = with_appended(image, self._appended(image, "none" if is_one else compression))
        if self.wanted.squash:
            (layer,) = squashed(_whole(_read(image, found)), self.tools, compression=compression)
            image = with_one(image, layer)
        if self.wanted.onto:
            image = self._over(self.wanted.onto, image, found, compression)
        return image

    def _over(self, base: FoundImage, image: Documents, found: FoundImage, compression: str) -> Documents:
        """The image upon the base's layers, in one layer of its own."""
        leaf = chosen(base, str(ImageConfig.parse(canonical_json(image.config)).platform))
        assert leaf.documents
        lower = _whole(_read(leaf.documents, replace(base, descriptor=leaf.descriptor)))
        layer = difference(lower, _whole(_read(image, found)), self.tools, compression=compression)
        after = with_upper(image, leaf.documents, layer)
        said = Edit(annotations={BASE_NAME: self.wanted.reference, BASE_DIGEST: str(leaf.descriptor.digest)})
        return replace(after, manifest=said.annotated(after.manifest))

    def _recompressed(self, layer: Descriptor, diff_id: Digest, found: FoundImage, compression: str) -> Descriptor:
        task = f"compress {layer.digest.hex[:12]}"
        self.tools.reporter.begin(task)
        result = "failed"
        try:
            blob = recompressed(
                layer, diff_id, found.fetch, self.tools.store, compression=compression, threads=self.tools.jobs
            )
            result = "done"
        finally:
            self.tools.reporter.finish(task, result)
        return blob

    def _appended(self, image: Documents, compression: str) -> tuple[Layer, ...]:
        config = ImageConfig.parse(canonical_json(image.config))
        key = (config.created, compression, not image.layers)
        if key not in self.packed:
            if self.packed and any(source.stream for source in self.wanted.append):
                because = "the images of the index differ in their time or in what they begin with"
                raise UsageError("stdin can be read only once", because=because, hint="write it to a file first")
            packing = Packing(
                platform=config.platform, epoch=config.created, compression=compression, threads=self.tools.jobs
            )
            store, reporter = self.tools.store, self.tools.reporter
            made = (
                pack_layer(source, packing, store, lowest=not image.layers and number == 0, reporter=reporter)
                for number, source in enumerate(self.wanted.append)
            )
            self.packed[key] = tuple(replace(layer, created_by=_APPENDED) for layer in made)
        return self.packed[key]


def _read(image: Documents, found: FoundImage) -> ReadImage:
    return ReadImage(
        found=found,
        descriptor=found.descriptor,
        manifest=Manifest.parse(canonical_json(image.manifest), found.descriptor.media_type),
        config=ImageConfig.parse(canonical_json(image.config)),
    )


def _whole(image: ReadImage) -> ReadImage:
    """The image, all of whose layers are there."""
    for layer in image.manifest.layers:
        if layer.media_type in FOREIGN and not image.found.holds(layer):
            because = f"it was left where its maker has it: {', '.join(layer.urls) or 'nobody says where'}"
            raise UsageError("a foreign layer is not here", at=f"{image.found.name}: {layer.digest}", because=because)
    return image
