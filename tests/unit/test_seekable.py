"""Seekable layers: plain readers see the tree, and each file comes out of the blob alone, where the table says."""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import io
import json
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci.descriptor import LAYER_GZIP, LAYER_ZSTD
from builder.oci.estargz import NO_PREFETCH, TAR_SIZE, TOC_DIGEST, TOC_NAME
from builder.oci.flatten import flatten
from builder.oci.layer import Layer, pack, parse_compression
from builder.oci.stream import Member, pack_stream
from builder.oci.tar import header
from builder.oci.tarsplit import CRC_BEGIN, crc_end, crc_update
from builder.oci.toc import CHUNK_SIZE, described
from builder.oci.zstdchunked import CHECKSUM, POSITION, TAR_SPLIT
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

EPOCH = 1_000_000_000
FORMS = ("estargz", "zstd:chunked")
LARGE = b"".join(hashlib.sha256(b"%d" % number).digest() * 1024 for number in range(320))  # 10 MiB, three chunks
HOLED = b"begin" + bytes(3 * CHUNK_SIZE) + b"end"


def everything() -> Tree:
    """One of each kind, and what a plain ustar header or one chunk cannot hold."""
    return Tree(
        [
            directory("d", 0o1777),
            file("d/empty", b""),
            file("d/naïve", b"text\n", 0o4755),
            file("d/" + "long/" * 60 + "x", b"long"),
            FileEntry(path="d/later", kind=Kind.FILE, content=b"x", mtime=EPOCH + 9, uid=1 << 22, gid=-1 & 0x7FFFFFFF),
            FileEntry(path="d/before", kind=Kind.FILE, content=b"y", mtime=-1),
            FileEntry(path="d/cap", kind=Kind.FILE, content=b"z", xattrs=(("security.capability", b"\x01\0\xff"),)),
            FileEntry(path="d/link", kind=Kind.HARDLINK, link="d/cap"),
            FileEntry(path="null", kind=Kind.CHARACTER, device=(1, 3)),
            FileEntry(path="disk", kind=Kind.BLOCK, device=(8, 1)),
            FileEntry(path="pipe", kind=Kind.FIFO),
            symlink("s", "d/naïve"),
            file("large", LARGE),
            file("holed", HOLED),
            file("exact", LARGE[:CHUNK_SIZE]),
            file("double", LARGE[: 2 * CHUNK_SIZE]),
        ]
    ).with_parents()


