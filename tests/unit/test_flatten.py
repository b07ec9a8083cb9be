"""Layers on top of each other -> a Tree: whiteouts, hard links, and what no honest layer holds."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci.descriptor import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor, verified
from builder.oci.flatten import flatten
from builder.oci.layer import pack
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import read_content
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

Member = tuple[str, bytes, dict[str, object]]
DIRECTORY: dict[str, object] = {"type": tarfile.DIRTYPE, "mode": 0o755}


def member(name: str, content: bytes = b"", **fields: object) -> Member:
    return name, content, fields


def folder(name: str, **fields: object) -> Member:
    return name, b"", {**DIRECTORY, **fields}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return name, b"", {"type": kind, "linkname": target}


def tar(*members: Member) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def plain(data: bytes) -> tuple[str, bytes]:
    return LAYER_TAR, data


def applied(
    *tars: bytes, store: MemoryStore | None = None, pack_as: Callable[[bytes], tuple[str, bytes]] = plain
) -> Tree:
    """The flattened image of these layers."""
    blobs, layers = {}, []
    for data in tars:
        media_type, blob = pack_as(data)
        descriptor = Descriptor.of(media_type, blob)
        blobs[descriptor.digest] = blob
        layers.append((descriptor, Digest.of(data)))

    def fetch(descriptor: Descriptor) -> Iterator[bytes]:
        blob = blobs[descriptor.digest]
        return verified((blob[at : at + 997] for at in range(0, len(blob), 997)), descriptor, "test")

    return flatten(layers, fetch, store or MemoryStore())


def said(tree: Tree) -> dict[str, str]:
    return {path: entry.kind.value for path, entry in tree.items()}


def test_later_layers_replace_and_merge() -> None:
    below = tar(folder("a", mode=0o700), member("a/x", b"old"), member("a/y", b"y"), member("f", b"f"))
    above = tar(folder("a", mode=0o755), member("a/x", b"new"), folder("f"), member("f/in", b"in"))
    store = MemoryStore()
    tree = applied(below, above, store=store)
    assert said(tree) == {"a": "dir", "a/x": "file", "a/y": "file", "f": "dir", "f/in": "file"}
    assert tree["a"].mode == 0o755
    assert read_content(store, tree["a/x"].content) == b"new"


def test_a_file_takes_the_place_of_a_directory_with_all_in_it() -> None:
    tree = applied(
        tar(folder("a"), member("a/x"), folder("a/b"), member("a/b/c"), member("ab")), tar(member("a", b"file"))
    )
    assert said(tree) == {"a": "file", "ab": "file"}


def test_whiteouts_hide_what_lies_below_and_only_that() -> None:
    below = tar(folder("a"), folder("a/b"), member("a/b/c"), member("a/bc"), member("gone"), member("again", b"old"))
    above = tar(
        member("again", b"new"), member(".wh.again"), member("a/.wh.b"), member(".wh.gone"), member(".wh.never")
    )
    store = MemoryStore()
    tree = applied(below, above, store=store)
    assert said(tree) == {"a": "dir", "a/bc": "file", "again": "file"}
    assert read_content(store, tree["again"].content) == b"new"


def test_an_opaque_directory_begins_anew_wherever_its_mark_stands() -> None:
    below = tar(folder("a", mode=0o700), member("a/old"), folder("a/sub"), member("a/sub/old"), member("b"))
    above = tar(member("a/new"), member("a/.wh..wh..opq"))
    assert said(applied(below, above)) == {"a": "dir", "a/new": "file", "b": "file"}
    assert said(applied(below, tar(member(".wh..wh..opq"), member("only")))) == {"only": "file"}


def test_aufs_own_files_are_no_files_of_the_image() -> None:
    assert said(applied(tar(folder(".wh..wh.plnk"), member(".wh..wh.aufs"), member("x")))) == {"x": "file"}


def test_hard_links_stay_one_file_also_when_a_name_is_replaced() -> None:
    store = MemoryStore()
    below = tar(member("z", b"one"), link("b", "z", tarfile.LNKTYPE), link("./c", "./z", tarfile.LNKTYPE))
    tree = applied(below, store=store)
    assert said(tree) == {"b": "file", "c": "hardlink", "z": "hardlink"}
    assert (tree["c"].link, tree["z"].link) == ("b", "b")
    tree = applied(below, tar(member("z", b"two"), link("d", "c", tarfile.LNKTYPE)), store=store)
    assert said(tree) == {"b": "file", "c": "hardlink", "d": "hardlink", "z": "file"}
    assert [read_content(store, tree[name].content) for name in ("b", "z")] == [b"one", b"two"]


def test_owners_modes_times_and_attributes_are_kept() -> None:
    pax = {"SCHILY.xattr.security.capability": b"\x01\x00\xff".decode("utf-8", "surrogateescape")}
    tree = applied(
        tar(
            folder("./"),
            member("x", b"x", mode=0o4755, uid=3, gid=70000, mtime=99, pax_headers=pax),
            link("l", "../nowhere/\xe9"),
            member("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            member("pipe", type=tarfile.FIFOTYPE),
        )
    )
    x = tree["x"]
    assert (x.mode, x.uid, x.gid, x.mtime) == (0o4755, 3, 70000, 99)
    assert x.xattrs == (("security.capability", b"\x01\x00\xff"),)
    assert (tree["l"].link, tree["dev"].device, tree["pipe"].kind) == ("../nowhere/\xe9", (1, 3), Kind.FIFO)


@pytest.mark.parametrize(
    ("media_type", "compress"),
    [
        (LAYER_TAR, lambda data: data),
        (LAYER_GZIP, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])),
        (LAYER_ZSTD, lambda data: zstandard.compress(data[:700]) + zstandard.compress(data[700:])),
    ],
)
def test_every_compression_gives_the_same_blob(media_type: str, compress: Callable[[bytes], bytes]) -> None:
    data, store = tar(member("x", b"content")), MemoryStore()
    tree = applied(data, store=store, pack_as=lambda data: (media_type, compress(data)))
    assert tree["x"].content == Slice(blob=Digest.of(data), offset=512, size=7)
    assert list(store.blobs) == [Digest.of(data)]


def test_what_we_pack_comes_back() -> None:
    store = MemoryStore()
    tree = Tree(
        [
            directory("a", mode=0o1777, uid=5),
            file("a/x", b"content", mode=0o640, gid=42),
            FileEntry(path="a/y", kind=Kind.HARDLINK, mode=0o640, gid=42, link="a/x"),
            symlink("l" * 300, "a/x"),
        ]
    )
    layer = pack(tree, store, created_by="test", epoch=0, compression="zstd", lowest=True)
    blob = store.blobs[layer.descriptor.digest]
    found = flatten([(layer.descriptor, layer.diff_id)], lambda _: iter([blob]), store)
    assert list(found) == list(tree)
    for path, entry in found.items():
        wanted = tree[path]
        assert (entry.kind, entry.mode, entry.uid, entry.gid, entry.link) == (
            (wanted.kind, wanted.mode, wanted.uid, wanted.gid, wanted.link)
        )
    assert read_content(store, found["a/x"].content) == b"content"


@pytest.mark.parametrize(
    ("members", "message", "at"),
    [
        ([member("/etc/passwd", b"x")], "an absolute path", "/etc/passwd"),
        ([member("a/../../x", b"x")], "leaves the image", "a/../../x"),
        ([link("a", "/etc"), member("a/passwd", b"x")], "through a symlink", "a/passwd"),
        ([member("a"), member("a/b")], "through a file", "a/b"),
        ([member("a/b"), member("a")], "through a file", "a/b"),
        ([link("x", "../../etc/passwd", tarfile.LNKTYPE)], "leaves the image", "x"),
        ([link("x", "/etc/passwd", tarfile.LNKTYPE)], "an absolute path", "x"),
        ([link("x", "nowhere", tarfile.LNKTYPE)], "a hard link to what is no file", "x"),
        ([folder("d"), link("x", "d", tarfile.LNKTYPE)], "a hard link to what is no file", "x"),
        ([link("x", "")], "a link to nowhere", "x"),
        ([member("etc/.wh.")], "a whiteout of nothing", "etc/.wh."),
        ([member("etc/.wh...")], "a whiteout of nothing", "etc/.wh..."),
        ([member("x", type=b"Z")], "a kind that we cannot keep", "x"),
        ([member("", b"x")], "a kind that we cannot keep", ""),
    ],
)
def test_hostile_members_are_refused_by_name(members: list[Member], message: str, at: str) -> None:
    with pytest.raises(IntegrityError, match=message) as caught:
        applied(tar(*members))
    assert caught.value.at == at


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("data", "message", "at"),
    [
        (header("big", 1 << 30) + bytes(2048), "beyond the end of its layer", "big"),
        (header("dir", 512, tarfile.DIRTYPE) + bytes(2048), "no file has content", "dir"),
        (header("x", 0) + b"\1" * 512 + bytes(1024), "bytes that are no member", None),
        (b"\1" * 10240, "no tar archive", None),
    ],
)
def test_lying_archives_are_refused(data: bytes, message: str, at: str | None) -> None:
    with pytest.raises(IntegrityError, match=message) as caught:
        applied(data)
    assert at is None or caught.value.at == at


def test_an_archive_without_an_end_is_read() -> None:
    """umoci 0.4 writes such layers, and every runtime takes them."""
    assert said(applied(tar(member("a", b"x"), member("b", b"xyz"))[: 512 * 3 + 3])) == {"a": "file", "b": "file"}


@pytest.mark.parametrize("damage", ["cut", "longer", "other", "diff id", "trailing"])
def test_bytes_that_are_not_the_described_ones_are_refused(damage: str) -> None:
    data = tar(member("x", b"content" * 999))
    blob = gzip.compress(data)
    descriptor, diff_id = Descriptor.of(LAYER_GZIP, blob), Digest.of(data)
    served = {"cut": blob[:-9], "longer": blob + b"x", "other": blob[:40] + b"?" + blob[41:]}.get(damage, blob)
    if damage == "diff id":
        diff_id = Digest.of(b"")
    if damage == "trailing":
        served = blob + b"garbage"
        descriptor = Descriptor.of(LAYER_GZIP, served)
    store = MemoryStore()
    with pytest.raises(IntegrityError) as caught:
        flatten([(descriptor, diff_id)], lambda wanted: verified([served], wanted, "where it lies"), store)
    assert caught.value.at in ("where it lies", str(descriptor.digest))
    assert not store.blobs


def test_what_is_no_layer_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a layer"):
        applied(tar(), pack_as=lambda data: ("application/octet-stream", data))


@given(st.binary(max_size=3000), st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_damage_is_an_integrity_error_and_nothing_else(junk: bytes, at: int) -> None:
    data = tar(folder("a"), member("a/x", b"x" * 600), link("l", "a/x"), member("y" * 200, b"y"))
    damaged = data[:at] + junk + data[at + len(junk) :]
    try:
        tree = applied(damaged)
    except IntegrityError:
        return
    assert all(not isinstance(entry.content, Slice) or entry.content.offset < len(damaged) for entry in tree.values())
