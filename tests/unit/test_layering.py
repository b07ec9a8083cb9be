"""Layers by source package: which share one, and that they are the same files in the end."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.budget import UPDATES, grouped
from builder.layering import layers_from_bytes, layers_to_bytes, share_out
from builder.oci.flatten import flatten
from builder.oci.layer import Layer, pack
from rootfs.debian.deb import Unpacked
from rootfs.debian.package import Package
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

EPOCH = 1000
SIZES = {
    "glibc": 12_000_000,
    "openssl": 9_000_000,
    "perl": 8_000_000,
    "tzdata": 300_000,
    "zlib": 100_000,
    "sed": 70_000,
}


def cost(groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> int:
    """Bytes times updates, with sizes by their order of magnitude."""
    return sum(
        sum(1 << max(sizes[name], 1).bit_length() for name in group) * sum(1 + UPDATES.get(name, 0) for name in group)
        for group in groups
    )


def partitions(names: list[str]) -> Iterator[list[list[str]]]:
    """Every way to put names into groups."""
    if not names:
        yield []
        return
    for rest in partitions(names[1:]):
        yield [[names[0]], *rest]
        for number, group in enumerate(rest):
            yield [*rest[:number], [names[0], *group], *rest[number + 1 :]]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 10])
def test_the_grouping_is_the_best_there_is(most: int) -> None:
    groups = grouped(SIZES, most)
    assert len(groups) <= most
    assert sorted(name for group in groups for name in group) == sorted(SIZES)
    assert cost(groups, SIZES) == min(cost(p, SIZES) for p in partitions(list(SIZES)) if len(p) <= most)


@given(st.dictionaries(st.sampled_from([*UPDATES, *"abcdef"]), st.integers(0, 1 << 26), max_size=7), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_grouping_is_near_the_best_of_any_packages(sizes: dict[str, int], most: int) -> None:
    groups = grouped(sizes, most)
    if sizes:
        best = min(cost(p, sizes) for p in partitions(list(sizes)) if len(p) <= most)
        assert best <= cost(groups, sizes) <= 1.25 * best
    shuffled = list(sizes.items())
    random.Random(1).shuffle(shuffled)
    assert grouped(dict(shuffled), most) == groups


def test_what_changes_often_lies_above_what_does_not() -> None:
    rates = [sum(1 + UPDATES.get(name, 0) for name in group) for group in grouped(SIZES, 4)]
    assert all(one <= other for one, other in pairwise(rates))


def test_an_update_that_adds_a_little_leaves_the_grouping_as_it_is() -> None:
    assert grouped({name: size + size // 50 for name, size in SIZES.items()}, 4) == grouped(SIZES, 4)


def test_no_packages_and_no_budget() -> None:
    assert grouped({}, 5) == []
    assert grouped({"a": 1, "b": 2}, 0) == [("a", "b")]


def package(
    store: Store, name: str, source: str, files: dict[str, bytes], *, links: dict[str, str] | None = None
) -> Unpacked:
    """A package whose files lie in one blob, as those of a .deb do."""
    blob = store.put([b"".join(files.values()) + name.encode()]).digest
    entries: list[FileEntry] = []
    offset = 0
    for path, content in files.items():
        at = Slice(blob=blob, offset=offset, size=len(content))
        entries.append(replace(file(path, b""), content=at, mtime=7))
        offset += len(content)
    entries += [symlink(path, target) for path, target in (links or {}).items()]
    version = str(offset)
    fields = {"Package": name, "Source": f"{source} (1.0)", "Version": version, "Architecture": "amd64"}
    return Unpacked(package=Package(fields), control={}, tree=Tree(entries))


def installed(unpacked: Sequence[Unpacked], text: bytes) -> Tree:
    """Packages as a base: merged, with what configuring and dpkg add."""
    entries = [entry for one in unpacked for entry in one.tree.values()]
    entries += [file(f"var/lib/dpkg/info/{one.package.name}.list", one.package.name.encode()) for one in unpacked]
    entries += [file("var/lib/dpkg/status", text), file("etc/passwd", b"root"), directory("var/empty", 0o700)]
    entries += [FileEntry(path="usr/lib/again", kind=Kind.HARDLINK, link="usr/lib/libssl.so.3")]
    return Tree(
        replace(entry, mtime=min(entry.mtime or EPOCH, EPOCH)) for entry in Tree(entries).with_parents().values()
    )


def packages(store: Store, ssl: bytes = b"ssl" * 1000) -> list[Unpacked]:
    return [
        package(
            store, "libssl3t64", "openssl", {"usr/lib/libssl.so.3": ssl}, links={"usr/lib/libssl.so": "libssl.so.3"}
        ),
        package(store, "libc6", "glibc", {"usr/lib/libc.so.6": b"libc" * 2000, "etc/ld.so.conf": b"x"}),
        package(store, "libc-bin", "glibc", {"usr/sbin/ldconfig": b"ldconfig"}),
        package(store, "zlib1g", "zlib", {"usr/lib/libz.so.1": b"z" * 300, "etc/changed": b"old"}),
    ]


def made(store: Store, unpacked: Sequence[Unpacked], budget: int) -> tuple[list[Layer], list[Layer]]:
    """The layers by parts, and by package."""
    base = installed(unpacked, repr([str(one.package.version) for one in unpacked]).encode())
    base = base.with_entries([file("etc/changed", b"by a handler")])
    added = [
        file("usr/local/bin/python3", b"python"),
        file("var/lib/dpkg/status", repr(unpacked).encode()),
        directory("usr/local/new"),
    ]
    upper = Tree(added).with_parents().dated(EPOCH).changes_since(base)
    shared = share_out(base, unpacked, [("CPython", upper)], suite="trixie", budget=budget)

    def packed(trees: Sequence[tuple[str, Tree]]) -> list[Layer]:
        return [
            pack(tree, store, created_by=by, epoch=EPOCH, lowest=number == 0) for number, (by, tree) in enumerate(trees)
        ]

    return packed([("base", base), ("CPython", upper)]), packed(shared)


def flat(layers: Sequence[Layer], store: Store) -> dict[str, FileEntry]:
    """The files one sees, each with its bytes."""

    def fetch(descriptor: object) -> Iterator[bytes]:
        with store.open(descriptor.digest) as stream:  # type: ignore[attr-defined]
            yield stream.read()

    def content(entry: FileEntry) -> FileEntry:
        if not isinstance(entry.content, Slice):
            return entry
        with store.open(entry.content.blob) as stream:
            stream.seek(entry.content.offset)
            return replace(entry, content=stream.read(entry.content.size))

    tree = flatten(((layer.descriptor, layer.diff_id) for layer in layers), fetch, store)
    return {path: content(entry) for path, entry in tree.items()}


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 100])
def test_the_files_are_the_same(budget: int) -> None:
    store = MemoryStore()
    parts, by_package = made(store, packages(store), budget)
    assert flat(by_package, store) == flat(parts, store)
    assert len(by_package) <= budget + 1
    assert len(by_package) == min(budget, 4) + 1


def test_an_update_changes_its_own_layer_and_the_topmost() -> None:
    store = MemoryStore()
    _, before = made(store, packages(store), 4)
    _, after = made(store, packages(store, ssl=b"SSL" * 1001), 4)
    changed = [new.created_by for old, new in zip(before, after, strict=True) if old.descriptor != new.descriptor]
    assert changed == ["Debian trixie: openssl", "Debian trixie: configuration and dpkg's database"]
    parts, _ = made(store, packages(store), 4)
    new_parts, _ = made(store, packages(store, ssl=b"SSL" * 1001), 4)
    assert parts[0].descriptor != new_parts[0].descriptor


def test_a_package_s_files_lie_with_its_source() -> None:
    store = MemoryStore()
    base = installed(packages(store), b"status").with_entries([file("etc/changed", b"by a handler")])
    shared = dict(share_out(base, packages(store), [], suite="trixie", budget=10))
    ssl, rest = shared["Debian trixie: openssl"], shared["Debian trixie: configuration and dpkg's database"]
    assert {path for path, entry in ssl.items() if entry.kind is not Kind.DIRECTORY} == {
        "usr/lib/again",
        "usr/lib/libssl.so",
        "usr/lib/libssl.so.3",
        "var/lib/dpkg/info/libssl3t64.list",
    }
    assert {entry.mtime for entry in ssl.values() if entry.kind is Kind.DIRECTORY} == {0}
    assert {path for path, entry in rest.items() if entry.kind is not Kind.DIRECTORY} == {
        "etc/changed",
        "etc/passwd",
        "var/lib/dpkg/status",
    }
    assert {path for path, entry in base.items() if entry.kind is Kind.DIRECTORY} <= set(rest)


def test_layers_read_back_as_they_were_written() -> None:
    store = MemoryStore()
    _, layers = made(store, packages(store), 3)
    assert layers_from_bytes(layers_to_bytes(layers)) == layers
