"""What `collect` makes of a directory that goes on from a Tree: times, and contents that are stored already."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from rootfs.collect import collect
from rootfs.extract import extract
from rootfs.ports import read_content
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

OLD = 1700000000


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def before() -> Tree:
    """A Tree with times of its own."""
    entries = [
        directory("src"),
        file("src/a.c", b"int a;"),
        file("src/b.c", b"int b;"),
        file("src/empty", b""),
        file("src/run", b"#!/bin/sh", mode=0o755),
        symlink("src/link", "a.c"),
        FileEntry(path="src/same", kind=Kind.HARDLINK, link="src/a.c"),
    ]
    return Tree(replace(entry, mtime=OLD + number) for number, entry in enumerate(entries))


@pytest.fixture
def top(before: Tree, store: MemoryStore, tmp_path: Path) -> Path:
    """`before` in a directory."""
    extract(before, store, tmp_path / "top")
    return tmp_path / "top"


@pytest.fixture
def known(top: Path, store: MemoryStore) -> Tree:
    """The Tree of that directory, its contents in one blob."""
    return collect(top, store, times=True)


def test_times_are_the_disks_in_whole_seconds(before: Tree, known: Tree, top: Path, store: MemoryStore) -> None:
    assert known["src/run"].mtime == before["src/run"].mtime
    assert known["src/link"].mtime == before["src/link"].mtime
    assert known["src"].mtime == before["src"].mtime
    os.utime(top / "src/b.c", ns=(0, OLD * 10**9 + 700_000_000))
    assert collect(top, store, times=True)["src/b.c"].mtime == OLD


def test_without_times_there_are_none(top: Path, store: MemoryStore) -> None:
    assert {entry.mtime for entry in collect(top, store).values()} == {0}


def test_times_and_contents_go_round(known: Tree, store: MemoryStore, tmp_path: Path) -> None:
    extract(known, store, tmp_path / "again")
    assert collect(tmp_path / "again", store, times=True) == known


def test_what_is_untouched_is_stored_no_second_time(known: Tree, top: Path, store: MemoryStore) -> None:
    (top / "src/new.o").write_bytes(b"object")
    tree = collect(top, store, times=True, since=known)
    new = tree["src/new.o"].content
    assert isinstance(new, Slice)
    assert store.blobs[new.blob] == b"object"
    assert {path: tree[path] for path in known if path != "src"} == {
        path: known[path] for path in known if path != "src"
    }


@pytest.mark.parametrize(
    ("name", "data", "mode", "mtime"),
    [
        ("a longer content", b"int bb;", 0o644, None),
        ("a later time", b"int c;", 0o644, OLD + 1000),
        ("an earlier time", b"int c;", 0o644, OLD - 1000),
        ("another mode", b"int c;", 0o755, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_touched_is_read_again(
    known: Tree, top: Path, store: MemoryStore, name: str, data: bytes, mode: int, mtime: int | None
) -> None:
    """As make(1) sees it: by size and time; and by mode."""
    path, was = top / "src/b.c", known["src/b.c"].mtime
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, (mtime or was, mtime or was))
    entry = collect(top, store, times=True, since=known)["src/b.c"]
    assert read_content(store, entry.content) == data
    assert (entry.mode, entry.mtime) == (mode, mtime or was)


def test_a_file_that_became_a_link_or_went_is_none(known: Tree, top: Path, store: MemoryStore) -> None:
    (top / "src/b.c").unlink()
    (top / "src/b.c").symlink_to("a.c")
    (top / "src/run").unlink()
    tree = collect(top, store, times=True, since=known)
    assert tree["src/b.c"].kind is Kind.SYMLINK
    assert "src/run" not in tree


def test_of_two_names_of_a_file_the_one_that_is_left_is_the_file(known: Tree, top: Path, store: MemoryStore) -> None:
    (top / "src/a.c").unlink()
    entry = collect(top, store, times=True, since=known)["src/same"]
    assert entry.kind is Kind.FILE
    assert read_content(store, entry.content) == b"int a;"


def test_owners_times_and_attributes_of_the_earlier_tree_do_not_come_back(
    known: Tree, top: Path, store: MemoryStore
) -> None:
    """What was extracted is root's and has no attributes, whatever the Tree said that it was extracted from."""
    owned = Tree(replace(entry, uid=7, gid=8, xattrs=(("user.note", b"x"),)) for entry in known.values())
    assert collect(top, store, times=True, since=owned) == known
    assert collect(top, store, since=owned) == collect(top, store)


def test_a_prefix_is_part_of_the_paths_that_are_compared(top: Path, store: MemoryStore) -> None:
    known = collect(top, store, prefix="build", times=True)
    blobs = set(store.blobs)
    assert collect(top, store, prefix="build", times=True, since=known) == known
    assert len(set(store.blobs) - blobs) <= 1  # the empty one
