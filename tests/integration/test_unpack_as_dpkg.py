"""Packages laid over each other, against dpkg: its own functional tests that apply (dpkg tests/, `t-*`), made anew.

Each case is a handful of packages; dpkg installs them into an empty directory, and our Tree of the same .debs is held
to what it left there: kinds, modes, links, contents, the status file, file lists, conffiles, triggers, diversions.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.bootstrap import bootstrap
from rootfs.configure.merge import merge
from rootfs.debian.deb import Unpacked, unpack
from rootfs.debian.dpkg import Diversion, format_diversions
from rootfs.errors import BuildError
from rootfs.ports import read_content
from rootfs.tree import Kind, Tree
from tests.fakes.store import MemoryStore

pytestmark = pytest.mark.peer
EPOCH = 1_700_000_000
ADMIN = "var/lib/dpkg"

Content = bytes | tuple[str, str] | int
"""What a path is: a file's bytes; ("symlink", target) or ("link", path); a directory's mode, or that of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deb:
    """A package to build: what its paths are, its control fields, the other members of its control.tar."""

    name: str
    paths: Mapping[str, Content]
    fields: Mapping[str, str] = field(default_factory=dict)
    control: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)


LONG = "/".join(["d" * 60] * 3) + "/" + "f" * 90
CASES: Mapping[str, Sequence[Deb]] = {
    "t-normal": [Deb(name="a", paths={"usr/x": b"1", "var/empty": 0o700}, modes={"usr/x": 0o4755})],
    "t-unpack-hardlink": [
        Deb(name="a", paths={"usr/b": b"same", "usr/a": ("link", "usr/b"), "etc/z": ("link", "usr/b")}),
        Deb(name="b", paths={"usr/c": b"same", "usr/d": ("link", "usr/c")}),
    ],
    "t-unpack-symlink": [
        Deb(name="a", paths={"usr/real": 0o755, "usr/alias": ("symlink", "real"), "usr/dangling": ("symlink", "/no")})
    ],
    "t-symlink-dir, a directory over a link": [
        Deb(name="a", paths={"usr/real/one": b"1", "usr/alias": ("symlink", "real")}),
        Deb(name="b", paths={"usr/alias/two": b"2"}),
    ],
    "t-dir-leftover, a link over a directory": [
        Deb(name="a", paths={"usr/doc/a/one": b"1", "usr/doc/b/two": b"2"}),
        Deb(name="b", paths={"usr/doc/a": ("symlink", "b")}),
    ],
    "t-file-replaces": [
        Deb(name="a", paths={"usr/x": b"old", "usr/stays": b""}),
        Deb(name="b", paths={"usr/x": b"new"}, fields={"Replaces": "a (<< 2)"}),
    ],
    "t-file-replaces, the older one comes later": [
        # dpkg would sum up only what it unpacked of b; ours, which has no order, is the same for both cases
        Deb(name="a", paths={"usr/x": b"new"}, fields={"Replaces": "b"}),
        Deb(name="b", paths={"usr/x": b"old", "usr/stays": b""}, control={"md5sums": "0  usr/x\n0  usr/stays\n"}),
    ],
    "t-conffile-normal": [
        Deb(
            name="a",
            paths={"etc/a.conf": b"one\n", "etc/d/b.conf": b"two\n", "usr/x": b"1"},
            control={"conffiles": "/etc/a.conf\n/etc/d/b.conf\n"},
        )
    ],
    "t-conffile-obsolete, one only to be removed": [
        Deb(
            name="a",
            paths={"etc/a.conf": b"one\n"},
            control={"conffiles": "/etc/a.conf\nremove-on-upgrade /etc/gone.conf\n"},
        )
    ],
    "t-triggers": [
        Deb(name="a", paths={}, control={"triggers": "interest-noawait named\ninterest-noawait /usr/share/t\n"}),
        Deb(name="b", paths={"usr/share/t/x": b""}, control={"triggers": "activate-noawait named\n"}),
        Deb(name="c", paths={}, control={"triggers": "interest-await named\ninterest-noawait /usr/share\n"}),
    ],
    "t-multiarch": [Deb(name="a", paths={"usr/lib/x": b"1"}, fields={"Architecture": "amd64", "Multi-Arch": "same"})],
    "t-field-*": [
        Deb(
            name="a",
            paths={},
            fields={
                "Depends": "b(>=1)|c , d:any",
                "Recommends": "e  (= 1-1)",
                "Provides": "p (= 2)",
                "Multi-Arch": "no",
                "Essential": "no",
                "X-Mine": "kept",
                "Homepage": "https://example.org",
                "Description": "short\n long  \n .\n  verbatim",
            },
        )
    ],
    "t-tar, long and odd names": [Deb(name="a", paths={LONG: b"1", "usr/caf\u00e9 x": b"2", "usr/[a]*": b"3"})],
    "t-unpack-divert-nowarn": [
        Deb(name="wrapper", paths={"usr/x": b"wrapper"}),
        Deb(name="a", paths={"usr/x": b"real", "usr/y": ("symlink", "x")}),
    ],
    "t-unpack-divert-hardlink": [Deb(name="a", paths={"usr/x": b"same", "usr/w": ("link", "usr/x")})],
}
# A set with dpkg in it has dpkg's own database, not the one for scanners.
DPKG = Deb(name="dpkg", paths={})
DIVERTED = {name: [Diversion(path="/usr/x", to="/usr/x.real", by="wrapper")] for name in CASES if "divert" in name}


