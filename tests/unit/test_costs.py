"""What the files of small hand-made trees cost: every table adds up."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from builder.look.costs import Costs, apportion, costs, total
from rootfs.architecture import Architecture
from rootfs.configure.elf import needed, read_shared_object
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.sizes import NO_PACKAGE
from rootfs.tree import FileEntry, Kind, Slice, Tree, file, symlink
from tests.fakes.store import MemoryStore

L = "usr/local/lib/python3.14"
PROGRAM = Path(sys.executable).resolve()


def hardlink(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, kind=Kind.HARDLINK, link=target)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


PYTHON = [
    file(f"{L}/os.py", b"a" * 100),
    file(f"{L}/__pycache__/os.cpython-314.pyc", b"b" * 50),
    file(f"{L}/ensurepip/_bundled/pip.whl", noise(4000)),
    file(f"{L}/site-packages/pip/x.py", b"c" * 10),
    file("usr/local/bin/python3.14", PROGRAM.read_bytes()),
    symlink("usr/local/bin/python3", "python3.14"),
]
DEBIAN = [
    symlink("lib", "usr/lib"),
    file("usr/lib/libc.so.6", b"m" * 7000),
    file("usr/lib/x/y/libc.so.6", b"not this one"),
    file("usr/share/doc/m/README", b"read me"),
    hardlink("usr/share/doc/m/README.2", "usr/share/doc/m/README"),
    file("etc/made", b"by nobody"),
    file("etc/other/made", b"by nobody either"),
]
DPKG = [file("var/lib/dpkg/info/libc6:amd64.list", b"/.\n/lib/libc.so.6\n/usr/share/doc/m/README\n/usr/share/gone\n")]


def look(*entries: FileEntry, compressed: int = 10_000) -> Costs:
    found = costs(Tree(entries).with_parents(), MemoryStore(), compressed=compressed)
    add_up(found, Tree(entries), compressed)
    return found


def add_up(found: Costs, tree: Tree, compressed: int) -> None:
    """The law of every table."""
    files = [entry for entry in tree.values() if entry.kind is not Kind.DIRECTORY]
    assert (found.total.files, found.total.size) == (len(files), sum(entry.size for entry in files))
    assert found.total.compressed == (compressed if found.total.size else 0)
    nobody = [row for row in found.packages if row.name == NO_PACKAGE] or [total(NO_PACKAGE, ())]
    assert total(NO_PACKAGE, (row.cost for row in found.unowned)) == nobody[0]
    for rows in (found.packages, [row.cost for row in found.unowned]):
        assert [row.size for row in rows] == sorted((row.size for row in rows), reverse=True)


def test_packages_are_told_by_dpkg_s_lists() -> None:
    found = look(*DEBIAN, *DPKG)
    (package,) = [row for row in found.packages if row.name == "libc6:amd64"]
    assert (package.files, package.size) == (2, 7007)
    assert found.has_database
    assert {row.cost.name: row.paths for row in found.unowned}["/etc/other"] == ("etc/other/made",)
    assert found.rules["docs"].entries == 2


def test_packages_are_told_by_lists_of_checksums_where_there_is_no_dpkg() -> None:
    found = look(*DEBIAN, file("var/lib/dpkg/status.d/m.md5sums", b"0" * 32 + b"  lib/libc.so.6\n"))
    assert {row.name: row.size for row in found.packages}["m"] == 7000


def test_parts_of_python_and_what_they_need() -> None:
    found = look(*DEBIAN, *DPKG, *PYTHON)
    (python,) = found.pythons
    rows = {row.cost.name: row for row in python.parts}
    assert {name: row.cost.files for name, row in rows.items()} == {
        "interpreter": 2,
        "ensurepip/_bundled": 1,
        "os": 2,
        "pip": 1,
    }
    assert (rows["os"].cost.size, rows["os"].bytecode) == (150, 50)
    assert rows["ensurepip/_bundled"].cost.compressed > rows["os"].cost.compressed > 0
    names = {one.name: one for one in rows["interpreter"].needs}
    assert set(names) == set(needed(PROGRAM.read_bytes()))
    assert (names["libc.so.6"].path, names["libc.so.6"].package) == ("usr/lib/libc.so.6", "libc6:amd64")
    alone = look(*PYTHON).pythons[0].parts[0].needs
    assert {(one.path, one.package) for one in alone} == {(None, None)}
    assert python.total.size == sum(entry.size for entry in PYTHON)
    assert [row.cost.size for row in found.unowned if row.cost.name == "python3.14 below /usr/local"] == [
        python.total.size
    ]


def test_a_python_that_is_a_package_is_no_longer_nobody_s() -> None:
    names = "".join(f"/{entry.path}\n" for entry in PYTHON)
    found = look(*PYTHON, file("var/lib/dpkg/info/ocibuild-python3.14.list", names.encode()))
    rows = {row.name: row for row in found.packages}
    assert rows["ocibuild-python3.14"].size == found.pythons[0].total.size
    assert rows["ocibuild-python3.14"].compressed == found.pythons[0].total.compressed
    assert [row.cost.name for row in found.unowned] == ["/var/lib/dpkg/info"]


def test_an_image_of_neither() -> None:
    found = look(file("app", b"x"), symlink("b", "app"))
    assert (found.has_database, found.pythons, dict(found.rules)) == (False, (), {})
    assert [row.name for row in found.packages] == [NO_PACKAGE]


@pytest.mark.parametrize("entries", [(), (symlink("a", "b"),), (file("empty", b""),)])
def test_an_image_without_content_costs_nothing(entries: tuple[FileEntry, ...]) -> None:
    assert look(*entries).total.compressed == 0


def test_contents_may_lie_in_a_blob() -> None:
    store = MemoryStore()
    blob = store.put([b"head" + b"z" * 3_000_000 + noise(3000)]).digest
    entries = [
        FileEntry(path="plain", kind=Kind.FILE, content=Slice(blob=blob, offset=4, size=3_000_000)),
        FileEntry(path="var/noise", kind=Kind.FILE, content=Slice(blob=blob, offset=3_000_004, size=3000)),
        file("var/lib/dpkg/info/n.list", b"/var/noise\n"),
    ]
    found = costs(Tree(entries), store, compressed=1000)
    add_up(found, Tree(entries), 1000)
    share = {row.name: row.compressed for row in found.packages}
    assert share["n"] > 800
    lost = [FileEntry(path="a", kind=Kind.FILE, content=Slice(blob=Digest.of(b"lost"), offset=0, size=4))]
    with pytest.raises(IntegrityError, match="not in the store"):
        costs(Tree(lost), store, compressed=1000)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**9)))
def test_an_amount_is_shared_out_to_the_last_byte(amount: int, weights: list[int]) -> None:
    shares = apportion(amount, dict(enumerate(weights)))
    assert sum(shares.values()) == (amount if sum(weights) else 0)
    for key, weight in enumerate(weights):
        exact = amount * weight / sum(weights) if sum(weights) else 0
        assert abs(shares[key] - exact) < 1 + exact * 1e-9


def test_a_damaged_program_needs_nothing() -> None:
    whole = PROGRAM.read_bytes()[:20_000]
    assert needed(b"") == needed(b"#!/bin/sh\n" * 20) == needed(whole[:63]) == ()
    for place in range(24, 400):
        needed(whole[:place] + b"\xff" + whole[place + 1 :])
        needed(whole[: place + 64])
        read_shared_object(whole[:place] + b"\xff" + whole[place + 1 :], Architecture.host())
