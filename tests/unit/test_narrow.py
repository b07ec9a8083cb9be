"""Narrow: of an index one image, or some as a new index whose entries are the old ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cli import run
from builder.finding import FoundImage, find_image
from builder.multi import ABOUT
from builder.oci.descriptor import INDEX, MANIFEST, REF_NAME, Descriptor, Platform
from builder.oci.layout import read_layout, write_layout
from builder.oci.mediatypes import DOCKER_INDEX
from builder.sources import part_of
from builder.tools import Tools
from builder.transit import load
from builder.trust.attach import Document, artifact, attach
from rootfs.digest import Digest, canonical_json
from rootfs.errors import UsageError
from rootfs.tree import Tree, file
from tests.fakes.reporter import ListReporter
from tests.unit.test_images import image_of, tools_in

SBOM = Document(media_type="application/spdx+json", file_name="sbom.json", data=b"{}")
NAMES = ("s390x", "arm64", "amd64")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.chdir(tmp_path)
    return tools_in(tmp_path)


def entry_of(name: str, tools: Tools, variant: str | None = None) -> dict[str, Any]:
    platform = Platform(architecture=name, variant=variant)
    image = image_of(Tree([file(name, name.encode())]), tools, platform)
    value = {**image.descriptor.to_dict(), "platform": platform.to_dict() | {"os.features": ["x"]}}
    return {**value, "annotations": {"says": name}, "of-others": [1]}


def telling(about: dict[str, Any], tools: Tools) -> dict[str, Any]:
    """An attestation as BuildKit lists it."""
    config = b"{}"
    tools.store.put([config])
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {**Descriptor.of("application/vnd.oci.image.config.v1+json", config).to_dict()},
            "layers": [],
            "annotations": {"about": about["digest"]},
        }
    )
    tools.store.put([manifest])
    notes = {ABOUT: about["digest"], "vnd.docker.reference.type": "attestation-manifest"}
    runs = {"os": "unknown", "architecture": "unknown"}
    return {**Descriptor.of(MANIFEST, manifest).to_dict(), "annotations": notes, "platform": runs}


def index_of(entries: list[dict[str, Any]], tools: Tools, media_type: str = INDEX, **more: Any) -> Descriptor:
    data = canonical_json({"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **more})
    tools.store.put([data])
    return Descriptor.of(media_type, data)


@pytest.fixture
def entries(tools: Tools) -> list[dict[str, Any]]:
    """Three images, each followed by what tells about it."""
    images = [entry_of(name, tools) for name in NAMES]
    return [entry for image in images for entry in (image, telling(image, tools))]


def found_of(root: Descriptor, tools: Tools) -> FoundImage:
    write_layout(Path("in"), tools.store, root, ref_name="1.0")
    return find_image("in:1.0")


def part(found: FoundImage, *platforms: str) -> tuple[FoundImage, dict[str, Any]]:
    narrow = part_of(found, platforms, ListReporter())
    return narrow, json.loads(b"".join(narrow.fetch(narrow.descriptor)))


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_INDEX])
def test_some_of_an_index_are_an_index_of_the_same_entries(
    tools: Tools, entries: list[dict[str, Any]], media_type: str
) -> None:
    root = index_of(entries, tools, media_type, annotations={"a": "1"}, artifactType="text/x")
    found = found_of(root, tools)
    narrow, value = part(found, "linux/amd64", "linux/s390x")
    assert value == {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [*entries[:2], *entries[4:]],
        "annotations": {"a": "1"},
        "artifactType": "text/x",
    }
    data = b"".join(narrow.fetch(narrow.descriptor))
    assert data == canonical_json(value)
    assert narrow.descriptor.to_dict() == {
        **Descriptor.of(media_type, data).to_dict(),
        "annotations": {REF_NAME: "1.0"},
    }
    assert narrow.taken_of == found.descriptor
    assert part(found, "linux/s390x", "linux/amd64")[0].descriptor == narrow.descriptor


def test_all_there_are_is_the_very_index(tools: Tools, entries: list[dict[str, Any]]) -> None:
    found = found_of(index_of(entries, tools), tools)
    assert part(found, *(f"linux/{name}" for name in NAMES))[0] is found
    assert part_of(found, (), ListReporter()) is found


def test_one_platform_is_that_image_alone(tools: Tools, entries: list[dict[str, Any]]) -> None:
    found = found_of(index_of(entries, tools), tools)
    for wanted in (["linux/arm64"], ["linux/arm64/v8", "linux/arm64"]):
        narrow, _ = part(found, *wanted)
        assert str(narrow.descriptor.digest) == entries[2]["digest"]
        assert narrow.descriptor.annotations == {"says": "arm64", REF_NAME: "1.0"}
    assert part(narrow, "linux/arm64")[0] is narrow


def test_what_is_not_there_is_an_error_that_lists_what_is(tools: Tools, entries: list[dict[str, Any]]) -> None:
    found = found_of(index_of(entries, tools), tools)
    for platforms in (("linux/amd64", "linux/riscv64"), ("linux/riscv64",)):
        with pytest.raises(UsageError) as caught:
            part(found, *platforms)
        assert "linux/riscv64" in caught.value.message
        assert caught.value.hint == "there is linux/amd64, linux/arm64, linux/s390x"
    with pytest.raises(UsageError, match="several platforms"):
        part_of(found, ("linux/amd64", "linux/arm64"), ListReporter(), one=True)


def test_where_the_index_says_all_no_image_is_asked(tools: Tools, entries: list[dict[str, Any]]) -> None:
    found = found_of(index_of(entries, tools), tools)
    read: list[Digest] = []

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        read.append(wanted.digest)
        return found.fetch(wanted)

    watched = FoundImage(name="it", descriptor=found.descriptor, fetch=fetch, near=True)
    part_of(watched, ("linux/amd64", "linux/arm64"), ListReporter())
    assert set(read) == {found.descriptor.digest}


def test_an_index_that_does_not_say_is_read_to_the_end(tools: Tools) -> None:
    """Entries without a platform, and an index in the index."""
    arm, amd, deep, gone = (entry_of(name, tools) for name in ("arm64", "amd64", "ppc64le", "mips64le"))
    del amd["platform"]
    inner = {**index_of([deep, gone], tools).to_dict(), "annotations": {"inner": "1"}}
    lost = index_of([gone], tools).to_dict()
    found = found_of(index_of([arm, amd, inner, lost], tools), tools)
    _, value = part(found, "linux/amd64", "linux/ppc64le")
    left = index_of([deep], tools)
    assert value["manifests"] == [amd, {**left.to_dict(), "annotations": {"inner": "1"}}]
    narrow, _ = part(found, "linux/amd64", "linux/ppc64le")
    assert json.loads(b"".join(narrow.fetch(left)))["manifests"] == [deep]


def test_what_is_about_the_whole_index_stays_and_is_told(tools: Tools, entries: list[dict[str, Any]]) -> None:
    root = index_of(entries, tools)
    found_of(root, tools)
    image = Descriptor.from_dict(entries[2])
    about = [artifact(SBOM, one, tools.store, created=0) for one in (root, image)]
    attach(Path("in"), about, tools.store)
    signed = f"sha256-{root.digest.hex}.sig"
    write_layout(Path("in"), tools.store, image, ref_name=signed)
    found = find_image("in:1.0")
    for platforms in (["linux/arm64"], ["linux/arm64", "linux/amd64"]):
        for referrers in (True, False):
            assert isinstance(tools.reporter, ListReporter)
            tools.reporter.events.clear()
            what = load(part_of(found, platforms, tools.reporter), tools, referrers=referrers)
            notes = [str(event[1]) for event in tools.reporter.events if event[0] == "note"]
            said = f"left behind, as it is about all of in:1.0@{root.digest}: application/spdx+json, {signed}"
            assert (said in notes) is referrers
            assert any("is a new index, of linux/arm64, linux/amd64" in note for note in notes) is (len(platforms) > 1)
            kept = {one.digest for every in what.graph.attached.values() for one in every}
            assert kept == ({about[1].digest} if referrers else set())


def test_the_verbs_take_a_list_or_say_that_they_take_one(
    tools: Tools, entries: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    root = index_of(entries, tools)
    found_of(root, tools)

    def say(*argv: str) -> tuple[int, str, str]:
        status = run([*argv, "--store", "store"])
        return status, *capsys.readouterr()

    want = str(part(find_image("in:1.0"), "linux/arm64", "linux/amd64")[0].descriptor.digest)
    for number, words in enumerate(
        (
            ["--platform", "linux/amd64", "--platform", "linux/arm64"],
            ["--platform", "arm64,linux/amd64"],
            ["--platform", "linux/arm64, linux/amd64,linux/amd64"],
        )
    ):
        assert say("copy", "in:1.0", f"oci:out{number}", *words)[1] == f"out{number}@{want}\n"
        (listed,) = read_layout(Path(f"out{number}")).manifests
        assert str(listed.digest) == want
        documents = 1 + 2 * 3 + 2 + 1  # the index, two images, what tells about them, the empty config of that
        assert len(list(Path(f"out{number}/blobs/sha256").iterdir())) == documents
    status, _, errors = say("copy", "in:1.0", "docker-archive:x.tar", "--platform", "amd64,arm64")
    assert (status, "several platforms where one has room" in errors) == (2, True)
    status, _, errors = say("inspect", "in:1.0", "--platform", "amd64", "--platform", "arm64")
    assert (status, "`ocibuild inspect` takes one" in errors) == (2, True)
    assert say("copy", "in:1.0", "oci:y", "--platform", "linux/")[0] == 2
    status, output, _ = say("check", "in:1.0", "--platform", "amd64,arm64")
    assert (status, output.count("0 errors")) == (0, 2)
    assert say("mutate", "in:1.0", "-o", "oci:z", "--platform", "amd64,arm64", "--env", "X=1")[0] == 0
    (changed,) = read_layout(Path("z")).manifests
    assert changed.digest not in (root.digest, Digest.parse(want))
    blob = json.loads((Path("z/blobs/sha256") / changed.digest.hex).read_text())
    assert [one["platform"]["architecture"] for one in blob["manifests"]] == ["arm64", "amd64"]
