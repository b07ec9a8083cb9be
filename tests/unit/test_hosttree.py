"""Reading a directory: what is on the disk, in one order, each byte once, and nothing that changed meanwhile."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.errors import HostError
from rootfs.hosttree import Found, read_tree
from rootfs.tree import Kind, path_order

Seen = dict[bytes, tuple[Found, bytes]]


def seen(directory: Path, on_skip: Callable[[str, str], None] = lambda *_: None) -> Seen:
    """Every name with its content; what is a hole is zeros."""
    found: Seen = {}
    for one in read_tree(directory, on_skip=on_skip):
        data = bytearray()
        if one.content is not None:
            for length, is_hole in one.content.runs():
                piece = bytearray(length)
                if not is_hole:
                    one.content.fill(memoryview(piece))
                data += piece
        found[one.path] = one._replace(content=None), bytes(data)
    return found


def disturbed(directory: Path, disturb: Callable[[Found], object]) -> None:
    """Read a directory while something is done to it at every name."""
    for one in read_tree(directory, on_skip=lambda *_: None):
        disturb(one)


def test_kinds_modes_links_and_contents(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "d/file").write_bytes(b"content")
    (tmp_path / "d/file").chmod(0o4711)
    os.utime(tmp_path / "d/file", ns=(0, 5_999_999_999))
    os.link(tmp_path / "d/file", tmp_path / "a-link")
    (tmp_path / "to-nowhere").symlink_to("../nowhere")
    os.mkfifo(tmp_path / "fifo", 0o600)
    found = seen(tmp_path)
    assert list(found) == [b"a-link", b"d", b"d/file", b"fifo", b"to-nowhere"]
    carrier, data = found[b"a-link"]
    assert (carrier.kind, carrier.mode, carrier.mtime, carrier.size, data) == (Kind.FILE, 0o4711, 5, 7, b"content")
    assert (found[b"d/file"][0].kind, found[b"d/file"][0].link) == (Kind.HARDLINK, b"a-link")
    assert (found[b"to-nowhere"][0].kind, found[b"to-nowhere"][0].link) == (Kind.SYMLINK, b"../nowhere")
    assert (found[b"fifo"][0].kind, found[b"fifo"][0].mode) == (Kind.FIFO, 0o600)
    assert (found[b"d"][0].kind, found[b"d"][0].mode) == (Kind.DIRECTORY, 0o750)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_and_owners(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
    os.chown(tmp_path / "null", 7, 4_000_000_000)
    one, _ = seen(tmp_path)[b"null"]
    assert (one.kind, one.device, one.uid, one.gid) == (Kind.CHARACTER, (1, 3), 7, 4_000_000_000)


def test_the_order_is_the_trees_whatever_was_made_first(tmp_path: Path) -> None:
    names = [b"a-b", b"a", b"a/x", b"a.b", b"\xff", b"B", "ä".encode()]
    (tmp_path / "a").mkdir()
    for name in reversed(names):
        if name != b"a":
            (tmp_path / os.fsdecode(name)).write_bytes(b"")
    expected = sorted(names, key=lambda name: path_order(name.decode("utf-8", "surrogateescape")))
    assert list(seen(tmp_path)) == expected


def test_only_the_attributes_that_say_something_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    try:
        os.setxattr(tmp_path / "file", "user.b", b"\0\xff")
        os.setxattr(tmp_path / "file", "user.a", b"1")
        os.setxattr(tmp_path, "user.root", b"of the directory itself")
    except OSError as error:
        pytest.skip(f"no attributes on this file system: {error}")
    if os.geteuid() == 0:
        os.setxattr(tmp_path / "file", "trusted.overlay.opaque", b"y")
    found = seen(tmp_path)
    assert found[b"file"][0].xattrs == (("user.a", b"1"), ("user.b", b"\0\xff"))


def test_holes_are_found_and_the_rest_is_read(tmp_path: Path) -> None:
    mib = 1 << 20
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(64 * mib)
        stream.seek(8 * mib)
        stream.write(b"x" * mib)
        stream.seek(64 * mib - 5)
        stream.write(b"end")
    (content,) = [one.content for one in read_tree(tmp_path, on_skip=lambda *_: None) if one.content]
    assert content.is_sparse
    (one,) = seen(tmp_path).values()
    assert one[1] == (tmp_path / "sparse").read_bytes()
    for found in read_tree(tmp_path, on_skip=lambda *_: None):
        assert found.content is not None
        runs = [run for run in found.content.runs() if found.content is not None]
        assert sum(length for length, _ in runs) == 64 * mib
        assert sum(length for length, is_hole in runs if is_hole) > 50 * mib


def test_a_hole_without_end(tmp_path: Path) -> None:
    with (tmp_path / "empty").open("wb") as stream:
        stream.truncate(10_000_000)
    assert seen(tmp_path)[b"empty"][1] == bytes(10_000_000)


def test_a_socket_is_left_out_and_told(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(tmp_path)
        one.bind("s")
        assert seen(tmp_path, lambda path, kind: told.append((path, kind))) == {}
    assert told == [("s", "a socket")]


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite", "replace"])
def test_a_file_that_changes_while_it_is_read(change: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * 1000)
    time.sleep(0.02)  # the clock of file times is coarse

    def disturb(one: Found) -> None:
        if change == "replace":
            (tmp_path / "new").write_bytes(b"y" * 1000)
            (tmp_path / "new").rename(file)
        else:
            file.write_bytes({"grow": b"x" * 1001, "shrink": b"x", "rewrite": b"y" * 1000}[change])
        assert one.content is not None
        one.content.fill(memoryview(bytearray(1000)))

    with pytest.raises(HostError, match="changed while it was read") as caught:
        disturbed(tmp_path, disturb)
    assert caught.value.at == str(file)


def _unlink(name: Path) -> None:
    name.unlink(missing_ok=True)


def _touch(name: Path) -> None:
    (name.parent / "new").write_bytes(b"")


def _fifo(name: Path) -> None:
    _unlink(name)
    os.mkfifo(name)


def _link(name: Path) -> None:
    _unlink(name)
    name.symlink_to("/etc/passwd")


@pytest.mark.parametrize("disturb", [_unlink, _touch, _fifo, _link])
def test_a_name_that_becomes_another_meanwhile(disturb: Callable[[Path], None], tmp_path: Path) -> None:
    """It ends (a fifo would wait for a writer), and nothing is read through a link."""
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"x")
    time.sleep(0.02)
    with pytest.raises(HostError, match="changed"):
        disturbed(tmp_path, lambda _: disturb(tmp_path / "b"))


def test_deeper_than_pythons_stack(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(seen(tmp_path)) == 400


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    reading = read_tree(tmp_path, on_skip=lambda *_: None)
    next(reading)
    next(reading)
    reading.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot read"):
        seen(tmp_path / "gone")


@pytest.mark.parametrize("name", ["d", "d/file"])
def test_what_one_may_not_read_is_named(name: str) -> None:
    with tempfile.TemporaryDirectory() as made:  # pytest's own directories are for their owner alone
        place = Path(made)
        (place / "d").mkdir()
        (place / "d/file").write_bytes(b"x")
        place.chmod(0o755)
        (place / name).chmod(0)
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            with pytest.raises(HostError, match="cannot read") as caught:
                seen(place)
        finally:
            if is_root:
                os.seteuid(0)
            (place / name).chmod(0o700)
    assert (caught.value.at, caught.value.because) == (str(place / name), "Permission denied")
