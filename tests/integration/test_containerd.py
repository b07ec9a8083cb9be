"""containerd's word on every archive we write: `ctr images import` keeps our digest, and unpacks what we packed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.oci.layout import write_layout
from rootfs.store import DiskStore
from tests.integration.test_oracles_image import same_as_the_tree
from tests.integration.test_pack_verb import facts, ocibuild
from tests.integration.test_seekable import less, tree
from tests.peers.containerd import Containerd, containerd
from tests.peers.sample import COMPRESSIONS, sample

__all__ = ("tree",)  # a fixture
pytestmark = pytest.mark.peer

Peer = Callable[[str], str]
NAME = "registry.example/team/sample:1.0"


@pytest.fixture(scope="module")
def daemon(peer: Peer) -> Iterator[Containerd]:
    with containerd(peer("containerd"), peer("ctr")) as running:
        yield running


@pytest.fixture(scope="module", params=COMPRESSIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A compression, a layout whose image 1.0 has one of everything in layers compressed so, and its digest."""
    place = tmp_path_factory.mktemp("sample")
    store = DiskStore(place / "store")
    _, descriptor = sample(store, request.param)
    write_layout(place / "layout", store, descriptor, ref_name="1.0")
    return request.param, place / "layout", str(descriptor.digest)


def said(*argv: str | Path) -> str:
    done = ocibuild(*argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported(daemon: Containerd, namespace: str, archive: Path) -> dict[str, str]:
    """Import an archive into a namespace that is new; name -> digest of what it has then."""
    done = daemon.run(namespace, "images", "import", "--base-name", "local/x", archive)
    assert done.returncode == 0, done.stderr
    return daemon.images(namespace)


def target(form: str, tmp_path: Path) -> tuple[str, str]:
    """Where the verbs are to write an archive, and what containerd calls the image in it."""
    name = NAME if form == "docker-archive" else "1.0"
    return f"{form}:{tmp_path}/image.tar:{name}", NAME if form == "docker-archive" else "local/x:1.0"


FORMS = pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])


@FORMS
def test_every_archive_and_compression(
    form: str, made: tuple[str, Path, str], daemon: Containerd, tmp_path: Path
) -> None:
    compression, layout, digest = made
    place, name = target(form, tmp_path)
    said("copy", f"oci:{layout}:1.0", place, "--store", tmp_path / "store")
    namespace = f"{form}-{compression.replace(':', '-')}"
    assert imported(daemon, namespace, tmp_path / "image.tar") == {name: digest}
    same_as_the_tree(daemon.unpacked(namespace))


@FORMS
@pytest.mark.parametrize("compression", ["estargz", "zstd:chunked"])
def test_seekable_layers_are_plain_gzip_and_zstd_to_it(
    form: str, compression: str, tree: Path, daemon: Containerd, tmp_path: Path
) -> None:
    place, name = target(form, tmp_path)
    line = said("pack", tree, "--compression", compression, "--created", "1600000000", "-o", place)
    namespace = f"{form}-{compression.replace(':', '-')}"
    assert imported(daemon, namespace, tmp_path / "image.tar") == {name: line.strip().rpartition("@")[2]}
    assert less(facts(daemon.unpacked(namespace))) == facts(tree)


def test_what_pack_writes_is_imported_and_comes_back_with_its_digest(daemon: Containerd, tmp_path: Path) -> None:
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/motd").write_text("hello\n")
    store = ["--store", tmp_path / "store"]
    line = said("pack", tmp_path / "tree", "-o", f"docker-archive:{tmp_path}/packed.tar:wee:1", *store)
    digest = line.strip().rpartition("@")[2]
    assert imported(daemon, "packed", tmp_path / "packed.tar") == {"docker.io/library/wee:1": digest}
    assert (daemon.unpacked("packed") / "etc/motd").read_text() == "hello\n"
    exported = daemon.run("packed", "images", "export", tmp_path / "exported.tar", "docker.io/library/wee:1")
    assert exported.returncode == 0, exported.stderr
    assert said("copy", tmp_path / "exported.tar", f"oci:{tmp_path}/back:1", *store).strip().endswith(f"@{digest}")


def test_what_is_attached_is_no_image_to_it(daemon: Containerd, tmp_path: Path) -> None:
    """An archive lists SBOMs and signatures beside the image; a name on one would make an image of it."""
    store = ["--store", tmp_path / "store"]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    layout = f"{tmp_path}/layout:1"
    digest = said("pack", tmp_path / "tree", "-o", f"oci:{layout}", *store).strip().rpartition("@")[2]
    said("sbom", layout, "--attach", *store)
    tag = f"sha256-{digest[7:]}.sig"  # where cosign would keep a signature
    said("pack", tmp_path / "tree", "--env", "A=1", "-o", f"oci:{tmp_path}/layout:{tag}", *store)
    said("copy", layout, f"oci-archive:{tmp_path}/with.tar:1", *store)
    listed = json.loads(said("referrers", f"{tmp_path}/with.tar", "--json", *store))
    assert listed[0]["artifactType"] == "application/spdx+json"
    assert listed[1]["annotations"] == {"org.opencontainers.image.ref.name": tag}
    assert imported(daemon, "attached", tmp_path / "with.tar") == {"local/x:1": digest}


def test_of_an_index_this_machines_platform_is_unpacked(daemon: Containerd, tmp_path: Path) -> None:
    store = ["--store", tmp_path / "store"]
    for platform in ("linux/amd64", "linux/arm64", "linux/s390x"):
        tree = tmp_path / platform
        tree.mkdir(parents=True)
        (tree / "platform").write_text(platform)
        said("pack", tree, "--platform", platform, "-o", f"oci:{tmp_path}/one:{platform[6:]}", *store)
    parts = [f"{tmp_path}/one:{name}" for name in ("amd64", "arm64", "s390x")]
    line = said("index", *parts, "-o", f"oci-archive:{tmp_path}/index.tar:1", *store)
    assert imported(daemon, "index", tmp_path / "index.tar") == {"local/x:1": line.strip().rpartition("@")[2]}
    native = json.loads(said("inspect", f"{tmp_path}/index.tar", "--json", *store))
    assert (daemon.unpacked("index") / "platform").read_text() == native["platform"]
