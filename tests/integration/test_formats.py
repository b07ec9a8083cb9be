"""The peers' word on every form of an image: they load, run and unpack what we write, and we read what they write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.cli import run as ocibuild
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Tree, file
from tests.conftest import OrdinaryUser
from tests.integration.test_oci_layout import EPOCH, podman, program, run, small_tree  # noqa: F401 - two are fixtures

# ruff: noqa: F811 (fixtures are given by name)

pytestmark = pytest.mark.peer

Peer = Callable[[str], str]
SAID = "hello\nmoin 1234 /srv"
LIMITS = ("--network=none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
REFUSED = ("cgroup", "operation not permitted", "permission denied")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that anybody may enter, with a short path."""
    made = Path(tempfile.mkdtemp(prefix="forms-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def built(program: bytes, place: Path) -> Image:
    """An image of two layers and users of its own, in the layout `place`/layout as 1.0."""
    store = DiskStore(place / "store")
    accounts = file("etc/passwd", b"root:x:0:0::/:/bin/sh\nweb:x:1234:33::/srv:/bin/sh\n")
    lower = Tree([*small_tree(program).values(), accounts])
    upper = Tree([FileEntry(path="etc", kind=Kind.DIRECTORY, mode=0o755), file("etc/greeting", b"hello\n")])
    config = ImageConfig(
        platform=Platform.of(Architecture.host()),
        created=EPOCH,
        env=("GREETING=moin",),
        entrypoint=("/bin/main",),
        cmd=("/etc/greeting",),
        user="web",
        working_dir="/srv",
    )
    layers = [pack(tree, store, created_by="test", epoch=EPOCH) for tree in (lower, upper)]
    image = assemble(layers, config)
    for document in (image.config, image.manifest):
        store.put([document])
    write_layout(place / "layout", store, image.descriptor, ref_name="1.0")
    return image


def copy(place: Path, source: str, target: str, *options: str) -> None:
    assert ocibuild(["copy", "--store", str(place / "copies"), source, target, *options]) == 0


@pytest.fixture(scope="module")
def forms(built: Image, place: Path) -> Path:
    """`place`, with the image also as a.oci.tar, d.tar (as wee:1.0) and files.tar."""
    for target in ("a.oci.tar", "files.tar"):
        copy(place, f"{place}/layout:1.0", f"{place}/{target}")
    copy(place, f"{place}/layout:1.0", f"docker-archive:{place}/d.tar:wee:1.0")
    return place


@pytest.fixture(scope="module")
def skopeo(peer: Peer, place: Path) -> Callable[..., None]:
    """`skopeo copy` without a policy."""
    policy = place / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def copied(*argv: str) -> None:
        run(peer("skopeo"), "--policy", policy, "copy", "--quiet", *argv)

    return copied


def files_of(place: Path, image: str) -> bytes:
    """The file system of an image, as a tar."""
    copy(place, image, f"{place}/read.tar")
    return (place / "read.tar").read_bytes()


@pytest.mark.parametrize("form", ["oci-archive:a.oci.tar:1.0", "oci-archive:d.tar", "oci:layout:1.0"])
def test_skopeo_finds_the_same_digest_in_every_form(forms: Path, built: Image, peer: Peer, form: str) -> None:
    kind, _, rest = form.partition(":")
    told = json.loads(run(peer("skopeo"), "inspect", f"{kind}:{forms}/{rest}"))
    assert told["Digest"] == str(built.descriptor.digest)


def test_skopeo_reads_the_docker_archive_as_one(forms: Path, built: Image, skopeo: Callable[..., None]) -> None:
    skopeo(f"docker-archive:{forms}/d.tar:wee:1.0", f"oci:{forms}/skopeo:x")
    assert files_of(forms, f"{forms}/skopeo") == (forms / "files.tar").read_bytes()


@pytest.mark.parametrize("name", ["d.tar", "a.oci.tar"])
def test_podman_loads_and_runs_it(forms: Path, built: Image, podman: list[str], name: str) -> None:
    loaded = run(*podman, "load", "--quiet", "--input", forms / name)
    assert ("docker.io/library/wee:1.0" in loaded) is (name == "d.tar")
    image = Digest.of(built.config).hex
    done = subprocess.run(
        [*podman, "run", "--rm", *LIMITS, image], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode in (125, 126):
        pytest.skip(f"podman cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert (done.returncode, done.stdout) == (0, SAID), done.stderr


def test_podman_loads_zstd_layers(forms: Path, built: Image, podman: list[str], program: bytes) -> None:
    store = DiskStore(forms / "zstd-store")
    layer = pack(small_tree(program), store, created_by="test", epoch=EPOCH, compression="zstd")
    image = assemble([layer], ImageConfig(platform=Platform.of(Architecture.host()), created=EPOCH))
    for document in (image.config, image.manifest):
        store.put([document])
    write_layout(forms / "zstd", store, image.descriptor, ref_name="1.0")
    copy(forms, f"{forms}/zstd", f"docker-archive:{forms}/zstd.tar:wee:zstd")
    assert "wee:zstd" in run(*podman, "load", "--quiet", "--input", forms / "zstd.tar")


def test_what_podman_and_skopeo_save_is_the_same_image(
    forms: Path, podman: list[str], skopeo: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    run(*podman, "load", "--quiet", "--input", forms / "d.tar")
    for form in ("docker-archive", "oci-archive"):
        (forms / f"podman-{form}.tar").unlink(missing_ok=True)
        run(*podman, "save", "--quiet", "--format", form, "--output", forms / f"podman-{form}.tar", "wee:1.0")
    skopeo(f"oci:{forms}/layout:1.0", f"docker-archive:{forms}/skopeo-docker.tar:wee:1.0")
    skopeo(f"oci:{forms}/layout:1.0", f"oci-archive:{forms}/skopeo-oci.tar:x")
    files = (forms / "files.tar").read_bytes()
    for name in ("podman-docker-archive", "podman-oci-archive", "skopeo-docker", "skopeo-oci"):
        assert files_of(forms, f"{forms}/{name}.tar") == files, name
    assert files_of(forms, f"docker-archive:{forms}/skopeo-docker.tar:docker.io/library/wee:1.0") == files
    capsys.readouterr()
    for name in ("podman-docker-archive", "skopeo-docker"):
        copy(forms, f"{forms}/{name}.tar", f"oci:{forms}/classic:x")
    first, second = capsys.readouterr().out.split()
    assert first == second


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:chunked"])
def test_layers_that_skopeo_compressed_are_read(forms: Path, skopeo: Callable[..., None], compression: str) -> None:
    layout = f"{forms}/{compression.replace(':', '-')}-layout"
    skopeo(
        "--dest-compress",
        "--dest-compress-format",
        compression,
        f"docker-archive:{forms}/d.tar:wee:1.0",
        f"oci:{layout}:x",
    )
    assert files_of(forms, f"{layout}:x") == (forms / "files.tar").read_bytes()


def test_the_digest_survives_layout_archive_and_layout(
    forms: Path, built: Image, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    copy(forms, f"{forms}/a.oci.tar", f"docker-archive:{forms}/again.tar")
    copy(forms, f"{forms}/again.tar", f"oci:{forms}/back:1.0")
    lines = capsys.readouterr().out.split()
    assert {line.rpartition("@")[2] for line in lines} == {str(built.descriptor.digest)}
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{forms}/back:1.0", forms / "umoci")
    assert (forms / "umoci/rootfs/etc/greeting").read_bytes() == b"hello\n"


def test_what_umoci_repacked_is_read(forms: Path, peer: Peer) -> None:
    copy(forms, f"{forms}/a.oci.tar", f"oci:{forms}/repacked:1.0")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{forms}/repacked:1.0", forms / "changed")
    (forms / "changed/rootfs/etc/greeting").write_bytes(b"changed\n")
    run(peer("umoci"), "repack", "--image", f"{forms}/repacked:2.0", forms / "changed")
    copy(forms, f"{forms}/repacked:2.0", f"dir:{forms}/unpacked")
    assert (forms / "unpacked/etc/greeting").read_bytes() == b"changed\n"


def run_bundle(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode and any(word in done.stderr.lower() for word in REFUSED):
        pytest.skip(f"runc cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root has a test of their own")
def test_runc_runs_the_bundle(forms: Path, peer: Peer) -> None:
    copy(forms, f"{forms}/layout:1.0", f"bundle:{forms}/bundle")
    owned = (forms / "bundle/rootfs/srv/owned").stat()
    assert (owned.st_uid, owned.st_gid, owned.st_mode & 0o7777) == (33, 65534, 0o2640)
    command = [peer("runc"), "--root", str(forms / "runc"), "run", "--bundle", str(forms / "bundle"), "ocibuild-forms"]
    assert run_bundle(subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)) == SAID


def test_runc_runs_the_bundle_of_who_is_not_root(
    forms: Path, peer: Peer, ordinary_user: OrdinaryUser, ordinary_clone: Path, ordinary_python: Path
) -> None:
    home = ordinary_user.home
    shutil.copytree(forms / "layout", home / "layout", dirs_exist_ok=True)
    made = ordinary_user.run(
        [ordinary_python, "-m", "builder", "copy", home / "layout", f"bundle:{home / 'bundle'}"],
        cwd=ordinary_clone,
        XDG_RUNTIME_DIR=str(home),
    )
    assert made.returncode == 0, made.stderr
    command = [peer("runc"), "--root", home / "runc", "run", "--bundle", home / "bundle", "ocibuild-forms-user"]
    said = run_bundle(ordinary_user.run(command, XDG_RUNTIME_DIR=str(home)))
    assert said in (SAID, SAID.replace("1234", "0"))  # root, where the user has no range of ids
