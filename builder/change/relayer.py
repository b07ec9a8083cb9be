"""Relayer: an image's layers made into one, or one layer of what another image has over it.

Law: makes layers in the store, no documents: the config and the manifest are the caller's. Times stay as they are;
applying the result gives the same files (`builder.oci.changes`). The bytes follow from the files and the compression
alone, whatever the store already holds.
"""

from __future__ import annotations

from builder.images import ReadImage
from builder.look.listed import listed_tree, listings
from builder.look.takeout import gathered
from builder.oci.changes import changes
from builder.oci.layer import Layer, pack
from builder.tools import Tools
from rootfs.tree import Kind, Tree


def squashed(image: ReadImage, tools: Tools, *, compression: str = "gzip") -> tuple[Layer]:
    """One layer with all that the image's layers amount to; `compression` is as in `builder.oci.layer.pack`."""
    tree = gathered(listed_tree(image, listings([image], tools), placed=True), image, tools.store)
    created_by = f"{len(image.layers)} layers in one"
    return (pack(tree, tools.store, created_by=created_by, epoch=_latest(tree), compression=compression, lowest=True),)


def difference(lower: ReadImage, upper: ReadImage, tools: Tools, *, compression: str = "gzip") -> Layer:
    """The layer that, upon the layers of `lower`, gives the files of `upper`."""
    known = listings([lower, upper], tools)
    placed = listed_tree(upper, known, placed=True)
    made = changes(listed_tree(lower, known), listed_tree(upper, known))
    # a listed Tree names contents by their digests: where they lie the placed one knows
    wanted = Tree(placed[path] if entry.kind is Kind.FILE and path in placed else entry for path, entry in made.items())
    tree = gathered(wanted, upper, tools.store)
    return pack(
        tree,
        tools.store,
        created_by=f"what {upper.descriptor.digest} has over {lower.descriptor.digest}",
        epoch=_latest(tree),
        compression=compression,
        whiteouts=True,
    )


def _latest(tree: Tree) -> int:
    return max((entry.mtime for entry in tree.values()), default=0)
