"""Layers made of images: all in one, and what one image has over another."""

from __future__ import annotations

from pathlib import Path

from builder.change.relayer import difference, squashed
from builder.images import OpenedImage, open_image, read_image
from builder.look.compare import file_changes
from builder.oci.image import Image, assemble
from builder.oci.layer import Layer
from builder.oci.layout import write_layout
from builder.tools import Tools
from rootfs.ports import read_content
from rootfs.tree import Tree, directory, file
from tests.unit.test_compare import CONFIG
from tests.unit.test_images import image_of, tools_in
from tests.unit.test_takeout import LOWER, UPPER, layout  # noqa: F401 (a fixture)


def written(place: Path, tools: Tools, layers: list[Layer]) -> str:
    image: Image = assemble(layers, CONFIG)
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(place, tools.store, image.descriptor, ref_name="1")
    return str(place)


def files(image: OpenedImage, tools: Tools) -> dict[str, object]:
    return {
        path: (entry.kind, entry.mode, read_content(tools.store, entry.content)) for path, entry in image.tree.items()
    }


def test_squashed(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    (layer,) = squashed(read_image(str(layout)), tools, compression="zstd")
    assert layer.created_by == "2 layers in one"
    one = open_image(written(tmp_path / "one", tools, [layer]), tools)
    assert files(one, tools) == files(open_image(str(layout), tools), tools)
    assert "etc/gone" not in one.tree
    assert one.tree["usr/bin/vi"].link == "bin/busybox"


def test_difference(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    lower = image_of(Tree([directory("etc"), file("etc/hosts", b"upper\n", 0o600), file("old", b"x")]), tools)
    write_layout(tmp_path / "lower", tools.store, lower.descriptor, ref_name="1")
    images = read_image(str(tmp_path / "lower")), read_image(str(layout))
    layer = difference(*images, tools)
    both = open_image(written(tmp_path / "both", tools, [*lower.layers, layer]), tools)
    upper = open_image(str(layout), tools)
    assert files(both, tools) == files(upper, tools)
    assert not [one for one in file_changes(both.tree, upper.tree) if one.aspects not in (("content",), ("mtime",))]
    # what both have is not in it
    (alone,) = squashed(images[1], tools)
    assert layer.descriptor.size < alone.descriptor.size + 512
    assert difference(images[1], images[1], tools).descriptor.size < 200
    assert {*LOWER, *UPPER} - {*both.tree} == {"etc/gone", "etc/.wh.gone"}