def build(deb: Deb, top: Path, dpkg_deb: str) -> Path:
    root = top / deb.name
    for path, content in sorted(deb.paths.items(), key=lambda item: isinstance(item[1], tuple)):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
            place.chmod(deb.modes.get(path, 0o644))
        elif isinstance(content, int):
            place.mkdir()
            place.chmod(content)
        elif content[0] == "link":
            os.link(root / content[1], place)
        else:
            place.symlink_to(content[1])
    (root / "DEBIAN").mkdir(parents=True)
    fields = {"Package": deb.name, "Version": "1", "Architecture": "all", "Maintainer": "M <m@example.org>"}
    fields |= {"Description": "d", **deb.fields}
    (root / "DEBIAN/control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    for name, text in deb.control.items():
        (root / "DEBIAN" / name).write_text(text)
    target = top / f"{deb.name}.deb"
    argv = [dpkg_deb, "--root-owner-group", "-Zgzip", "--nocheck", "--build", str(root), str(target)]
    subprocess.run(argv, check=True, capture_output=True)
    return target


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def debs(request: pytest.FixtureRequest, tmp_path: Path, peer: Callable[[str], str]) -> list[Path]:
    return [build(deb, tmp_path, peer("dpkg-deb")) for deb in [DPKG, *CASES[request.param]]]


def dpkg(top: Path, program: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """dpkg on an empty directory, whoever runs it: owners are not set, and no script is there to be run."""
    for name in ("info", "triggers", "updates", "parts", "alternatives"):
        (top / ADMIN / name).mkdir(parents=True, exist_ok=True)
    (top / ADMIN / "status").touch()
    options = ("--force-not-root", "--force-bad-path", "--force-depends", "--force-architecture", "--log=/dev/null")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DPKG_MAINTSCRIPT_PACKAGE": ""}
    argv = [program, f"--root={top}", *options, *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Kind, mode, link or content, and the names that are one file, of all but dpkg's database."""
    names: dict[int, list[str]] = defaultdict(list)
    paths = [path for path in sorted(top.rglob("*")) if not path.is_relative_to(top / "var/lib/dpkg")]
    for path in paths:
        names[path.lstat().st_ino].append(path.relative_to(top).as_posix())
    found: dict[str, tuple[object, ...]] = {}
    for path in paths:
        status, name = path.lstat(), path.relative_to(top).as_posix()
        if path.is_symlink():
            found[name] = ("symlink", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("dir", status.st_mode & 0o7777)
        else:
            found[name] = ("file", status.st_mode & 0o7777, path.read_bytes(), tuple(names[status.st_ino]))
    return found


def described_tree(tree: Tree, store: MemoryStore) -> dict[str, tuple[object, ...]]:
    """The same of a Tree."""
    names: dict[str, list[str]] = defaultdict(list)
    for path, entry in tree.items():
        names[entry.link if entry.kind is Kind.HARDLINK else path].append(path)
    found: dict[str, tuple[object, ...]] = {}
    for path, entry in tree.items():
        real = tree[entry.link] if entry.kind is Kind.HARDLINK else entry
        if path == ADMIN or path.startswith(ADMIN + "/"):
            continue
        if entry.kind is Kind.SYMLINK:
            found[path] = ("symlink", entry.link)
        elif entry.kind is Kind.DIRECTORY:
            found[path] = ("dir", entry.mode)
        else:
            content = read_content(store, real.content)
            found[path] = ("file", real.mode, content, tuple(sorted(names[real.path])))
    return found


def unpacked(debs: Sequence[Path], store: MemoryStore) -> list[Unpacked]:
    return [unpack(io.BytesIO(deb.read_bytes()), store, deb.name) for deb in debs]


def cases(*, diverted: bool) -> list[object]:
    return [pytest.param(name, name, id=name) for name in CASES if (name in DIVERTED) is diverted]


@pytest.mark.parametrize(("debs", "name"), cases(diverted=False), indirect=["debs"])
def test_the_tree_and_the_database_are_dpkgs(
    debs: list[Path], name: str, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    top, store = tmp_path / "root", MemoryStore()
    answer = dpkg(top, peer("dpkg"), "--install", *debs)
    assert answer.returncode == 0, answer.stderr
    tree = bootstrap(unpacked(debs, store), store=store, epoch=EPOCH, architecture=Architecture.parse("amd64"))
    assert described_tree(tree, store) == described(top)

    def ours(path: str) -> str:
        return read_content(store, tree[path].content).decode()

    assert without_blanks(ours(f"{ADMIN}/status")) == without_blanks((top / ADMIN / "status").read_text())
    for place in ("info", "triggers"):
        written = {path.name: path.read_text() for path in (top / ADMIN / place).iterdir() if path.name != "Lock"}
        made = {path.rpartition("/")[2]: ours(path) for path in tree if path.startswith(f"{ADMIN}/{place}/")}
        assert in_order(made) == in_order(written)


def without_blanks(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def in_order(files: Mapping[str, str]) -> dict[str, list[str]]:
    """dpkg's own order is that of the archive, of the installation, or of a hash table."""
    return {name: sorted(text.splitlines()) for name, text in files.items()}


@pytest.mark.parametrize(("debs", "name"), cases(diverted=True), indirect=["debs"])
def test_diversions_are_dpkgs(debs: list[Path], name: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    top, store = tmp_path / "root", MemoryStore()
    dpkg(top, peer("dpkg"), "--audit")
    (top / ADMIN / "diversions").write_bytes(format_diversions(DIVERTED[name]))
    answer = dpkg(top, peer("dpkg"), "--install", *debs)
    assert answer.returncode == 0, answer.stderr
    merged = merge(unpacked(debs, store), DIVERTED[name])
    ours = described_tree(merged.tree, store)
    theirs = {path: what for path, what in described(top).items() if path not in ("var", "var/lib")}
    assert ours == theirs
    for deb in CASES[name]:
        listed = (top / ADMIN / f"info/{deb.name}.list").read_text().splitlines()
        assert {f"/{path}" for path in merged.owned[deb.name]} == set(listed) - {"/."}


CONFLICTS: Mapping[str, Sequence[Deb]] = {
    "t-file-conflicts": [Deb(name="a", paths={"usr/x": b"1"}), Deb(name="b", paths={"usr/x": b"1"})],
    "t-file-conflicts, Replaces another version": [
        Deb(name="a", paths={"usr/x": b"1"}),
        Deb(name="b", paths={"usr/x": b"2"}, fields={"Replaces": "a (<< 1)"}),
    ],
    "t-file-conflicts, a file and a directory": [
        Deb(name="a", paths={"usr/x/y": b"1"}),
        Deb(name="b", paths={"usr/x": b"2"}),
    ],
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_what_dpkg_refuses_is_refused(name: str, tmp_path: Path, peer: Callable[[str], str]) -> None:
    debs = [build(deb, tmp_path, peer("dpkg-deb")) for deb in CONFLICTS[name]]
    answer = dpkg(tmp_path / "root", peer("dpkg"), "--install", *debs)
    assert answer.returncode != 0
    with pytest.raises(BuildError) as caught:
        merge(unpacked(debs, MemoryStore()))
    assert caught.value.at == "/usr/x"
