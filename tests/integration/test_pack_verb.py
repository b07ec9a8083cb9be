"""`ocibuild pack`, the program: other users, umasks, locales and zones give the same bytes; the peers read them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.test_oci_layout import run
from tests.peers.sample import unpacked

pytestmark = pytest.mark.peer

TOOL = Path(sys.executable).with_name("ocibuild")
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def ocibuild(*argv: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [TOOL, *argv], input=stdin, capture_output=True, check=False, env={**os.environ, **environment}
    )
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def tree(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(
        tmp_path_factory.mktemp("tree"), peer("busybox"), {"etc/" + os.fsdecode(b"latin-\xe9"): b"not utf-8"}
    )


@pytest.fixture(scope="module", params=["gzip", "zstd", "none"])
def layout(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as an image with the tag x, whose command says hello."""
    place = tmp_path_factory.mktemp("image")
    words = ["--env", "WHO=me", "--cmd", "sh -c 'cat /etc/motd && echo $WHO'", "--created", "1600000000"]
    out = ["--output", f"oci:{place}/layout", "--tag", "x", "--store", f"{place}/store"]
    done = ocibuild("pack", tree, *words, *out, "--compression", request.param)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{place}/layout:x@sha256:")
    return place / "layout"


def facts(root: Path) -> dict[str, tuple[object, ...]]:
    """What of a directory an archive keeps, owners apart: they are root's in the image."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        data = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
        link = str(path.readlink()) if path.is_symlink() else ""
        several = status.st_nlink if not path.is_dir() else 0
        name = str(path.relative_to(root))
        found[name] = (stat.filemode(status.st_mode), int(status.st_mtime), data, link, several)
    return found


def layer_of(layout: Path) -> tuple[Path, str]:
    """The one layer's file, and its media type."""
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    (layer,) = manifest["layers"]
    return layout / "blobs/sha256" / layer["digest"][7:], layer["mediaType"]


@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_tar_and_bsdtar_extract_the_tree(
    reader: str, layout: Path, tree: Path, peer: Callable[[str], str], tmp_path: Path
) -> None:
    layer, media_type = layer_of(layout)
    plain = layer.read_bytes()
    if not media_type.endswith("tar"):
        decoder = "gzip" if media_type.endswith("gzip") else "zstd"
        plain = subprocess.run([peer(decoder), "-dc"], input=plain, capture_output=True, check=True).stdout
    locale = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run([peer(reader), "-xpf", "-"], cwd=tmp_path, input=plain, check=True, env=locale)
    assert facts(tmp_path) == facts(tree)


def test_umoci_unpacks_the_tree(layout: Path, tree: Path, peer: Callable[[str], str], tmp_path: Path) -> None:
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{layout}:x", tmp_path / "bundle")
    assert facts(tmp_path / "bundle/rootfs") == facts(tree)


def skopeo(peer: Callable[[str], str], tmp_path: Path, source: str, target: str, *options: str) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    run(peer("skopeo"), "--policy", policy, "copy", "--quiet", *options, source, target)


def test_skopeo_copies_it_unchanged(layout: Path, peer: Callable[[str], str], tmp_path: Path) -> None:
    skopeo(peer, tmp_path, f"oci:{layout}:x", f"oci:{tmp_path}/copy:x", "--preserve-digests")
    ours, theirs = ({p.name for p in (d / "blobs/sha256").iterdir()} for d in (layout, tmp_path / "copy"))
    assert ours == theirs


@pytest.fixture
def podman(peer: Callable[[str], str]) -> Iterator[list[str]]:
    """podman with a storage of its own, cleared at the end; it refuses a run root with a long path."""
    place = Path(tempfile.mkdtemp(prefix="podman-"))
    storage = ["--root", str(place / "storage"), "--runroot", str(place / "run"), "--storage-driver", "vfs"]
    command = [peer("podman"), *storage, "--cgroup-manager", "cgroupfs", "--runtime", peer("runc")]
    yield command
    subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True, check=False)
    shutil.rmtree(place, ignore_errors=True)


