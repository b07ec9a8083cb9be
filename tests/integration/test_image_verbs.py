"""The peers' word on whiteouts, and ours on the peers' images: umoci and podman apply our changes, we read theirs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.images import read_image
from builder.look.listed import listed_tree, listings
from builder.look.soundness import soundness
from builder.oci.changes import changes
from builder.oci.config import ImageConfig
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.tools import Tools
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.unit.test_images import HOST, tools_in

pytestmark = pytest.mark.peer

LOWER = Tree(
    [
        file("a/kept", b"kept"),
        file("a/gone", b"gone"),
        *(file(f"many/{number}", b"") for number in range(9)),
        *(file(f"many/deep/{number}", b"") for number in range(9)),
        file("many/-", b"first"),
        file("file-then-directory", b""),
        file("directory-then-file/x", b""),
        directory("directory-then-link"),
        file("one", b"1", 0o4755),
        FileEntry(path="two", kind=Kind.HARDLINK, link="one"),
        FileEntry(path="three", kind=Kind.HARDLINK, link="one"),
        file("naïve \udcff", b"x"),
    ]
).with_parents()
UPPER = Tree(
    [
        file("a/kept", b"kept"),
        file("a/new", b"new", 0o600, 7, 8),
        file("many/-", b"changed"),
        directory("many/deep", 0o700),
        file("many/deep/new", b""),
        file("file-then-directory/x", b""),
        file("directory-then-file", b""),
        symlink("directory-then-link", "a"),
        file("one", b"1", 0o4755),
        FileEntry(path="two", kind=Kind.HARDLINK, link="one"),
        directory("etc", 0o755),
    ]
).with_parents()


def run(*argv: str | Path) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lower tree, and upon it the changes to the upper one."""
    place = tmp_path_factory.mktemp("changes")
    tools = tools_in(place)
    made = changes(LOWER, UPPER)
    assert "many/deep/.wh..wh..opq" in made or "many/.wh..wh..opq" in made
    layers = [
        pack(tree, tools.store, created_by="", epoch=0, lowest=tree is LOWER, whiteouts=True) for tree in (LOWER, made)
    ]
    image = assemble(layers, ImageConfig(platform=HOST, created=0, cmd=("/x",)))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(place / "layout", tools.store, image.descriptor, ref_name="1")
    return place / "layout"


def agrees(root: Path) -> None:
    """Whether a directory is the upper tree."""
    base = os.fsencode(root)
    found = {
        os.fsdecode(place + b"/" + name)[len(str(root)) + 1 :]
        for place, folders, names in os.walk(base)
        for name in (*folders, *names)
    }
    assert found - {"dev", "proc", "sys", "run", "run/.containerenv"} == set(UPPER)
    for path, entry in UPPER.items():
        told = (root / path).lstat()
        if entry.kind is Kind.FILE:
            assert (root / path).read_bytes() == entry.content
        if entry.kind in (Kind.FILE, Kind.DIRECTORY):
            assert told.st_mode & 0o7777 == entry.mode, path
            if os.geteuid() == 0:
                assert (told.st_uid, told.st_gid) == (entry.uid, entry.gid)
    assert (root / "directory-then-link").readlink() == Path("a")
    assert (root / "one").samefile(root / "two")
    assert (root / "one").lstat().st_nlink == 2


def test_umoci_applies_the_changes(layout: Path, peer: Callable[[str], str], tmp_path: Path) -> None:
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    run(peer("umoci"), "unpack", *rootless, "--image", f"{layout}:1", tmp_path / "bundle")
    agrees(tmp_path / "bundle/rootfs")


def test_podman_applies_the_changes(layout: Path, peer: Callable[[str], str], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("podman mounts images for root only")
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    place = Path(tempfile.mkdtemp(prefix="podman-"))  # podman wants a short path
    podman = [peer("podman"), "--root", place / "root", "--runroot", place / "run", "--storage-driver", "vfs"]
    try:
        image = run(*podman, "pull", "--quiet", f"--signature-policy={policy}", f"oci:{layout}:1").strip()
        agrees(Path(run(*podman, "image", "mount", image).strip()))
        run(*podman, "image", "unmount", "--all")
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def theirs(layout: Path, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, changed once more by umoci."""
    if os.geteuid() != 0:
        pytest.skip("umoci cannot make what is not its own without being root")
    place = tmp_path_factory.mktemp("theirs")
    run("cp", "-r", layout, place / "layout")
    umoci = peer("umoci")
    run(umoci, "unpack", "--image", f"{place / 'layout'}:1", place / "bundle")
    root = place / "bundle/rootfs"
    (root / "a/kept").unlink()
    (root / "etc/motd").write_text("hi\n")
    (root / "one").chmod(0o700)
    run("rm", "-r", root / "many")
    run(umoci, "repack", "--image", f"{place / 'layout'}:2", place / "bundle")
    run(umoci, "config", "--image", f"{place / 'layout'}:2", "--config.env", "A=B")
    return place / "layout"


def test_we_see_what_umoci_did(theirs: Path, tmp_path: Path) -> None:
    tools: Tools = tools_in(tmp_path)
    image = read_image(f"{theirs}:2")
    tree = listed_tree(image, listings([image], tools))
    assert {path for path in UPPER if not path.startswith("many")} - {*tree} == {"a/kept"}
    assert {*tree} - {*UPPER} == {"etc/motd"}
    assert tree["one"].mode == 0o700
    assert not [finding for finding in soundness(str(theirs)).findings if finding.severity == "error"]


def test_what_skopeo_copies_is_sound_too(layout: Path, peer: Callable[[str], str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    for target in ("oci-archive:{}:1", "docker-archive:{}:x:1"):
        archive = tmp_path / target.partition(":")[0]
        copy = ["copy", "--quiet", f"oci:{layout}:1", target.format(archive)]
        run(peer("skopeo"), "--policy", policy, *copy)
        assert not [finding for finding in soundness(str(archive)).findings if finding.severity == "error"]
    told = json.loads(run(peer("skopeo"), "inspect", f"oci:{layout}:1"))
    assert len(told["Layers"]) == 2
