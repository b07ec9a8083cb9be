"""`ocibuild check`: errors and notes, of layouts and of what lies in layers, with the exit status they call for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from builder.cli import run
from builder.look.soundness import Soundness, soundness
from builder.oci.check import findings_of
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import CONFIG, EMPTY, INDEX, LAYER_TAR, MANIFEST, REF_NAME, Descriptor, Platform
from builder.oci.layout import write_layout
from builder.oci.manifest import Index, Manifest
from builder.oci.mediatypes import DOCKER_MANIFEST, FOREIGN_TAR
from builder.oci.walk import Finding
from builder.registry.client import Registry
from rootfs.digest import Digest, canonical_json
from rootfs.errors import TransferError, UsageError
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.transport import FakeTransport, reply
from tests.unit.test_flatten import Member, folder, link, member, tar
from tests.unit.test_images import HOST

HARD = b"1"


class Place:
    """A layout that is filled by hand."""

    def __init__(self, path: Path) -> None:
        self.store = DiskStore(path / "store")
        self.layout = path / "layout"

    def put(self, media_type: str, data: bytes) -> Descriptor:
        self.store.put([data])
        return Descriptor.of(media_type, data)

    def image(self, *tars: bytes, **words: object) -> Descriptor:
        """An image of these layers; `words` are the config's."""
        layers = tuple(self.put(LAYER_TAR, data) for data in tars)
        words = {"history": tuple(History() for _ in tars), "platform": HOST, "created": 1000, **words}
        config = ImageConfig(diff_ids=tuple(Digest.of(data) for data in tars), **words)  # type: ignore[arg-type]
        manifest = Manifest(config=self.put(CONFIG, config.to_bytes()), layers=layers)
        return replace(self.put(MANIFEST, manifest.to_bytes()), platform=config.platform)

    def check(self, descriptor: Descriptor, name: str = "1") -> set[tuple[str, str]]:
        write_layout(self.layout, self.store, descriptor, ref_name=name)
        return {(one.severity, one.text) for one in soundness(str(self.layout)).findings}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_sound_image(place: Place) -> None:
    lower = tar(folder("a"), member("a/b"), member("c"), link("d", "c", HARD))
    assert place.check(place.image(lower, tar(folder("a"), member("a/.wh.b"), link("e", "c", HARD)))) == set()


@pytest.mark.parametrize(
    ("members", "severity", "text"),
    [
        ([member("/a")], "error", "holds a path that is absolute or leaves the image: '/a'"),
        ([member("a/../../b")], "error", "holds a path that is absolute or leaves the image: 'a/../../b'"),
        ([member("a"), member("a")], "error", "holds a path twice: 'a'"),
        ([folder("a"), member("a")], "error", "holds a path twice: 'a'"),
        ([folder("a"), folder("a", mode=0o700)], "error", "holds a path twice: 'a'"),
        ([folder("a"), folder("a", mtime=7)], "note", "holds a directory twice: 'a'"),
        (
            [link("l", "/"), member("l/a"), member("l/b")],
            "error",
            "holds a path through a symbolic link: 'l/a' and 1 more",
        ),
        ([member("a"), member("a/b")], "error", "holds a path through a file: 'a/b'"),
        ([link("h", "nothing", HARD)], "error", "holds a hard link to what is no file of the image: 'h'"),
        ([link("h", "../x", HARD)], "error", "holds a hard link to what is no file of the image: 'h'"),
        ([member("x", type=b"Z")], "error", "holds a member of the unknown type b'Z': 'x'"),
        ([member(".wh.")], "error", "holds a whiteout of nothing: '.wh.'"),
        ([member(".wh.x", b"1"), member("under/.wh.x")], "note", "holds a whiteout that is no empty file: '.wh.x'"),
        ([member(".wh.never")], "note", "hides what no layer below has: 'never'"),
        ([member(".wh..wh.plnk")], "note", "holds a file of aufs: '.wh..wh.plnk'"),
        ([member("a/b"), folder("a")], "note", "holds a directory after what lies in it: 'a'"),
        ([member("a", mtime=1001)], "note", "holds a file that is later than the image: 'a'"),
        ([member("a", uname="root")], "note", "names owners, which numbers tell already: 'a'"),
    ],
)
def test_members(place: Place, members: list[Member], severity: str, text: str) -> None:
    below = tar(folder("under"), member("under/x"), member("x"))
    assert (severity, text) in place.check(place.image(below, tar(*members)))


def test_what_a_layer_hides_or_replaces_is_gone_for_those_above(place: Place) -> None:
    lower = tar(folder("a"), folder("a/b"), member("a/b/c"), folder("d"), member("d/x"))
    upper = tar(member("a/.wh.b"), member("d"))
    assert place.check(place.image(lower, upper)) == set()
    found = place.check(place.image(lower, upper, tar(link("l", "a/b/c", HARD), link("m", "d/x", HARD))), "2")
    assert ("error", "holds a hard link to what is no file of the image: 'l' and 1 more") in found


