"""Listed: the layers of images as listings, each read once, several at a time.

Law: reads layers and keeps their listings in the store; nothing is unpacked, nothing else is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from builder.images import ReadImage
from builder.oci.listing import Listing, is_kept, listing, tree_of
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.tree import Tree


def listings(images: Sequence[ReadImage], tools: Tools) -> Mapping[Digest, Listing]:
    """diff id -> what the layer holds, for all layers of these images; IntegrityError for one that is damaged."""
    wanted = {diff_id: (image, layer) for image in images for layer, diff_id in image.layers}

    def read(diff_id: Digest) -> Listing:
        image, layer = wanted[diff_id]
        if is_kept(diff_id, tools.store):
            return listing(layer, diff_id, image.found.fetch, tools.store)
        task = f"read layer {diff_id.hex[:12]} of {image.found.name}"
        tools.reporter.begin(task)
        found = listing(layer, diff_id, image.found.fetch, tools.store)
        tools.reporter.finish(task)
        return found

    with ThreadPoolExecutor(max(1, tools.jobs), thread_name_prefix="listing") as pool:
        return dict(zip(wanted, pool.map(read, wanted), strict=True))


def listed_tree(image: ReadImage, known: Mapping[Digest, Listing], *, placed: bool = False) -> Tree:
    """The image's Tree; `placed` is that of `builder.oci.listing.Listing.members`."""
    return tree_of((known[diff_id] for _, diff_id in image.layers), placed=placed)
