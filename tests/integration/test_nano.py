"""The base of wee-nano from the real archive: no shell, no dpkg, and all the libraries find theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from builder.execute import execute
from builder.lock import Lock
from builder.plan import rootfs_step
from builder.python import ldconfig
from builder.python.packages import packages_for
from builder.recipe import Base, Recipe
from builder.resolve import resolve_rootfs
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.configure.elf import needed
from rootfs.ports import read_blob, read_content
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from rootfs.tree import Kind, Tree
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox

pytestmark = pytest.mark.archive
RECIPE = Path(__file__).parents[2] / "recipes/wee-nano.toml"
AMD64 = Architecture.parse("amd64")
EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def base() -> Base:
    """The recipe's, with what CPython loads."""
    said = Recipe.parse(RECIPE.read_bytes(), at=str(RECIPE)).base
    return msgspec.structs.replace(said, suite="trixie", packages=(*said.packages, *packages_for("trixie").runtime))


@pytest.fixture(scope="module")
def tools(shared_store: Path, debian_mirror: str, debian_security_mirror: str) -> Iterator[Tools]:
    with HttpTransport() as transport:
        yield Tools(
            store=DiskStore(shared_store),
            transport=transport,
            sandbox=ScriptedSandbox([]),
            reporter=ListReporter(),
            mirrors={"debian": debian_mirror, "debian-security": debian_security_mirror},
            work=shared_store / "work",
            jobs=2,
        )


@pytest.fixture(scope="module")
def lock(base: Base, tools: Tools) -> Lock:
    return resolve_rootfs(base, AMD64, tools, now=int(time.time()), epoch=EPOCH)


@pytest.fixture(scope="module")
def tree(base: Base, lock: Lock, tools: Tools) -> Tree:
    return Tree.from_bytes(read_blob(tools.store, execute(rootfs_step(base, lock), tools)))


def content(tree: Tree, path: str, tools: Tools) -> bytes:
    return read_content(tools.store, tree[path].content)


def test_what_is_omitted_and_what_only_that_needs_is_not_chosen(base: Base, lock: Lock) -> None:
    chosen = {package.name for package in lock.package}
    assert chosen >= {"libc6", "libssl3t64", "libstdc++6", "ca-certificates", "tzdata", "netbase", "base-files"}
    assert not chosen & {*base.omit, "perl-base", "dpkg", "bash", "dash", "coreutils", "libpcre2-8-0"}


def test_nothing_is_there_to_be_run(tree: Tree) -> None:
    programs = [path for path in tree if path.startswith(("usr/bin/", "usr/sbin/"))]
    assert programs == []
    assert tree["bin"].link == "usr/bin"


def test_every_library_finds_what_it_wants_through_the_cache(tree: Tree, tools: Tools) -> None:
    listed = ldconfig.listing(content(tree, "etc/ld.so.cache", tools)).splitlines()[1:]
    names = {line.split()[0]: line.rpartition(" => ")[2] for line in listed}
    assert all(tree.resolve(path) in tree for path in names.values())
    libraries = [e for e in tree.below("usr/lib") if e.kind is Kind.FILE and ".so" in e.path]
    wanted = {name for entry in libraries for name in needed(content(tree, entry.path, tools))}
    assert len(libraries) > 25
    assert wanted <= set(names)
    assert {"libcrypto.so.3", "libstdc++.so.6", "libreadline.so.8", "libsqlite3.so.0"} <= set(names)


def test_what_scanners_read_is_what_was_chosen(tree: Tree, lock: Lock, tools: Tools) -> None:
    place = "var/lib/dpkg/status.d/"
    files = {path.removeprefix(place) for path in tree if path.startswith(place)}
    assert {name for name in files if not name.endswith(".md5sums")} == {package.name for package in lock.package}
    stanza = content(tree, f"{place}libssl3t64", tools).decode()
    assert "\nStatus: install ok installed\n" in stanza
    for name in ("libc6", "libssl3t64", "tzdata"):
        sums = content(tree, f"{place}{name}.md5sums", tools).decode().splitlines()
        assert sums
        assert [line for line in sums if tree.resolve(line.partition("  ")[2]) not in tree] == []


def test_it_is_configured_without_what_configures_it(tree: Tree, tools: Tools) -> None:
    assert content(tree, "etc/passwd", tools).startswith(b"root:")
    assert b"hosts:" in content(tree, "etc/nsswitch.conf", tools)
    assert content(tree, "etc/ssl/certs/ca-certificates.crt", tools).count(b"BEGIN CERTIFICATE") > 100
    assert tree["usr/lib/ssl/cert.pem"].link == "/etc/ssl/certs/ca-certificates.crt"
    assert tree["etc/localtime"].link == "/usr/share/zoneinfo/Etc/UTC"
    assert tree["tmp"].mode == 0o1777
    assert "usr/lib/locale/C.utf8/LC_CTYPE" in tree
    assert "usr/share/doc/libssl3t64/copyright" in tree


def test_it_is_as_small_as_it_is_said_to_be(tree: Tree) -> None:
    assert sum(entry.size for entry in tree.values()) < 20_000_000
