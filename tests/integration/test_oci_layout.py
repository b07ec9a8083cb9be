"""The peers' word on a layout: skopeo copies it, umoci unpacks it, podman runs it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci.config import ImageConfig
from builder.oci.descriptor import Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import MEMBER_SIZE, pack
from builder.oci.layout import write_layout
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Tree, file, symlink

pytestmark = pytest.mark.peer

EPOCH = 1767323045
REF = "3.14-test"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program that prints a file of the image and who it runs as."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    place = tmp_path_factory.mktemp("program")
    (place / "main.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
        'int main(int n, char **a) { char t[99] = {0}, c[99]; FILE *f = fopen(a[1], "r");'
        " if (!f || !fgets(t, 99, f)) return 9;"
        ' printf("%s%s %d %s", t, getenv("GREETING"), getuid(), getcwd(c, 99)); return 0; }\n'
    )
    subprocess.run(["gcc", "-static", "-O1", "-o", place / "main", place / "main.c"], check=True)
    return (place / "main").read_bytes()


def small_tree(program: bytes) -> Tree:
    """A tree whose tar has several compressed members, with links, long names and odd modes."""
    noise = random.Random(3).randbytes(MEMBER_SIZE + 12345)
    return Tree(
        [
            file("bin/main", program, 0o755),
            file("etc/greeting", "grüß\n".encode()),
            FileEntry(path="etc/a-hard-link", kind=Kind.HARDLINK, link="etc/greeting"),
            symlink("lib", "usr/lib"),
            file("usr/lib/noise", noise),
            file("usr/share/" + "x" * 120, b"long"),
            file("usr/share/naïve", b"not ASCII"),
            replace(file("srv/owned", b"", 0o2640, 33, 65534), mtime=12345),
            FileEntry(path="run/pipe", kind=Kind.FIFO, mode=0o600),
            FileEntry(path="tmp", kind=Kind.DIRECTORY, mode=0o1777),
        ]
    ).with_parents()


@pytest.fixture(scope="module")
def image(program: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Image]:
    """A layout of two layers, and the image in it."""
    place = tmp_path_factory.mktemp("image")
    store = DiskStore(place / "store")
    upper = Tree([file("etc/greeting", b"hello\n"), FileEntry(path="etc", kind=Kind.DIRECTORY, mode=0o755)])
    layers = [
        pack(tree, store, created_by=name, epoch=EPOCH)
        for name, tree in (("lower", small_tree(program)), ("upper", upper))
    ]
    host = Architecture.host()
    config = ImageConfig(
        platform=Platform(architecture=host.oci, variant=host.variant),
        created=EPOCH,
        env=("GREETING=moin",),
        entrypoint=("/bin/main",),
        cmd=("/etc/greeting",),
        user="1234:33",
        working_dir="/srv",
        labels={"org.example": "yes"},
        exposed_ports=("8080/tcp",),
        stop_signal="SIGINT",
    )
    built = assemble(layers, config, annotations={"org.opencontainers.image.title": "test"})
    store.put([built.config])
    store.put([built.manifest])
    write_layout(place / "layout", store, built.descriptor, ref_name=REF)
    return place / "layout", built


def run(*argv: str | Path) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_reads_it(image: tuple[Path, Image], peer: Callable[[str], str]) -> None:
    layout, built = image
    told = json.loads(run(peer("skopeo"), "inspect", f"oci:{layout}:{REF}"))
    assert told["Digest"] == str(built.descriptor.digest)
    assert told["Created"] == "2026-01-02T03:04:05Z"
    assert told["Layers"] == [str(layer.descriptor.digest) for layer in built.layers]
    assert told["Labels"] == {"org.example": "yes"}


def test_skopeo_copies_it_unchanged(image: tuple[Path, Image], peer: Callable[[str], str], tmp_path: Path) -> None:
    layout, _ = image
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    copy = ["copy", "--quiet", "--preserve-digests", f"oci:{layout}:{REF}", f"oci:{tmp_path / 'copy'}:x"]
    run(peer("skopeo"), "--policy", policy, *copy)
    ours, theirs = (
        {p.name: p.read_bytes() for p in (d / "blobs/sha256").iterdir()} for d in (layout, tmp_path / "copy")
    )
    assert ours == theirs


def test_skopeo_sees_the_diff_ids_we_say(image: tuple[Path, Image], peer: Callable[[str], str], tmp_path: Path) -> None:
    """`docker save` form holds the layers uncompressed, each under its diff id."""
    layout, built = image
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    archive = f"docker-archive:{tmp_path / 'image.tar'}:x:y"
    run(peer("skopeo"), "--policy", policy, "copy", "--quiet", f"oci:{layout}:{REF}", archive)
    listed = run("tar", "-tf", tmp_path / "image.tar").split()
    assert {f"{layer.diff_id.hex}.tar" for layer in built.layers} <= set(listed)


def test_umoci_unpacks_the_tree(
    image: tuple[Path, Image], program: bytes, peer: Callable[[str], str], tmp_path: Path
) -> None:
    layout, _ = image
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{layout}:{REF}", tmp_path / "bundle")
    root = tmp_path / "bundle/rootfs"
    tree = small_tree(program)
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == set(tree)
    for entry in tree.values():
        found = (root / entry.path).lstat()
        if entry.kind is Kind.FILE and entry.path != "etc/greeting":
            assert (root / entry.path).read_bytes() == entry.content
        if entry.kind is not Kind.SYMLINK and entry.kind is not Kind.HARDLINK:
            assert found.st_mode & 0o7777 == entry.mode, entry.path
        if os.geteuid() == 0 and entry.kind is not Kind.HARDLINK:
            assert (found.st_uid, found.st_gid) == (entry.uid, entry.gid), entry.path
    assert (root / "etc/greeting").read_bytes() == b"hello\n"
    assert (root / "etc/a-hard-link").read_text() == "grüß\n"
    assert int((root / "srv/owned").stat().st_mtime) == 12345


@pytest.fixture
def podman(peer: Callable[[str], str]) -> Iterator[list[str]]:
    """podman with a storage of its own, cleared at the end; it refuses a run root with a long path."""
    place = Path(tempfile.mkdtemp(prefix="podman-"))
    storage = ["--root", str(place / "storage"), "--runroot", str(place / "run"), "--storage-driver", "vfs"]
    command = [peer("podman"), *storage, "--cgroup-manager", "cgroupfs", "--runtime", peer("runc")]
    yield command
    subprocess.run([*command, "rmi", "--all", "--force"], capture_output=True, check=False)
    shutil.rmtree(place, ignore_errors=True)


def test_podman_runs_it(image: tuple[Path, Image], podman: list[str]) -> None:
    layout, built = image
    pulled = run(*podman, "pull", "--quiet", f"oci:{layout}:{REF}").strip()
    assert pulled == Digest.of(built.config).hex
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    done = subprocess.run(
        [*podman, "run", "--rm", "--network=none", *limits, pulled],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode in (125, 126):
        pytest.skip(f"podman cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert (done.returncode, done.stdout) == (0, "hello\nmoin 1234 /srv"), done.stderr
