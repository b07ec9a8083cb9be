"""Artifacts with a subject: in the store, in a layout, and what a layout is found to have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builder.cli import run
from builder.images import open_image
from builder.oci.descriptor import EMPTY, INDEX, MANIFEST, REF_NAME, Descriptor
from builder.oci.image import Image
from builder.oci.layout import is_attached, read_layout, referrers_tag, relist, write_layout
from builder.oci.manifest import Index, Manifest
from builder.tools import Tools
from builder.trust.attach import Document, artifact, attach, attached_to, content, is_whole
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import read_blob
from rootfs.tree import Tree, file
from tests.conftest import ROOT
from tests.unit.test_images import image_of, tools_in

SBOM = Document(media_type="application/spdx+json", file_name="x.spdx.json", data=b'{"a":1}')
OTHER = Document(media_type="application/spdx+json", file_name="x.spdx.json", data=b'{"b":1}')
STATEMENT = Document(
    media_type="application/vnd.in-toto+json",
    file_name="x.provenance.json",
    data=b"{}",
    annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"},
)


class Place:
    """A layout with one image under the tag 1."""

    def __init__(self, path: Path) -> None:
        self.tools: Tools = tools_in(path)
        self.layout = path / "image"
        self.image = self.add(b"one", "1")

    def add(self, data: bytes, tag: str) -> Image:
        image = image_of(Tree([file("x", data)]), self.tools)
        write_layout(self.layout, self.tools.store, image.descriptor, ref_name=tag)
        return image

    def attach(self, *documents: Document, to: Image | None = None) -> list[Descriptor]:
        subject = (to or self.image).descriptor
        made = [artifact(one, subject, self.tools.store, created=0) for one in documents]
        attach(self.layout, made, self.tools.store)
        return made

    def attached(self, image: Image | None = None) -> set[Digest]:
        return {one.digest for one in attached_to(self.layout, (image or self.image).descriptor.digest)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_manifest_of_an_artifact(place: Place) -> None:
    made = artifact(STATEMENT, place.image.descriptor, place.tools.store, created=0)
    value = json.loads(read_blob(place.tools.store, made.digest))
    assert value["artifactType"] == made.artifact_type == "application/vnd.in-toto+json"
    assert value["config"] == {"mediaType": EMPTY, "digest": str(Digest.of(b"{}")), "size": 2}
    subject = place.image.descriptor
    assert value["subject"] == {"mediaType": MANIFEST, "digest": str(subject.digest), "size": subject.size}
    (layer,) = value["layers"]
    assert layer["mediaType"] == "application/vnd.in-toto+json"
    assert layer["annotations"]["org.opencontainers.image.title"] == "x.provenance.json"
    assert value["annotations"]["in-toto.io/predicate-type"] == "https://slsa.dev/provenance/v1"
    assert value["annotations"]["org.opencontainers.image.created"] == "1970-01-01T00:00:00Z"
    assert artifact(STATEMENT, subject, place.tools.store, created=0) == made
    assert is_whole([made], place.tools.store)


def test_a_layout_lists_them_and_the_image_stays_what_it_was(place: Place) -> None:
    made = place.attach(SBOM, STATEMENT)
    assert place.attached() == {one.digest for one in made}
    assert content(place.layout, made[0]) == SBOM.data
    assert open_image(str(place.layout), place.tools).descriptor.digest == place.image.descriptor.digest
    listed = read_layout(place.layout).manifests
    assert [one.digest for one in listed if not is_attached(one)] == [place.image.descriptor.digest]
    assert {one.artifact_type for one in listed} == {None, SBOM.media_type, STATEMENT.media_type}
    for one in listed:
        if one.media_type == MANIFEST:
            for child in Manifest.parse(read_blob(place.tools.store, one.digest)).children:
                assert (place.layout / "blobs/sha256" / child.digest.hex).is_file()


def test_the_referrers_index_is_that_of_a_registry_without_the_api(place: Place) -> None:
    made = place.attach(SBOM, STATEMENT)
    name = f"sha256-{place.image.descriptor.digest.hex}"
    (listing,) = [one for one in read_layout(place.layout).manifests if one.annotations.get(REF_NAME) == name]
    assert listing.media_type == INDEX
    entries = Index.parse(read_blob(place.tools.store, listing.digest)).manifests
    assert {one.digest: (one.artifact_type, one.annotations) for one in entries} == {
        one.digest: (one.artifact_type, one.annotations) for one in made
    }


def test_twice_is_once_and_the_newer_takes_the_place_of_the_older(place: Place) -> None:
    place.attach(SBOM, STATEMENT)
    once = (place.layout / "index.json").read_bytes()
    _, statement = place.attach(SBOM, STATEMENT)
    assert (place.layout / "index.json").read_bytes() == once
    (other,) = place.attach(OTHER)
    assert place.attached() == {other.digest, statement.digest}


def test_what_others_attached_stays(place: Place) -> None:
    subject = place.image.descriptor
    foreign = Manifest(
        config=Descriptor.of(EMPTY, b"{}"),
        layers=(Descriptor.of(SBOM.media_type, SBOM.data),),
        artifact_type=SBOM.media_type,
        subject=subject,
    ).to_bytes()
    for blob in (foreign, b"{}", SBOM.data):
        place.tools.store.put([blob])
    theirs = Descriptor.of(MANIFEST, foreign)
    listing = Index(manifests=(theirs,)).to_bytes()
    place.tools.store.put([listing])
    tagged = Descriptor(
        media_type=INDEX,
        digest=Digest.of(listing),
        size=len(listing),
        annotations={REF_NAME: f"sha256-{subject.digest.hex}"},
    )
    relist(place.layout, place.tools.store, add=[tagged], drop=frozenset())  # as regctl leaves it
    assert place.attached() == {theirs.digest}
    (ours,) = place.attach(SBOM)
    assert place.attached() == {theirs.digest, ours.digest}
    (newer,) = place.attach(OTHER)
    assert place.attached() == {theirs.digest, newer.digest}


def test_what_is_attached_goes_with_its_image(place: Place) -> None:
    place.attach(SBOM)
    other = place.add(b"two", "2")
    place.attach(SBOM, to=other)
    assert len(place.attached()) == len(place.attached(other)) == 1
    rebuilt = place.add(b"three", "1")
    place.attach(SBOM, to=rebuilt)
    assert not place.attached()
    assert len(place.attached(other)) == len(place.attached(rebuilt)) == 1
    names = {one.annotations.get(REF_NAME) for one in read_layout(place.layout).manifests} - {None}
    assert names == {"1", "2", *(f"sha256-{one.descriptor.digest.hex}" for one in (other, rebuilt))}


def test_a_damaged_artifact_is_refused(place: Place) -> None:
    (made,) = place.attach(SBOM)
    path = place.layout / "blobs/sha256" / Digest.of(SBOM.data).hex
    path.unlink()
    with pytest.raises(IntegrityError, match="lacks a blob"):
        content(place.layout, made)
    path.write_bytes(b'{"a":2}')
    with pytest.raises(IntegrityError, match="digest differs"):
        content(place.layout, made)
    (place.layout / "blobs/sha256" / made.digest.hex).unlink()
    with pytest.raises(IntegrityError, match="lacks a blob"):
        place.attached()


def test_the_verbs(place: Place, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    store = ["--store", str(tmp_path / "store")]
    layout = str(place.layout)
    assert run(["sbom", layout, *store]) == 0
    document = capsysbinary.readouterr().out
    assert json.loads(document)["spdxVersion"] == "SPDX-2.3"
    assert run(["sbom", layout, "--attach", "--format", "cyclonedx", *store]) == 0
    assert capsysbinary.readouterr().out.startswith(f"{layout}@sha256:".encode())
    assert run(["sbom", layout, "--output", str(tmp_path / "x.json"), *store]) == 0
    assert (tmp_path / "x.json").read_bytes() + b"\n" == document
    capsysbinary.readouterr()
    assert run(["referrers", layout]) == 0
    assert capsysbinary.readouterr().out.split()[3] == b"application/vnd.cyclonedx+json"
    assert run(["referrers", layout, "--get", "cyclonedx"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["specVersion"] == "1.6"
    assert run(["referrers", layout, "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)[0]["artifactType"] == "application/vnd.cyclonedx+json"


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["referrers", "{}", "--get", "provenance"], 2, "nothing is attached that is provenance"),
        (["referrers", "{}/nowhere"], 2, "no such image"),
        (["sbom", "{}", "--format", "xml"], 2, "xml"),
        (["sbom", "{}", "--lock", "{}/none.toml"], 3, "cannot read the lock"),
        (["sbom", "{}", "--lock", "{}/index.json"], 3, "the lock cannot be read"),
    ],
)
def test_bad_input(
    place: Place, argv: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(place.layout) for word in argv]
    assert run([*words, "--store", str(place.layout.parent / "store")]) == status
    assert message in capsys.readouterr().err


_LATE = """
import sys
from pathlib import Path
from builder.trust import attach as module
from builder.trust.attach import Document, artifact, attach
from builder.oci.layout import read_layout
from tests.unit.test_images import tools_in

