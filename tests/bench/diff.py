"""What changed between two images of 500 MB: ours beside the peers', in one run: `python -m tests.bench.diff [ROUNDS]`.

The peers have no such verb: both images are unpacked with umoci and compared with diff(1). As root umoci keeps owners.
No layer is shared: each image has two, in which one file in twenty (one in a hundred) is another one.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from builder.oci.config import ImageConfig
from builder.oci.descriptor import Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from rootfs.architecture import Architecture
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Slice, Tree
from tests.bench.timing import Contender, compare, machine, table

TOOL = str(Path(sys.executable).with_name("ocibuild"))
SIZE = 500_000_000
FILES = 20_000
CHANGED = {"base": 20, "app": 100}  # one file in so many


def main(rounds: int) -> None:
    """Make the images, measure."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        for name in ("before", "after"):
            make(place, name)
        print(machine(), f"load {os.getloadavg()[0]:.1f} at the start", sep=", ")
        print(f"\n{FILES:,} files, {SIZE:,} bytes, {rounds} rounds\n")
        print(table(compare(contenders(place), rounds=rounds), base="umoci, diff"))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make(place: Path, name: str) -> None:
    """An image of two layers, half of whose contents can be compressed."""
    store = DiskStore(place / f"{name}.store")
    layers = []
    for part, every in CHANGED.items():
        tree = files(store, part, every if name == "after" else 0)
        layers.append(pack(tree, store, created_by=part, epoch=1, lowest=not layers))
    host = Architecture.host()
    image = assemble(layers, ImageConfig(platform=Platform(architecture=host.oci, variant=host.variant), created=1))
    for document in (image.config, image.manifest):
        store.put([document])
    write_layout(place / name, store, image.descriptor, ref_name="1")


def files(store: DiskStore, part: str, every: int) -> Tree:
    """The files of a layer, of which one in `every` is another one."""
    count = FILES // len(CHANGED)
    size = SIZE // FILES
    blob = store.put(content(part, number, size, other=bool(every) and number % every == 0) for number in range(count))
    return Tree(
        FileEntry(
            path=f"{part}/{number % 100:02}/{number}",
            kind=Kind.FILE,
            content=Slice(blob=blob.digest, offset=number * size, size=size),
        )
        for number in range(count)
    ).with_parents()


def content(part: str, number: int, size: int, *, other: bool) -> bytes:
    """Noise, then a text; `other` is another text of the same size."""
    noise = random.Random(f"{part} {number}").randbytes(size // 2)
    text = (b"other " if other else b"a text ") * size
    return noise + text[: size - len(noise)]


def contenders(place: Path) -> list[Contender]:
    """Unpacked and compared; ours on an empty store; ours when both were read before."""
    unpack = " && ".join(
        f"umoci unpack {'' if os.geteuid() == 0 else '--rootless '}--image {place / name}:1 {place / name}.bundle"
        for name in ("before", "after")
    )
    roots = " ".join(f"{place / name}.bundle/rootfs" for name in ("before", "after"))
    ours = [TOOL, "diff", str(place / "before"), str(place / "after"), "--store"]

    def clean() -> None:
        for name in ("before.bundle", "after.bundle"):
            shutil.rmtree(place / name, ignore_errors=True)

    return [
        Contender(name="umoci, diff", argv=["sh", "-c", f"{unpack} && ! diff -rq {roots}"], before=clean),
        Contender(
            name="ocibuild, empty store",
            argv=[*ours, str(place / "cold")],
            before=lambda: shutil.rmtree(place / "cold", ignore_errors=True),
        ),
        Contender(name="ocibuild, read before", argv=[*ours, str(place / "cold")]),
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
