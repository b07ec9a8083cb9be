"""What a layer holds, read as a stream: the same as `flatten` makes of it, from the store the second time."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from builder.oci.descriptor import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, verified
from builder.oci.flatten import flatten
from builder.oci.listing import Listing, is_kept, listing, tree_of
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import read_content
from rootfs.store import DiskStore
from rootfs.tree import Slice
from tests.fakes.store import MemoryStore
from tests.unit.test_flatten import folder, link, member, tar

LOWER = tar(
    folder("./"),
    folder("a", mode=0o700, uid=7),
    member("a/x", b"one" * 2000, mtime=9),
    link("a/z", "a/x", b"1"),
    member("gone", b"gone"),
    member("var/lib/dpkg/status", b"Package: a\n"),
    member("d\udcff", b"1" * 512, pax_headers={"SCHILY.xattr.user.a": b"\xff".decode("utf-8", "surrogateescape")}),
)
UPPER = tar(member(".wh.gone"), member("a/.wh..wh..opq"), link("l", "a/x"), member("new", b"one" * 2000))


def read(*layers: tuple[str, bytes, bytes], store: MemoryStore) -> list[Listing]:
    """The listings of (media type, blob, tar)."""
    return [listing(*described(*layer), fetch(layer[1]), store) for layer in layers]


def described(media_type: str, blob: bytes, data: bytes) -> tuple[Descriptor, Digest]:
    return Descriptor.of(media_type, blob), Digest.of(data)


def fetch(blob: bytes):  # type: ignore[no-untyped-def]
    def chunks(descriptor: Descriptor) -> Iterator[bytes]:
        return verified((blob[at : at + 997] for at in range(0, len(blob), 997)), descriptor, "test")

    return chunks


@pytest.mark.parametrize(
    ("media_type", "compress"), [(LAYER_TAR, bytes), (LAYER_GZIP, gzip.compress), (LAYER_ZSTD, zstandard.compress)]
)
def test_listings_make_the_tree_that_flatten_makes(media_type: str, compress) -> None:  # type: ignore[no-untyped-def]
    layers = [(media_type, compress(data), data) for data in (LOWER, UPPER)]
    blobs = {Digest.of(blob): blob for _, blob, _ in layers}
    store = MemoryStore()
    flat = flatten([described(*layer) for layer in layers], lambda one: fetch(blobs[one.digest])(one), store)
    listed = read(*layers, store=MemoryStore())
    assert dict(tree_of(listed, placed=True)) == dict(flat)
    named = tree_of(listed)
    assert list(named) == list(flat)
    for path, entry in named.items():
        if isinstance(entry.content, Slice):
            assert Digest.of(read_content(store, flat[path].content)) == entry.content.blob
    assert named["var/lib/dpkg/status"].content == b"Package: a\n"
    assert [one.size for one in listed] == [len(LOWER), len(UPPER)]


def test_threads_may_read_the_first_listings_at_once(tmp_path: Path) -> None:
    """A process in which several threads made the type known to msgspec crashed about one time in four."""
    store = DiskStore(tmp_path)
    listing(*described(LAYER_TAR, LOWER, LOWER), fetch(LOWER), store)
    code = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.oci.listing import listing
from rootfs.digest import Digest
from rootfs.store import DiskStore
sys.setswitchinterval(1e-6)
digest, together = Digest.parse(sys.argv[2]), threading.Barrier(8)
layer = Descriptor(media_type=LAYER_TAR, digest=digest, size=1)
def go(_):
    together.wait()
    return listing(layer, digest, None, DiskStore(Path(sys.argv[1])))
with ThreadPoolExecutor(8) as pool:
    list(pool.map(go, range(8)))
"""
    for _ in range(8):
        argv = [sys.executable, "-c", code, str(tmp_path), str(Digest.of(LOWER))]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_layer_is_read_once_and_only_its_listing_is_kept() -> None:
    store = MemoryStore()
    layer = (LAYER_GZIP, gzip.compress(LOWER), LOWER)
    first = read(layer, store=store)
    assert len(store.blobs) == 1
    assert is_kept(Digest.of(LOWER), store)

    def never(_: Descriptor) -> Iterator[bytes]:
        raise AssertionError

    assert [listing(*described(*layer), never, store)] == first
    # what was unpacked before is not fetched either
    store = MemoryStore()
    store.put([LOWER])
    assert [listing(*described(*layer), never, store)] == first


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no archive" * 100, "no tar archive|bytes that are no member"),
        (LOWER[:700], "bytes that are no member"),
        (LOWER + b"more", "bytes that are no member"),
        (tar(member("a", b"x" * 600))[:900], "beyond the end|no tar archive"),
        (tar(member("a"))[:512] + b"\x01" * 512, "bytes that are no member"),
        (tar(member("/etc/passwd")), "an absolute path"),
        (tar(member("a/../../b")), "leaves the image"),
    ],
)
def test_what_is_no_layer_is_refused_and_not_kept(data: bytes, message: str) -> None:
    store = MemoryStore()
    with pytest.raises(IntegrityError, match=message):
        read((LAYER_TAR, data, data), store=store)
    assert not store.blobs


def test_damage_is_seen() -> None:
    blob = gzip.compress(LOWER)
    for media_type, wrong, data, message in (
        (LAYER_GZIP, blob[:-9], LOWER, "decompressed"),
        (LAYER_GZIP, blob, UPPER, "not the one the image config names"),
        (LAYER_ZSTD, blob, LOWER, "decompressed"),
        ("text/plain", blob, LOWER, "not a layer"),
    ):
        with pytest.raises(IntegrityError, match=message):
            read((media_type, wrong, data), store=MemoryStore())
    descriptor = Descriptor(media_type=LAYER_GZIP, digest=Digest.of(b"other"), size=len(blob))
    with pytest.raises(IntegrityError):
        listing(descriptor, Digest.of(LOWER), fetch(blob), MemoryStore())


def test_writers_that_leave_out_the_end_are_understood() -> None:
    data = tar(folder("a"), member("a/b", b"123"))
    cut = data[: 512 + 512 + 3]
    assert list(tree_of(read((LAYER_TAR, cut, cut), store=MemoryStore()))) == ["a", "a/b"]
    empty = bytes(1024)
    assert not tree_of(read((LAYER_TAR, empty, empty), store=MemoryStore()))
