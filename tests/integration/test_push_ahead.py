"""`recipe --push` while the image is being made: its layers are there before it is verified, and nothing else is."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from builder.app import find_recipe
from builder.lock import Lock
from builder.oci.manifest import Manifest
from builder.plan import make_plan
from rootfs.digest import Digest
from rootfs.ports import read_blob
from tests.integration.conftest import RECIPE, Image
from tests.peers.gate import gate
from tests.peers.registry import registry

pytestmark = [pytest.mark.compile, pytest.mark.archive, pytest.mark.peer]

Find = Callable[[str], str]
FAILING = ("--set", "image.env.PYTHONHOME=/nonexistent")


@pytest.fixture
def place(image: Image) -> Iterator[Path]:
    """A directory of the user's, with a store that has all but the layers and the image, which is not verified."""
    place = Path(image.user.run(["mktemp", "--directory", str(image.user.home / "ahead-XXXXXX")]).stdout.strip())
    known = image.user.home / ".cache/ocibuild"
    script = f"mkdir {place}/store; cp -r {known}/links {place}/store; ln -s {known}/blobs {place}/store/blobs"
    assert image.user.run(["sh", "-ec", script]).returncode == 0
    lock = Lock.parse((image.clone / "recipes/wee.lock.toml").read_bytes(), at="lock")
    plan = make_plan(find_recipe(str(image.clone / RECIPE)).recipe, lock)
    accepted = Digest.of_value({"kind": "accept", "revision": 1, "manifest": image.digest})
    for key in (plan.key, *(step.key for step in plan.inputs), accepted):
        (place / "store/links" / key.hex).unlink(missing_ok=True)
    yield place
    image.user.run(["rm", "-rf", str(place)])


def argv_of(place: Path, *words: str) -> list[str]:
    return ["recipe", RECIPE, "--store", str(place / "store"), "--output", str(place / "dist"), "--plain-http", *words]


def layers_of(image: Image) -> list[Digest]:
    manifest = Manifest.parse(read_blob(image.store, Digest.parse(image.digest)))
    return [layer.digest for layer in manifest.layers]


def files_of(place: Path, kind: str) -> list[str]:
    """What docker-registry keeps of a repository: `_layers` or `_manifests`."""
    return [str(path) for path in place.rglob("link") if f"/repositories/some/image/{kind}/" in str(path)]


def numbered(lines: Sequence[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(lines) if re.search(pattern, line)]


def test_layers_are_sent_before_the_last_step_ends(image: Image, place: Path, peer: Find, tmp_path: Path) -> None:
    receipt = place / "receipt.json"
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        words = ["--locked", "--push", f"{host}/some/image:1", "--receipt", str(receipt)]
        done = image.ocibuild(*argv_of(place, *words))
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip() == f"{host}/some/image@{image.digest}"
    said = done.stderr.splitlines()
    sent = [numbered(said, f"^push {layer.hex[:12]}: uploaded") for layer in layers_of(image)]
    assert [len(one) for one in sent] == [1, 1, 1]
    assert max(number for one in sent for number in one) < min(numbered(said, "^ok "))
    log = (tmp_path / "registry/log").read_text(errors="replace").splitlines()
    blobs = [numbered(log, rf'"PUT /v2/\S+digest=sha256%3A{layer.hex}') for layer in layers_of(image)]
    assert [len(one) for one in blobs] == [1, 1, 1]
    assert max(number for one in blobs for number in one) < min(numbered(log, r'"PUT /v2/\S+/manifests/'))
    (told,) = json.loads(receipt.read_bytes())
    actions = {one["digest"]: (one["action"], one["sent"] == one["size"]) for one in told["blobs"]}
    assert {actions[str(layer)] for layer in layers_of(image)} == {("uploaded", True)}
    assert told["bytesSent"] > sum(one["size"] for one in told["blobs"])


def test_what_does_not_pass_its_verification_leaves_no_manifest(
    image: Image, place: Path, peer: Find, tmp_path: Path
) -> None:
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        words = [*FAILING, "--lock", str(place / "lock.toml"), "--push", f"{host}/some/image:1"]
        done = image.ocibuild(*argv_of(place, *words))
    assert done.returncode == 1, done.stderr
    assert "does not run" in done.stderr
    assert len(files_of(tmp_path, "_layers")) == len(layers_of(image))
    assert files_of(tmp_path, "_manifests") == []


def test_who_is_not_let_in_is_told_before_anything_is_built(
    image: Image, place: Path, peer: Find, tmp_path: Path
) -> None:
    with registry(peer("docker-registry"), tmp_path / "registry", basic_auth=True) as host:
        done = image.ocibuild(*argv_of(place, "--locked", "--push", f"{host}/some/image:1"))
    assert done.returncode == 6
    assert "wants a user and a password" in done.stderr
    assert "ocibuild login" in done.stderr
    assert "begins" not in done.stderr
    assert not (place / "dist").exists()


def test_ctrl_c_ends_the_build_and_the_upload(image: Image, place: Path, peer: Find, tmp_path: Path) -> None:
    with registry(peer("docker-registry"), tmp_path / "registry") as upstream, gate(upstream) as link:
        link.holds = lambda _piece, sent: sent > 1 << 20
        words = argv_of(place, "--locked", "--push", f"{link.host}/some/image:1")
        process = image.user.start([image.clone / ".venv/bin/ocibuild", *words], cwd=image.clone, **image.mirrors)
        assert link.held.wait(60)
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 15
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.rstrip().endswith("run the same command to go on")
    assert [path for path in Path("/proc").glob("[0-9]*/cmdline") if _names(path, str(place))] == []
    assert files_of(tmp_path, "_manifests") == []


def _names(path: Path, text: str) -> bool:
    try:
        return text in path.read_text(errors="replace")
    except OSError:  # it has ended
        return False
