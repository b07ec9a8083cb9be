"""Assembling an image, checking it, and writing it as a layout."""

from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci.check import check_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, INDEX, LAYER_TAR, MANIFEST, REF_NAME, Descriptor, Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import Layer, pack
from builder.oci.layout import read_layout, write_layout
from builder.oci.manifest import Index, Manifest
from rootfs.digest import Digest
from rootfs.errors import BuildError, HostError, IntegrityError, OcibuildError, UsageError
from rootfs.ports import Store
from rootfs.store import DiskStore
from rootfs.tree import Tree, directory, file
from tests.fakes.store import MemoryStore

EPOCH = 1767323045
AMD64 = Platform(architecture="amd64")
ARM64 = Platform(architecture="arm64", variant="v8")


def an_image(store: Store, platform: Platform = AMD64, text: bytes = b"hello\n") -> Image:
    """Two layers, stored whole."""
    trees = {
        "base": Tree([directory("etc"), file("etc/motd", text)]),
        "more": Tree([file("run", b"#!/bin/sh\n", 0o755)]),
    }
    layers = [pack(tree, store, created_by=name, epoch=EPOCH) for name, tree in trees.items()]
    config = ImageConfig(platform=platform, created=EPOCH, env=("PATH=/bin",), cmd=("/run",))
    image = assemble(layers, config, annotations={"org.opencontainers.image.title": "test"})
    store.put([image.config])
    store.put([image.manifest])
    return image


def an_index(store: Store) -> Descriptor:
    images = [an_image(store, platform) for platform in (AMD64, ARM64)]
    return put(store, INDEX, Index(manifests=tuple(image.descriptor for image in images)).to_bytes())


def put(store: Store, media_type: str, data: bytes) -> Descriptor:
    store.put([data])
    return Descriptor.of(media_type, data)


def test_assemble() -> None:
    image = an_image(MemoryStore())
    manifest, config = Manifest.parse(image.manifest), ImageConfig.parse(image.config)
    assert manifest.layers == tuple(layer.descriptor for layer in image.layers)
    assert manifest.config == Descriptor.of(CONFIG, image.config)
    assert manifest.annotations == {"org.opencontainers.image.title": "test"}
    assert image.descriptor.platform == config.platform == AMD64
    assert config.diff_ids == tuple(layer.diff_id for layer in image.layers)
    assert [(entry.created, entry.created_by) for entry in config.history] == [(EPOCH, "base"), (EPOCH, "more")]


def test_golden_image() -> None:
    """A change here changes the digest of every image ever built."""
    assert (
        str(an_image(MemoryStore()).descriptor.digest)
        == "sha256:643a2b3e5b2c3bc0a0797fd775cfde81e2d785bfe7c5e5a2c1042ad98514075f"
    )


def test_check_accepts_an_image_and_an_index() -> None:
    store = MemoryStore()
    check_image(store, an_image(store).descriptor)
    check_image(store, an_index(store))


def swap_layers(image: Image, store: MemoryStore) -> Descriptor:
    config = ImageConfig.parse(image.config)
    wrong = put(store, CONFIG, replace(config, diff_ids=config.diff_ids[::-1]).to_bytes())
    return put(store, MANIFEST, replace(Manifest.parse(image.manifest), config=wrong).to_bytes())


def drop_a_diff_id(image: Image, store: MemoryStore) -> Descriptor:
    config = ImageConfig.parse(image.config)
    wrong = put(store, CONFIG, replace(config, diff_ids=config.diff_ids[:1]).to_bytes())
    return put(store, MANIFEST, replace(Manifest.parse(image.manifest), config=wrong).to_bytes())


def with_config(data: bytes, media_type: str = CONFIG) -> Callable[[Image, MemoryStore], Descriptor]:
    def change(image: Image, store: MemoryStore) -> Descriptor:
        wrong = put(store, media_type, data or image.config)
        return put(store, MANIFEST, replace(Manifest.parse(image.manifest), config=wrong).to_bytes())

    return change


def with_layer(data: bytes, media_type: str | None = None) -> Callable[[Image, MemoryStore], Descriptor]:
    def change(image: Image, store: MemoryStore) -> Descriptor:
        manifest = Manifest.parse(image.manifest)
        wrong = put(store, media_type or manifest.layers[0].media_type, data)
        layers = (wrong, *manifest.layers[1:])
        return put(store, MANIFEST, replace(manifest, layers=layers).to_bytes())

    return change


def other_bytes(image: Image, store: MemoryStore) -> Descriptor:
    digest = image.layers[1].descriptor.digest
    store.blobs[digest] = store.blobs[digest][:-1] + b"?"
    return image.descriptor


def other_size(image: Image, store: MemoryStore) -> Descriptor:
    digest = image.layers[1].descriptor.digest
    store.blobs[digest] += b"?"
    return image.descriptor


def layer_gone(image: Image, store: MemoryStore) -> Descriptor:
    del store.blobs[image.layers[1].descriptor.digest]
    return image.descriptor


def not_canonical(image: Image, store: MemoryStore) -> Descriptor:
    return put(store, MANIFEST, json.dumps(json.loads(image.manifest), indent=1).encode())


