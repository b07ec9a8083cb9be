"""Digest, Tree and errors: the values everything else is made of."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, OcibuildError, ResolveError
from rootfs.tree import FileEntry, Kind, Slice, Tree, blobs_of, directory, file, normalise, path_order, symlink

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_digest_prints_as_it_was_parsed() -> None:
    assert str(Digest.parse(EMPTY)) == EMPTY
    assert str(Digest.of(b"")) == EMPTY


@pytest.mark.parametrize(
    "text", ["", "sha256:", EMPTY.upper(), EMPTY[:-1], "md5:" + "0" * 32, EMPTY + "\n", "sha512:00"]
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Digest.parse(text)


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": 1, "a": [None, "é"]}) == '{"a":[null,"é"],"b":1}'.encode()


def test_an_error_says_where_why_and_what_to_do() -> None:
    error = ResolveError("no", at="here", because="of this", hint="do that")
    assert error.render() == "error: no\n  at here\n  because of this\n  hint: do that"
    assert error.exit_code == 4


def test_every_family_of_errors_has_an_exit_code_of_its_own_but_the_two_of_the_recipe() -> None:
    codes = {family.__name__: family.exit_code for family in OcibuildError.__subclasses__()}
    assert codes == {
        "BuildError": 1,
        "UsageError": 2,
        "RecipeError": 3,
        "LockError": 3,
        "ResolveError": 4,
        "IntegrityError": 5,
        "TransferError": 6,
        "HostError": 7,
    }


@pytest.mark.parametrize("path", ["../x", "a/../../b", "a\0b", "a/.."])
def test_a_path_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(IntegrityError):
        normalise(path)


def test_paths_are_normalised() -> None:
    assert normalise("./usr//bin/") == "usr/bin"


def test_a_directory_comes_before_its_content_and_siblings_after_that() -> None:
    tree = Tree([file("usr-x", b""), file("usr/b", b""), directory("usr"), file("usr.d", b"")])
    assert list(tree) == ["usr", "usr/b", "usr-x", "usr.d"]


def test_parents_are_added_only_where_missing() -> None:
    tree = Tree([directory("a", 0o700), file("a/b/c", b"x")]).with_parents()
    assert [(e.path, e.mode) for e in tree.values()] == [("a", 0o700), ("a/b", 0o755), ("a/b/c", 0o644)]


def test_changes_since_a_base_leave_out_what_it_has() -> None:
    base = Tree([directory("a"), file("a/same", b"1"), file("a/other", b"1")])
    tree = Tree(
        [FileEntry(path="a", kind=Kind.DIRECTORY, mode=0o755, mtime=9), file("a/same", b"1"), file("a/other", b"2")]
    )
    assert list(tree.changes_since(base)) == ["a", "a/other"]
    assert tree.changes_since(base)["a"] == base["a"]


def test_a_changed_directory_mode_is_a_change() -> None:
    assert list(Tree([directory("a", 0o700)]).changes_since(Tree([directory("a")]))) == ["a"]


def test_times_are_clamped_not_raised() -> None:
    tree = Tree([FileEntry(path="old", kind=Kind.FILE, mtime=1), FileEntry(path="new", kind=Kind.FILE, mtime=9)])
    assert {e.path: e.mtime for e in tree.clamped(5).values()} == {"old": 1, "new": 5}


def test_links_among_the_parents_are_followed_inside_the_tree() -> None:
    tree = Tree(
        [symlink("bin", "usr/bin"), symlink("loop", "loop/x"), symlink("abs", "/usr"), symlink("up", "../../usr")]
    )
    assert tree.resolve("bin/sh") == "usr/bin/sh"
    assert tree.resolve("abs/lib") == "usr/lib"
    assert tree.resolve("up/lib") == "usr/lib"
    assert tree.resolve("bin") == "bin"
    with pytest.raises(IntegrityError):
        tree.resolve("loop/y")


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
slices = st.builds(Slice, blob=st.binary().map(Digest.of), offset=st.integers(0, 2**40), size=st.integers(0, 2**40))
entries = st.builds(
    FileEntry,
    path=paths,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**31),
    gid=st.integers(0, 2**31),
    mtime=st.integers(0, 2**33),
    link=st.text(st.characters(exclude_categories=["Cs"])),
    content=st.one_of(st.binary(), slices),
    device=st.tuples(st.integers(0, 255), st.integers(0, 255)),
    xattrs=st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary())).map(tuple),
)


@given(st.lists(entries), st.lists(st.lists(entries, max_size=2)), st.booleans())
def test_entries_that_are_added_come_to_their_place(
    listed: list[FileEntry], added: list[list[FileEntry]], asked: bool
) -> None:
    tree = Tree(listed)
    for more in added:
        if asked:
            assert list(tree) == sorted(tree, key=path_order)
        tree = tree.with_entries(more)
    everything = {entry.path: entry for entry in [*listed, *(entry for more in added for entry in more)]}
    order = sorted(everything, key=path_order)
    assert list(tree) == order
    assert list(tree.values()) == [everything[path] for path in order]
    assert list(tree.dated(7)) == list(tree.clamped(7)) == order
    assert {entry.mtime for entry in tree.dated(7).values()} <= {7}
    assert [entry.mtime for entry in tree.clamped(7).values()] == [min(7, entry.mtime) for entry in tree.values()]


def test_one_path_among_many_comes_to_its_place() -> None:
    """Few that are added are placed, not sorted with the rest: also names that are no text, which order as bytes."""
    tree = Tree(file(f"d{number:03}/f", b"") for number in range(0, 200, 2))
    assert len(list(tree)) == 100
    more = tree.with_entries(file(path, b"") for path in ("d007/f", "a\udcff", "d008", "z"))
    assert list(more) == sorted(more, key=path_order)
    assert len(more) == 104
    assert [entry.path for entry in more.values()] == list(more)
    assert [entry.path for entry in more.below("d008")] == ["d008/f"]
    assert list(tree) == sorted(tree, key=path_order)


@given(st.lists(entries))
def test_a_stored_tree_reads_back_the_same(listed: list[FileEntry]) -> None:
    tree = Tree(listed)
    again = Tree.from_bytes(tree.to_bytes())
    assert list(again.values()) == list(tree.values())
    assert again.to_bytes() == tree.to_bytes()


@given(st.lists(entries))
def test_the_blobs_of_a_stored_tree_are_found_without_reading_it(listed: list[FileEntry]) -> None:
    tree = Tree(listed)
    blobs = {entry.content.blob for entry in tree.values() if isinstance(entry.content, Slice)}
    assert blobs_of(tree.to_bytes()) == blobs


@pytest.mark.parametrize(
    "data", [b"", b'{"a": 1}', b"[{}]", b'[{"path": "../x", "kind": "file", "mode": 1, "mtime": 0}]', b"\xff"]
)
def test_a_damaged_stored_tree_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        Tree.from_bytes(data)


def test_bytes_that_are_not_utf8_survive_in_paths() -> None:
    path = b"caf\xe9".decode("utf-8", "surrogateescape")
    again = Tree.from_bytes(Tree([file(path, b"")]).to_bytes())
    assert list(again) == [path]
    assert path_order(path) == b"caf\xe9"
