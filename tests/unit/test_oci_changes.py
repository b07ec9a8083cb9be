"""The layer between two Trees: applied to the lower one it gives the upper one, whatever they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.oci.changes import changes
from builder.oci.flatten import flatten
from builder.oci.layer import pack
from rootfs.errors import IntegrityError
from rootfs.ports import read_content
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

NAMES = ("a", "b", "-", "dé\udcff")
EPOCH = 10_000


def hardlink(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, kind=Kind.HARDLINK, link=target)


def applied(*trees: Tree) -> dict[str, tuple[FileEntry, bytes]]:
    """What these layers amount to; contents by their bytes."""
    store = MemoryStore()
    layers = [pack(tree, store, created_by="", epoch=EPOCH, whiteouts=True) for tree in trees]
    listed = [(layer.descriptor, layer.diff_id) for layer in layers]
    found = flatten(listed, lambda descriptor: iter([store.blobs[descriptor.digest]]), store)
    return {
        path: (replace(entry, content=b""), read_content(store, entry.content) if entry.size else b"")
        for path, entry in found.items()
    }


def marks(tree: Tree) -> list[str]:
    return [path for path in tree if path.rpartition("/")[2].startswith(".wh.")]


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Directories three deep, with every kind of entry and hard links among them."""
    entries: dict[str, FileEntry] = {}
    for _ in range(draw(st.integers(0, 12))):
        depth = draw(st.integers(1, 3))
        path = "/".join(draw(st.sampled_from(NAMES)) for _ in range(depth))
        above = ["/".join(path.split("/")[:count]) for count in range(1, depth)]
        if any(up in entries and entries[up].kind is not Kind.DIRECTORY for up in above):
            continue
        if any(known.startswith(path + "/") for known in entries):
            continue
        entries[path] = draw(entries_at(path, sorted(entries)))
    known = {path: entry for path, entry in entries.items() if entry.kind is not Kind.HARDLINK}
    links = [entry for entry in entries.values() if entry.link in known and known[entry.link].kind is Kind.FILE]
    return Tree([*known.values(), *(entry for entry in links if entry.kind is Kind.HARDLINK)])


def entries_at(path: str, others: list[str]) -> st.SearchStrategy[FileEntry]:
    modes = st.sampled_from([0o644, 0o755, 0o4711])
    contents = st.sampled_from([b"", b"x", b"other", b"long" * 400])
    times = st.sampled_from([0, 7])
    kinds = [
        st.builds(lambda mode, content, mtime: replace(file(path, content, mode), mtime=mtime), modes, contents, times),
        st.builds(lambda mode, mtime: replace(directory(path, mode, uid=mtime), mtime=mtime), modes, times),
        st.builds(lambda text: symlink(path, text), st.sampled_from(["a", "/b/-", ".."])),
        st.just(FileEntry(path=path, kind=Kind.FIFO)),
        st.just(FileEntry(path=path, kind=Kind.CHARACTER, device=(1, 3))),
        st.just(replace(file(path, b"x"), xattrs=(("user.a", b"\xff"),))),
    ]
    links = [st.sampled_from(others).map(lambda target: hardlink(path, target))] if others else []
    return st.one_of(*kinds, *links)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(trees(), trees())
def test_applied_to_the_lower_tree_they_give_the_upper_one(lower: Tree, upper: Tree) -> None:
    made = changes(lower, upper)
    assert applied(lower.with_parents(), made) == applied(upper.with_parents())
    assert not changes(upper, upper)


def test_only_what_is_different_and_the_directories_above() -> None:
    lower = Tree([file("a/b/same", b"1"), file("a/b/other", b"1"), file("a/gone", b""), file("c/x", b"")])
    upper = Tree([file("a/b/same", b"1"), file("a/b/other", b"2"), file("c/x", b""), directory("d", 0o700)])
    made = changes(lower, upper)
    assert list(made) == ["a", "a/.wh.gone", "a/b", "a/b/other", "d"]
    assert made["a/.wh.gone"] == file("a/.wh.gone", b"", mode=0)


def test_a_directory_of_which_much_is_gone_is_brought_anew() -> None:
    base = [file(f"d/sub/{number}", b"") for number in range(4)]
    kept = file("d/kept", b"x" * 512)
    assert marks(changes(Tree([*base, kept]), Tree([kept]))) == ["d/.wh.sub"]
    upper = Tree([kept, directory("d/sub")])
    # one mark where three or more would stand, and nothing to bring again
    assert marks(changes(Tree([*base, kept]), upper)) == ["d/sub/.wh..wh..opq"]
    upper = Tree([kept, base[0]])
    made = changes(Tree([*base, kept]), upper)
    assert marks(made) == ["d/sub/.wh..wh..opq"]
    assert "d/sub/0" in made
    # two blocks for the kept file, one for the mark: dearer than two whiteouts
    assert marks(changes(Tree([file("d/1", b""), file("d/2", b""), kept]), Tree([kept]))) == ["d/.wh.1", "d/.wh.2"]


def test_what_stays_linked_is_not_brought_alone() -> None:
    many = [file(f"d/{number}", b"") for number in range(9)]
    linked = [file("d/one", b"1"), hardlink("e", "d/one")]
    made = changes(Tree([*many, *linked]), Tree(linked))
    assert marks(made) == [f"d/.wh.{number}" for number in range(9)]
    # a name less: the file is not the same any more for those that are left
    assert list(changes(Tree([*many, *linked]), Tree([*many, linked[0]]))) == [".wh.e", "d", "d/one"]
    assert applied(Tree(linked).with_parents(), changes(Tree(linked), Tree([linked[0]]))).keys() == {"d", "d/one"}


def test_kinds_change_without_a_whiteout() -> None:
    lower = Tree([file("a", b""), file("b/c", b""), directory("l")])
    upper = Tree([file("a/x", b""), file("b", b""), symlink("l", "b")])
    assert list(changes(lower, upper)) == ["a", "a/x", "b", "l"]


@pytest.mark.parametrize(
    "upper",
    [Tree([file("etc/.wh.x", b"")]), Tree([hardlink("a", "b")]), Tree([hardlink("a", "b"), hardlink("b", "a")])],
)
def test_what_no_layer_can_say_is_refused(upper: Tree) -> None:
    with pytest.raises(IntegrityError):
        changes(Tree(), upper)


def test_a_whiteout_is_packed_only_when_it_is_meant() -> None:
    with pytest.raises(IntegrityError, match="means a whiteout"):
        pack(Tree([file(".wh.x", b"")]), MemoryStore(), created_by="", epoch=0)
