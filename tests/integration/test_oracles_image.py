"""Other people's tools on an image that has one of everything, in every form we write and every compression.

What is compared with what: docs/explanation/testing.md.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.oci.archive import write_archive
from builder.oci.dockerarchive import write_docker_archive
from builder.oci.image import Image
from builder.oci.layout import write_layout
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind
from tests.peers.olareg import olareg
from tests.peers.sample import COMPRESSIONS, EPOCH, LONG, SPARSE, UPPER, lower, sample

pytestmark = pytest.mark.peer
ROOT = os.geteuid() == 0
Peer = Callable[[str], str]
NAME = "registry.example/team/sample:1.0"
PRINTED = "hello\nnew\nmoin\n1234\n"


@dataclass(frozen=True)
class Sample:
    """One image: a layout (reference name 1.0), an OCI archive and a Docker archive of it."""

    compression: str
    image: Image
    layout: Path
    archive: Path
    docker: Path

    @property
    def digest(self) -> str:
        return str(self.image.descriptor.digest)

    @property
    def id(self) -> str:
        return Digest.of(self.image.config).hex


@pytest.fixture(scope="module", params=COMPRESSIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    place = tmp_path_factory.mktemp("sample")
    store = DiskStore(place / "store")
    image, descriptor = sample(store, request.param, portable=not ROOT)
    write_layout(place / "layout", store, descriptor, ref_name="1.0")
    write_archive(place / "oci.tar", store, descriptor)
    write_docker_archive(place / "docker.tar", store, descriptor, name=NAME)
    files = {"layout": place / "layout", "archive": place / "oci.tar", "docker": place / "docker.tar"}
    return Sample(compression=request.param, image=image, **files)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return path


def run(*argv: str | Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, argv)),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_keeps_every_digest_between_all_forms(made: Sample, peer: Peer, policy: Path, tmp_path: Path) -> None:
    sources = (f"oci:{made.layout}:1.0", f"oci-archive:{made.archive}", f"oci-archive:{made.docker}")
    for number, source in enumerate(sources):
        target = tmp_path / str(number)
        run(peer("skopeo"), "--policy", policy, "copy", "--quiet", "--preserve-digests", source, f"dir:{target}")
        assert (target / "manifest.json").read_bytes() == made.image.manifest
        for layer in made.image.layers:
            assert Digest.of((target / layer.descriptor.digest.hex).read_bytes()) == layer.descriptor.digest


def test_skopeo_loads_the_docker_archive(made: Sample, peer: Peer, policy: Path, tmp_path: Path) -> None:
    """Through its reader of `docker save` files, which must find the config and the layers by their digests."""
    told = json.loads(run(peer("skopeo"), "inspect", "--config", f"docker-archive:{made.docker}"))
    assert told["rootfs"]["diff_ids"] == [str(layer.diff_id) for layer in made.image.layers]
    copy = ["copy", "--quiet", f"docker-archive:{made.docker}:{NAME}", f"dir:{tmp_path / 'copy'}"]
    run(peer("skopeo"), "--policy", policy, *copy)
    assert Digest.of((tmp_path / "copy" / made.id).read_bytes()).hex == made.id


def test_crane_finds_the_docker_archive_valid(made: Sample, peer: Peer) -> None:
    """Its check decompresses with gzip alone; `--fast` leaves the layers out, and its export reads them."""
    fast = ["--fast"] if made.compression.startswith("zstd") else []
    assert run(peer("crane"), "validate", *fast, "--tarball", made.docker).startswith("PASS")


def test_crane_pushes_the_layout_and_finds_it_valid(made: Sample, peer: Peer, tmp_path: Path) -> None:
    with olareg(peer("olareg"), tmp_path) as host:
        assert run(peer("crane"), "push", made.layout, f"{host}/sample:1").strip().endswith(made.digest)
        fast = [] if made.compression == "gzip" else ["--fast"]
        assert run(peer("crane"), "validate", *fast, "--remote", f"{host}/sample:1").startswith("PASS")
        run(peer("crane"), "export", f"{host}/sample:1", tmp_path / "files.tar")
    with tarfile.open(tmp_path / "files.tar", errors="surrogateescape") as archive:
        names = {member.name.strip("/") for member in archive} - {"", "."}
    assert names == wanted().keys()


def test_regctl_reads_layout_and_archive(made: Sample, peer: Peer, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "REGCTL_CONFIG": str(tmp_path / "regctl.json")}
    assert run(peer("regctl"), "image", "digest", f"ocidir://{made.layout}:1.0", **home).strip() == made.digest
    config = json.loads(run(peer("regctl"), "image", "config", f"ocidir://{made.layout}:1.0", **home))
    assert config["config"]["Labels"] == {"org.example": "yes"}
    run(peer("regctl"), "image", "import", f"ocidir://{tmp_path / 'imported'}:x", made.archive, **home)
    assert run(peer("regctl"), "image", "digest", f"ocidir://{tmp_path / 'imported'}:x", **home).strip() == made.digest
    names = run(peer("regctl"), "image", "get-file", f"ocidir://{made.layout}:1.0", "/etc/greeting", **home)
    assert names == "hello\n"


def test_oras_reads_the_layout_and_the_archive(made: Sample, peer: Peer, tmp_path: Path) -> None:
    for place in (made.layout, made.archive):
        told = json.loads(run(peer("oras"), "manifest", "fetch", "--descriptor", "--oci-layout", f"{place}:1.0"
                              if place == made.layout else f"{place}@{made.digest}"))  # fmt: skip
        assert told["digest"] == made.digest
    copy = [f"{made.layout}:1.0", "--to-oci-layout", f"{tmp_path / 'copy'}:x"]
    run(peer("oras"), "cp", "--no-tty", "--from-oci-layout", *copy)
    copied = {path.name for path in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert copied == {path.name for path in (made.layout / "blobs/sha256").iterdir()}


def test_umoci_unpacks_every_entry(made: Sample, peer: Peer, tmp_path: Path) -> None:
    rootless = [] if ROOT else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{made.layout}:1.0", tmp_path / "bundle")
    same_as_the_tree(tmp_path / "bundle/rootfs")


def same_as_the_tree(root: Path) -> None:
    """What lies below `root` is the sample, entry by entry."""
    tree = wanted()
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert found == set(tree)
    for path, entry in tree.items():
        got = (root / path).lstat()
        if entry.kind is Kind.SYMLINK:
            assert str((root / path).readlink()) == entry.link
            continue
        if entry.kind is Kind.HARDLINK:
            assert (root / path).read_text() == "grüß\n"
            continue
        assert stat.S_IMODE(got.st_mode) == entry.mode, path
        if entry.kind is Kind.FILE:
            assert Path(root, path).read_bytes() == entry.content, path
            assert int(got.st_mtime) == min(entry.mtime, EPOCH)
        if ROOT:
            assert (got.st_uid, got.st_gid) == (entry.uid, entry.gid), path
            if entry.kind in (Kind.CHARACTER, Kind.BLOCK):
                assert (os.major(got.st_rdev), os.minor(got.st_rdev)) == entry.device
            assert all(os.getxattr(Path(root, path), name) == value for name, value in entry.xattrs), path
    assert (root / "srv/sparse").stat().st_size == SPARSE
    assert (root / LONG / ("name" * 30)).is_file()


def wanted() -> dict[str, FileEntry]:
    """Both layers on top of each other."""
    return {**lower(portable=not ROOT), **UPPER}


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_tar_programs_extract_each_layer(made: Sample, peer: Peer, program: str, tmp_path: Path) -> None:
    """Both find the compression by themselves. Neither knows whiteouts, and there are none in these layers."""
    attributes = ["--xattrs", "--xattrs-include=*"] if program == "tar" else []
    owners = ["--numeric-owner", "--same-owner"] if ROOT else []
    (tmp_path / "root").mkdir()
    for layer in made.image.layers:
        blob = made.layout / "blobs/sha256" / layer.descriptor.digest.hex
        run(peer(program), "-x", "-p", *attributes, *owners, "-f", blob, "-C", tmp_path / "root", LC_ALL="C.UTF-8")
    same_as_the_tree(tmp_path / "root")


@pytest.fixture
def storage(peer: Peer) -> Iterator[list[str]]:
    """podman's and buildah's own options for a storage of the test's own, cleared at the end."""
    place = Path(tempfile.mkdtemp(prefix="storage-"))
    options = ["--root", str(place / "storage"), "--runroot", str(place / "run"), "--storage-driver", "vfs"]
    yield options
    subprocess.run([peer("podman"), *options, "rmi", "--all", "--force"], capture_output=True, check=False)
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("form", ["docker", "archive", "layout"])
def test_podman_loads_and_runs_it(made: Sample, peer: Peer, storage: list[str], form: str) -> None:
    podman = [peer("podman"), *storage, "--cgroup-manager", "cgroupfs", "--runtime", peer("runc")]
    if form == "layout":
        run(*podman, "pull", "--quiet", f"oci:{made.layout}:1.0")
    else:
        run(*podman, "load", "--quiet", "--input", getattr(made, form))
    if form == "docker":
        assert NAME in run(*podman, "image", "inspect", "--format", "{{.RepoTags}}", made.id)
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    command = [*podman, "run", "--rm", "--network=none", *limits, made.id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode in (125, 126):
        pytest.skip(f"podman cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert (done.returncode, done.stdout) == (0, PRINTED), done.stderr


def test_buildah_works_from_it(made: Sample, peer: Peer, storage: list[str], policy: Path) -> None:
    buildah = [peer("buildah"), *storage]
    container = run(*buildah, "from", "--signature-policy", policy, f"oci:{made.layout}:1.0").strip()
    root = Path(run(*buildah, "mount", container).strip()) if ROOT else None
    told = json.loads(run(*buildah, "inspect", container))
    assert told["FromImageDigest"] == made.digest
    assert told["OCIv1"]["config"]["User"] == "1234:33"
    if root:
        same_as_the_tree(root)
    run(*buildah, "rm", container)
