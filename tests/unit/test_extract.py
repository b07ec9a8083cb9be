"""Trees to the host's disk and back."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rootfs.collect import collect
from rootfs.errors import HostError, IntegrityError
from rootfs.extract import extract
from rootfs.ports import Store, read_content
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

ODD_NAME = os.fsdecode(b"caf\xe9 \n\\")


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store whose streams have a file behind them, and one whose streams have none."""
    return DiskStore(tmp_path / "store") if request.param == "disk" else MemoryStore()


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A directory with one of everything a Tree can hold."""
    top = tmp_path / "sample"
    for name in ("bin", "a", "empty", "shut"):
        (top / name).mkdir(parents=True)
    (top / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (top / "bin/tool").chmod(0o755)
    (top / "a/big").write_bytes(bytes(range(256)) * 9000)
    (top / "a.b").write_bytes(b"after a/")
    (top / "a/none").touch()
    (top / "a" / ODD_NAME).write_bytes(b"odd")
    (top / "zz-same").hardlink_to(top / "a/big")
    (top / "bin/link").symlink_to("/bin/nowhere")
    (top / "loop").symlink_to("loop")
    (top / "shut/in").write_bytes(b"in")
    (top / "shut/in").chmod(0o400)
    (top / "shut").chmod(0o555)
    return top


def test_collect_states_what_lies_there(sample: Path, store: Store) -> None:
    tree = collect(sample, store)
    assert list(tree) == [
        "a", "a/big", f"a/{ODD_NAME}", "a/none", "a.b", "bin", "bin/link", "bin/tool", "empty", "loop", "shut",
        "shut/in", "zz-same",
    ]  # fmt: skip
    assert tree["zz-same"] == FileEntry(path="zz-same", kind=Kind.HARDLINK, link="a/big")
    assert tree["bin/link"] == symlink("bin/link", "/bin/nowhere")
    assert tree["a/none"] == file("a/none", b"")
    assert (tree["bin/tool"].mode, tree["shut"].mode, tree["shut/in"].mode) == (0o755, 0o555, 0o400)
    assert read_content(store, tree["a/big"].content) == bytes(range(256)) * 9000
    assert read_content(store, tree["a.b"].content) == b"after a/"
    assert {(e.uid, e.gid, e.mtime) for e in tree.values()} == {(0, 0, 0)}
    assert len({e.content.blob for e in tree.values() if isinstance(e.content, Slice)}) == 1


def test_a_prefix_is_put_before_every_path(sample: Path, store: Store) -> None:
    tree = collect(sample, store, prefix="usr/local")
    assert tree["usr/local/zz-same"].link == "usr/local/a/big"
    assert "usr" not in tree
    assert "usr/local" not in tree


def test_what_was_extracted_is_what_was_collected(sample: Path, store: Store, tmp_path: Path) -> None:
    tree = collect(sample, store)
    extract(tree, store, tmp_path / "copy")
    assert collect(tmp_path / "copy", store) == tree
    assert (tmp_path / "copy/a/big").samefile(tmp_path / "copy/zz-same")
    assert all(path.lstat().st_mtime == 0 for path in (tmp_path / "copy").rglob("*"))


def test_the_umask_changes_nothing(sample: Path, store: Store, tmp_path: Path) -> None:
    tree = collect(sample, store)
    before = os.umask(0o077)
    try:
        extract(tree, store, tmp_path / "copy")
    finally:
        os.umask(before)
    assert collect(tmp_path / "copy", store) == tree
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o755


def test_sockets_and_fifos_stay_behind(store: Store, tmp_path: Path) -> None:
    top = tmp_path / "d"
    top.mkdir()
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(top / "socket"))
        assert len(collect(top, store)) == 0


def test_owners_setuid_and_devices_stay_in_the_tree(store: Store, tmp_path: Path) -> None:
    tree = Tree(
        [
            file("sbin/su", b"x", mode=0o4755, uid=0, gid=42),
            FileEntry(path="dev/null", kind=Kind.CHARACTER, device=(1, 3)),
            FileEntry(path="run/pipe", kind=Kind.FIFO),
            directory("tmp", mode=0o1777),
        ]
    )
    extract(tree, store, tmp_path / "root")
    assert (tmp_path / "root/sbin/su").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "root/sbin/su").stat().st_uid == os.getuid()
    assert (tmp_path / "root/tmp").stat().st_mode & 0o7777 == 0o777
    assert list((tmp_path / "root/dev").iterdir()) == []
    assert list((tmp_path / "root/run").iterdir()) == []


OWNED = Tree(
    [
        directory("d", mode=0o2750, uid=7, gid=8),
        FileEntry(
            path="d/su", kind=Kind.FILE, mode=0o4755, uid=9, content=b"x", mtime=5, xattrs=(("user.note", b"\0n"),)
        ),
        FileEntry(path="d/link", kind=Kind.SYMLINK, link="su", uid=10, gid=11),
        FileEntry(path="d/pipe", kind=Kind.FIFO, mode=0o620, uid=12),
        FileEntry(path="d/same", kind=Kind.HARDLINK, link="d/su"),
    ]
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_may_have_the_owners_too(store: Store, tmp_path: Path) -> None:
    extract(OWNED, store, tmp_path / "root", owners=True)
    found = {path.name: path.lstat() for path in (tmp_path / "root").rglob("*")}
    assert {name: (s.st_uid, s.st_gid) for name, s in found.items()} == {
        "d": (7, 8), "su": (9, 0), "link": (10, 11), "pipe": (12, 0), "same": (9, 0),
    }  # fmt: skip
    assert [oct(found[name].st_mode & 0o7777) for name in ("d", "su", "pipe")] == ["0o2750", "0o4755", "0o620"]
    assert stat.S_ISFIFO(found["pipe"].st_mode)
    assert (found["su"].st_mtime, found["su"].st_nlink) == (5, 2)
    assert os.getxattr(tmp_path / "root/d/su", "user.note") == b"\0n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_root_may_have_devices(store: Store, tmp_path: Path) -> None:
    null = FileEntry(path="null", kind=Kind.CHARACTER, mode=0o666, device=(1, 3))
    try:
        extract(Tree([null]), store, tmp_path / "root", owners=True)
    except HostError as error:
        pytest.skip(f"no right to make a device node: {error.because}")
    found = (tmp_path / "root/null").stat()
    assert (found.st_rdev, stat.filemode(found.st_mode)) == (os.makedev(1, 3), "crw-rw-rw-")


def test_who_is_not_root_cannot_have_owners(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="root"):
        extract(OWNED, store, tmp_path / "root", owners=True)
    assert not (tmp_path / "root").exists()


def test_mtimes_are_the_entries(store: Store, tmp_path: Path) -> None:
    entries = [directory("d"), file("d/f", b"x"), symlink("d/l", "f")]
    extract(Tree(replace(entry, mtime=1234567) for entry in entries), store, tmp_path / "root")
    assert {path.lstat().st_mtime for path in (tmp_path / "root").rglob("*")} == {1234567.0}


def hardlink(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, kind=Kind.HARDLINK, link=target)


@pytest.mark.parametrize(
    "entries",
    [
        [symlink("lib", "/etc"), file("lib/passwd", b"x")],
        [symlink("lib", "/etc"), file("lib/deep/passwd", b"x")],
        [file("f", b""), file("f/g", b"")],
        [hardlink("h", "nowhere")],
        [hardlink("h", "../../etc/passwd")],
        [hardlink("h", "/etc/passwd")],
        [directory("d"), hardlink("h", "d")],
        [hardlink("h", "i"), hardlink("i", "h")],
    ],
)
def test_a_tree_that_leads_out_of_itself_is_refused(entries: list[FileEntry], store: Store, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        extract(Tree(entries), store, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert not (tmp_path / "root.partial").exists()


def test_a_link_to_a_link_is_a_link_to_its_file(store: Store, tmp_path: Path) -> None:
    extract(Tree([hardlink("a", "b"), hardlink("b", "c"), file("c", b"x")]), store, tmp_path / "root")
    assert (tmp_path / "root/a").stat().st_nlink == 3


def _too_long(store: Store) -> Slice:
    return Slice(blob=store.put([b"short"]).digest, offset=2, size=4)


def _absent(store: Store) -> Slice:
    return Slice(blob=MemoryStore().put([b"never stored"]).digest, offset=0, size=4)


@pytest.mark.parametrize("content", [_too_long, _absent])
def test_all_or_nothing(content: Callable[[Store], Slice], store: Store, tmp_path: Path) -> None:
    tree = Tree([file("a", b"x"), FileEntry(path="b", kind=Kind.FILE, content=content(store))])
    with pytest.raises(IntegrityError):
        extract(tree, store, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert not (tmp_path / "root.partial").exists()


def test_the_remains_of_an_interrupted_run_are_replaced(store: Store, tmp_path: Path) -> None:
    left = tmp_path / "root.partial/old"
    left.mkdir(parents=True)
    (left / "x").touch()
    left.chmod(0o555)
    extract(Tree([file("a", b"x")]), store, tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["a"]


def test_what_is_there_is_not_written_over(store: Store, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(HostError, match="root"):
        extract(Tree([file("a", b"x")]), store, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_directory_that_is_not_there_is_the_hosts_trouble(store: Store, tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        collect(tmp_path / "nowhere", store)
    assert caught.value.at == str(tmp_path / "nowhere")
