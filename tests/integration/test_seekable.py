"""eStargz and zstd:chunked layers, read by those they are made for, a file at a time, and plainly by everyone else."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_oci_layout import run
from tests.integration.test_pack_verb import LIMITS, facts, layer_of, ocibuild, podman, skopeo
from tests.peers.registry import registry
from tests.peers.sample import unpacked

__all__ = ("podman",)  # a fixture
pytestmark = pytest.mark.peer

Peer = Callable[[str], str]
OWN = {"stargz.index.json", ".no.prefetch.landmark"}
TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
TYPES = {"reg": "-", "dir": "d", "symlink": "l", "fifo": "p"}


@pytest.fixture(scope="module")
def tree(peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Also with a file of three chunks."""
    large = b"".join(b"%d\n" % number for number in range(1_200_000))
    return unpacked(tmp_path_factory.mktemp("tree"), peer("busybox"), {"etc/empty": b"", "etc/large": large})


def packed(tree: Path, place: Path, compression: str) -> Path:
    """The tree as an image with the tag x, whose command says hello."""
    words = ["--cmd", "sh -c 'cat /etc/motd'", "--created", "1600000000", "--compression", compression]
    done = ocibuild("pack", tree, *words, "--output", f"oci:{place}/layout:x", "--store", place / "store")
    assert done.returncode == 0, done.stderr
    return place / "layout"


@pytest.fixture(scope="module")
def estargz(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tree, tmp_path_factory.mktemp("estargz"), "estargz")


@pytest.fixture(scope="module")
def zstdchunked(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tree, tmp_path_factory.mktemp("zstdchunked"), "zstd:chunked")


