"""CPython as the image's build compiled it: whole, and clean of its build machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.app import find_recipe
from builder.lock import Lock
from builder.plan import make_plan
from builder.python.packages import packages_for
from builder.python.versions import find
from rootfs.digest import Digest
from rootfs.ports import read_blob, read_content
from rootfs.store import DiskStore
from rootfs.tree import Kind, Tree
from tests.integration.conftest import RECIPE, Image

RELEASE = find("3.14")
LIBRARY = f"usr/local/lib/python{RELEASE.line}"

pytestmark = [pytest.mark.archive, pytest.mark.compile, pytest.mark.peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What the compile behind the image made, and where it is stored."""

    python: Tree
    pip: Tree
    store: DiskStore
    toolchain: Path

    def contents(self, tree: Tree) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of every file."""
        for entry in tree.values():
            if entry.kind is Kind.FILE:
                yield entry.path, read_content(self.store, entry.content)


@pytest.fixture(scope="module")
def built(image: Image) -> Built:
    recipe = find_recipe(str(image.clone / RECIPE)).recipe
    lock = Lock.parse((image.clone / "recipes/wee.lock.toml").read_bytes(), at="lock")
    step = next(step for step in make_plan(recipe, lock).walk() if step.kind == "install")
    result = image.store.lookup(step.key)
    assert result is not None
    parts = {
        name: Tree.from_bytes(read_blob(image.store, Digest.parse(digest)))
        for name, digest in json.loads(read_blob(image.store, result)).items()
    }
    tree = image.store.lookup(step.inputs[0].key)
    assert tree is not None
    toolchain = image.store.root / "work/roots" / tree.hex[:16]
    return Built(python=parts["python"], pip=parts["pip"], store=image.store, toolchain=toolchain)


def test_the_work_directory_is_gone_and_the_toolchain_stays(built: Built) -> None:
    places = {path.name for path in (built.store.root / "work").iterdir() if path.is_dir()}
    assert places - {"log"} == {"roots"}, "beside logs of ocibuild verify"


def test_an_interrupt_in_make_did_not_lose_configure(image: Image) -> None:
    """The image is one of a second run: the first was interrupted while it made CPython."""
    done = re.findall(r"^compile: ([a-z ]+): begins$", image.log, re.MULTILINE)
    assert done[:3] == ["make", "make install", "check modules"]
    assert "extract the toolchain" not in image.log


def test_nothing_of_the_build_machine_is_inside(built: Built) -> None:
    traces = [os.fsencode(built.store.root), b"/log/make.log"]
    names_build = []
    for tree in (built.python, built.pip):
        for path, data in built.contents(tree):
            assert not any(trace in data for trace in traces), path
            if re.search(rb"['\"= ]/build\b", data):
                names_build.append(path)
    assert names_build == []


def test_sysconfig_has_no_flag_of_our_own_build(built: Built) -> None:
    variables = {path: data for path, data in built.contents(built.python) if "/_sysconfig" in path}
    assert {path.rpartition(".")[2] for path in variables} == {"py", "pyc", "json"}
    for path, data in variables.items():
        assert not re.search(rb"-flto|-fprofile|-no-pie|--strip-all|-fno-semantic-interposition", data), path


def test_every_needed_library_is_in_the_runtime_packages(
    built: Built, peer: Callable[[str], str], tmp_path: Path
) -> None:
    needed, program_file = set(), tmp_path / "elf"
    for path, data in built.contents(built.python):
        if data.startswith(b"\x7fELF"):
            assert b".symtab" not in data, path
            program_file.write_bytes(data)
            command = [peer("readelf"), "-d", "-W", program_file]
            dynamic = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic))
    owners = {}
    for listing in (built.toolchain / "var/lib/dpkg/info").glob("*.list"):
        for path in listing.read_text().splitlines():
            owners.setdefault(path.rpartition("/")[2], listing.stem.partition(":")[0])
    assert {owners[library] for library in needed} == set(packages_for("trixie", RELEASE.facts).libraries)


def test_byte_code_is_never_checked_against_its_source(built: Built) -> None:
    for tree in (built.python, built.pip):
        files = dict(built.contents(tree))
        compiled = {path: data for path, data in files.items() if path.endswith(".pyc")}
        assert len(compiled) == len([path for path in files if path.endswith(".py")]) > 300
        assert {data[4:8] for data in compiled.values()} == {b"\x01\0\0\0"}  # PEP 552: hash-based, unchecked
        assert all(f"/{LIBRARY}/".encode() in data for data in compiled.values())


def test_pip_comes_from_the_source_with_a_record_of_its_own(built: Built) -> None:
    files = {path: data for path, data in built.contents(built.pip) if "__pycache__" not in path}
    info = next(path.rpartition("/")[0] for path in files if path.endswith(".dist-info/RECORD"))
    assert f"{info}/direct_url.json" not in files
    assert files["usr/local/bin/pip"].startswith(f"#!/usr/local/bin/python{RELEASE.line}\n".encode())
    recorded = {line.partition(",")[0] for line in files[f"{info}/RECORD"].decode().splitlines()}
    site = f"{LIBRARY}/site-packages/"
    assert recorded >= {path.removeprefix(site) for path in files if path.startswith(site)}


def test_python_is_a_link_and_no_mode_is_odd(built: Built) -> None:
    tree = built.python
    assert tree[tree.resolve("usr/local/bin/python")].link == "python3"
    assert tree["usr/local/bin/python3"].link == f"python{RELEASE.line}"
    assert {entry.mode for entry in tree.values() if entry.kind is Kind.FILE} == {0o644, 0o755}
    assert f"usr/local/include/python{RELEASE.line}/Python.h" in tree