class Packed:
    """A tree as a layer, taken apart."""

    def __init__(self, tree: Tree, compression: str, *, threads: int | None = None) -> None:
        self.store = MemoryStore()
        self.layer: Layer = pack(
            tree,
            self.store,
            created_by="test",
            epoch=EPOCH,
            compression=compression,
            threads=threads,
            lowest=True,
        )
        self.gzip = self.layer.descriptor.media_type == LAYER_GZIP
        self.blob = self.store.blobs[self.layer.descriptor.digest]
        self.notes = self.layer.descriptor.annotations
        self.tar = plain(self.blob)
        assert Digest.of(self.tar) == self.layer.diff_id

    def toc(self) -> list[dict[str, Any]]:
        """The entries, found as a reader finds them, whose digest is the annotated one."""
        if self.gzip:
            at = int(re.fullmatch(rb"SG\x16\0([0-9a-f]{16})STARGZ", self.blob[-39:-13])[1], 16)  # type: ignore[index]
            with tarfile.open(fileobj=io.BytesIO(zlib.decompress(self.blob[at:], 31))) as archive:
                assert archive.getnames() == [TOC_NAME]
                data = archive.extractfile(TOC_NAME).read()  # type: ignore[union-attr]
            assert self.notes[TOC_DIGEST] == str(Digest.of(data))
            assert self.notes[TAR_SIZE] == str(len(self.tar))
        else:
            data = self.table(POSITION, self.notes[CHECKSUM])
        value = json.loads(data)
        assert value["version"] == 1
        entries: list[dict[str, Any]] = value["entries"]
        return entries

    def table(self, place: str, digest: str) -> bytes:
        """What an annotation says where to find."""
        begin, length, size = map(int, self.notes[place].split(":")[:3])
        assert self.blob[begin - 8 : begin] == struct.pack("<II", 0x184D2A50, length)
        packed = self.blob[begin : begin + length]
        assert str(Digest.of(packed)) == digest
        data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        assert len(data) == size
        return data

    def part(self, begin: int) -> bytes:
        """What is decompressed at a place in the blob, and nothing before it."""
        if self.gzip:
            return zlib.decompressobj(31).decompress(self.blob[begin:])
        return zstandard.ZstdDecompressor().decompressobj().decompress(self.blob[begin:])

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file that has one, chunk by chunk, each against its digest."""
        entries = self.toc()
        for number, entry in enumerate(entries):
            if entry["type"] != "reg" or not entry.get("size"):
                continue
            content = b""
            chunks = [entry]
            for following in entries[number + 1 :]:
                if following["type"] != "chunk":
                    break
                chunks.append(following)
            for chunk in chunks:
                assert chunk["name"] == entry["name"]
                assert chunk.get("chunkOffset", 0) == len(content)
                size = chunk.get("chunkSize") or entry["size"] - len(content)
                part = self.part(chunk["offset"])[:size]
                assert len(part) == size
                if self.gzip or len(chunks) > 1:
                    assert chunk["chunkDigest"] == str(Digest.of(part))
                content += part
            assert entry["digest"] == str(Digest.of(content))
            yield entry["name"], content


def plain(blob: bytes) -> bytes:
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    return zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()


@pytest.fixture(scope="module", params=FORMS)
def packed(request: pytest.FixtureRequest) -> Packed:
    return Packed(everything(), request.param)


def test_plain_readers_see_the_tree(packed: Packed) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed.tar), mode="r:") as archive:
        found = {member.name: member for member in archive}
        assert archive.extractfile("large").read() == LARGE  # type: ignore[union-attr]
    own = {NO_PREFETCH, TOC_NAME} if packed.gzip else set()
    assert set(found) == {entry.path for entry in everything().values()} | own | {"."}
    assert packed.layer.descriptor.media_type == (LAYER_GZIP if packed.gzip else LAYER_ZSTD)


def test_a_zstd_chunked_layer_has_the_diff_id_of_the_plain_one() -> None:
    assert Packed(everything(), "zstd:chunked").layer.diff_id == Packed(everything(), "gzip").layer.diff_id


def test_flatten_gives_the_same_tree_as_from_a_plain_layer(packed: Packed) -> None:
    usual = Packed(everything(), "gzip")
    trees = []
    for one in (packed, usual):
        pair = (one.layer.descriptor, one.layer.diff_id)
        tree = flatten([pair], lambda wanted, one=one: iter([one.store.blobs[wanted.digest]]), one.store)  # type: ignore[misc]
        trees.append({e.path: (e.kind, e.mode, e.mtime, e.link, e.xattrs, read(e, one.store)) for e in tree.values()})
    for name in (NO_PREFETCH, TOC_NAME):
        trees[0].pop(name, None)
    assert trees[0] == trees[1]


def read(entry: FileEntry, store: MemoryStore) -> bytes:
    content = entry.content
    if isinstance(content, bytes):
        return content
    return store.blobs[content.blob][content.offset : content.offset + content.size]


def test_each_file_is_read_alone(packed: Packed) -> None:
    wanted = {entry.path: read(entry, packed.store) for entry in everything().values() if entry.size}
    if packed.gzip:
        wanted[NO_PREFETCH] = b"\x0f"
    assert dict(packed.contents()) == wanted


def test_the_table_says_what_the_headers_say(packed: Packed) -> None:
    said = {entry["name"]: entry for entry in packed.toc() if entry["type"] != "chunk"}
    kinds = {tarfile.REGTYPE: "reg", tarfile.LNKTYPE: "hardlink", tarfile.SYMTYPE: "symlink", tarfile.CHRTYPE: "char"}
    kinds |= {tarfile.BLKTYPE: "block", tarfile.DIRTYPE: "dir", tarfile.FIFOTYPE: "fifo"}
    with tarfile.open(fileobj=io.BytesIO(packed.tar), mode="r:") as archive:
        members = [member for member in archive if member.name != TOC_NAME]
    assert len(said) == len(members)
    for member in members:
        one = said["./" if member.name == "." else member.name + ("/" if member.isdir() else "")]
        assert one["type"] == kinds[member.type]
        assert (one["mode"], one["uid"], one["gid"]) == (member.mode, member.uid, member.gid)
        assert one.get("size", 0) == member.size
        assert one.get("linkName", "") == member.linkname
        assert (one.get("devMajor", 0), one.get("devMinor", 0)) == (member.devmajor, member.devminor)
    assert said["d/later"]["modtime"] == "2001-09-09T01:46:40Z"
    assert said["d/before"]["modtime"] == "1969-12-31T23:59:59Z"
    assert said["d/cap"]["xattrs"] == {"security.capability": base64.b64encode(b"\x01\0\xff").decode()}


def test_a_large_file_has_a_chunk_for_every_4_mib_and_the_last_says_no_size(packed: Packed) -> None:
    entries = packed.toc()
    chunks = {name: [one for one in entries if one["name"] == name] for name in ("large", "exact", "double", "holed")}
    assert [one["type"] for one in chunks["large"]] == ["reg", "chunk", "chunk"]
    assert [one.get("chunkOffset") for one in chunks["large"]] == [None, CHUNK_SIZE, 2 * CHUNK_SIZE]
    assert len(chunks["exact"]) == 1
    assert "chunkSize" not in chunks["exact"][0]
    last = None if packed.gzip else CHUNK_SIZE
    assert [one.get("chunkSize") for one in chunks["double"]] == [CHUNK_SIZE, last]
    zeros = [one.get("chunkType") for one in chunks["holed"]]
    assert zeros == [None] * 4 if packed.gzip else [None, "zeros", "zeros", None]


def test_the_estargz_footer_is_an_empty_gzip_member_of_51_bytes() -> None:
    packed = Packed(everything(), "estargz")
    footer = packed.blob[-51:]
    assert zlib.decompress(footer, 31) == b""
    assert footer[:16] == b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0"


def test_the_zstd_chunked_footer_says_what_the_annotations_say() -> None:
    packed = Packed(everything(), "zstd:chunked")
    fields = struct.unpack("<II7Q8s", packed.blob[-72:])
    assert fields[:2] == (0x184D2A50, 64)
    assert ":".join(map(str, fields[2:6])) == packed.notes[POSITION]
    assert ":".join(map(str, fields[6:9])) == packed.notes[TAR_SPLIT]
    assert fields[9] == b"GNUlInUx"


def test_the_tar_split_and_the_files_make_the_tar_again() -> None:
    packed = Packed(everything(), "zstd:chunked")
    begin, length, size, _ = map(int, packed.notes[POSITION].split(":"))
    toc = json.loads(zstandard.ZstdDecompressor().decompressobj().decompress(packed.blob[begin : begin + length]))
    assert size > 0
    contents = dict(packed.contents())
    tar = b""
    for number, line in enumerate(packed.table(TAR_SPLIT, toc["tarSplitDigest"]).splitlines()):
        value = json.loads(line)
        assert value["position"] == number
        if value["type"] == 2:
            tar += base64.b64decode(value["payload"])
        elif value.get("size"):
            content = contents[value["name"]]
            assert (
                base64.b64decode(value["payload"]) == slow_crc(content[:1000]).to_bytes(8, "big") or len(content) > 1000
            )
            tar += content
    assert tar == packed.tar


@pytest.mark.parametrize("compression", FORMS)
def test_threads_do_not_change_the_bytes(compression: str) -> None:
    assert len({Packed(everything(), compression, threads=threads).blob for threads in (1, 2, 7)}) == 1


@pytest.mark.parametrize("compression", FORMS)
def test_levels_count(compression: str) -> None:
    tree = Tree([file("prose", Path(__file__).read_bytes())])
    low, high = (Packed(tree, f"{compression}:{level}") for level in (1, 12))
    assert len(high.blob) < len(low.blob)


@pytest.mark.parametrize("compression", FORMS)
def test_a_stream_of_the_same_members_gives_the_same_bytes(compression: str) -> None:
    packed = Packed(everything(), compression)
    own = {NO_PREFETCH.encode(), TOC_NAME.encode()}
    store, seen = MemoryStore(), 0

    def seeing(size: int) -> None:
        nonlocal seen
        seen += size

    layer = pack_stream(members(packed.tar, own), store, created_by="test", compression=compression, on_block=seeing)
    assert layer == packed.layer
    assert seen == len(packed.tar)


def members(tar: bytes, own: set[bytes]) -> Iterator[Member]:
    """The members of an archive that `builder.oci.tar` wrote, with holes where there are long zeros."""
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
        for member in archive:
            if member.name.encode() in own:
                continue
            content = tar[member.offset_data : member.offset_data + member.size]
            block = tar[member.offset : member.offset_data]
            runs = [(5, False), (3 * CHUNK_SIZE, True), (3, False)] if member.name == "holed" else None
            stream = io.BytesIO(b"beginend" if runs else content)
            yield Member(block, member.size, stream.readinto if content else None, runs)  # type: ignore[arg-type]


def test_an_empty_tree_is_a_layer() -> None:
    for compression in FORMS:
        packed = Packed(Tree([]), compression)
        assert [entry["type"] for entry in packed.toc() if entry["name"] != NO_PREFETCH] == ["dir"]


def test_files_of_another_estargz_layer_are_left_out() -> None:
    mine = Tree([file("a", b"a")])
    theirs = Tree(
        [file("a", b"a"), file(TOC_NAME, b"{}"), file(NO_PREFETCH, b"\x0f"), file(".prefetch.landmark", b"x")]
    )
    assert Packed(mine, "estargz").blob == Packed(theirs, "estargz").blob
    assert TOC_NAME in {entry["name"] for entry in Packed(theirs, "zstd:chunked").toc()}


@pytest.mark.parametrize("compression", FORMS)
@pytest.mark.parametrize(
    "entry",
    [
        file("caf\udce9", b"x"),
        symlink("s", "caf\udce9"),
        FileEntry(path="f", kind=Kind.FILE, xattrs=(("user.caf\udce9", b"x"),)),
        FileEntry(path="f", kind=Kind.FILE, mtime=-(1 << 40)),
    ],
    ids=["name", "target", "attribute", "time"],
)
def test_what_json_cannot_say_is_refused_by_name(compression: str, entry: FileEntry) -> None:
    with pytest.raises(IntegrityError, match="a table of contents cannot say this") as refusal:
        Packed(Tree([entry]), compression)
    assert refusal.value.at == entry.path
    assert refusal.value.hint is not None


@pytest.mark.parametrize("compression", FORMS)
def test_a_blob_that_is_too_short_is_refused(compression: str) -> None:
    store = MemoryStore()
    stored = store.put([b"four"])
    tree = Tree([FileEntry(path="f", kind=Kind.FILE, content=Slice(blob=stored.digest, offset=2, size=3))])
    with pytest.raises(IntegrityError, match="blob is too short") as refusal:
        pack(tree, store, created_by="test", epoch=EPOCH, compression=compression)
    assert refusal.value.at == "f"


def test_names_of_compressions() -> None:
    assert parse_compression("estargz") == ("estargz", 6)
    assert parse_compression("estargz:12") == ("estargz", 12)
    assert parse_compression("zstd:chunked") == ("zstd:chunked", 3)
    assert parse_compression("zstd:chunked:22") == ("zstd:chunked", 22)
    assert parse_compression("zstd:19") == ("zstd", 19)
    for text in (
        "zstd:chunky",
        "zstd:chunked:23",
        "zstd:chunked:",
        "estargz:13",
        "estargz:chunked",
        "stargz",
        "",
        ":1",
    ):
        with pytest.raises(RecipeError):
            parse_compression(text)


def test_the_golden_digests() -> None:
    tree = Tree([directory("d"), file("d/f", b"golden\n"), symlink("l", "d/f")])
    found = {one: str(Packed(tree, one).layer.descriptor.digest) for one in FORMS}
    assert found == {
        "estargz": "sha256:68b2e05872aeed6af5fb07a36a76744f42a5aa321fd69fd04f02f4a5c47c213b",
        "zstd:chunked": "sha256:ce92271538ed1e5b86f09d2e4de8eb54fa7c507b0cdb0514c3d3f865e7837fc7",
    }


def slow_crc(data: bytes) -> int:
    """CRC-64 by its definition, a bit at a time."""
    crc = CRC_BEGIN
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xD800000000000000 if crc & 1 else 0)
    return crc ^ CRC_BEGIN


def test_the_crc_of_the_catalogue() -> None:
    assert crc_end(crc_update(CRC_BEGIN, memoryview(b"123456789"))) == 0xB90956C775A41001


@given(st.lists(st.binary(max_size=200)))
@settings(max_examples=200, deadline=None)
def test_the_crc_is_that_of_the_definition_however_the_bytes_are_cut(pieces: list[bytes]) -> None:
    crc = CRC_BEGIN
    for piece in pieces:
        crc = crc_update(crc, memoryview(piece))
    assert crc_end(crc) == slow_crc(b"".join(pieces))


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_001])
def test_the_crc_of_more_than_is_taken_at_once(size: int) -> None:
    data = (binascii.unhexlify("00ff1234deadbeef01") * (size // 9 + 1))[:size]
    assert crc_end(crc_update(CRC_BEGIN, memoryview(data))) == slow_crc(data)


@given(
    path=st.binary(min_size=1, max_size=300).filter(lambda value: b"\0" not in value),
    size=st.integers(0, 1 << 40),
    mtime=st.integers(-(1 << 33), 1 << 36),
    uid=st.integers(0, 1 << 32),
    xattr=st.binary(max_size=100),
)
@settings(max_examples=200, deadline=None)
def test_a_header_is_read_as_it_was_written(path: bytes, size: int, mtime: int, uid: int, xattr: bytes) -> None:
    block = header(
        path=path,
        kind=Kind.FILE,
        mode=0o640,
        uid=uid,
        size=size,
        mtime=mtime,
        xattrs=[("user.x", xattr)] if xattr else (),
    )
    try:
        name = path.decode()
    except UnicodeDecodeError:
        with pytest.raises(IntegrityError):
            described(block)
        return
    said = described(block)
    assert (said["name"], said["mode"], said["uid"], said["gid"]) == (name, 0o640, uid, 0)
    assert said.get("size", 0) == size
    assert said.get("xattrs", {}) == ({"user.x": base64.b64encode(xattr).decode()} if xattr else {})
