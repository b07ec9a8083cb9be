"""CPython, really compiled: whole, clean of its build machine, and the same bytes for everybody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.python.compile import Compiled, PythonOptions, compile_python
from builder.python.flags import DATA_PACKAGES, LIBRARY_PACKAGES, TOOLCHAIN_PACKAGES
from builder.python.source import fetch_source
from builder.python.verify import failures, image_checks, program
from builder.python.versions import find
from rootfs.ports import Bind, Command, read_content
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from rootfs.tree import Kind, Tree
from tests.conftest import OrdinaryUser
from tests.fakes.reporter import ListReporter

RELEASE = find("3.14")
EPOCH = 1780000000
LIBRARY = f"usr/local/lib/python{RELEASE.line}"

pytestmark = [pytest.mark.archive, pytest.mark.compile, pytest.mark.peer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A compile and where it happened."""

    compiled: Compiled
    toolchain: Path
    work: Path
    store: DiskStore

    def contents(self, tree: Tree) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of every file."""
        for entry in tree.values():
            if entry.kind is Kind.FILE:
                yield entry.path, read_content(self.store, entry.content)


@pytest.fixture(scope="module")
def toolchain(peer: Callable[[str], str], debian_mirror: str) -> Iterator[Path]:
    """A trixie root with compilers, by mmdebstrap, in a place that every user may read."""
    if os.geteuid():
        pytest.skip("mmdebstrap makes a directory that others can use only as root")
    place = Path(tempfile.mkdtemp(prefix="ocibuild-toolchain-"))
    place.chmod(0o755)
    root = place / "toolchain"
    packages = ",".join((*TOOLCHAIN_PACKAGES, *DATA_PACKAGES))
    subprocess.run(
        [
            *(peer("mmdebstrap"), "--mode=root", "--variant=essential", f"--include={packages}"),
            *("trixie", root, debian_mirror),
        ],
        check=True,
        capture_output=True,
    )
    for mount_point in ("build", "pip"):
        (root / mount_point).mkdir()
    yield root
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def built(toolchain: Path, shared_store: Path, debian_mirror: str) -> Built:
    store, work = DiskStore(shared_store), toolchain.parent / "work"
    with HttpTransport() as transport:
        source = fetch_source(RELEASE, transport, store, debian_mirror, ListReporter())
    compiled = compile_python(
        release=RELEASE,
        source=source,
        options=PythonOptions(),
        toolchain=toolchain,
        work=work,
        epoch=EPOCH,
        jobs=os.cpu_count() or 1,
        store=store,
        sandbox=NamespaceSandbox(),
        reporter=ListReporter(),
    )
    return Built(compiled=compiled, toolchain=toolchain, work=work, store=store)


def test_the_image_checks_pass(built: Built, tmp_path: Path) -> None:
    prefix = tmp_path / "local"
    shutil.copytree(built.work / "out/usr/local", prefix, symlinks=True)
    shutil.copytree(built.work / "pip/usr/local", prefix, symlinks=True, dirs_exist_ok=True)
    checks = image_checks(RELEASE.numbers, pip=True)
    output: list[str] = []
    outcome = NamespaceSandbox().run(
        Command(
            root=built.toolchain,
            argv=("/usr/local/bin/python3", "-c", program(checks)),
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"},
            binds=(Bind(source=prefix, target="/usr/local"),),
            log=tmp_path / "checks.log",
            on_line=output.append,
        )
    )
    assert [(check.name, error) for check, error in failures(checks, output)] == []
    assert outcome.exit == 0, output


def test_nothing_of_the_build_machine_is_inside(built: Built) -> None:
    traces = [os.fsencode(built.work), os.fsencode(built.toolchain), b"/log/make.log"]
    names_build = []
    for tree in (built.compiled.python, built.compiled.pip):
        for path, data in built.contents(tree):
            assert not any(trace in data for trace in traces), path
            if re.search(rb"['\"= ]/build\b", data):
                names_build.append(path)
    sysconfig = re.compile(rf"{LIBRARY}/(__pycache__/)?_sysconfig(data|_vars)_")
    assert [path for path in names_build if not sysconfig.match(path)] == []


def test_every_needed_library_is_in_the_runtime_packages(
    built: Built, peer: Callable[[str], str], tmp_path: Path
) -> None:
    needed, program_file = set(), tmp_path / "elf"
    for path, data in built.contents(built.compiled.python):
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
    assert {owners[library] for library in needed} == set(LIBRARY_PACKAGES)


def test_byte_code_is_never_checked_against_its_source(built: Built) -> None:
    for tree in (built.compiled.python, built.compiled.pip):
        files = dict(built.contents(tree))
        compiled = {path: data for path, data in files.items() if path.endswith(".pyc")}
        assert len(compiled) == len([path for path in files if path.endswith(".py")]) > 300
        assert {data[4:8] for data in compiled.values()} == {b"\x01\0\0\0"}  # PEP 552: hash-based, unchecked
        assert all(f"/{LIBRARY}/".encode() in data for data in compiled.values())


def test_pip_comes_from_the_source_with_a_record_of_its_own(built: Built) -> None:
    files = {path: data for path, data in built.contents(built.compiled.pip) if "__pycache__" not in path}
    info = next(path.rpartition("/")[0] for path in files if path.endswith(".dist-info/RECORD"))
    assert f"{info}/direct_url.json" not in files
    assert files["usr/local/bin/pip"].startswith(f"#!/usr/local/bin/python{RELEASE.line}\n".encode())
    recorded = {line.partition(",")[0] for line in files[f"{info}/RECORD"].decode().splitlines()}
    site = f"{LIBRARY}/site-packages/"
    assert recorded >= {path.removeprefix(site) for path in files if path.startswith(site)}


def test_python_is_a_link_and_no_mode_is_odd(built: Built) -> None:
    tree = built.compiled.python
    assert tree[tree.resolve("usr/local/bin/python")].link == "python3"
    assert tree["usr/local/bin/python3"].link == f"python{RELEASE.line}"
    assert {entry.mode for entry in tree.values() if entry.kind is Kind.FILE} == {0o644, 0o755}
    assert f"usr/local/include/python{RELEASE.line}/Python.h" in tree


DRIVER = """
import sys
from pathlib import Path
from builder.python.compile import PythonOptions, compile_python
from builder.python.versions import find
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
from tests.fakes.reporter import ListReporter