place, number = Path(sys.argv[1]), sys.argv[2]
tools = tools_in(place)
subject = read_layout(place / "image").manifests[0]
document = Document(media_type=f"application/x-{number}", file_name="x", data=number.encode())
made = artifact(document, subject, tools.store, created=0)
before = module._outdated

def slow(*words):
    found = before(*words)
    print("read", flush=True)
    sys.stdin.readline()
    return found

module._outdated = slow if number == "1" else before
attach(place / "image", [made], tools.store)
"""


def test_two_that_attach_at_once_lose_nothing(place: Place) -> None:
    """One of them has read what is there, and stands still: the other has to wait."""

    def start(number: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", _LATE, str(place.layout.parent), number]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    first = start("1")
    assert first.stdout is not None
    assert first.stdout.readline() == "read\n"
    second = start("2")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(2)
    first.communicate("\n", timeout=60)
    second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(place.attached()) == 2
    names = [one.annotations.get(REF_NAME) for one in read_layout(place.layout).manifests]
    assert names.count(referrers_tag(place.image.descriptor.digest)) == 1


def test_a_directory_that_is_no_layout_is_not_made_one(place: Place, tmp_path: Path) -> None:
    made = place.attach(SBOM)
    with pytest.raises(IntegrityError, match="not an image layout"):
        attach(tmp_path / "nothing", made, place.tools.store)
    assert not (tmp_path / "nothing").exists()