def twice_in_the_index(image: Image, store: MemoryStore) -> Descriptor:
    return put(store, INDEX, Index(manifests=(image.descriptor, image.descriptor)).to_bytes())


def no_platform_in_the_index(image: Image, store: MemoryStore) -> Descriptor:
    return put(store, INDEX, Index(manifests=(replace(image.descriptor, platform=None),)).to_bytes())


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (swap_layers, "has the diff id"),
        (drop_a_diff_id, "2 layers, 1 diff ids and 2 history"),
        (with_config(b"{}"), "is missing"),
        (with_config(b"", "application/json"), "is no image config"),
        (with_layer(b"no gzip"), "cannot be decompressed"),
        (with_layer(gzip.compress(b"x" * 99)[:-9]), "cannot be decompressed"),
        (with_layer(gzip.compress(b"x") + b"trailing"), "cannot be decompressed"),
        (with_layer(b"", "application/vnd.docker.image.rootfs.diff.tar.gzip"), "is no layer"),
        (with_layer(b"", LAYER_TAR), "has the diff id"),
        (other_bytes, "holds other bytes"),
        (other_size, "its descriptor says"),
        (layer_gone, "not in the store"),
        (not_canonical, "is not canonical JSON"),
        (twice_in_the_index, "is not the only one for linux/amd64"),
        (no_platform_in_the_index, "has no platform"),
        (lambda image, store: replace(image.descriptor, platform=ARM64), "is for linux/arm64/v8"),
        (lambda image, store: replace(image.descriptor, media_type=CONFIG), "is no manifest"),
        (lambda image, store: replace(image.descriptor, media_type=INDEX), "mediaType"),
        (lambda image, store: replace(image.descriptor, digest=Digest.of(b"gone")), "not in the store"),
    ],
)
def test_check_finds(change: Callable[[Image, MemoryStore], Descriptor], finding: str) -> None:
    store = MemoryStore()
    descriptor = change(an_image(store), store)
    with pytest.raises(BuildError) as caught:
        check_image(store, descriptor)
    assert finding in (caught.value.because or "")


def test_check_tells_all_findings_at_once() -> None:
    store = MemoryStore()
    image = an_image(store)
    other_bytes(image, store)
    del store.blobs[image.layers[0].descriptor.digest]
    with pytest.raises(BuildError, match="2 findings") as caught:
        check_image(store, image.descriptor)
    assert "not in the store" in (caught.value.because or "")
    assert "other bytes" in (caught.value.because or "")


