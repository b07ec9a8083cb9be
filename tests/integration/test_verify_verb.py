"""`ocibuild verify` of a real image and of damaged copies of it, and umoci's idea of what its layers amount to."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.images import open_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, LAYER_GZIP, MANIFEST, REF_NAME, Descriptor
from builder.oci.layout import is_attached, read_layout, write_layout
from builder.oci.manifest import Manifest
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.ports import read_content
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore
from rootfs.tree import FileEntry, Kind, Tree
from tests.conftest import ROOT
from tests.fakes.reporter import ListReporter
from tests.fakes.transport import pages
from tests.integration.conftest import Image

pytestmark = [pytest.mark.compile, pytest.mark.archive]

SSL = "usr/local/lib/python3.14/lib-dynload"


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """A store of its own: nothing of the image is in it."""
    store = tmp_path_factory.mktemp("verify")
    return Tools(
        store=DiskStore(store),
        transport=pages({}),
        sandbox=NamespaceSandbox(),
        reporter=ListReporter(),
        mirrors={},
        work=store / "work",
        jobs=2,
    )


@pytest.fixture(scope="module")
def without_ssl(image: Image, tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image with a layer on top whose whiteouts hide _ssl, and an opaque directory that empties wsgiref."""
    names = [path.rpartition("/")[2] for path in open_image(str(image.layout), tools).tree if f"{SSL}/_ssl." in path]
    assert len(names) == 1
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(f"{SSL}/.wh.{names[0]}"))
        archive.addfile(tarfile.TarInfo("usr/local/lib/python3.14/wsgiref/.wh..wh..opq"))
        archive.addfile(tarfile.TarInfo("usr/local/lib/python3.14/wsgiref/__init__.py"))
    layer = gzip.compress(stream.getvalue())
    layout = tmp_path_factory.mktemp("without-ssl") / "image"
    shutil.copytree(image.layout, layout)
    old = _image_in(layout)
    blobs = layout / "blobs" / "sha256"
    manifest = Manifest.parse((blobs / old.digest.hex).read_bytes())
    config = ImageConfig.parse((blobs / manifest.config.digest.hex).read_bytes())
    new = replace(
        config,
        diff_ids=(*config.diff_ids, Digest.of(stream.getvalue())),
        history=(*config.history, replace(config.history[0], created_by="test")),
    ).to_bytes()
    top = replace(
        manifest,
        config=Descriptor.of(CONFIG, new),
        layers=(*manifest.layers, Descriptor.of(LAYER_GZIP, layer)),
    ).to_bytes()
    store = DiskStore(layout)  # a layout's blobs lie as a store's do
    for data in (layer, new, top):
        store.put([data])
    write_layout(layout, store, Descriptor.of(MANIFEST, top), ref_name=old.annotations[REF_NAME])
    return layout


def _image_in(layout: Path) -> Descriptor:
    """The image of a layout that holds one, and what is attached to it."""
    (image,) = (one for one in read_layout(layout).manifests if not is_attached(one))
    return image


def verify(tools: Tools, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the verb of this source tree, as whoever runs the suite, with the store of `tools`."""
    store: DiskStore = tools.store  # type: ignore[assignment]
    command = [sys.executable, "-m", "builder", "verify", "--store", store.root, *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_ordinary_users_image_passes(image: Image) -> None:
    done = image.ocibuild("verify", "--wheels", "dist/wee")
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(r"dist/wee@(\S+): (\d+) passed, 0 failed, (\d+) not tried\n", done.stdout)
    assert said, done.stdout
    assert said[1] == image.digest
    assert int(said[2]) > 40
    untried = re.findall(r"(?m)^not tried (.*?): (.*)", done.stderr)
    assert len(untried) == int(said[3])
    # without an index that pip can reach, and only then, the wheels remain untried
    assert all("could not fetch" in reason for _, reason in untried), untried
    assert {name for name, _ in untried} <= {"NumPy wheel", "cryptography wheel"}


def test_a_missing_module_fails_and_names_its_library(without_ssl: Path, tools: Tools) -> None:
    done = verify(tools, without_ssl)
    assert done.returncode == 1, done.stderr
    assert "FAILED ssl: ModuleNotFoundError: No module named '_ssl'; wants libssl" in done.stderr
    assert "FAILED no module is missing: AssertionError: _ssl\n" in done.stderr
    assert "wsgiref.handlers" not in done.stderr
    passed, failed = re.findall(r": (\d+) passed, (\d+) failed, 2 not tried", done.stdout)[0]
    assert int(passed) > 30
    assert 4 <= int(failed) <= 8


def test_a_truncated_layer_is_refused(image: Image, tools: Tools, tmp_path: Path) -> None:
    layout = tmp_path / "image"
    shutil.copytree(image.layout, layout)
    largest = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.unlink()
    largest.write_bytes(data[:-1000])
    done = verify(tools, layout)
    assert done.returncode == 5
    assert done.stdout == ""
    assert f"error: size differs\n  at {largest}\n" in done.stderr


@pytest.mark.peer
@pytest.mark.parametrize("which", ["image", "without_ssl"])
def test_umoci_unpacks_the_same(
    which: str, request: pytest.FixtureRequest, tools: Tools, peer: Callable[[str], str], tmp_path: Path
) -> None:
    given = request.getfixturevalue(which)
    layout = given.layout if isinstance(given, Image) else given
    tag = _image_in(layout).annotations[REF_NAME]
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    bundle = tmp_path / "bundle"
    subprocess.run([peer("umoci"), "unpack", *rootless, "--image", f"{layout}:{tag}", bundle], check=True)
    tree = open_image(str(layout), tools).tree
    ours = {path: _told(entry, tree, tools) for path, entry in tree.items()}
    theirs = _on_disk(bundle / "rootfs")
    if rootless:
        ours = {path: (*told[:2], 0, 0, *told[4:]) for path, told in ours.items()}
        theirs = {path: (*told[:2], 0, 0, *told[4:]) for path, told in theirs.items()}
    assert {path: told for path, told in ours.items() if theirs.get(path) != told} == {}
    assert sorted(theirs) == sorted(ours)


Told = tuple[str, int, int, int, int, str]


def _told(entry: FileEntry, tree: Tree, tools: Tools) -> Told:
    """Kind, mode, owner, time, and what it holds or leads to; a hard link is the file it is a name of."""
    if entry.kind is Kind.HARDLINK:
        entry = tree[entry.link]
    held = ""
    if entry.kind is Kind.SYMLINK:
        return "symlink", 0, entry.uid, entry.gid, entry.mtime, entry.link
    if entry.kind is Kind.FILE:
        held = hashlib.sha256(read_content(tools.store, entry.content)).hexdigest()
    return entry.kind.value, entry.mode, entry.uid, entry.gid, entry.mtime, held


def _on_disk(root: Path) -> dict[str, Told]:
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        mode, owner, when = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), int(status.st_mtime)
        told: Told
        if path.is_symlink():
            told = ("symlink", 0, *owner, when, str(path.readlink()))
        elif path.is_dir():
            told = ("dir", mode, *owner, when, "")
        else:
            told = ("file", mode, *owner, when, hashlib.sha256(path.read_bytes()).hexdigest())
        found[path.relative_to(root).as_posix()] = told
    return found
