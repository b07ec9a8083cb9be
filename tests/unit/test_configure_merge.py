"""Laying data trees over each other."""

from __future__ import annotations

import itertools

import pytest

from rootfs.configure.merge import links_at_the_top, merge
from rootfs.debian.deb import Unpacked
from rootfs.debian.dpkg import Diversion
from rootfs.debian.package import Package
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink


def deb(name: str, *entries: FileEntry, version: str = "1", **fields: str) -> Unpacked:
    control = {"Package": name, "Version": version, "Architecture": "all", **fields}
    return Unpacked(package=Package(control), control={}, tree=Tree(entries))


BASE = deb("base-files", directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), directory("root", 0o700))


def test_the_first_packages_directory_keeps_its_mode() -> None:
    merged = merge([deb("a", directory("root", 0o755)), BASE])
    assert merged.tree["root"].mode == 0o700
    assert merged.owned["a"] == ("root",)


def test_an_entry_below_a_link_lands_at_its_target_and_is_owned_under_its_own_name() -> None:
    merged = merge([BASE, deb("a", directory("lib"), directory("lib/x"), file("lib/x/y", b"1"))])
    assert merged.tree["usr/lib/x/y"].content == b"1"
    assert merged.tree["lib"].kind is Kind.SYMLINK
    assert "lib/x/y" not in merged.tree
    assert merged.owned["a"] == ("lib", "lib/x", "lib/x/y")


def test_a_hard_link_follows_its_target() -> None:
    link = FileEntry(path="lib/b", kind=Kind.HARDLINK, link="lib/a")
    merged = merge([BASE, deb("a", file("lib/a", b"1"), link)])
    assert merged.tree["usr/lib/b"].link == "usr/lib/a"


def test_a_directory_is_not_replaced_by_a_link_nor_a_link_by_a_directory() -> None:
    target, link = directory("doc/b"), symlink("doc/a", "b")
    for packages in (
        [deb("a", link), deb("b", target, directory("doc/a"))],
        [deb("a", directory("doc/a"), target), deb("b", link)],
    ):
        merged = merge(packages)
        first = packages[0].tree["doc/a"]
        assert merged.tree["doc/a"] == first


@pytest.mark.parametrize("other", [file("x", b""), symlink("x", "y")])
def test_a_directory_is_not_a_file(other: FileEntry) -> None:
    with pytest.raises(BuildError, match="disagree about what a path is") as caught:
        merge([deb("a", directory("x"), file("y", b"")), deb("b", other)])
    assert caught.value.at == "/x"


def test_two_packages_with_one_file_are_refused_by_name() -> None:
    with pytest.raises(BuildError, match=r"a 1 and b 1 hold the same file") as caught:
        merge([BASE, deb("a", file("lib/x", b"1")), deb("b", file("usr/lib/x", b"1"))])
    assert caught.value.at == "/usr/lib/x"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_one_that_replaces_keeps_the_file_in_any_order(order: tuple[int, ...]) -> None:
    old = deb("a", file("usr/x", b"old"), file("usr/z", b""))
    new = deb("b", file("usr/x", b"new"), Replaces="a (<< 2)")
    packages = [BASE, old, new]
    merged = merge([packages[index] for index in order])
    assert merged.tree["usr/x"].content == b"new"
    assert merged.owned["a"] == ("usr/z",)
    assert merged.owned["b"] == ("usr/x",)


def test_the_replacing_one_may_come_first_by_name() -> None:
    merged = merge([deb("b", file("x", b"old")), deb("a", file("x", b"new"), Replaces="b")])
    assert (merged.tree["x"].content, merged.owned) == (b"new", {"a": ("x",), "b": ()})


def test_replaces_holds_for_the_versions_it_names() -> None:
    with pytest.raises(BuildError):
        merge([deb("a", file("x", b""), version="2"), deb("b", file("x", b""), Replaces="a (<< 2)")])


def test_a_diversion_moves_the_others_file() -> None:
    diversion = Diversion(path="/usr/x", to="/usr/x.real", by="wrapper")
    merged = merge([deb("wrapper", file("usr/x", b"w")), deb("a", file("usr/x", b"a"))], [diversion])
    assert (merged.tree["usr/x"].content, merged.tree["usr/x.real"].content) == (b"w", b"a")
    assert merged.owned["a"] == ("usr/x",)


def test_before_trixie_the_links_at_the_top_are_laid_first() -> None:
    packages = [
        deb("base-files", directory("bin"), directory("lib"), directory("usr"), directory("sys")),
        deb("a", directory("bin"), file("bin/x", b"1"), directory("lib64"), file("lib64/y", b"2")),
    ]
    links = links_at_the_top(packages)
    assert [(link.path, link.link) for link in links] == [
        ("bin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ]
    merged = merge(packages, links=links)
    assert (merged.tree["usr/bin/x"].content, merged.tree["usr/lib64/y"].content) == (b"1", b"2")
    assert merged.owned["a"] == ("bin", "bin/x", "lib64", "lib64/y")
    assert "usr/bin/x" not in merge(packages).tree


def test_a_link_at_the_top_that_a_package_holds_is_left_to_it() -> None:
    assert links_at_the_top([BASE, deb("a", directory("lib"))]) == links_at_the_top([deb("a"), BASE]) == []


def test_links_in_a_circle_are_refused() -> None:
    with pytest.raises(BuildError, match="symbolic links"):
        merge([deb("a", symlink("x", "y"), symlink("y", "x")), deb("b", file("x/z", b""))])
