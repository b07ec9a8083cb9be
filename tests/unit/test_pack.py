"""Packing directories and tars: the same files give the same bytes, whoever packs them, however, wherever they lie."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.change.pack import Owner, Packing, Source, pack_image
from builder.finding import stored_image
from builder.oci import stream as stream_module
from builder.oci.check import check_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, Platform
from builder.oci.flatten import flatten
from builder.oci.layer import MEMBER_SIZE, pack
from builder.oci.manifest import Manifest
from builder.oci.stream import Member, pack_stream
from builder.oci.tar import archive, header
from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError, RecipeError, UsageError
from rootfs.ports import read_blob
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore

AMD64 = Platform(architecture="amd64")
PACKING = Packing(platform=AMD64)


def image_of(*places: Path, store: MemoryStore, packing: Packing = PACKING) -> tuple[Descriptor, Manifest, ImageConfig]:
    sources = [Source(name=str(place), path=place) for place in places]
    descriptor = pack_image(sources, packing, store, reporter=ListReporter())
    check_image(store, descriptor)
    manifest = Manifest.parse(read_blob(store, descriptor.digest))
    return descriptor, manifest, ImageConfig.parse(read_blob(store, manifest.config.digest))


def tar_of(place: Path, packing: Packing = PACKING) -> bytes:
    store = MemoryStore()
    _, manifest, config = image_of(place, store=store, packing=packing)
    tar = gzip.decompress(read_blob(store, manifest.layers[0].digest))
    assert Digest.of(tar) == config.diff_ids[0]
    return tar


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
        return {member.name: member for member in opened.getmembers()}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of each kind that needs no rights, made under any umask with the same modes."""
    place = tmp_path / "tree"
    (place / "usr/bin").mkdir(parents=True)
    (place / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    (place / "usr/bin/tool").chmod(0o4755)
    (place / "usr/empty").write_bytes(b"")
    os.link(place / "usr/bin/tool", place / "usr/bin/again")
    (place / "usr/sh").symlink_to("bin/tool")
    (place / ("long-" * 30)).write_bytes(b"x" * 513)
    (place / "naïve").write_bytes("ü".encode())
    os.mkfifo(place / "pipe")
    (place / "pipe").chmod(0o600)
    for path in place.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        elif path.is_file() and not path.is_symlink() and path.name not in ("tool", "again"):
            path.chmod(0o644)
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    return place


def test_golden(tree: Path) -> None:
    """The promise: a change here changes the digest of everything that was ever packed."""
    store = MemoryStore()
    descriptor, _, config = image_of(tree, store=store)
    assert str(config.diff_ids[0]) == "sha256:a3a3f4348710de64d9cf0fd2618713aa6526e64cc5561c7749006d042cd39b0f"
    assert str(descriptor.digest) == "sha256:b5c1af25522a037916b367f974c88559e768157c9f0fe12f7450c7f7471576e8"


def test_what_is_in_it(tree: Path) -> None:
    found = members(tar_of(tree))
    names = ["usr", "usr/bin", "usr/bin/again", "usr/bin/tool", "usr/empty", "usr/sh"]
    assert list(found) == [".", "long-" * 30, "naïve", "pipe", *names]
    assert {(member.uid, member.gid, member.mtime, member.uname) for member in found.values()} == {(0, 0, 0, "")}
    assert (found["usr/bin/again"].mode, found["usr/bin/again"].size) == (0o4755, 10)
    assert (found["usr/bin/tool"].type, found["usr/bin/tool"].linkname) == (tarfile.LNKTYPE, "usr/bin/again")
    assert [name for name, member in found.items() if member.pax_headers] == ["long-" * 30, "naïve"]
    assert found["."].mode == 0o755


def test_times_are_the_disks_and_no_later_than_said(tree: Path) -> None:
    for epoch, expected in ((1_600_000_000, 1_600_000_000), (1_800_000_000, 1_700_000_000)):
        packing = Packing(platform=AMD64, epoch=epoch)
        found = members(tar_of(tree, packing))
        assert found["usr/empty"].mtime == expected
        assert found["."].mtime == epoch


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners(tree: Path) -> None:
    os.chown(tree / "usr/empty", 5, 3_000_000)
    for owner, expected in ((None, (0, 0)), ("keep", (5, 3_000_000)), ("7:8", (7, 8)), ("9", (9, 9)), ("root", (0, 0))):
        packing = Packing(platform=AMD64, owner=Owner.parse(owner) if owner else None)
        found = members(tar_of(tree, packing))["usr/empty"]
        assert (found.uid, found.gid) == expected


@pytest.mark.parametrize("text", ["", "me", "1:", ":1", "-1", "1:2:3", "4294967295", "1:4294967295", "٣"])
def test_no_owner(text: str) -> None:
    with pytest.raises(UsageError, match="not an owner"):
        Owner.parse(text)


def test_a_tar_of_a_directory_gives_what_the_directory_gives(tree: Path, tmp_path: Path) -> None:
    plain = tmp_path / "tree.tar"
    with tarfile.open(plain, "w") as opened:
        for name in ("long-" * 30, "naïve", "pipe", "usr"):
            opened.add(tree / name, arcname=f"./{name}")
    owner = Packing(platform=AMD64, owner=Owner.parse("root"))
    ours = tar_of(tree)
    assert tar_of(plain, owner) == ours
    (tmp_path / "tree.tar.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    assert tar_of(tmp_path / "tree.tar.zst", owner) == ours


def test_a_tar_keeps_its_owners_and_order(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        for name in ("z", "a"):
            info = tarfile.TarInfo(name)
            info.uid, info.gid = 12, 34
            opened.addfile(info)
    found = members(tar_of(tmp_path / "x.tar"))
    assert list(found) == [".", "z", "a"]
    assert (found["a"].uid, found["a"].gid) == (12, 34)


def test_several_sources_are_layers_in_order(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main").write_bytes(b"main")
    store = MemoryStore()
    _, manifest, config = image_of(tree, tmp_path / "app", store=store)
    assert len(manifest.layers) == len(config.diff_ids) == len(config.history) == 2
    upper = gzip.decompress(read_blob(store, manifest.layers[1].digest))
    assert list(members(upper)) == ["main"]  # the root directory is the lowest layer's
    alone, _, _ = image_of(tmp_path / "app", tree, store=store)
    assert alone.digest != manifest.config.digest


@pytest.mark.parametrize(
    ("compression", "media_type"),
    [("gzip:1", LAYER_GZIP), ("zstd", LAYER_ZSTD), ("zstd:19", LAYER_ZSTD), ("none", LAYER_TAR)],
)
def test_compressions_hold_one_tar(compression: str, media_type: str, tree: Path) -> None:
    packing = Packing(platform=AMD64, compression=compression)
    _, manifest, config = image_of(tree, store=MemoryStore(), packing=packing)
    assert manifest.layers[0].media_type == media_type
    assert config.diff_ids[0] == Digest.of(tar_of(tree))


def test_unknown_compression(tree: Path) -> None:
    for text in ("lz4", "gzip:0", "none:1", "zstd:23"):
        with pytest.raises(RecipeError):
            image_of(tree, store=MemoryStore(), packing=Packing(platform=AMD64, compression=text))


def noise(seed: int) -> Iterator[Member]:
    """More blocks than are in flight, members that end before, at and after a block's end, and holes."""
    rng = random.Random(seed)
    for number, size in enumerate(
        [0, 1, 511, 512, 513, MEMBER_SIZE - 1024, MEMBER_SIZE, 5, 9 * MEMBER_SIZE + 77, 0, 3]
    ):
        source = io.BytesIO(rng.randbytes(1000) * (size // 1000 + 1))
        yield Member(
            header(path=b"%d" % number, kind=Kind.FILE, mode=0o644, size=size),
            size,
            lambda view, source=source: view.__setitem__(slice(None), source.read(len(view))),  # type: ignore[misc]
        )
    hole = 6 * MEMBER_SIZE + 3
    yield Member(
        header(path=b"sparse", kind=Kind.FILE, mode=0o644, size=hole + 5),
        hole + 5,
        lambda view: view.__setitem__(slice(None), b"data!"),
        [(hole, True), (5, False)],
    )


@pytest.mark.parametrize("compression", ["gzip:1", "zstd:1", "none"])
def test_threads_do_not_change_the_bytes_and_the_blocks_are_those_of_pack(compression: str) -> None:
    store = MemoryStore()
    layers = {pack_stream(noise(1), store, created_by="", compression=compression, threads=n) for n in (1, 2, 7)}
    (layer,) = layers
    whole = b"".join(_expected(noise(1))) + bytes(1024)
    assert layer.diff_id == Digest.of(whole)
    blocks = [whole[at : at + MEMBER_SIZE] for at in range(0, len(whole), MEMBER_SIZE)]
    compress = stream_module.codec_of(compression)[0].compressor(1)
    assert layer.descriptor.digest == Digest.of(b"".join(compress(block) for block in blocks))


def _expected(listed: Iterator[Member]) -> Iterator[bytes]:
    for head, size, fill, runs in listed:
        data = bytearray(size)
        at = 0
        for length, is_hole in runs or [(size, False)]:
            if not is_hole and length:
                assert fill is not None
                fill(memoryview(data)[at : at + length])
            at += length
        yield head + data + bytes(-size % 512)


def test_a_failure_in_the_middle_leaves_nothing_and_ends(tree: Path) -> None:
    def failing() -> Iterator[Member]:
        yield from noise(2)
        raise HostError("a file changed while it was read")

    store = MemoryStore()
    with pytest.raises(HostError):
        pack_stream(failing(), store, created_by="", compression="gzip:1")
    assert store.blobs == {}


def test_progress_counts_the_tar() -> None:
    seen: list[int] = []
    layer = pack_stream(noise(3), MemoryStore(), created_by="", compression="none", on_block=seen.append)
    assert sum(seen) == layer.descriptor.size


@pytest.mark.parametrize("name", [".wh.a", "d/.wh..wh..opq", ".wh.d/a"])
def test_a_whiteouts_name_is_refused_in_a_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / "t" / name).parent.mkdir(parents=True)
    (tmp_path / "t" / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match="whiteout") as caught:
        image_of(tmp_path / "t", store=MemoryStore())
    assert caught.value.at in (name, ".wh.d")


def layer_tar(*members: tuple[str, bytes, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.mode = len(content), kind, 0o755
            opened.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def test_a_tars_whiteouts_hide_what_lies_below_it(tmp_path: Path) -> None:
    for name, data in (
        ("lower", layer_tar(("a/x", b"x", tarfile.REGTYPE), ("b/x", b"x", tarfile.REGTYPE), ("c", b"", b"0"))),
        ("upper", layer_tar((".wh.c", b"", b"0"), ("b/.wh..wh..opq", b"", b"0"), ("b/y", b"y", b"0"))),
    ):
        (tmp_path / name).write_bytes(data)
    store = MemoryStore()
    found, manifest, config = image_of(tmp_path / "lower", tmp_path / "upper", store=store)
    assert list(members(gzip.decompress(read_blob(store, manifest.layers[1].digest)))) == [
        ".wh.c",
        "b/.wh..wh..opq",
        "b/y",
    ]
    image = stored_image(found, store, "x")
    tree = flatten(zip(manifest.layers, config.diff_ids, strict=True), image.fetch, store)
    assert list(tree) == ["a/x", "b/y"]
    with pytest.raises(IntegrityError, match="whiteout") as caught:  # there is nothing below the lowest layer
        image_of(tmp_path / "upper", store=MemoryStore())
    assert caught.value.at == ".wh.c"


@pytest.mark.parametrize(
    "member",
    [
        (".wh.", b"", b"0"),
        (".wh..", b"", b"0"),
        ("d/.wh...", b"", b"0"),
        (".wh..wh.plnk", b"", b"0"),
        (".wh.x", b"content", b"0"),
        (".wh.x", b"", tarfile.DIRTYPE),
        (".wh.x/y", b"", b"0"),
    ],
)
def test_what_looks_like_a_whiteout_and_is_none(member: tuple[str, bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "lower").write_bytes(layer_tar(("x", b"", b"0")))
    (tmp_path / "upper").write_bytes(layer_tar(member))
    with pytest.raises(IntegrityError, match="whiteout") as caught:
        image_of(tmp_path / "lower", tmp_path / "upper", store=MemoryStore())
    assert str(caught.value.at).startswith(member[0].partition("/y")[0])


names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.just("\udcfe"), min_size=1, max_size=60
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(os.fsencode(name)) <= 255)
small = st.dictionaries(names, st.binary(max_size=1500) | st.none(), max_size=6)


@settings(max_examples=40, deadline=None)
@given(small, st.randoms())
def test_a_directory_is_its_tree(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, bytes | None], order: random.Random
) -> None:
    """What is packed of a directory is what `pack` makes of the same Tree, one section after another."""
    place = tmp_path_factory.mktemp("drawn")
    listed = list(drawn.items())
    order.shuffle(listed)
    for name, content in listed:
        if content is None:
            (place / name).mkdir(mode=0o755)
        else:
            (place / name).write_bytes(content)
            (place / name).chmod(0o644)
    same = Tree([directory(n) if c is None else file(n, c) for n, c in drawn.items()])
    assert tar_of(place) == b"".join(archive(same, MemoryStore(), epoch=0, lowest=True))


numbers = st.integers(-(2**33), 2**40)
ids = st.integers(0, 2**32 - 2)


@settings(max_examples=200, deadline=None)
@given(names, ids, ids, st.integers(0, 2**40), numbers, st.integers(0, 0o7777))
def test_headers_read_back(name: str, uid: int, gid: int, size: int, mtime: int, mode: int) -> None:
    """tarfile reads every header back, the quick form and the other."""
    path = name.encode("utf-8", "surrogateescape")
    block = header(path=path, kind=Kind.FILE, mode=mode, uid=uid, gid=gid, size=size, mtime=mtime)
    assert len(block) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(block), mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
        member = opened.firstmember  # type: ignore[attr-defined]
    assert (member.name, member.uid, member.gid, member.size, member.mtime, member.mode) == (
        name,
        uid,
        gid,
        size,
        mtime,
        mode,
    )


def test_links_in_a_tree_and_in_a_directory_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/b").write_bytes(b"data")
    os.link(tmp_path / "t/b", tmp_path / "t/a")
    (tmp_path / "t/s").symlink_to("a")
    (tmp_path / "t/b").chmod(0o644)
    same = Tree([file("b", b"data"), FileEntry(path="a", kind=Kind.HARDLINK, link="b"), symlink("s", "a")])
    store = MemoryStore()
    layer = pack(same, store, created_by="", epoch=0, lowest=True)
    assert gzip.decompress(store.blobs[layer.descriptor.digest]) == tar_of(tmp_path / "t")
