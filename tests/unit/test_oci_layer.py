"""Packing: the tar other readers see is the Tree, and its bytes depend on nothing else."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci import layer as layer_module
from builder.oci import tar as tar_module
from builder.oci.behind import Behind, hashing
from builder.oci.descriptor import LAYER_ZSTD
from builder.oci.layer import MEMBER_SIZE, Layer, pack, parse_compression
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

EPOCH = 1_000_000_000
TYPES = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
    Kind.CHARACTER: tarfile.CHRTYPE,
    Kind.BLOCK: tarfile.BLKTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


def packed(tree: Tree, epoch: int = EPOCH) -> bytes:
    """The uncompressed tar of a tree."""
    store = MemoryStore()
    layer = pack(tree, store, created_by="test", epoch=epoch)
    tar = gzip.decompress(store.blobs[layer.descriptor.digest])
    assert Digest.of(tar) == layer.diff_id
    return tar


def members(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        return archive.getmembers()


def everything() -> Tree:
    """One of each kind, and what ustar cannot hold."""
    deep = "/".join(["d" * 60] * 5)
    return Tree(
        [
            directory("usr"),
            file("usr/empty", b""),
            file("usr/setuid", b"x" * 513, 0o4755),
            file("usr/naïve", b"utf-8"),
            file("usr/latin-\udce9", b"not utf-8"),
            file("a/" * 60 + "split", b"fits a prefix and a name"),
            directory("b/" * 60 + "dir"),
            file(deep + "/file", b"fits no header"),
            symlink("usr/link", "../usr/empty"),
            symlink("usr/far", "/" + deep),
            symlink("usr/odd", "\udcff"),
            FileEntry(path="usr/hard", kind=Kind.HARDLINK, link="usr/setuid"),
            FileEntry(path="null", kind=Kind.CHARACTER, mode=0o666, device=(1, 3)),
            FileEntry(path="sda", kind=Kind.BLOCK, mode=0o660, gid=6, device=(8, 0)),
            FileEntry(path="pipe", kind=Kind.FIFO, mode=0o600),
            replace(file("owned", b"", 0o640, 3_000_000, 4_000_000_000), mtime=-1),
            replace(file("ping", b""), xattrs=(("security.capability", b"\1\0\n=\xff"), ("user.b", b"2"))),
        ]
    ).with_parents()


def test_every_kind_reads_back() -> None:
    found = {member.name: member for member in members(packed(everything()))}
    setuid = found["usr/hard"]  # sorts before usr/setuid, so it carries the content
    assert (setuid.type, setuid.mode, setuid.size) == (tarfile.REGTYPE, 0o4755, 513)
    assert (found["usr/setuid"].type, found["usr/setuid"].linkname) == (tarfile.LNKTYPE, "usr/hard")
    assert "usr/latin-\udce9" in found
    assert found["usr/odd"].linkname == "\udcff"
    assert (found["null"].type, found["null"].devmajor, found["null"].devminor) == (tarfile.CHRTYPE, 1, 3)
    assert (found["owned"].uid, found["owned"].gid, found["owned"].mtime) == (3_000_000, 4_000_000_000, -1)
    assert found["ping"].pax_headers["SCHILY.xattr.user.b"] == "2"
    capability = found["ping"].pax_headers["SCHILY.xattr.security.capability"]
    assert capability.encode("utf-8", "surrogateescape") == b"\1\0\n=\xff"


def test_an_extended_header_is_written_only_where_needed() -> None:
    with_header = {member.name for member in members(packed(everything())) if member.pax_headers}
    deep = "/".join(["d" * 60] * 5)
    unsplit = "/".join(["d" * 60] * 4)  # no slash leaves at most 155 bytes before it and 100 after
    other = {"usr/naïve", "usr/latin-\udce9", "usr/far", "usr/odd", "owned", "ping"}
    assert with_header == {unsplit, deep, deep + "/file"} | other


def test_known_header() -> None:
    tar = packed(Tree([replace(file("etc/motd", b"hi\n", 0o640, 1, 8), mtime=5)]))
    assert len(tar) == 2048
    assert tar[512:] == b"hi\n".ljust(1536, b"\0")
    assert tar[:156].replace(b"\0", b"") == b"etc/motd" + b"000064000000010000010" + (b"0000000000300000000005010642 ")
    assert tar[156:265] == b"0" + bytes(100) + b"ustar\x0000"
    assert tar[265:512] == bytes(64) + b"0000000\x000000000\0" + bytes(167)


def test_times_are_clamped() -> None:
    times = [replace(file(name, b""), mtime=mtime) for name, mtime in (("a", 5), ("b", 100), ("c", 101))]
    assert [member.mtime for member in members(packed(Tree(times), epoch=100))] == [5, 100, 100]


def test_times_after_2242_need_a_record() -> None:
    late = replace(file("a", b""), mtime=8**11)
    assert members(packed(Tree([late]), epoch=8**11))[0].mtime == 8**11


def test_a_file_over_8_gib_has_its_size_in_a_record() -> None:
    content = Slice(blob=Digest.of(b""), offset=0, size=8**11)
    header = tar_module._header(FileEntry(path="big", kind=Kind.FILE, content=content), EPOCH)
    assert b"19 size=8589934592\n" in header
    assert header[-512:][124:136] == b"00000000000\0"


def test_record_length_counts_its_own_digits() -> None:
    for size in range(1, 1100):
        record = tar_module._record(b"k", b"v" * size)
        assert len(record) == int(record.partition(b" ")[0])


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 157, 200, 255, 256, 257, 300])
@pytest.mark.parametrize("kind", [Kind.FILE, Kind.DIRECTORY])
@pytest.mark.parametrize("slash", [1, 50, 98, 99, 100, 154, 155, 156, 199])
def test_paths_of_every_length(length: int, kind: Kind, slash: int) -> None:
    path = "p" * length if slash >= length - 1 else "p" * slash + "/" + "p" * (length - slash - 1)
    (member,) = members(packed(Tree([FileEntry(path=path, kind=kind)])))
    assert (member.name, member.type) == (path, TYPES[kind])


def test_hard_links_meet_in_the_first_name() -> None:
    names = [FileEntry(path=p, kind=Kind.HARDLINK, link=t) for p, t in (("a", "m"), ("m", "z"), ("zz", "z"))]
    found = members(packed(Tree([*names, file("z", b"data", 0o751, 7)])))
    assert [(member.name, member.linkname, member.size) for member in found] == [
        ("a", "", 4),
        ("m", "a", 0),
        ("z", "a", 0),
        ("zz", "a", 0),
    ]
    assert {(member.mode, member.uid) for member in found} == {(0o751, 7)}


@pytest.mark.parametrize(
    "tree",
    [
        Tree([FileEntry(path="a", kind=Kind.HARDLINK, link="gone")]),
        Tree([FileEntry(path="a", kind=Kind.HARDLINK, link="b"), directory("b")]),
        Tree([FileEntry(path="a", kind=Kind.HARDLINK, link="a")]),
        Tree([FileEntry(path=p, kind=Kind.HARDLINK, link=t) for p, t in (("a", "b"), ("b", "a"))]),
        Tree([file("etc/.wh.passwd", b"")]),
        Tree([symlink("a", "b\0c")]),
        Tree([FileEntry(path="a", kind=Kind.BLOCK, device=(8**7, 0))]),
        Tree([replace(file("a", b""), xattrs=(("user.a=b", b""),))]),
        Tree([FileEntry(path="a", kind=Kind.FILE, content=Slice(blob=Digest.of(b"gone"), offset=0, size=1))]),
    ],
)
def test_refuses_what_a_layer_cannot_hold(tree: Tree) -> None:
    with pytest.raises(IntegrityError):
        packed(tree)


def test_refuses_a_slice_beyond_its_blob() -> None:
    store = MemoryStore()
    blob = store.put([b"abc"]).digest
    tree = Tree([FileEntry(path="a", kind=Kind.FILE, content=Slice(blob=blob, offset=1, size=3))])
    with pytest.raises(IntegrityError, match="too short"):
        pack(tree, store, created_by="", epoch=0)


def test_refuses_unknown_compression() -> None:
    with pytest.raises(RecipeError, match="lzma"):
        pack(Tree(), MemoryStore(), created_by="", epoch=0, compression="lzma")
    with pytest.raises(RecipeError, match="level"):
        pack(Tree(), MemoryStore(), created_by="", epoch=0, compression="gzip:13")


def test_empty_tree_is_two_blocks() -> None:
    assert packed(Tree()) == bytes(1024)


def big_tree(store: MemoryStore | DiskStore) -> Tree:
    """More than three members of content, in more blobs than may be open at once."""
    rng = random.Random(5)
    words = [rng.randbytes(7) for _ in range(500)]
    entries = []
    for number in range(80):
        data = b"".join(rng.choices(words, k=23_000 + number))
        blob = store.put([data]).digest
        half = len(data) // 2
        for part, (offset, size) in enumerate([(0, half), (half, len(data) - half)]):
            path = f"{part}/{number:03}"
            entries.append(FileEntry(path=path, kind=Kind.FILE, content=Slice(blob=blob, offset=offset, size=size)))
    return Tree(entries).with_parents()


@pytest.fixture
def disk_store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def test_threads_order_umask_and_store_do_not_change_the_bytes(disk_store: DiskStore) -> None:
    memory = MemoryStore()
    tree = big_tree(memory)
    reference = pack(tree, memory, created_by="x", epoch=EPOCH, threads=1)
    assert pack(tree, memory, created_by="x", epoch=EPOCH, threads=4) == reference
    assert pack(Tree(reversed(list(tree.values()))), memory, created_by="x", epoch=EPOCH) == reference
    before = os.umask(0o077)
    try:
        assert pack(big_tree(disk_store), disk_store, created_by="x", epoch=EPOCH, threads=2) == reference
    finally:
        os.umask(before)


def test_members_are_4_mib_of_one_section_and_carry_no_time() -> None:
    store = MemoryStore()
    blob = store.put([random.Random(1).randbytes(2 * MEMBER_SIZE)]).digest
    big = FileEntry(path="big", kind=Kind.FILE, content=Slice(blob=blob, offset=0, size=2 * MEMBER_SIZE))
    layer = pack(Tree([directory("a"), big]), store, created_by="x", epoch=EPOCH)
    data = store.blobs[layer.descriptor.digest]
    assert layer.descriptor.size == len(data)
    sizes = []
    for member in gzip_members(data):
        assert member[:10].hex() == "1f8b08000000000000ff"  # no flags, MTIME 0, XFL 0, OS unknown
        sizes.append(len(gzip.decompress(member)))
    assert sizes == [512, MEMBER_SIZE, MEMBER_SIZE, 512, 1024]


def test_a_section_is_compressed_once_for_all_layers_that_hold_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    tree = big_tree(store)
    first = pack(tree, store, created_by="x", epoch=EPOCH)
    compressed: list[int] = []
    plain = layer_module._Packer._compressed

    def counting(self: layer_module._Packer, *args: Any) -> Iterator[bytes]:
        compressed.append(1)
        return plain(self, *args)

    monkeypatch.setattr(layer_module._Packer, "_compressed", counting)
    again = pack(tree.with_entries([file("new", b"x")]), store, created_by="x", epoch=EPOCH)
    assert len(compressed) == 2  # what lies in no blob, and the end
    assert again.diff_id != first.diff_id
    monkeypatch.undo()
    fresh = MemoryStore()
    assert pack(big_tree(fresh).with_entries([file("new", b"x")]), fresh, created_by="x", epoch=EPOCH) == again


def test_a_section_that_is_kept_is_read_again_for_the_diff_id() -> None:
    """By the thread that counts it: what it cannot read stops the layer all the same."""
    store = MemoryStore()
    tree = big_tree(store)
    pack(tree, store, created_by="x", epoch=EPOCH)
    blob = next(entry.content.blob for entry in tree.values() if isinstance(entry.content, Slice))
    store.blobs[blob] = store.blobs[blob][:-1]
    with pytest.raises(IntegrityError, match="too short"):
        pack(tree, store, created_by="x", epoch=EPOCH)


def test_what_is_counted_behind_is_what_came_in_order() -> None:
    rng = random.Random(5)
    pieces = [rng.randbytes(rng.choice([0, 1, 700, 1 << 19])) for _ in range(60)]
    with hashing() as behind:
        for number, piece in enumerate(pieces):
            if number % 3:
                behind.update(piece)
            else:
                behind.follow(iter([piece[:100], piece[100:]]))
        assert behind.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_who_stops_does_not_wait_for_what_is_left_to_count() -> None:
    begun = threading.Event()
    counted: list[int] = []

    def first(behind: Behind) -> Iterator[bytes]:
        begun.set()
        while not behind._pool._shutdown:
            time.sleep(0.01)
        time.sleep(0.05)
        yield b""

    def later(number: int) -> Iterator[bytes]:
        counted.append(number)
        yield b""

    def stopped() -> None:
        with hashing() as behind:
            behind.follow(first(behind))
            for number in range(9):
                behind.follow(later(number))
            assert begun.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert counted == []


def gzip_members(data: bytes) -> Iterator[bytes]:
    while data:
        decoder = zlib.decompressobj(wbits=31)
        decoder.decompress(data)
        yield data[: len(data) - len(decoder.unused_data)]
        data = decoder.unused_data


def test_few_blobs_are_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    tree = big_tree(store)
    opened: list[io.BytesIO] = []
    plain_open = store.open

    def counting(digest: Digest) -> io.BytesIO:
        stream = plain_open(digest)
        assert isinstance(stream, io.BytesIO)
        opened.append(stream)
        assert sum(not one.closed for one in opened) == 1
        return stream

    monkeypatch.setattr(store, "open", counting)
    pack(tree, store, created_by="x", epoch=EPOCH)
    assert len(opened) > 64
    assert all(stream.closed for stream in opened)


def test_golden() -> None:
    """The promise of the format: a change here changes the digest of every image ever built."""
    store = MemoryStore()
    layer = pack(everything(), store, created_by="golden", epoch=EPOCH)
    assert str(layer.diff_id) == "sha256:7a706951aafee132343c3684d294376246c81f949d6735be9f99a251e4899b32"
    assert str(layer.descriptor.digest) == "sha256:4ebcec717ded4a4f42e6c8188ee08633bd8765af36b0f8b67c30cb40f85bcec7"


def test_layer_round_trip() -> None:
    layer = pack(everything(), MemoryStore(), created_by="apt \u2713", epoch=EPOCH)
    assert Layer.from_bytes(layer.to_bytes()) == layer
    with pytest.raises(IntegrityError):
        Layer.from_bytes(b"{}")


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.just("\udcfe"), min_size=1, max_size=90
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
owners = st.integers(0, 2**32 - 2)
common = {
    "path": paths,
    "mode": st.integers(0, 0o7777),
    "uid": owners,
    "gid": owners,
    "mtime": st.integers(-(2**31), 2**34),
}
entries = st.one_of(
    st.builds(FileEntry, kind=st.just(Kind.FILE), content=st.binary(max_size=1100), **common),
    st.builds(FileEntry, kind=st.sampled_from([Kind.DIRECTORY, Kind.FIFO]), **common),
    st.builds(FileEntry, kind=st.just(Kind.SYMLINK), link=paths, **common),
    st.builds(
        FileEntry,
        kind=st.sampled_from([Kind.CHARACTER, Kind.BLOCK]),
        device=st.tuples(st.integers(0, 4095), st.integers(0, 2**20)),
        **common,
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries, max_size=8))
def test_what_tarfile_reads_is_the_tree(drawn: list[FileEntry]) -> None:
    tree = Tree(drawn)
    tar = packed(tree)
    assert len(tar) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        read = []
        for member in archive.getmembers():
            kind = next(kind for kind, type_ in TYPES.items() if type_ == member.type)
            stream = archive.extractfile(member) if kind is Kind.FILE else None
            read.append(
                FileEntry(
                    path=member.name,
                    kind=kind,
                    mode=member.mode,
                    uid=member.uid,
                    gid=member.gid,
                    mtime=int(member.mtime),
                    link=member.linkname if kind is Kind.SYMLINK else "",
                    content=stream.read() if stream else b"",
                    device=(member.devmajor, member.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
                )
            )
    assert read == list(tree.clamped(EPOCH).values())


@pytest.mark.peer
@pytest.mark.parametrize("reader", ["tar", "bsdtar", "busybox"])
def test_other_readers_list_the_same_paths(reader: str, tmp_path: Path) -> None:
    if shutil.which(reader) is None:
        pytest.skip(f"{reader} is not installed")
    tree = Tree(entry for entry in everything().values() if entry.path.isprintable())
    if reader == "busybox":  # reads ustar, and skips extended headers
        tree = tree.where(lambda entry: len(entry.path) < 250 and entry.path.isascii() and not entry.xattrs)
    (tmp_path / "layer.tar").write_bytes(packed(tree))
    commands = {"tar": ["tar", "--warning=no-unknown-keyword"], "busybox": ["busybox", "tar"]}
    run = subprocess.run(
        [*commands.get(reader, [reader]), "-tf", str(tmp_path / "layer.tar")],
        capture_output=True,
        check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert run.stderr == b""
    listed = [line.removesuffix("/") for line in run.stdout.decode().splitlines()]
    assert listed == list(tree)


@pytest.mark.peer
def test_gnu_tar_extracts_what_the_tree_says(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("tar is not installed")
    not_for_all = (Kind.CHARACTER, Kind.BLOCK)
    tree = everything().where(lambda entry: entry.kind not in not_for_all and not entry.xattrs and entry.mtime >= 0)
    command = ["tar", "-x", "-p", "--no-same-owner", "--warning=no-unknown-keyword", "-C", str(tmp_path)]
    run = subprocess.run(command, input=packed(tree), capture_output=True, check=True)
    assert run.stderr == b""
    assert (tmp_path / "usr/hard").stat().st_ino == (tmp_path / "usr/setuid").stat().st_ino
    for entry in tree.values():
        found = tmp_path / entry.path
        assert found.is_symlink() == (entry.kind is Kind.SYMLINK), entry.path
        if entry.kind is Kind.FILE:
            assert found.read_bytes() == entry.content
            assert found.stat().st_mode & 0o7777 == entry.mode
        elif entry.kind is Kind.SYMLINK:
            assert str(found.readlink()) == entry.link


@pytest.mark.parametrize("level", [19, 22])
def test_from_level_19_on_a_layer_is_one_frame_of_the_same_tar(level: int) -> None:
    store = MemoryStore()
    tree = big_tree(store)
    layer = pack(tree, store, created_by="x", epoch=EPOCH, compression=f"zstd:{level}", threads=1)
    data = store.blobs[layer.descriptor.digest]
    size = zstandard.frame_content_size(data)
    assert len(zstandard.ZstdDecompressor().decompress(data)) == size > 3 * MEMBER_SIZE
    assert layer.diff_id == pack(tree, store, created_by="x", epoch=EPOCH).diff_id
    assert layer.descriptor.media_type == LAYER_ZSTD
    assert pack(tree, store, created_by="x", epoch=EPOCH, compression=f"zstd:{level}", threads=4) == layer


def test_a_level_is_part_of_the_compression() -> None:
    store = MemoryStore()
    tree = big_tree(store)
    fast, small = (pack(tree, store, created_by="x", epoch=EPOCH, compression=f"gzip:{level}") for level in (1, 12))
    assert fast.descriptor.size > small.descriptor.size
    assert fast.diff_id == small.diff_id
    assert parse_compression("zstd") == ("zstd", 3)
    for wrong in ("zstd:23", "zstd:0", "gzip:", "zstd:-1", "gzip:six"):
        with pytest.raises(RecipeError, match="level"):
            parse_compression(wrong)
