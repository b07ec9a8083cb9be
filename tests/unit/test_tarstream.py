"""Foreign tars: every form and compression reads the same; what no honest tar holds is refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import zstandard

from rootfs.errors import IntegrityError
from rootfs.hosttree import Found
from rootfs.tarstream import read_tar
from rootfs.tree import Kind

PLAIN: Callable[[bytes], bytes] = bytes
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": PLAIN,
    "gzip": lambda data: gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.compress(data[:1000]) + zstandard.compress(data[1000:]),
}


class Pipe(io.RawIOBase):
    """Bytes that cannot be sought, a few at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data.read(min(len(buffer), 4999))
        buffer[: len(piece)] = piece
        return len(piece)


def read(data: bytes) -> dict[bytes, tuple[Found, bytes]]:
    found = {}
    for one in read_tar(Pipe(data), "the tar"):  # type: ignore[arg-type]
        content = bytearray()
        if one.content is not None:
            for length, is_hole in one.content.runs():
                piece = bytearray(length)
                if not is_hole:
                    one.content.fill(memoryview(piece))
                content += piece
        found[one.path] = one._replace(content=None), bytes(content)
    return found


def member(name: str, type_: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = type_
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


LONG = "/".join(["n" * 90] * 4)
SAMPLE = (
    (member("./", tarfile.DIRTYPE), b""),
    (member("./etc/", tarfile.DIRTYPE, mode=0o750, uid=3, gid=4, mtime=99), b""),
    (member("./etc/file", mode=0o4755, uid=2_500_000), b"content" * 1000),
    (member("etc/link", tarfile.SYMTYPE, linkname="../x"), b""),
    (member("etc/hard", tarfile.LNKTYPE, linkname="./etc/file"), b""),
    (member("null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    (member("pipe", tarfile.FIFOTYPE), b""),
    (member(LONG), b"x" * 512),
)


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_form_and_compression(compression: str, form: int) -> None:
    found = read(COMPRESSIONS[compression](tar(*SAMPLE, form=form)))
    assert list(found) == [b"etc", b"etc/file", b"etc/link", b"etc/hard", b"null", b"pipe", LONG.encode()]
    assert found[b"etc"][0][1:6] == (Kind.DIRECTORY, 0o750, 3, 4, 99)
    assert found[b"etc/file"][0][1:5] == (Kind.FILE, 0o4755, 2_500_000, 0)
    assert found[b"etc/file"][1] == b"content" * 1000
    assert (found[b"etc/hard"][0].kind, found[b"etc/hard"][0].link) == (Kind.HARDLINK, b"etc/file")
    assert found[b"etc/link"][0].link == b"../x"
    assert found[b"null"][0].device == (1, 3)
    assert found[LONG.encode()][1] == b"x" * 512


def test_attributes_and_times_of_pax() -> None:
    headers = {"SCHILY.xattr.security.capability": "\1\udcff", "SCHILY.xattr.security.selinux": "x", "mtime": "-1.5"}
    one, _ = read(tar((member("ping", pax_headers=headers), b"")))[b"ping"]
    assert one.xattrs == (("security.capability", b"\1\xff"),)
    assert one.mtime == -2


@pytest.mark.parametrize(
    ("members", "message", "at"),
    [
        ([member("/etc/passwd")], "leaves the root", "/etc/passwd"),
        ([member("a/../../b")], "leaves the root", "a/../../b"),
        ([member("a"), member("./a")], "twice", "a"),
        ([member("d", tarfile.DIRTYPE), member("d", tarfile.DIRTYPE, mode=0o700)], "twice", "d"),
        ([member("a", tarfile.SYMTYPE, linkname="/"), member("a/b")], "through what is no directory", "a/b"),
        ([member("a"), member("a/x/b")], "through what is no directory", "a/x/b"),
        ([member("a", tarfile.LNKTYPE, linkname="b"), member("b")], "did not come before", "a"),
        ([member("a", tarfile.LNKTYPE, linkname="a")], "did not come before", "a"),
        ([member("a", tarfile.LNKTYPE, linkname="../a")], "leaves the root", "a"),
        ([member("d", tarfile.DIRTYPE), member("a", tarfile.LNKTYPE, linkname="d")], "did not come before", "a"),
        ([member("a", tarfile.SYMTYPE)], "link to nowhere", "a"),
        ([member("label", b"V")], "no layer can", "label"),
        ([member("./")], "without a name", "./"),
    ],
)
def test_refused_by_name(members: list[tarfile.TarInfo], message: str, at: str) -> None:
    with pytest.raises(IntegrityError, match=message) as caught:
        read(tar(*((one, b"") for one in members), form=tarfile.GNU_FORMAT))
    assert caught.value.at == at


def test_a_directory_that_comes_again_as_it_was_is_one() -> None:
    again = [(member("d", tarfile.DIRTYPE), b""), (member("d/", tarfile.DIRTYPE), b"")]
    assert list(read(tar(*again))) == [b"d"]


WHOLE = tar(*SAMPLE)


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_cut_anywhere_it_is_refused_or_lacks_only_its_end(compression: str) -> None:
    data = COMPRESSIONS[compression](WHOLE)
    for cut in range(1, len(data), max(1, len(data) // 40)):
        try:
            found = read(data[:cut])
        except IntegrityError:
            continue
        assert compression == "plain"
        assert cut % 512 == 0 or len(found) == len(SAMPLE) - 1  # between members, or in the zeros at the end
        assert set(found) <= set(read(WHOLE))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 10_000,
        b"\x1f\x8b\x08 not gzip",
        b"\x28\xb5\x2f\xfd not zstd",
        b"\xfd7zXZ\0 not xz",
        b"BZh9 not bzip2",
        gzip.compress(b"not a tar" * 100),
        WHOLE + b"x",
        WHOLE + WHOLE,
        WHOLE[:512] + b"\1" * 512 + WHOLE[1024:],
    ],
    ids=["nothing", "text", "gzip", "zstd", "xz", "bzip2", "packed text", "one byte more", "two", "damaged"],
)
def test_what_is_no_tar_or_more_than_one(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        read(data)


def header(name: str, size: int, kind: bytes) -> bytes:
    return member(name, kind, size=size).tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_that_only_announce_headers(kind: bytes) -> None:
    text = b"6 a=b\n" if kind in b"xg" else b"abc\0"
    data = (header("h", len(text), kind) + text.ljust(512, b"\0")) * 5000 + tar((member("x"), b""))
    with pytest.raises(IntegrityError, match="damaged, or none") as caught:
        read(data)
    assert caught.value.at == "the tar"


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"S"])
def test_headers_that_fill_the_memory(kind: bytes) -> None:
    if kind == b"S":  # GNU's map of a sparse file: each block says that another one follows
        first = bytearray(header("sparse", 0, kind))
        first[482] = 1
        first[148:156] = b" " * 8
        first[148:156] = f"{sum(first):06o}\0 ".encode()
        more = (b"%011o\0%011o\0" % (0, 0) * 21).ljust(504, b"\0") + b"\1" + bytes(7)
        data = bytes(first) + more * 60_000
    else:
        data = header("huge", 1 << 30, kind) + bytes(30 << 20)
    data = gzip.compress(data, 1)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="damaged, or none") as caught:
            next(read_tar(io.BytesIO(data), "the tar"))
        assert "before one member" in str(caught.value.because)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_any_changed_byte_is_refused_or_harmless() -> None:
    """Reading ends, and with nothing but IntegrityError."""
    for position in range(0, 4096, 7):
        damaged = bytearray(WHOLE)
        damaged[position] ^= 0x41
        with suppress(IntegrityError):
            read(bytes(damaged))