def test_check_accepts_an_uncompressed_layer() -> None:
    store = MemoryStore()
    packed = pack(Tree(), store, created_by="", epoch=0)
    plain = put(store, LAYER_TAR, bytes(1024))
    layer = Layer(descriptor=plain, diff_id=packed.diff_id, created_by="")
    image = assemble([layer], ImageConfig(platform=AMD64, created=0))
    store.put([image.config])
    store.put([image.manifest])
    check_image(store, image.descriptor)


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Blobs that can be linked, and blobs that must be copied."""
    return DiskStore(tmp_path / "store") if request.param == "disk" else MemoryStore()


def names(directory: Path) -> dict[str, Descriptor]:
    return {entry.annotations[REF_NAME]: entry for entry in read_layout(directory).manifests}


def test_layout_holds_everything(store: Store, tmp_path: Path) -> None:
    index = an_index(store)
    layout = tmp_path / "new" / "layout"
    write_layout(layout, store, index, ref_name="3.14-slim")
    check_image(DiskStore(layout), index)  # the blobs of a layout and of a store lie alike
    assert names(layout) == {"3.14-slim": replace(index, annotations={REF_NAME: "3.14-slim"})}
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert {path.name for path in layout.iterdir()} == {"oci-layout", "index.json", "blobs"}
    for blob in (layout / "blobs/sha256").iterdir():
        assert Digest.of(blob.read_bytes()).hex == blob.name
        assert blob.stat().st_nlink == (2 if isinstance(store, DiskStore) else 1)
        assert blob.stat().st_mode & 0o777 == 0o444
    assert (layout / "index.json").stat().st_mode & 0o777 == 0o644


def test_layout_keeps_other_names_and_moves_its_own(store: Store, tmp_path: Path) -> None:
    one, two = an_image(store).descriptor, an_image(store, text=b"other\n").descriptor
    for ref_name, descriptor in (("a", one), ("b", one), ("a", two), ("a", two)):
        write_layout(tmp_path / "layout", store, descriptor, ref_name=ref_name)
    found = names(tmp_path / "layout")
    assert {name: entry.digest for name, entry in found.items()} == {"a": two.digest, "b": one.digest}
    assert len(read_layout(tmp_path / "layout").manifests) == 2


def test_several_may_write_to_a_layout_at_once_and_no_name_is_lost(store: Store, tmp_path: Path) -> None:
    images = [an_image(store, text=b"%d\n" % number).descriptor for number in range(8)]
    with ThreadPoolExecutor(len(images)) as pool:
        for number, image in enumerate(images):
            pool.submit(write_layout, tmp_path / "layout", store, image, ref_name=f"n{number}")
    assert {name: one.digest for name, one in names(tmp_path / "layout").items()} == {
        f"n{number}": image.digest for number, image in enumerate(images)
    }


def test_layout_keeps_what_it_does_not_know(store: Store, tmp_path: Path) -> None:
    image = an_image(store).descriptor
    write_layout(tmp_path / "layout", store, image, ref_name="a")
    index = tmp_path / "layout/index.json"
    value = json.loads(index.read_bytes())
    value["manifests"][0]["urls"] = ["https://example.org/"]
    value["manifests"].append(replace(image, annotations={}).to_dict())
    index.write_text(json.dumps(value))
    (tmp_path / "layout/README").write_text("extra files are allowed")
    write_layout(tmp_path / "layout", store, image, ref_name="b")
    entries = json.loads(index.read_bytes())["manifests"]
    assert entries[:2] == value["manifests"]
    assert entries[2]["annotations"] == {REF_NAME: "b"}


def test_layout_mends_a_blob_that_was_cut_and_keeps_a_whole_one(store: Store, tmp_path: Path) -> None:
    image = an_image(store)
    write_layout(tmp_path / "layout", store, image.descriptor, ref_name="a")
    cut, whole = (tmp_path / "layout/blobs/sha256" / layer.descriptor.digest.hex for layer in image.layers)
    cut.unlink()
    cut.write_bytes(b"cut")
    inode = whole.stat().st_ino
    write_layout(tmp_path / "layout", store, image.descriptor, ref_name="a")
    check_image(DiskStore(tmp_path / "layout"), image.descriptor)
    assert whole.stat().st_ino == inode


@pytest.mark.parametrize(
    "ref_name", ["", "a b", "-a", "a-", "a---b", "a..b", "a/", "/a", "a//b", "ä", "a\n", "a/../b", "a__b"]
)
def test_layout_refuses_a_name_outside_the_grammar(ref_name: str, tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError):
        write_layout(tmp_path / "layout", store, an_image(store).descriptor, ref_name=ref_name)
    assert not (tmp_path / "layout").exists()


@pytest.mark.parametrize(
    "ref_name", ["3.14", "a_b", "a/b:c", "a--b", "registry.example.org:5000/x/y:v1", "x@sha256:0a", "A+b"]
)
def test_layout_accepts_the_grammar(ref_name: str, tmp_path: Path) -> None:
    store = MemoryStore()
    write_layout(tmp_path, store, an_image(store).descriptor, ref_name=ref_name)
    assert set(names(tmp_path)) == {ref_name}


def no_layout(path: Path) -> None:
    (path / "thesis.tex").write_text("years of work")


def newer_version(path: Path) -> None:
    (path / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    (path / "index.json").write_text("{}")


def broken_index(path: Path) -> None:
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text('{"schemaVersion": 2')


@pytest.mark.parametrize(
    ("prepare", "error"), [(no_layout, UsageError), (newer_version, IntegrityError), (broken_index, IntegrityError)]
)
def test_layout_touches_nothing_it_cannot_read(
    prepare: Callable[[Path], None], error: type[OcibuildError], tmp_path: Path
) -> None:
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    store = MemoryStore()
    with pytest.raises(error):
        write_layout(tmp_path, store, an_image(store).descriptor, ref_name="a")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_layout_without_a_blob_gets_no_name(store: Store, tmp_path: Path) -> None:
    layer = Descriptor.of(LAYER_TAR, b"gone")
    data = Manifest(config=put(store, CONFIG, b"{}"), layers=(layer,)).to_bytes()
    with pytest.raises(IntegrityError, match="not in the store"):
        write_layout(tmp_path / "layout", store, put(store, MANIFEST, data), ref_name="a")
    assert not (tmp_path / "layout/index.json").exists()


def test_layout_refuses_a_blob_of_another_size(store: Store, tmp_path: Path) -> None:
    layer = replace(put(store, LAYER_TAR, b"layer"), size=4)
    data = Manifest(config=put(store, CONFIG, b"{}"), layers=(layer,)).to_bytes()
    with pytest.raises(IntegrityError, match="wrong size"):
        write_layout(tmp_path / "layout", store, put(store, MANIFEST, data), ref_name="a")
    assert not (tmp_path / "layout/blobs/sha256" / layer.digest.hex).exists()
    assert store.exists(layer.digest)


def test_layout_copies_where_it_cannot_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    store = DiskStore(tmp_path / "store")
    image = an_image(store).descriptor
    write_layout(tmp_path / "layout", store, image, ref_name="a")
    check_image(DiskStore(tmp_path / "layout"), image)
    assert {blob.stat().st_nlink for blob in (tmp_path / "layout/blobs/sha256").iterdir()} == {1}


def test_layout_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = MemoryStore()
    with pytest.raises(HostError):
        write_layout(tmp_path / "file" / "layout", store, an_image(store).descriptor, ref_name="a")


def test_read_layout_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not an image layout"):
        read_layout(tmp_path)
