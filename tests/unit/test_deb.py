"""Reading .debs: real ones made by dpkg-deb, and archives made to do harm."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rootfs.debian.deb import Unpacked, unpack
from rootfs.errors import IntegrityError
from rootfs.ports import read_content
from rootfs.store import DiskStore
from rootfs.tree import Kind
from tests.fakes.store import MemoryStore

CONTROL = b"Package: a\nVersion: 1\nArchitecture: all\n"


def ar(*members: tuple[str, bytes]) -> bytes:
    """An ar archive (deb(5))."""
    data = b"!<arch>\n"
    for name, content in members:
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


def tar(*members: tarfile.TarInfo, contents: bytes = b"") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(contents) if member.isreg() else None)
    return lzma.compress(stream.getvalue())


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def control_tar() -> bytes:
    return tar(member("./control", size=len(CONTROL)), contents=CONTROL)


def deb(data_tar: bytes, name: str = "data.tar.xz") -> bytes:
    return ar(("debian-binary", b"2.0\n"), ("control.tar.xz", control_tar()), (name, data_tar))


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar.gz", "data.tar.bz2"])
def test_a_damaged_stream_is_the_package_s_fault_not_the_disk_s(tmp_path: Path, name: str) -> None:
    plain = lzma.decompress(tar(member("./x", size=4), contents=b"data"))
    compressed = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}[name.rpartition(".")[2]](plain)
    damaged = compressed[:30] + b"damage" + compressed[36:]
    with pytest.raises(IntegrityError, match="refused"):
        unpack(io.BytesIO(deb(damaged, name=name)), DiskStore(tmp_path), "a 1")
    assert not (tmp_path / "blobs").exists()


def read(data: bytes) -> Unpacked:
    return unpack(io.BytesIO(data), MemoryStore(), "a 1")


@pytest.mark.parametrize("compression", ["xz", "gzip", "none"])
def test_a_deb_made_by_dpkg_deb_is_read_whole(tmp_path: Path, compression: str, peer: Callable[[str], str]) -> None:
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: a\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: y\n"
    )
    (root / "DEBIAN" / "postinst").write_text("#!/bin/sh\n")
    (root / "DEBIAN" / "postinst").chmod(0o755)
    (root / "usr").mkdir()
    (root / "usr" / "file").write_text("content")
    (root / "usr" / "file").chmod(0o4755)
    (root / "usr" / "link").symlink_to("file")
    (root / "usr" / "hard").hardlink_to(root / "usr" / "file")
    long_name = "n" * 120
    (root / "usr" / long_name).write_text("")
    path = tmp_path / "a.deb"
    build = [peer("dpkg-deb"), f"-Z{compression}", "--root-owner-group", "--build", str(root), str(path)]
    subprocess.run(build, check=True, capture_output=True)
    store = MemoryStore()
    with path.open("rb") as stream:
        unpacked = unpack(stream, store, "a 1")
    assert unpacked.package.name == "a"
    assert unpacked.control["postinst"] == b"#!/bin/sh\n"
    tree = unpacked.tree
    assert set(tree) == {"usr", "usr/file", "usr/link", "usr/hard", f"usr/{long_name}"}
    files = [entry for entry in tree.values() if entry.kind is Kind.FILE and entry.size]
    links = [entry for entry in tree.values() if entry.kind is Kind.HARDLINK]
    assert [(e.mode, read_content(store, e.content)) for e in files] == [(0o4755, b"content")]
    assert [e.link for e in links] == [files[0].path]
    assert tree["usr/link"].link == "file"
    again = Unpacked.from_bytes(unpacked.to_bytes())
    assert again.to_bytes() == unpacked.to_bytes()
    assert again.package == unpacked.package


def directory(name: str) -> tarfile.TarInfo:
    return member(name, type=tarfile.DIRTYPE)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return member(name, type=kind, linkname=target)


HOSTILE = {
    "climbs out": [member("../../etc/passwd")],
    "absolute": [member("/etc/passwd")],
    "climbs in the middle": [member("./a/../../b")],
    "block device": [member("./dev/sda", type=tarfile.BLKTYPE)],
    "character device": [member("./dev/null", type=tarfile.CHRTYPE)],
    "fifo": [member("./pipe", type=tarfile.FIFOTYPE)],
    "sparse file": [member("./sparse", type=tarfile.GNUTYPE_SPARSE)],
    "unknown type": [member("./unknown", type=b"Z")],
    "hard link out": [link("./hard", "../../etc/shadow", tarfile.LNKTYPE)],
    "hard link to nothing": [link("./hard", "./gone", tarfile.LNKTYPE)],
    "hard link to a symlink": [link("./s", "x"), link("./hard", "./s", tarfile.LNKTYPE)],
    "hard link to itself": [link("./hard", "./hard", tarfile.LNKTYPE)],
    "symlink without target": [link("./empty", "")],
    "twice": [member("./x"), member("x")],
    "directory and file": [directory("./x"), member("x")],
    "through a symlink": [link("./lib", "/etc"), member("./lib/passwd")],
    "through a symlink, deeper": [link("./lib", "usr"), directory("./lib/a/b"), member("./lib/a/b/c")],
    "through a later symlink": [member("./lib/passwd"), link("./lib", "/etc")],
    "through a file": [member("./file"), member("./file/below")],
    "through a hard link": [member("./file"), link("./hard", "./file", tarfile.LNKTYPE), member("./hard/below")],
    "line break": [member("./a\n/etc/shadow")],
    "root is a link": [link("./", "/etc")],
    "very long name": [member("./" + "n/" * 2100 + "n")],
    "directory with content": [member("./big", type=tarfile.DIRTYPE, size=1)],
    "owner beyond 32 bits": [member("./x", uid=1 << 33)],
    "before 1970": [member("./x", mtime=-1)],
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_data_tar_that_no_honest_tool_makes_is_refused_by_name(hostile: list[tarfile.TarInfo]) -> None:
    with pytest.raises(IntegrityError) as caught:
        read(deb(tar(*hostile)))
    assert caught.value.message == "refused .deb: a 1"
    names = {info.name.strip("./")[:20] for info in hostile} - {""}
    assert not names or any(name in f"{caught.value.at} {caught.value.because}" for name in names)


def test_a_pax_header_is_refused_as_by_dpkg() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"size": "9" * 30}) as archive:
        archive.addfile(member("./x", pax_headers={"path": "../../etc/passwd"}))
    with pytest.raises(IntegrityError, match="refused") as caught:
        read(deb(lzma.compress(stream.getvalue())))
    assert "pax header" in (caught.value.because or "")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_the_forms_deb_5_allows_are_read(form: int) -> None:
    names = ["./short", "./" + "d" * 90 + "/" + "n" * 90, "./caf\udce9"]
    infos = [member(name, size=4, uid=7, gid=8, mtime=9, mode=0o4711) for name in names]
    if form == tarfile.GNU_FORMAT:
        infos += [member("./" + "e" * 300, size=4), link("./l", "t" * 300), member("./late", size=4, mtime=1 << 34)]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form, errors="surrogateescape") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(b"data") if info.isreg() else None)
    store = MemoryStore()
    tree = unpack(io.BytesIO(deb(stream.getvalue(), name="data.tar")), store, "a 1").tree
    assert set(tree) == {info.name.removeprefix("./") for info in infos}
    for info in infos:
        entry = tree[info.name.removeprefix("./")]
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (info.mode, info.uid, info.gid, info.mtime)
        assert entry.link == info.linkname
        assert read_content(store, entry.content) == (b"data" if info.isreg() else b"")
    whole = read(WHOLE)
    assert Unpacked.from_bytes(replace(whole, tree=tree).to_bytes()) == replace(whole, tree=tree)


def _patched(offset: int, field: bytes) -> bytes:
    """A data.tar of one file with bytes of its header replaced, and the checksum made good."""
    stream = bytearray(lzma.decompress(tar(member("./x", size=4), contents=b"data")))
    stream[offset : offset + len(field)] = field
    stream[148:156] = b" " * 8
    stream[148:156] = f"{sum(stream[:512]):06o}\0 ".encode()
    return bytes(stream)


@pytest.mark.parametrize(
    ("offset", "field"),
    [
        (124, b"77777777777\0"),
        (124, b"00000024001\0"),
        (124, b"\x80" + b"\xff" * 11),
        (124, b"\xff" * 12),
        (124, b"-0000000004\0"),
        (124, b"0o000000004\0"),
        (124, b"0_000000004\0"),
        (124, b"00000000009\0"),
        (124, b"0000\x000004\0\0\0"),
        (100, b"0000abc\0"),
        (0, b"\0" * 100),
    ],
)
def test_a_tar_header_that_lies_is_refused(offset: int, field: bytes) -> None:
    assert list(read(deb(_patched(0, b"./y\0"), name="data.tar")).tree) == ["y"]
    with pytest.raises(IntegrityError, match="refused"):
        read(deb(_patched(offset, field), name="data.tar"))


def test_a_tar_without_its_end_is_refused() -> None:
    whole = lzma.decompress(tar(member("./x", size=4), contents=b"data"))
    for length in (0, 100, 512, 1000, 1024, 1030):
        with pytest.raises(IntegrityError, match="refused"):
            read(deb(whole[:length], name="data.tar"))


@pytest.mark.parametrize(
    "members",
    [
        [link("./postinst", "/etc/passwd")],
        [link("./postinst", "./control", tarfile.LNKTYPE)],
        [directory("./sub")],
        [member("./sub/postinst")],
        [member("./postinst"), member("postinst")],
        [member("./list")],
        [member("./.hidden")],
        [member("./a\nb")],
        [member("./pipe", type=tarfile.FIFOTYPE)],
    ],
)
def test_a_control_tar_with_more_than_plain_files_is_refused(members: list[tarfile.TarInfo]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(member("./control", size=len(CONTROL)), io.BytesIO(CONTROL))
        for info in members:
            archive.addfile(info)
    data = ar(("debian-binary", b"2.0\n"), ("control.tar", stream.getvalue()), ("data.tar.xz", tar()))
    with pytest.raises(IntegrityError, match="refused"):
        read(data)


def _zeros(size: int) -> Iterator[bytes]:
    for _ in range(size >> 20):
        yield bytes(1 << 20)


@pytest.mark.parametrize("compression", ["xz", "gz"])
def test_a_bomb_is_refused_before_it_fills_memory_or_disk(monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    monkeypatch.setattr("rootfs.debian.deb._DATA_LIMIT", 8 << 20)
    compressor = lzma.LZMACompressor() if compression == "xz" else zlib.compressobj(wbits=31)
    bomb = b"".join(compressor.compress(chunk) for chunk in _zeros(64 << 20)) + compressor.flush()
    for data in (
        deb(bomb, name=f"data.tar.{compression}"),
        ar(("debian-binary", b"2.0\n"), (f"control.tar.{compression}", bomb)),
    ):
        tracemalloc.start()
        with pytest.raises(IntegrityError, match="refused") as caught:
            unpack(io.BytesIO(data), MemoryStore(), "a 1")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "larger than any honest one" in (caught.value.because or "")
        assert peak < 40 << 20


def test_an_xz_stream_that_asks_for_gigabytes_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(bytes(1024), check=lzma.CHECK_NONE, filters=filters))
    assert data[14:17] == b"\x21\x01\x10", "the LZMA2 filter's properties in the block header (xz-file-format 3.1)"
    data[16] = 40  # 4 GiB - 1
    data[20:24] = zlib.crc32(data[12:20]).to_bytes(4, "little")
    with pytest.raises(IntegrityError, match="refused") as caught:
        read(deb(bytes(data)))
    assert "limit" in (caught.value.because or "").lower()


@pytest.mark.parametrize("size", ["-5", "+5", "1_0", "0x10", "", "9999999999"])
def test_an_ar_member_that_lies_about_its_size_is_refused(size: str) -> None:
    header = f"{'debian-binary':<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode()
    with pytest.raises(IntegrityError):
        read(b"!<arch>\n" + header + b"2.0\n" + WHOLE[72:])


@pytest.mark.parametrize(
    "members",
    [
        ["control.tar.xz", "debian-binary", "data.tar.xz"],
        ["debian-binary", "data.tar.xz", "control.tar.xz"],
        ["debian-binary", "control.tar.xz", "control.tar.xz", "data.tar.xz"],
        ["debian-binary", "other", "control.tar.xz", "data.tar.xz"],
    ],
)
def test_members_in_another_order_than_deb_5_s_are_refused(members: list[str]) -> None:
    contents = {"debian-binary": b"2.0\n", "control.tar.xz": control_tar(), "data.tar.xz": tar(), "other": b"x"}
    with pytest.raises(IntegrityError, match="refused"):
        read(ar(*((name, contents[name]) for name in members)))


def test_members_for_later_versions_of_the_format_are_left_alone() -> None:
    """deb(5): names with an underscore before control.tar, anything after data.tar."""
    data = ar(
        ("debian-binary", b"2.1\n"),
        ("_odd", b"123"),
        ("control.tar.xz", control_tar()),
        ("data.tar.xz", tar(member("./x"))),
        ("_gpgorigin", b"signature"),
    )
    assert list(read(data).tree) == ["x"]


@pytest.mark.parametrize("name", ["data.tar.xz", "data.tar.gz", "data.tar.bz2"])
def test_bytes_after_a_compressed_stream_are_refused(name: str) -> None:
    plain = lzma.decompress(tar(member("./x")))
    compressed = {"xz": lzma.compress, "gz": gzip.compress, "bz2": bz2.compress}[name.rpartition(".")[2]](plain)
    assert list(read(deb(compressed, name=name)).tree) == ["x"]
    for damaged in (compressed + b"more", compressed + compressed, compressed[:-9]):
        with pytest.raises(IntegrityError):
            read(deb(damaged, name=name))


WHOLE = deb(tar(member("./x", size=4), contents=b"data"))


def test_the_archive_the_damage_is_done_to_is_sound() -> None:
    assert list(read(WHOLE).tree) == ["x"]


@pytest.mark.parametrize("length", [0, 4, 8, 40, 68, 72, 130, 200, len(WHOLE) // 2, len(WHOLE) - 40, len(WHOLE) - 8])
def test_a_truncated_deb_is_refused(length: int) -> None:
    with pytest.raises(IntegrityError):
        read(WHOLE[:length])


def test_every_flipped_byte_ends_in_the_same_tree_or_a_refusal() -> None:
    """The digest catches these first in a real run; here none may end in a traceback."""
    for position in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 0x40
        try:
            read(bytes(damaged))
        except IntegrityError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"!<arch>\n",
        ar(("debian-binary", b"3.0\n")),
        ar(("debian-binary", b"2.0\n"), ("control.tar.xz", control_tar())),
        deb(b"not xz"),
        deb(b"x", name="data.tar.lz4"),
    ],
    ids=["empty", "no members", "format 3", "no data", "not xz", "unknown compression"],
)
def test_what_is_no_deb_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read(data)
