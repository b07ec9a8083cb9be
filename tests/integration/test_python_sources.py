"""CPython's releases as Debian's archive and PyPI have them: locks, signatures, and the sources behind the table."""

from __future__ import annotations

import re
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest

from builder.execute import execute
from builder.lock import Lock
from builder.plan import make_plan
from builder.python.pip import PYPI, fetch_pip, public_index
from builder.python.source import fetch_source
from builder.python.versions import RELEASES, PythonRelease, find
from builder.recipe import Recipe
from builder.resolve import resolve
from builder.settings import read_settings
from builder.tools import Tools
from builder.vouch import vouched
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from rootfs.tree import Tree
from tests.conftest import ENVIRONMENT
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox

pytestmark = pytest.mark.archive
POOLED = [release for release in RELEASES if release.pool]
NEWEST = [next(release for release in POOLED if release.line == line) for line in sorted({r.line for r in POOLED})]
"""The newest release of each line that is built here."""
AMD64 = Architecture.parse("amd64")


@pytest.fixture(scope="module")
def tools(shared_store: Path, debian_mirror: str, debian_security_mirror: str) -> Iterator[Tools]:
    bundle = ENVIRONMENT.get("REQUESTS_CA_BUNDLE") or ENVIRONMENT.get("SSL_CERT_FILE")
    with HttpTransport(verify=Path(bundle) if bundle else None) as transport:
        yield Tools(
            store=DiskStore(shared_store),
            transport=transport,
            sandbox=ScriptedSandbox([]),
            reporter=ListReporter(),
            mirrors={"debian": debian_mirror, "debian-security": debian_security_mirror, PYPI: _index()},
            work=shared_store / "work",
            jobs=2,
        )


def _index() -> str:
    return (read_settings({}, environment=ENVIRONMENT).pypi.value or public_index()[0]).rstrip("/")


@pytest.fixture(scope="module")
def index() -> None:
    """A package index, as this machine's pip has it, must be within reach."""
    try:
        with urllib.request.urlopen(f"{_index()}/pip/", timeout=30):
            return
    except OSError as error:
        pytest.skip(f"the package index does not answer ({error}): set OCIBUILD_PYPI")


def made(version: str, tools: Tools, suite: str = "", pip: str = "false") -> tuple[Recipe, Lock]:
    """A recipe of this version, and its lock as of now."""
    text = f'name = "x"\n[base]\nsuite = "{suite}"\n[python]\nversion = "{version}"\npip = {pip}\n[image]\ntag = "x"\n'
    recipe = Recipe.parse(text.encode(), at="x")
    lock = resolve(recipe, AMD64, tools, now=int(time.time()))
    base = msgspec.structs.replace(recipe.base, suite=lock.release[0].suite)
    return msgspec.structs.replace(recipe, base=base), lock


def test_debian_and_the_release_manager_vouch_for_3_13_5(tools: Tools) -> None:
    _, lock = made("3.13.5", tools)
    assert lock.python.vouched == (
        "pinned sha256",
        "Debian Sources (signed, trixie)",
        "OpenPGP 7169605F62C751356D054A26A821E680E5FA6305",
    )
    assert Lock.parse(lock.to_bytes(), at="x") == lock


def test_a_source_that_debian_does_not_list_so_is_refused(tools: Tools) -> None:
    other = replace(find("3.13.5"), source=Digest.of(b"other"))
    with pytest.raises(IntegrityError, match="Debian's trixie has another"):
        vouched(other, [], tools, now=int(time.time()))


def test_2_7_is_resolved_on_bullseye_with_its_last_pip(tools: Tools, index: None) -> None:
    _, lock = made("2.7", tools, pip="true")
    assert [release.suite for release in lock.release] == ["bullseye", "bullseye-security"]
    assert {"libssl1.1", "libdb5.3", "libffi7"} <= {package.name for package in lock.packages("runtime")}
    assert {"gcc", "libdb-dev", "pkg-config"} <= {package.name for package in lock.packages("toolchain")}
    assert "Debian Sources (signed, bullseye)" in lock.python.vouched
    pip = lock.source_named("pip")
    assert pip is not None
    assert (pip.version, pip.size) == ("20.3.4", 1522101)
    digest = fetch_pip(pip, tools.transport, tools.store, tools.mirrors, tools.reporter)
    assert digest.hex == "217ae5161a0e08c0fb873858806e3478c9775caffce5168b50ec885e358c199d"


