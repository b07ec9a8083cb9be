"""The targets of the Debian side: what each reads, its seeds, and that nothing but an OcibuildError may come out."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from contextlib import suppress
from functools import partial
from itertools import pairwise

from rootfs.debian.control import format_stanza, parse_stanza
from rootfs.debian.deb import Unpacked, unpack
from rootfs.debian.index import PackageIndex, PackagesFile
from rootfs.debian.package import Package
from rootfs.debian.relation import parse_relations
from rootfs.debian.version import Version
from rootfs.errors import OcibuildError
from rootfs.tree import Kind, parent
from tests.fakes.store import MemoryStore
from tests.fuzz.target import Target, checked, member, tar

CONTROL = b"Package: a\nVersion: 1:2.0~rc1-3\nArchitecture: all\nDepends: b (>= 1), c | d:any [amd64] <!x>\n"
STANZA = (
    b"Package: a\nVersion: 1\nArchitecture: amd64\nEssential: yes\nPriority: required\nProvides: p (= 1), q\n"
    b"Depends: b (>= 2:1~) | c, d:any\nConflicts: e (<< 3)\nDescription: short\n long\n .\n more\n"
    b"Filename: pool/a.deb\nSize: 12\nSHA256: " + b"0" * 64 + b"\n"
)


def ar(*members: tuple[str, bytes]) -> bytes:
    """An ar archive (deb(5))."""
    data = b"!<arch>\n"
    for name, content in members:
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


CONTROL_TAR = tar(member("./control", CONTROL), member("./md5sums", b"0  x\n"))
DATA_TAR = tar(
    member("./", type=tarfile.DIRTYPE),
    member("./usr", type=tarfile.DIRTYPE, mode=0o755),
    member("./usr/file", b"content", mode=0o4755, uid=1, gid=2, mtime=3),
    member("./usr/link", type=tarfile.SYMTYPE, linkname="file"),
    member("./usr/hard", type=tarfile.LNKTYPE, linkname="./usr/file"),
)


def deb(data: bytes, name: str = "data.tar", control: bytes = CONTROL_TAR) -> bytes:
    """A .deb around a data.tar."""
    return ar(("debian-binary", b"2.0\n"), ("control.tar", control), (name, data))


def read_deb(data: bytes) -> None:
    """A .deb; what is accepted must be a sound tree and survive being stored."""
    unpacked = unpack(io.BytesIO(data), MemoryStore(), "fuzzed")
    stored = unpacked.to_bytes()
    assert Unpacked.from_bytes(stored).to_bytes() == stored
    for path, entry in unpacked.tree.items():
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        up = unpacked.tree.get(parent(path))
        assert up is None or up.kind is Kind.DIRECTORY
        assert entry.kind is not Kind.HARDLINK or unpacked.tree[entry.link].kind is Kind.FILE


def read_tar(data: bytes) -> None:
    """A data.tar, with the checksums of its headers made good unless the last byte says otherwise."""
    read_deb(deb(checked(data)))


def read_control(data: bytes) -> None:
    """A control file; its fields come out the same when they are written and read again."""
    text = data.decode("utf-8", "surrogateescape")
    fields = parse_stanza(text)
    assert parse_stanza(format_stanza(fields)) == fields
    package = Package.parse(text)
    assert package.name
    assert package.version == package.version
    assert list(package.relations("Depends", "Conflicts")) is not None
    assert package.provides is not None


def read_version(data: bytes) -> None:
    """Two or three versions, one a line, which must be in some order."""
    texts = data.decode("utf-8", "surrogateescape").split("\n")[:3]
    versions = sorted(Version.parse(text) for text in texts)
    for one in versions:
        for other in versions:
            assert (one < other) + (one == other) + (one > other) == 1
            assert one != other or hash(one) == hash(other)
    assert all(one <= other for one, other in pairwise(versions))


def read_relation(data: bytes) -> None:
    """A relationship field; what is written of it reads the same."""
    clauses = parse_relations(data.decode("utf-8", "surrogateescape"))
    again = ", ".join(" | ".join(map(str, clause)) for clause in clauses)
    assert parse_relations(again) == clauses
    for clause in clauses:
        for relation in clause:
            assert relation.accepts(Version.parse("1")) in (True, False)


def read_packages(data: bytes) -> None:
    """A Packages file: all that a build asks of it."""
    file = PackagesFile.scan(data)
    assert PackagesFile.from_bytes(data, file.to_bytes()).to_bytes() == file.to_bytes()
    index = PackageIndex()
    index.add_file(file, "debian")
    for use in (index.essential, partial(index.with_priority, "required"), partial(index.providers, "p")):
        with suppress(OcibuildError):
            use()
    for name in index.names():
        assert index.mention(name)
        with suppress(OcibuildError):
            assert all((one.size, one.digest, one.filename) for one in index.named(name))


DEBIAN_TARGETS = {
    "ar": Target(
        read_deb,
        (
            deb(DATA_TAR),
            deb(lzma.compress(DATA_TAR), "data.tar.xz"),
            deb(gzip.compress(DATA_TAR, mtime=0), "data.tar.gz"),
            deb(b"", "data.tar"),
            ar(("debian-binary", b"2.0\n"), ("_x", b"1"), ("control.tar.xz", lzma.compress(CONTROL_TAR))),
            deb(DATA_TAR, control=tar(member("./control", CONTROL), member("./list"))),
        ),
        8192,
    ),
    "tar": Target(
        read_tar,
        (
            DATA_TAR,
            tar(member("./" + "n" * 120, b"x"), member("./l", type=tarfile.SYMTYPE, linkname="t" * 120)),
            tar(member("./" + "d" * 90 + "/" + "n" * 90), form=tarfile.USTAR_FORMAT),
            tar(member("./x", mtime=1 << 34), member("./x/y")),
            tar(member("./x", pax_headers={"path": "y"}), form=tarfile.PAX_FORMAT),
        ),
        6144,
    ),
    "control": Target(read_control, (CONTROL, STANZA, b"A:\n b\nC: d\n", b"# x\nA: 1\n\nB: 2\n"), 1024),
    "version": Target(
        read_version,
        (b"1.0\n1.0-0\n1.0~rc1", b"2:1.0+b1-3\n0~~\n0~~a", b"1-1-1\n1:1:1-1\n0", b"00001\n01\n1.a"),
        256,
    ),
    "relation": Target(
        read_relation,
        (
            b"a (>= 1:2.0~), b:any | c (<< 3) [amd64] <!nocheck>,\n d",
            b"a, ,b",
            b"a(=1)|b ( >> 2 )",
            b"a (< 1), b (> 2)",
        ),
        512,
    ),
    "packages": Target(read_packages, (STANZA, STANZA + b"\n" + STANZA.replace(b": a\n", b": b\n"), CONTROL), 2048),
}
