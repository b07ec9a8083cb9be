"""From the tar of a configured root to a Tree."""

from __future__ import annotations

import io
import tarfile

import pytest

from rootfs.errors import BuildError, IntegrityError
from rootfs.ports import read_content
from rootfs.readback import read_back
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

EPOCH = 1_000


def tar(*members: tuple[str, bytes, dict[str, object]]) -> io.BytesIO:
    """(name, content, fields of the header); a file unless `type` says otherwise."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), EPOCH + 5
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    stream.seek(0)
    return stream


DIRECTORY: dict[str, object] = {"type": tarfile.DIRTYPE, "mode": 0o755}


def link(target: str, kind: bytes = tarfile.SYMTYPE, **fields: object) -> dict[str, object]:
    return {"type": kind, "linkname": target, "mode": 0o777, **fields}


def read(stream: io.BytesIO, *packages: Tree, store: MemoryStore | None = None) -> Tree:
    return read_back(stream, store or MemoryStore(), packages, epoch=EPOCH)


def test_owners_modes_and_links_are_the_archives() -> None:
    tree = read(
        tar(
            ("./", b"", DIRECTORY),
            ("./etc/shadow", b"root", {"uid": 0, "gid": 42, "mode": 0o640}),
            ("./usr/bin/su", b"su", {"mode": 0o4755}),
            ("./usr/bin/zz", b"", link("./usr/bin/su", tarfile.LNKTYPE)),
            ("./var/lib/x", b"", {**DIRECTORY, "uid": 4242, "gid": 4243, "mode": 0o2700}),
            ("./var/run", b"", link("/run")),
            ("./var/pipe", b"", {"type": tarfile.FIFOTYPE}),
            ("./var/null", b"", {"type": tarfile.CHRTYPE}),
        )
    )
    assert list(tree) == ["etc/shadow", "usr/bin/su", "usr/bin/zz", "var/lib/x", "var/pipe", "var/run"]
    assert (tree["etc/shadow"].gid, tree["etc/shadow"].mode) == (42, 0o640)
    assert tree["usr/bin/su"].mode == 0o4755
    assert (tree["usr/bin/zz"].kind, tree["usr/bin/zz"].link) == (Kind.HARDLINK, "usr/bin/su")
    assert (tree["var/lib/x"].uid, tree["var/lib/x"].gid, tree["var/lib/x"].mode) == (4242, 4243, 0o2700)
    assert (tree["var/run"].link, tree["var/pipe"].kind) == ("/run", Kind.FIFO)


def test_a_file_as_its_package_has_it_keeps_its_place_in_the_store() -> None:
    store = MemoryStore()
    blob = store.put([b"onetwo---"]).digest
    pieces = {name: Slice(blob=blob, offset=at, size=3) for name, at in (("lib/one", 0), ("etc/two", 3))}
    package = Tree(FileEntry(path=path, kind=Kind.FILE, content=piece) for path, piece in pieces.items())
    tree = read(
        tar(
            ("etc/made", b"new", {}),
            ("etc/none", b"", {}),
            ("etc/two", b"TWO", {}),
            ("lib", b"", link("usr/lib")),
            ("usr/lib/one", b"one", {}),
            ("var/made", b"newer", {}),
        ),
        package,
        store=store,
    )
    assert tree["usr/lib/one"].content == pieces["lib/one"]
    assert tree["etc/none"].content == b""
    contents = {path: read_content(store, tree[path].content) for path in ("etc/made", "etc/two", "var/made")}
    assert contents == {"etc/made": b"new", "etc/two": b"TWO", "var/made": b"newer"}
    assert len({e.content.blob for e in (tree["etc/made"], tree["etc/two"]) if isinstance(e.content, Slice)}) == 1


def test_what_a_run_leaves_is_left_out_unless_a_package_brought_it() -> None:
    leftovers = ["etc/shadow-", "var/log/dpkg.log", "var/lib/dpkg/status-old", "run/x", "usr/sbin/policy-rc.d"]
    kept = ["run/lock", "var/log/wtmp", "var/log/shipped.log"]
    stream = tar(*((path, b"x", {}) for path in [*leftovers, *kept]))
    assert sorted(read(stream, Tree([file("var/log/shipped.log", b"y")]))) == sorted(kept)


def test_times() -> None:
    stream = tar(
        ("a", b"", {**DIRECTORY, "mtime": 5}),
        ("a/early", b"", {"mtime": 5.75}),
        ("a/late", b"", {}),
        ("a/made", b"", link("early", mtime=5)),
        ("a/shipped", b"", link("early", mtime=5)),
        ("var/lib/dpkg/info/a.postinst", b"", {"mtime": 5}),
    )
    tree = read(stream, Tree([symlink("a/shipped", "early")]))
    expected = {"a": EPOCH, "a/early": 5, "a/late": EPOCH, "a/made": EPOCH, "a/shipped": 5}
    assert {path: tree[path].mtime for path in expected} == expected
    assert tree["var/lib/dpkg/info/a.postinst"].mtime == EPOCH


def test_the_sandboxs_own_mounts_are_not_seen() -> None:
    stream = tar(("./proc", b"", {**DIRECTORY, "mode": 0o555}), ("./tmp", b"", {**DIRECTORY, "uid": 9}))
    tree = read(stream, Tree([directory("proc", 0o755), directory("tmp", 0o1777)]))
    assert (tree["proc"].mode, tree["tmp"].mode, tree["tmp"].uid) == (0o755, 0o1777, 0)


def test_attributes_are_bytes() -> None:
    capability = b"\x01\x00\x00\x02\x00\xff\xfe="
    text = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    tree = read(tar(("ping", b"x", {"pax_headers": text})))
    assert tree["ping"].xattrs == (("security.capability", capability),)


def test_an_archive_that_leads_out_is_refused() -> None:
    with pytest.raises(IntegrityError, match="leaves the tree"):
        read(tar(("../etc/passwd", b"x", {})))


def test_what_is_no_archive() -> None:
    with pytest.raises(BuildError, match="what dpkg configured"):
        read(io.BytesIO(b"no tar" * 200))
