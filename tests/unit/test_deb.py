"""Reading .debs: real ones made by dpkg-deb, and archives made to do harm."""

from __future__ import annotations

import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.debian.deb import Unpacked, unpack
from rootfs.errors import IntegrityError
from rootfs.ports import read_content
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
    with tarfile.open(fileobj=stream, mode="w") as archive:
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


@pytest.mark.parametrize(
    "hostile",
    [
        member("../../etc/passwd"),
        member("/etc/passwd"),
        member("./a/../../b"),
        member("./dev/sda", type=tarfile.BLKTYPE),
        member("./dev/null", type=tarfile.CHRTYPE),
        member("./pipe", type=tarfile.FIFOTYPE),
        member("./hard", type=tarfile.LNKTYPE, linkname="../../etc/shadow"),
    ],
    ids=lambda info: info.name,
)
def test_a_member_that_would_leave_the_tree_or_is_no_file_is_refused(hostile: tarfile.TarInfo) -> None:
    with pytest.raises(IntegrityError) as caught:
        read(deb(tar(member("./", type=tarfile.DIRTYPE), hostile)))
    assert "a 1" in caught.value.message


def test_a_path_named_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="a 1"):
        read(deb(tar(member("./x"), member("x"))))


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