@pytest.fixture(params=["estargz", "zstdchunked"])
def layout(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def described(layout: Path) -> dict[str, Any]:
    """The one layer's descriptor, with `diff_id`."""
    index = json.loads((layout / "index.json").read_text())
    blobs = layout / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    return {**manifest["layers"][0], "diff_id": config["rootfs"]["diff_ids"][0]}


def files(root: Path) -> dict[str, tuple[object, ...]]:
    """What containers/storage puts in place: no pipes, and neither directories nor links with their times."""
    found = {}
    for name, (mode, mtime, *rest) in facts(root).items():
        kind = str(mode)[0]
        if kind != "p":
            found[name] = (mode, mtime if kind == "-" else None, *rest)
    return found


def less(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Without the two files that an eStargz layer has beside the tree's."""
    return {name: fact for name, fact in found.items() if name not in OWN}


def test_stargz_snapshotters_library_reads_and_verifies_each_file(estargz: Path, tree: Path, peer: Peer) -> None:
    reader = peer("estargz-reader")
    layer, _ = layer_of(estargz)
    said = described(estargz)["annotations"]
    lines = [json.loads(line) for line in run(reader, layer, said[TOC_DIGEST]).splitlines()]
    found = {one["name"].lstrip("/"): one for one in lines if one["name"] and one["name"].lstrip("/") not in OWN}
    wanted = facts(tree)
    assert set(found) == set(wanted)
    for name, (mode, mtime, digest, link, _) in wanted.items():
        one = found[name]
        shown = TYPES[one["type"]] + stat.filemode(one["mode"])[1:]
        assert (shown, one["mtime"], one["sha256"], one["link"]) == (
            mode,
            mtime,
            digest if one["size"] else "",
            link,
        ), name
    assert found["etc/large"]["chunks"] == 3
    assert found["etc/large"]["size"] == (tree / "etc/large").stat().st_size
    assert int(said["io.containers.estargz.uncompressed-size"]) == len(gzip.decompress(layer.read_bytes()))
    wrong = subprocess.run([reader, layer, "sha256:" + "0" * 64], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "invalid TOC JSON" in wrong.stderr


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Path]:
    """A directory for containers/storage, which leaves a mount in it when it fails."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts an overlay everywhere")
    yield tmp_path / "storage"
    subprocess.run(["umount", "--lazy", tmp_path / "storage/graph/overlay"], capture_output=True, check=False)


def test_containers_storage_pulls_it_in_parts_and_gets_the_diff_id(
    zstdchunked: Path, tree: Path, peer: Peer, storage: Path, tmp_path: Path
) -> None:
    """The second layer has a file more: only that is fetched. The store makes the tar again, to the byte."""
    puller = peer("zstdchunked-puller")
    more = tmp_path / "more"
    subprocess.run(["cp", "--archive", str(tree), str(more)], check=True)
    (more / "etc/new").write_bytes(b"new\n")
    os.utime(more / "etc/new", (1_500_000_000, 1_500_000_000))
    newer = packed(more, tmp_path, "zstd:chunked")
    argv: list[str] = [puller, str(storage)]
    for layout in (zstdchunked, newer):
        argv += [str(layer_of(layout)[0]), json.dumps(described(layout)["annotations"])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "overlay" in done.stderr and done.returncode:
        pytest.skip(f"containers/storage has no overlay on this machine: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    for one, layout, source in ((first, zstdchunked, tree), (second, newer, more)):
        assert one["diff_id"] == one["again"] == described(layout)["diff_id"]
        assert files(Path(one["files"])) == files(source)
    size = described(newer)["size"]
    assert second["asked"] < size / 10
    assert first["asked"] > size / 2


@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_tar_and_bsdtar_extract_the_tree(reader: str, layout: Path, tree: Path, peer: Peer, tmp_path: Path) -> None:
    layer, media_type = layer_of(layout)
    decoder = "gzip" if media_type.endswith("gzip") else "zstd"
    plain = subprocess.run([peer(decoder), "-dc"], input=layer.read_bytes(), capture_output=True, check=True).stdout
    locale = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run([peer(reader), "-xpf", "-"], cwd=tmp_path, input=plain, check=True, env=locale)
    assert less(facts(tmp_path)) == facts(tree)


def test_umoci_unpacks_the_tree(estargz: Path, tree: Path, peer: Peer, tmp_path: Path) -> None:
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{estargz}:x", tmp_path / "bundle")
    assert less(facts(tmp_path / "bundle/rootfs")) == facts(tree)


def test_skopeo_copies_it_unchanged(layout: Path, peer: Peer, tmp_path: Path) -> None:
    skopeo(peer, tmp_path, f"oci:{layout}:x", f"oci:{tmp_path}/copy:x", "--preserve-digests")
    ours, theirs = ({p.name for p in (d / "blobs/sha256").iterdir()} for d in (layout, tmp_path / "copy"))
    assert ours == theirs
    assert described(tmp_path / "copy") == described(layout)


def test_podman_runs_it(layout: Path, podman: list[str]) -> None:
    pulled = run(*podman, "pull", "--quiet", f"oci:{layout}:x").strip()
    argv = [*podman, "run", "--rm", "--network=none", *LIMITS, pulled]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode in (125, 126):
        pytest.skip(f"podman cannot run a container on this machine: {done.stderr.strip()[-200:]}")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


def test_crane_validates_it_in_a_registry(estargz: Path, peer: Peer, tmp_path: Path) -> None:
    """Of zstd layers, plain ones too, it says that they are no gzip."""
    crane = peer("crane")
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        done = ocibuild("copy", f"oci:{estargz}:x", f"{host}/seekable:x", "--plain-http", "--store", tmp_path / "store")
        assert done.returncode == 0, done.stderr
        assert json.loads(run(crane, "manifest", "--insecure", f"{host}/seekable:x"))["layers"][0]["annotations"]
        run(crane, "validate", "--insecure", "--remote", f"{host}/seekable:x")


def test_our_own_readers_find_nothing_wrong(layout: Path, tree: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    done = ocibuild("check", f"oci:{layout}:x", *store)
    assert (done.returncode, "0 errors, 0 notes" in done.stdout) == (0, True), done.stdout + done.stderr
    done = ocibuild("copy", f"oci:{layout}:x", f"dir:{tmp_path}/files", *store)
    assert done.returncode == 0, done.stderr
    assert less(facts(tmp_path / "files")) == facts(tree)