def no_history(place: Place) -> Descriptor:
    return place.image(tar(member("a")), history=())


def wrong_history(place: Place) -> Descriptor:
    return place.image(tar(member("a")), history=(History(), History()))


def same_layer_twice(place: Place) -> Descriptor:
    return place.image(tar(folder("a")), tar(folder("a")))


def no_layers(place: Place) -> Descriptor:
    return place.image()


def other_platform(place: Place) -> Descriptor:
    foreign = replace(place.image(tar(member("a"))), platform=Platform(architecture="s390x"))
    return place.put(INDEX, Index(manifests=(foreign,)).to_bytes())


def platform_twice(place: Place) -> Descriptor:
    images = (place.image(tar(member("a"))), place.image(tar(member("b"))))
    return place.put(INDEX, Index(manifests=images).to_bytes())


def annotated(name: str, value: str) -> Callable[[Place], Descriptor]:
    def make(place: Place) -> Descriptor:
        manifest = Manifest.parse(read_blob(place.store, place.image(tar(member("a"))).digest))
        return place.put(MANIFEST, replace(manifest, annotations={name: value}).to_bytes())

    return make


def not_canonical(place: Place) -> Descriptor:
    data = read_blob(place.store, place.image(tar(member("a"))).digest)
    return place.put(MANIFEST, json.dumps(json.loads(data), indent=1).encode())


def subject_elsewhere(place: Place) -> Descriptor:
    gone = Descriptor.of(MANIFEST, b"gone")
    empty = place.put(EMPTY, b"{}")
    manifest = Manifest(config=empty, layers=(empty,), artifact_type="text/plain", subject=gone)
    return place.put(MANIFEST, manifest.to_bytes())


@pytest.mark.parametrize(
    ("make", "severity", "text"),
    [
        (no_history, "note", "has no history"),
        (wrong_history, "error", "1 layers, 1 diff ids and 2 history entries"),
        (same_layer_twice, "note", "is 2 layers of one image"),
        (no_layers, "note", "without layers"),
        (other_platform, "error", "is for linux/s390x"),
        (platform_twice, "note", "is not the only one for"),
        (annotated("org.opencontainers.image.created", "yesterday"), "error", "not a time of RFC 3339"),
        (annotated("org.opencontainers.image.creatd", "x"), "note", "did you mean"),
        (not_canonical, "note", "is not canonical JSON"),
        (subject_elsewhere, "note", "is the subject, and is not here"),
    ],
)
def test_documents(place: Place, make: Callable[[Place], Descriptor], severity: str, text: str) -> None:
    found = place.check(make(place))
    assert [one for one in found if one[0] == severity and text in one[1]], found


def test_a_foreign_layer_may_be_where_its_maker_has_it(place: Place) -> None:
    data = tar(member("a"))
    manifest = Manifest.parse(read_blob(place.store, place.image(data).digest))
    gone = replace(Descriptor.of(FOREIGN_TAR, data + b"elsewhere"), urls=("https://example.org/a",))
    config = replace(
        ImageConfig.parse(read_blob(place.store, manifest.config.digest)), diff_ids=(Digest.of(data + b"elsewhere"),)
    )
    manifest = replace(manifest, config=place.put(CONFIG, config.to_bytes()), layers=(gone,))
    found = place.check(place.put(MANIFEST, manifest.to_bytes()))
    assert {severity for severity, _ in found} == {"note"}
    assert [text for _, text in found if "cannot be had here" in text and "https://example.org/a" in text]
    nowhere = replace(manifest, layers=(replace(gone, urls=()),))
    found = place.check(place.put(MANIFEST, nowhere.to_bytes()))
    assert "error" in {severity for severity, _ in found}


def test_a_layout_s_own_index(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    image = place.image(tar(member("a")))
    place.check(image)
    index = place.layout / "index.json"
    named = {**image.to_dict(), "annotations": {REF_NAME: "1"}}
    index.write_bytes(canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named, named]}))
    (place.layout / "blobs/sha256" / ("0" * 64)).write_bytes(b"")
    (place.layout / "blobs/sha256/readme").write_bytes(b"")
    found = [str(one) for one in soundness(str(place.layout)).findings]
    assert [text for text in found if "has the name '1' 2 times" in text]
    assert [text for text in found if f"a blob that nothing leads to: sha256:{'0' * 64}" in text]
    assert [text for text in found if "readme is no blob" in text]
    index.write_bytes(b"{}")
    assert soundness(str(place.layout)).fails(strict=False)


def test_missing_and_damaged_blobs_are_all_told(place: Place) -> None:
    tars = [tar(member(name, b"x" * 600)) for name in "abc"]
    image = place.image(*tars)
    place.check(image)
    blobs = [place.layout / "blobs/sha256" / Digest.of(data).hex for data in tars]
    blobs[0].unlink()
    blobs[1].unlink()
    blobs[1].write_bytes(tars[1][:-1] + b"?")
    found = [one for one in soundness(str(place.layout)).findings if one.severity == "error"]
    assert {one.at for one in found} == {f"sha256:{blob.name}" for blob in blobs[:2]}
    assert "lacks a blob" in found[0].text


