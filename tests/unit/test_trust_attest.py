"""The documents of a built image: made once, kept under a key, made again when something of them is gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from builder.app import Built, Found, deliver, describe
from builder.finding import find_image
from builder.oci.descriptor import Descriptor
from builder.oci.layout import write_layout
from builder.oci.manifest import Manifest
from builder.target import Place
from builder.tools import Tools
from builder.trust.attach import attached_to
from rootfs.digest import Digest
from rootfs.errors import LockError
from rootfs.ports import read_blob
from rootfs.tree import Tree
from tests.fakes.reporter import ListReporter
from tests.unit.test_images import image_of, tools_in
from tests.unit.test_trust_provenance import LOCK, RECIPE
from tests.unit.test_trust_sbom import BASE, lock_of

LOCKED = msgspec.structs.replace(LOCK, package=lock_of([("libc6", "2.41-12+b1"), ("libssl3t64", "3.5.7-1")]).package)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return tools_in(tmp_path)


@pytest.fixture
def built(tools: Tools, tmp_path: Path) -> Built:
    image = image_of(Tree(BASE.values()).with_parents(), tools)
    write_layout(tmp_path / "wee", tools.store, image.descriptor, ref_name="1")
    return Built(place=Place(form="oci", path=tmp_path / "wee"), tag="1", descriptor=image.descriptor)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return Found(recipe=RECIPE, path=tmp_path / "wee.toml", lock_path=tmp_path / "wee.lock.toml")


def document(one: Descriptor, tools: Tools) -> bytes:
    """What is attached."""
    (layer,) = Manifest.parse(read_blob(tools.store, one.digest)).layers
    return read_blob(tools.store, layer.digest)


def test_all_three_are_attached_and_the_image_stays(found: Found, built: Built, tools: Tools) -> None:
    described = describe(found, LOCKED, built, tools)
    assert described.descriptor == built.descriptor
    assert [one.artifact_type for one in described.attached] == [
        "application/spdx+json",
        "application/vnd.cyclonedx+json",
        "application/vnd.in-toto+json",
    ]
    listed = attached_to(built.layout, built.descriptor.digest)
    assert {one.digest for one in listed} == {one.digest for one in described.attached}
    spdx, _, statement = (json.loads(document(one, tools)) for one in described.attached)
    assert statement["subject"][0]["digest"]["sha256"] == built.descriptor.digest.hex
    assert "https://ftp.example.org/libc6.deb" in {package["downloadLocation"] for package in spdx["packages"]}


def test_a_second_time_nothing_is_made(found: Found, built: Built, tools: Tools) -> None:
    once = describe(found, LOCKED, built, tools)
    heard = ListReporter()
    assert describe(found, LOCKED, built, replace(tools, reporter=heard)) == once
    assert heard.events == []


@pytest.mark.parametrize("what", ["manifest", "document"])
def test_what_is_gone_from_the_store_is_made_again(
    what: str, found: Found, built: Built, tools: Tools, tmp_path: Path
) -> None:
    once = describe(found, LOCKED, built, tools)
    one = once.attached[0]
    data = read_blob(tools.store, one.digest) if what == "manifest" else document(one, tools)
    (gone,) = (tmp_path / "store").rglob(Digest.of(data).hex)
    gone.unlink()
    assert describe(found, LOCKED, built, tools) == once
    assert document(one, tools)


def test_overrides_are_told_by_the_provenance_alone(found: Found, built: Built, tools: Tools) -> None:
    plain = describe(found, LOCKED, built, tools).attached
    other = describe(found, LOCKED, built, tools, overrides=["name=wee"]).attached
    assert plain[:2] == other[:2]
    assert plain[2] != other[2]
    assert len(attached_to(built.layout, built.descriptor.digest)) == 3


def test_the_lock_of_another_image_attaches_nothing(found: Found, built: Built, tools: Tools) -> None:
    with pytest.raises(LockError, match="another image"):
        describe(found, LOCK, built, tools)
    assert attached_to(built.layout, built.descriptor.digest) == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("oci-archive:o.tar", "o.tar@IMAGE"),
        ("oci-archive:o.tar:2", "o.tar:2@IMAGE"),
        ("docker-archive:o.tar:wee:2", "o.tar:wee:2@IMAGE"),
        ("dir:o", "o@IMAGE"),
        ("o.tar", "o.tar@FILE"),
    ],
)
def test_a_place_that_is_no_layout_is_written_with_what_is_attached(
    built: Built, found: Found, tools: Tools, text: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place.parse(text)
    image = describe(found, LOCKED, replace(built, place=place, tag=place.tag or built.tag), tools)
    digest = deliver(image, tools)
    whole = Path("o.tar")
    file = Digest.of(whole.read_bytes()) if whole.is_file() else None
    assert f"{image.place}@{digest}" == line.replace("IMAGE", str(built.descriptor.digest)).replace("FILE", str(file))
    if text.startswith("oci-archive"):
        at = find_image(f"o.tar:{image.place.tag or '1'}")
        assert at.descriptor.digest == built.descriptor.digest
        assert {one.digest for one in at.listed} - {at.descriptor.digest} == {one.digest for one in image.attached}
    elif text.startswith("docker"):
        assert find_image("o.tar:wee:2").descriptor.digest == built.descriptor.digest
    # a layout is as it always was, and written before
    assert deliver(built, tools) == built.descriptor.digest
