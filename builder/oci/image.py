"""Image: layers and a config become the two documents a registry knows an image by (image-spec 1.1).

Law: pure assembly; the bytes follow from the arguments alone, and storing them is the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import CONFIG, MANIFEST, Descriptor
from builder.oci.layer import Layer
from builder.oci.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The manifest's and the config's bytes, the manifest's descriptor with its platform, the layers lowest first."""

    manifest: bytes
    config: bytes
    descriptor: Descriptor
    layers: tuple[Layer, ...]


def assemble(layers: Sequence[Layer], config: ImageConfig, *, annotations: Mapping[str, str] | None = None) -> Image:
    """The image of these layers, lowest first.

    `config` says all but the diff ids and the history: those come from the layers, whatever it holds. A history entry
    has the config's time. `annotations` are the manifest's (annotations.md, `org.opencontainers.image.*`).
    """
    history = tuple(History(created=config.created, created_by=layer.created_by) for layer in layers)
    complete = replace(config, diff_ids=tuple(layer.diff_id for layer in layers), history=history).to_bytes()
    manifest = Manifest(
        config=Descriptor.of(CONFIG, complete),
        layers=tuple(layer.descriptor for layer in layers),
        annotations=annotations or {},
    ).to_bytes()
    return Image(
        manifest=manifest,
        config=complete,
        descriptor=replace(Descriptor.of(MANIFEST, manifest), platform=config.platform),
        layers=tuple(layers),
    )