def test_what_an_index_repeats_is_read_once(place: Place) -> None:
    """Every entry is judged; 20,000 readings of an image would take minutes."""
    image = place.image(tar(member("a")))
    place.check(image)
    data = Index(manifests=(image,) * 20_000).to_bytes()
    for _ in range(6):  # in an index twice, and so on
        inner = place.put(INDEX, data)
        data = Index(manifests=(inner, inner)).to_bytes()
    index = place.put(INDEX, Index(manifests=(image,) * 20_000).to_bytes())
    reads: list[Digest] = []

    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        reads.append(wanted.digest)
        yield read_blob(place.store, wanted.digest)

    found = list(findings_of(index, fetch))
    assert len(reads) == len(set(reads)) == 4
    assert {one.text for one in found} == {f"is not the only one for {HOST} in the index"}
    assert place.check(inner, "deep")  # ends


def test_two_descriptors_of_one_image_have_to_agree(place: Place) -> None:
    image = place.image(tar(member("a")))
    others = (
        replace(image, size=image.size + 1),
        replace(image, media_type=DOCKER_MANIFEST),
        replace(image, platform=Platform(architecture="s390x")),
    )
    index = place.put(INDEX, Index(manifests=(image, *others)).to_bytes())
    found = [one.text for one in findings_of(index, lambda wanted: iter([read_blob(place.store, wanted.digest)]))]
    for text in ("has two sizes", "has two media types", "is for linux/s390x"):
        assert [one for one in found if one.startswith(text)], text


@pytest.mark.parametrize(("status", "is_finding"), [(404, True), (401, False), (403, False), (500, False)])
@pytest.mark.parametrize("kind", ["blobs", "manifests"])
def test_what_a_registry_refuses_is_no_finding(place: Place, kind: str, status: int, is_finding: bool) -> None:
    image = place.image(tar(member("a")))
    index = place.put(INDEX, Index(manifests=(image,)).to_bytes())
    registry = MemoryRegistry()
    for one in (image, index):
        registry.manifests[str(one.digest)] = (one.media_type, read_blob(place.store, one.digest))
    manifest = Manifest.parse(read_blob(place.store, image.digest))
    for one in manifest.children:
        registry.blobs[str(one.digest)] = read_blob(place.store, one.digest)
    connect = partial(Registry, FakeTransport(registry))
    name = f"registry.example.org/a@{index.digest}"
    assert soundness(name, connect=connect).findings == ()
    refused = manifest.layers[0].digest if kind == "blobs" else image.digest
    registry.fault = lambda request: reply(request, status) if request.url.endswith(str(refused)) else None
    if is_finding:
        assert [one.at for one in soundness(name, connect=connect).findings] == [str(refused)]
    else:
        with pytest.raises(TransferError):
            soundness(name, connect=connect)


def test_one_platform_of_an_index(place: Place) -> None:
    arm = place.image(tar(member("/bad")), platform=Platform(architecture="arm64", variant="v8"))
    intel = place.image(tar(member("a")), platform=Platform(architecture="amd64"))
    write_layout(place.layout, place.store, place.put(INDEX, Index(manifests=(arm, intel)).to_bytes()), ref_name="1")
    assert soundness(str(place.layout), platform="linux/amd64").findings == ()
    bad = soundness(str(place.layout), platform="linux/arm64")
    assert bad.digest == arm.digest
    assert bad.fails(strict=False)
    with pytest.raises(UsageError, match="no image for linux/s390x"):
        soundness(str(place.layout), platform="linux/s390x")


def test_the_verb(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(place.store.root)]
    place.check(place.image(tar(member("a"))))
    assert run(["check", str(place.layout), *store]) == 0
    assert capsys.readouterr().out.endswith("layout: 0 errors, 0 notes\n")
    place.check(place.image(tar(member("a", mtime=2000))))
    assert run(["check", f"{place.layout}:1", *store]) == 0
    assert "note: sha256:" in capsys.readouterr().out
    assert run(["check", str(place.layout), "--strict", *store]) == 1
    place.check(place.image(tar(member("/a\x1b[31m"))))
    assert run(["check", str(place.layout), "--json", *store]) == 1
    output = capsys.readouterr().out
    assert json.loads(output.splitlines()[-1])["findings"][0]["severity"] == "error"
    assert run(["check", str(place.layout), *store]) == 1
    assert "\x1b" not in capsys.readouterr().out
    assert run(["check", str(place.layout / "nothing"), *store]) == 2
    assert run(["check"]) == 2


def test_errors_come_first() -> None:
    findings = tuple(Finding(severity=severity, at="x", text=severity) for severity in ("note", "error"))  # type: ignore[arg-type]
    shown = Soundness(name="n", digest=None, findings=findings).render()
    assert shown == "error: x error\nnote: x note\nn: 1 errors, 1 notes\n"