version, toolchain, source, work, epoch = sys.argv[1:]
release, store = find(version), DiskStore(Path(work, "store"))
with open(source, "rb") as stream:
    store.put([stream.read()], expect=release.source)
compiled = compile_python(
    release=release, source=release.source, options=PythonOptions(), toolchain=Path(toolchain), work=Path(work, "work"),
    epoch=int(epoch), jobs=3, store=store, sandbox=NamespaceSandbox(), reporter=ListReporter(),
)
Path(work, "python.json").write_bytes(compiled.python.to_bytes())
Path(work, "pip.json").write_bytes(compiled.pip.to_bytes())
"""


@pytest.mark.twice
def test_another_user_makes_the_same_bytes(built: Built, ordinary_user: OrdinaryUser, ordinary_clone: Path) -> None:
    """Another user, path, number of jobs, niceness, umask and time; also another Python, when root's is private."""
    source = ordinary_user.home / "source.tar.xz"
    with built.store.open(RELEASE.source) as stream:
        source.write_bytes(stream.read())
    source.chmod(0o644)
    work = ordinary_user.home / "twice"
    command = ["nice", "-n", "19", ordinary_user.python, "-c", DRIVER]
    arguments = [RELEASE.version, str(built.toolchain), str(source), str(work), str(EPOCH)]
    script = 'umask 077; cd "$0"; exec "$@"'
    ended = ordinary_user.run(["sh", "-c", script, ordinary_clone, *command, *arguments], PYTHONDONTWRITEBYTECODE="1")
    assert ended.returncode == 0, ended.stderr
    for name, tree in (("python", built.compiled.python), ("pip", built.compiled.pip)):
        other = Tree.from_bytes((work / f"{name}.json").read_bytes())
        differing = [path for path in {*tree, *other} if tree.get(path) != other.get(path)]
        assert other.to_bytes() == tree.to_bytes(), differing[:20]
