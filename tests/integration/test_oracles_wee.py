"""The schemas' and other people's word on the end-to-end image, beside skopeo's, umoci's and podman's in test_image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.oci.manifest import Manifest
from tests.integration.conftest import Image
from tests.peers.schemas import valid

pytestmark = [pytest.mark.compile, pytest.mark.archive]
Peer = Callable[[str], str]


def run(*argv: str | Path, **environment: str) -> str:
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def blob(image: Image, digest: object) -> Path:
    return image.layout / "blobs/sha256" / str(digest).removeprefix("sha256:")


def test_every_document_is_one_of_its_schema(image: Image) -> None:
    valid("image-layout-schema", (image.layout / "oci-layout").read_bytes())
    valid("image-index-schema", (image.layout / "index.json").read_bytes())
    data = blob(image, image.digest).read_bytes()
    valid("image-manifest-schema", data)
    valid("config-schema", blob(image, Manifest.parse(data).config.digest).read_bytes())


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_tar_programs_read_each_layer(image: Image, peer: Peer, program: str) -> None:
    for layer in Manifest.parse(blob(image, image.digest).read_bytes()).layers:
        names = run(peer(program), "-tf", blob(image, layer.digest), LC_ALL="C.UTF-8").splitlines()
        assert len(names) == len(set(names)) > 1


def test_regctl_and_oras_find_the_same_digest(image: Image, peer: Peer, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "REGCTL_CONFIG": str(tmp_path / "regctl.json")}
    where = f"{image.layout}:3.14.7-wee"
    assert run(peer("regctl"), "image", "digest", f"ocidir://{where}", **home).strip() == image.digest
    assert image.digest in run(peer("oras"), "manifest", "fetch", "--descriptor", "--oci-layout", where, **home)