def test_a_named_pip_is_locked_as_pypi_has_it(tools: Tools, index: None) -> None:
    _, lock = made("3.14", tools, pip='"25.2"')
    pip = lock.source_named("pip")
    assert pip is not None
    assert (pip.size, pip.sha256) == (1752557, "6d67a2b4e7f14d8b31b8b52648866fa717f45a1eb70e83002f4331d07e953717")
    assert pip.urls[0].startswith(f"{public_index()[1]}/b7/3f/945ef7ab14dc")


@pytest.mark.sweep
@pytest.mark.parametrize("release", POOLED, ids=lambda release: release.version)
def test_every_release_that_is_built_here_resolves(tools: Tools, release: PythonRelease) -> None:
    _, lock = made(release.version, tools)
    assert (lock.python.version, lock.release[0].suite) == (release.version, release.suite)
    expected = f"Debian Sources (signed, {release.listed})"
    assert not release.listed or release.listed == "forky" or expected in lock.python.vouched


@pytest.mark.sweep
@pytest.mark.parametrize(("version", "suite"), [("2.7", "bullseye"), ("3.11.2", "bookworm"), ("3.14", "bookworm")])
def test_the_roots_of_older_suites_are_assembled(tools: Tools, version: str, suite: str) -> None:
    recipe, lock = made(version, tools, suite)
    roots = [step for step in make_plan(recipe, lock).walk() if step.kind == "rootfs"]
    assert len(roots) == 2
    for step in roots:
        tree = Tree.from_bytes(read_blob(tools.store, execute(step, tools)))
        assert ("usr/bin/gcc" in tree) == (step.parameters["set"] == "toolchain")


@cache
def _members(path: Path) -> dict[str, str]:
    """The texts of a source tarball that say what a line can do; each by its path below the top directory."""
    wanted = re.compile(
        r"(configure\.ac|Makefile\.pre\.in|Lib/test/libregrtest/pgo\.py|Tools/jit/_llvm\.py|Lib/test/test_\w+(/__init__)?\.py)"
        r"|Lib/ensurepip/_bundled/.+|Lib/lib2to3/__init__\.py|Lib/asyncio/__init__\.py|Lib/zoneinfo/__init__\.py"
    )
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            assert member.isfile() or member.isdir(), name
            if wanted.fullmatch(name) and (content := archive.extractfile(member)):
                found[name] = "" if name.endswith(".whl") else content.read().decode("latin-1")
    return found


@pytest.mark.sweep
@pytest.mark.parametrize("release", POOLED, ids=lambda release: release.version)
def test_the_pool_has_every_release_that_is_built_here(tools: Tools, release: PythonRelease) -> None:
    fetch_source(release, tools.transport, tools.store, tools.mirrors["debian"], tools.reporter)
    assert len(read_blob(tools.store, release.source)) == release.size


@pytest.mark.sweep
@pytest.mark.parametrize("release", NEWEST, ids=lambda release: release.version)
def test_what_is_said_of_a_line_stands_in_its_source(tools: Tools, release: PythonRelease, shared_store: Path) -> None:
    fetch_source(release, tools.transport, tools.store, tools.mirrors["debian"], tools.reporter)
    source, line = _members(shared_store / "blobs" / "sha256" / release.source.hex), release.facts
    configure, make = source["configure.ac"], source["Makefile.pre.in"]
    for option in ("enable-unicode", "disable-test-modules", "without-static-libpython", "with-pkg-config"):
        assert line.knows(f"--{option}") == (f"--{option}" in configure or f"[--{option}" in configure), option
    for option in ("with-tail-call-interp", "enable-experimental-jit", "disable-gil", "with-system-libmpdec"):
        assert line.knows(f"--{option}") == (f"--{option}" in configure), option
    assert line.has_nodist == ("CFLAGS_NODIST" in make)
    assert bool(line.frozen) == ("Python/frozen_modules" in make)
    assert all(target in make for target in line.frozen)
    assert line.has_setuptools == any("_bundled/setuptools" in name for name in source)
    for module in ("lib2to3", "asyncio", "zoneinfo"):
        assert line.has(module) == (f"Lib/{module}/__init__.py" in source), module
    if line.jit_llvm:
        assert f"_LLVM_VERSION = {line.jit_llvm}" in source["Tools/jit/_llvm.py"].replace('"', "")
    tests = set(re.findall(r"'(test_\w+)'", source.get("Lib/test/libregrtest/pgo.py", ""))) - {"test_embed"}
    assert not tests or set(line.training.tests) == tests
    found = {name.split("/")[2].removesuffix(".py") for name in source if name.startswith("Lib/test/test_")}
    assert set(line.training.tests) <= found
