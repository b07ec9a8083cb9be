"""Layers made to hurt: both readers of layers, and the reader of archives, refuse them by name, in bounded memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci import flatten as flatten_module
from builder.oci.archive import read_archive
from builder.oci.descriptor import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, verified
from builder.oci.flatten import flatten, unpacked
from builder.oci.listing import listing, tree_of
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.store import DiskStore
from rootfs.tree import Kind, Tree, parent
from tests.fakes.store import MemoryStore
from tests.fuzz.target import member, tar

MEGABYTE = 1 << 20
Reader = Callable[[bytes], Tree]


def by_flatten(data: bytes) -> Tree:
    return flatten([described(data)], serving(data), MemoryStore())


def by_listing(data: bytes) -> Tree:
    return tree_of([listing(*described(data), serving(data), MemoryStore())])


def described(data: bytes) -> tuple[Descriptor, Digest]:
    return Descriptor.of(LAYER_TAR, data), Digest.of(data)


def serving(blob: bytes) -> Callable[[Descriptor], Iterator[bytes]]:
    pieces = [blob[at : at + MEGABYTE] for at in range(0, len(blob), MEGABYTE)]
    return lambda descriptor: verified(pieces, descriptor, "test")


both = pytest.mark.parametrize("read", [by_flatten, by_listing])


def block(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(kind: bytes = b"x", /, **records: str) -> bytes:
    """An extended header with these records; of kind `g` a global one."""
    data = b""
    for keyword, value in records.items():
        rest = f" {keyword}={value}\n".encode()
        length = len(rest) + len(str(len(rest) + 2))
        data += str(length).encode() + rest
    return block("pax", len(data), kind) + padded(data)


END = bytes(1024)
ENDLESS = {
    "pax": pax(comment="x"),
    "global": pax(b"g", comment="x"),
    "GNU name": block("name", 4, b"L") + padded(b"abc\0"),
    "GNU link": block("name", 4, b"K") + padded(b"abc\0"),
}


@both
@pytest.mark.parametrize("kind", ENDLESS)
def test_headers_that_only_announce_headers(read: Reader, kind: str) -> None:
    """tarfile reads them by recursion."""
    data = ENDLESS[kind] * 5000 + block("x", 0, b"0") + END
    with pytest.raises(IntegrityError, match="no tar archive") as caught:
        read(data)
    assert caught.value.at == str(Digest.of(data))


@pytest.mark.parametrize("kind", ENDLESS)
def test_such_headers_in_an_archive(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(ENDLESS[kind] * 5000 + block("x", 0, b"0") + END)
    with pytest.raises(IntegrityError, match="not a tar archive") as caught:
        read_archive(tmp_path / "x.tar")
    assert str(tmp_path / "x.tar") in str(caught.value.at)


@both
@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_fills_the_memory(read: Reader, kind: bytes) -> None:
    data = block("huge", 16 * MEGABYTE, kind) + bytes(16 * MEGABYTE) + block("x", 0, b"0") + END
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="no tar archive"):
            read(data)
        # the test's pieces, the blob in the store of memory, and little beside
        assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE * 3.5
    finally:
        tracemalloc.stop()


@both
@pytest.mark.parametrize(
    "records",
    [
        {"mtime": "inf"},
        {"mtime": "-inf"},
        {"mtime": "nan"},
        {"mtime": "1e300"},
        {"uid": "-5"},
        {"gid": "99999999999999999999"},
    ],
)
def test_a_time_or_an_owner_that_no_file_can_have(read: Reader, records: dict[str, str]) -> None:
    with pytest.raises(IntegrityError) as caught:
        read(pax(**records) + block("the name", 0, b"0") + END)
    assert caught.value.at in ("the name", str(Digest.of(pax(**records) + block("the name", 0, b"0") + END)))


@both
@pytest.mark.parametrize("size", ["-1", "99999999999999999999", "1025"])
def test_a_size_that_lies(read: Reader, size: str) -> None:
    with pytest.raises(IntegrityError, match="beyond the end") as caught:
        read(pax(size=size) + block("the name", 0, b"0") + bytes(512) + b"")
    assert caught.value.at == "the name"


@both
def test_a_path_that_no_system_can_name(read: Reader) -> None:
    """Also because looking at each of its directories takes time."""
    with pytest.raises(IntegrityError, match="too long") as caught:
        read(tar(member("a/" * 5000 + "x"), form=tarfile.PAX_FORMAT) + END)
    assert len(str(caught.value.at)) < 100


@pytest.mark.parametrize("media_type", [LAYER_GZIP, LAYER_ZSTD])
def test_a_bomb_is_refused_before_it_fills_the_disk(
    media_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flatten_module, "_FREE", 8 * MEGABYTE)  # in truth a disk is filled
    monkeypatch.setattr(flatten_module, "_RATIO", 100)
    zeros = bytes(128 * MEGABYTE)
    blob = gzip.compress(zeros, 6) if media_type == LAYER_GZIP else zstandard.compress(zeros)
    layer, diff_id = Descriptor.of(media_type, blob), Digest.of(zeros)
    del zeros
    store = DiskStore(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="decompression bomb") as caught:
            unpacked(layer, diff_id, serving(blob), store)
        assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert caught.value.at == str(layer.digest)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size]


def test_what_is_sparse_is_no_bomb(tmp_path: Path) -> None:
    """A file of zeros compresses further than most bombs."""
    data = tar(member("zeros", bytes(64 * MEGABYTE))) + END
    blob = zstandard.compress(data)
    assert len(data) > 1100 * len(blob)
    layer = Descriptor.of(LAYER_ZSTD, blob)
    tree = flatten([(layer, Digest.of(data))], serving(blob), DiskStore(tmp_path))
    assert tree["zeros"].size == 64 * MEGABYTE


def test_a_frame_that_wants_a_window_of_gigabytes() -> None:
    """RFC 8878, 3.1.1.1.2: a window is memory that the reader must have."""
    blob = b"\x28\xb5\x2f\xfd" + b"\0" + bytes([21 << 3]) + b"\1\0\0"  # 2 GiB; one empty last block
    layer = Descriptor.of(LAYER_ZSTD, blob)
    with pytest.raises(IntegrityError, match="cannot be decompressed") as caught:
        unpacked(layer, Digest.of(b""), serving(blob), MemoryStore())
    assert caught.value.at == str(layer.digest)


DIRECTORY = {"type": tarfile.DIRTYPE, "mode": 0o755}
TWICE = {
    "file": [member("x", b"1"), member("./x", b"2")],
    "the same file": [member("x", b"1"), member("x", b"1")],
    "link": [member("x"), member("x", type=tarfile.SYMTYPE, linkname="/etc")],
    "hard link": [member("y"), member("x", type=tarfile.LNKTYPE, linkname="y"), member("x")],
    "file and directory": [member("x"), member("x/", **DIRECTORY)],
    "other mode": [member("x/", **DIRECTORY), member("x/", type=tarfile.DIRTYPE, mode=0o777)],
    "other owner": [member("x/", **DIRECTORY), member("x/", uid=7, **DIRECTORY)],
}


@both
@pytest.mark.parametrize("kind", TWICE)
def test_a_path_that_comes_twice(read: Reader, kind: str) -> None:
    """Readers that show the first and readers that run the last would see two images."""
    data = tar(*TWICE[kind]) + END
    with pytest.raises(IntegrityError, match="a path twice") as caught:
        read(data)
    assert caught.value.at == f"{Digest.of(data)}: x"


@both
def test_a_directory_may_come_again_as_it_is(read: Reader) -> None:
    data = tar(member("a/", **DIRECTORY), member("a/x"), member("./a", mtime=5, **DIRECTORY)) + END
    tree = read(data)
    assert list(tree) == ["a", "a/x"]
    assert tree["a"].mtime == 5


def test_two_layers_may_hold_one_path() -> None:
    blobs = [tar(member("x", content)) + END for content in (b"1", b"2")]
    found = {Digest.of(blob): blob for blob in blobs}
    tree = flatten([described(blob) for blob in blobs], lambda one: iter([found[one.digest]]), MemoryStore())
    assert tree["x"].size == 1


def test_whiteouts_cannot_reach_out_of_the_image() -> None:
    for name in ("../.wh.x", "a/../../.wh.x", "/.wh.x", ".wh...", "a/.wh..", "../.wh..wh..opq", "/.wh..wh..opq"):
        with pytest.raises(IntegrityError) as caught:
            by_flatten(tar(member("a", type=tarfile.DIRTYPE), member(name)) + END)
        assert caught.value.at == name


_NAMES = ["a", "b", "a/b", "a/b/c", "./a", "a/./b", "b/../c", "..", "/a", "a/.wh.b", ".wh.a", ".wh..wh..opq", "a/.wh."]
_TYPES = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
_MEMBERS = st.lists(
    st.builds(
        lambda name, kind, link, content: member(
            name, content if kind == tarfile.REGTYPE else b"", type=kind, linkname=link
        ),
        st.sampled_from(_NAMES),
        st.sampled_from(_TYPES),
        st.sampled_from([*_NAMES, "../../etc/passwd", ""]),
        st.binary(max_size=3),
    ),
    max_size=6,
)


@given(st.lists(_MEMBERS, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None)
def test_any_layers_make_a_sound_tree_or_none(layers: list[list[tuple[tarfile.TarInfo, bytes]]]) -> None:
    """Links, duplicates and whiteouts in every order; both readers say the same."""
    blobs = [tar(*members) + END for members in layers]
    pairs = [described(blob) for blob in blobs]
    found = dict(zip((descriptor.digest for descriptor, _ in pairs), blobs, strict=True))

    def fetch(descriptor: Descriptor) -> Iterator[bytes]:
        return iter([found[descriptor.digest]])

    def refused(read: Callable[[], Tree]) -> Tree | str:
        try:
            return read()
        except IntegrityError as error:
            return str(error) if error.at else pytest.fail("it is not said where")

    tree = refused(lambda: flatten(pairs, fetch, MemoryStore()))
    listed = refused(lambda: tree_of([listing(*pair, fetch, MemoryStore()) for pair in pairs], placed=True))
    assert isinstance(tree, str) == isinstance(listed, str)
    if isinstance(tree, str) or isinstance(listed, str):
        return
    assert dict(tree) == dict(listed)
    for path, entry in tree.items():
        assert not {"", ".", ".."} & set(path.split("/"))
        assert ".wh." not in path
        above = tree.get(parent(path))
        assert above is None or above.kind is Kind.DIRECTORY
        if entry.kind is Kind.HARDLINK:
            assert tree[entry.link].kind not in (Kind.HARDLINK, Kind.DIRECTORY)


def test_the_last_block_may_be_cut_but_not_the_content() -> None:
    data = tar(member("x", b"y" * 600))
    with pytest.raises(IntegrityError, match="beyond the end"):
        by_flatten(data[:1000])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["x"]
