"""Stack: other layers in an image's documents: more on top, one in place of all, the same ones compressed another way
(image-spec 1.1, config.md, manifest.md).

Law: pure; JSON values in, JSON values out. Layers, diff ids and history stay in step; all else stays as it is, but for
what is not true any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from builder.oci.annotations import BASE_DIGEST, BASE_NAME
from builder.oci.descriptor import Descriptor
from builder.oci.edit import Edit, pointing
from builder.oci.layer import Layer
from builder.oci.rebase import Documents

_OF_THE_BLOB = ("io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/", "io.containers.estargz.")
"""Annotations of seekable layers: where in the compressed bytes everything lies."""


def with_appended(image: Documents, layers: Sequence[Layer]) -> Documents:
    """The image with these layers on top, the lowest first; their history has the config's time."""
    return _stacked(
        image,
        layers=[*image.layers, *(layer.descriptor.to_dict() for layer in layers)],
        diff_ids=[*image.diff_ids, *(str(layer.diff_id) for layer in layers)],
        history=[*image.history, *(_entry(image, layer) for layer in layers)],
    )


def with_one(image: Documents, layer: Layer) -> Documents:
    """The image with one layer in place of all; it has no base any more."""
    after = _stacked(
        image,
        layers=[layer.descriptor.to_dict()],
        diff_ids=[str(layer.diff_id)],
        history=[_entry(image, layer)],
    )
    return replace(after, manifest=Edit(annotations={BASE_NAME: None, BASE_DIGEST: None}).annotated(after.manifest))


def with_upper(image: Documents, base: Documents, layer: Layer) -> Documents:
    """The image with a base's layers, and one on top for all that it has over them. Which base that is, is not said:
    the caller knows its name.
    """
    return _stacked(
        image,
        layers=[*base.layers, layer.descriptor.to_dict()],
        diff_ids=[*base.diff_ids, str(layer.diff_id)],
        history=[*base.history, _entry(image, layer)],
    )


def with_blobs(image: Documents, blobs: Sequence[Descriptor | None]) -> Documents:
    """The image with its layers' archives in these blobs; None: in the one that it is in."""
    pairs = zip(image.layers, blobs, strict=True)
    layers = [layer if blob is None else _elsewhere(layer, blob) for layer, blob in pairs]
    return replace(image, manifest={**image.manifest, "layers": layers})


def _stacked(
    image: Documents, *, layers: list[dict[str, Any]], diff_ids: list[str], history: list[dict[str, Any]]
) -> Documents:
    rootfs = {**image.config["rootfs"], "diff_ids": diff_ids}
    config = {**image.config, "rootfs": rootfs, "history": history}
    return Documents(name=image.name, manifest={**image.manifest, "layers": layers}, config=config)


def _entry(image: Documents, layer: Layer) -> dict[str, Any]:
    created = {"created": image.config["created"]} if image.config.get("created") else {}
    return {**created, "created_by": layer.created_by}


def _elsewhere(layer: dict[str, Any], blob: Descriptor) -> dict[str, Any]:
    after = pointing(layer, blob)
    notes = {name: text for name, text in layer.get("annotations", {}).items() if not name.startswith(_OF_THE_BLOB)}
    return {
        **{name: value for name, value in after.items() if name != "annotations"},
        **({"annotations": notes} if notes else {}),
    }