def test_podman_runs_it(layout: Path, podman: list[str]) -> None:
    pulled = run(*podman, "pull", "--quiet", f"oci:{layout}:x").strip()
    argv = [*podman, "run", "--rm", "--network=none", *LIMITS, pulled]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode in (125, 126):
        pytest.skip(f"podman cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert (done.returncode, done.stdout) == (0, "hello\nme\n"), done.stderr


def test_nothing_of_the_host_shows(tree: Path, tmp_path: Path) -> None:
    """Another user, umask, locale, zone, core and place of the same files."""

    def digest(*prefix: str, place: Path = tree, **environment: str) -> str:
        argv = [*prefix, str(TOOL), "pack", str(place), "--output", f"oci:{tmp_path}/out", "--store", f"{tmp_path}/s"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "s")
        shutil.rmtree(tmp_path / "out")
        return done.stdout.rpartition("@")[2]

    first = digest()
    assert digest(LC_ALL="C", TZ="Pacific/Auckland") == first
    assert digest(LC_ALL="POSIX", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == first
    assert digest("sh", "-c", 'umask 077; exec "$@"', "sh") == first
    assert digest("taskset", "--cpu-list", "0") == first
    again = tmp_path / "elsewhere"
    subprocess.run(["cp", "--archive", "--reflink=never", str(tree), str(again)], check=True)
    if os.geteuid() == 0:
        subprocess.run(["chown", "--recursive", "--no-dereference", "7:8", str(again)], check=True)
        for path in again.rglob("*"):  # chown takes setuid bits away
            if not path.is_symlink():
                path.chmod(stat.S_IMODE((tree / path.relative_to(again)).stat().st_mode))
    assert digest(place=again) == first


def test_stdin_a_compressed_tar_and_the_directory_are_one_image(
    tree: Path, peer: Callable[[str], str], tmp_path: Path
) -> None:
    sorted_tar = ["--sort=name", "--sparse", "--format=pax", "-C", str(tree), "-cf", "-", "."]
    plain = subprocess.run([peer("tar"), *sorted_tar], capture_output=True, check=True).stdout
    out = ["--output", f"oci:{tmp_path}/out:x", "--store", f"{tmp_path}/store", "--owner", "root"]
    digests = set()
    for program in ("gzip", "xz", "bzip2", "zstd", "cat"):
        argv = [peer(program), "-c"] if program != "cat" else [program]
        data = subprocess.run(argv, input=plain, capture_output=True, check=True).stdout
        done = ocibuild("pack", "-", *out, stdin=data)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    digests.add(ocibuild("pack", tree, *out).stdout)
    assert len(digests) == 1


def test_capabilities_survive(peer: Callable[[str], str], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sets capabilities")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/ping").write_bytes(b"")
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tmp_path / "t/ping", "security.capability", value)
    done = ocibuild("pack", tmp_path / "t", "--output", f"oci:{tmp_path}/out:x", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    run(peer("umoci"), "unpack", "--image", f"{tmp_path}/out:x", tmp_path / "bundle")
    assert os.getxattr(tmp_path / "bundle/rootfs/ping", "security.capability") == value


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ([], 2, "Missing argument"),
        (["gone", "--output", "oci:out"], 2, "no such directory or tar"),
        (["."], 2, "nowhere to put the image"),
        (["-", "-", "--output", "oci:out"], 2, "only once"),
        ([".", "--output", "oci:out", "--owner", "me"], 2, "not an owner"),
        ([".", "--output", "oci:out", "--created", "now"], 2, "not a time"),
        ([".", "--output", "oci:out", "--env", "X"], 2, "NAME=VALUE"),
        ([".", "--output", "oci:out:a", "--tag", "b"], 2, "--tag names the image"),
        ([".", "--output", "oci:out", "--tag", "b d"], 2, "not a reference name"),
        ([".", "--output", "oci:out", "--expose", "web"], 2, "not a port"),
        ([".", "--output", "oci:out", "--compression", "lzma"], 2, "unknown layer compression"),
        ([".", "--output", "oci:out", "--platform", "mars"], 2, "unknown architecture"),
        (["-", "--output", "oci:out"], 5, "it is empty"),
        (["/dev/null", "--output", "oci:out"], 5, "it is empty"),
        (["/etc/passwd", "--output", "oci:out"], 5, "damaged, or none"),
    ],
)
def test_bad_input(argv: list[str], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = ocibuild("pack", *argv)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
