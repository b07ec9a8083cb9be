"""The profile artifact: what is written is read back, and nothing else is taken for it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard

from builder.artifact import ARTIFACT, CONFIG, Trained, admit, assemble, in_file, in_registry, write_file
from builder.artifact import COUNTS as COUNTS_TYPE
from builder.lock import LockedProfile
from builder.oci.descriptor import LAYER_GZIP, LAYER_ZSTD, MANIFEST, Descriptor
from builder.oci.manifest import Index, Manifest
from builder.oci.tar import archive
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, OcibuildError, UsageError
from rootfs.ports import read_blob
from rootfs.tree import Tree, file
from tests.fakes.profile import ARCS, COUNTS, SMALL, gcda, profile
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport


def trained(data: bytes = SMALL) -> Trained:
    locked = LockedProfile(
        digest=str(Digest.of(data)), source="1" * 64, commands="sha256:2", compiler=("gcc-14 1",), headers=()
    )
    return Trained(profile=locked, python="3.14.7", platform="linux/amd64")


def made(data: bytes = SMALL) -> tuple[MemoryStore, Descriptor]:
    store = MemoryStore()
    store.put([data])
    return store, assemble(trained(data), store)


def test_the_artifact_is_one_manifest_with_a_config_and_a_layer() -> None:
    store, descriptor = made()
    manifest = Manifest.parse(read_blob(store, descriptor.digest))
    assert (manifest.artifact_type, manifest.config.media_type) == (ARTIFACT, CONFIG)
    assert [layer.media_type for layer in manifest.layers] == [LAYER_ZSTD]
    layer = read_blob(store, manifest.layers[0].digest)
    assert zstandard.ZstdDecompressor().decompress(layer) == SMALL
    config = json.loads(read_blob(store, manifest.config.digest))
    assert config["profile"]["digest"] == str(Digest.of(SMALL))
    assert (config["python"], config["platform"]) == ("3.14.7", "linux/amd64")


LAID = msgspec.structs.replace(trained().profile, layout=str(Digest.of(COUNTS)), laid=("bolt-19 1",))


def made_with_counts(counts: bytes = COUNTS) -> tuple[MemoryStore, Descriptor]:
    store = MemoryStore()
    for blob in (SMALL, counts):
        store.put([blob])
    profile = msgspec.structs.replace(LAID, layout=str(Digest.of(counts)))
    return store, assemble(Trained(profile=profile, python="3.14.7", platform="linux/amd64"), store)


def test_counts_of_a_layout_are_a_second_layer_and_come_back(tmp_path: Path) -> None:
    store, descriptor = made_with_counts()
    manifest = Manifest.parse(read_blob(store, descriptor.digest))
    assert [layer.media_type for layer in manifest.layers] == [LAYER_ZSTD, COUNTS_TYPE]
    write_file(tmp_path / "x", descriptor, store)
    other = MemoryStore()
    assert admit(in_file(tmp_path / "x"), other) == LAID
    assert sorted(other.blobs.values()) == sorted([SMALL, COUNTS])


def test_a_second_layer_that_is_no_counts_is_refused_with_the_first(tmp_path: Path) -> None:
    store, descriptor = made_with_counts(b"#!/bin/sh\n")
    write_file(tmp_path / "x", descriptor, store)
    assert refused(tmp_path / "x").message == "not counts of a layout"


def test_parts_that_only_the_config_or_only_the_manifest_names_are_refused(tmp_path: Path) -> None:
    config = {"python": "", "platform": "", "profile": msgspec.to_builtins(LAID)}
    error = refused(written(tmp_path / "x", repacked(config=config)))
    assert "names 2 parts, and there are 1 layers" in (error.because or "")


def test_the_same_profile_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        store, descriptor = made()
        write_file(tmp_path / name, descriptor, store)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_is_read_back(tmp_path: Path) -> None:
    store, descriptor = made()
    write_file(tmp_path / "x.profile", descriptor, store)
    offered = in_file(tmp_path / "x.profile")
    assert offered.trained == trained()
    assert offered.descriptor.digest == descriptor.digest
    other = MemoryStore()
    assert admit(offered, other) == trained().profile
    assert list(other.blobs.values()) == [SMALL]


def test_a_registry_gives_back_what_was_pushed() -> None:
    store, descriptor = made()
    registry = Registry(FakeTransport(MemoryRegistry()), Reference.parse("r.example/a"))
    push(store, descriptor, registry, ["x"], ListReporter())
    for name in ("x", descriptor.digest):
        offered = in_registry(registry, name)
        assert offered.at == f"r.example/a@{descriptor.digest}"
        assert admit(offered, MemoryStore()) == trained().profile


MARKER = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def repacked(config: object = None, layer: bytes | None = None, **changes: object) -> dict[str, bytes]:
    """The files of an artifact whose manifest, config or layer was changed."""
    store, descriptor = made()
    manifest = Manifest.parse(read_blob(store, descriptor.digest))
    blobs = {
        "config": read_blob(store, manifest.config.digest) if config is None else canonical_json(config),
        "layer": read_blob(store, manifest.layers[0].digest) if layer is None else layer,
    }
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": changes.get("type", ARTIFACT),
        "config": Descriptor.of(str(changes.get("config_type", CONFIG)), blobs["config"]).to_dict(),
        "layers": [Descriptor.of(str(changes.get("layer_type", LAYER_ZSTD)), blobs["layer"]).to_dict()],
    }
    blobs["manifest"] = canonical_json(value)
    files = {f"blobs/sha256/{Digest.of(blob).hex}": blob for blob in blobs.values()}
    index = Index(manifests=(Descriptor.of(str(changes.get("media_type", MANIFEST)), blobs["manifest"]),))
    return files | MARKER | {"index.json": index.to_bytes()}


def written(path: Path, files: dict[str, bytes]) -> Path:
    tree = Tree([file(name, content) for name, content in files.items()])
    path.write_bytes(b"".join(archive(tree, MemoryStore(), epoch=0, lowest=False)))
    return path


def refused(path: Path) -> OcibuildError:
    store = MemoryStore()
    with pytest.raises(OcibuildError) as caught:
        admit(in_file(path), store)
    assert not store.blobs
    return caught.value


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


FITS = {"source": "", "commands": "", "compiler": [], "headers": []}
EVIL = profile({"Objects/list.gcda": gcda({1: {ARCS: (1,)}}), "Modules/main.c": b"int main(void);"})


@pytest.mark.parametrize(
    ("files", "message", "because"),
    [
        (repacked(type="application/vnd.example.thing"), "not a profile", "it is application/vnd.example.thing"),
        (repacked(config_type="application/vnd.oci.image.config.v1+json"), "not a profile", ARTIFACT),
        (repacked(layer_type=LAYER_GZIP), "not a profile", "expected one layer"),
        (repacked(media_type="application/vnd.oci.image.index.v1+json"), "not a profile", "its media type is"),
        (repacked(config={"python": "3.14.7"}), "the profile's config cannot be read", "missing required field"),
        (
            repacked(config={"python": "", "platform": "", "profile": {**FITS, "digest": "x"}}),
            "the profile's config cannot be read",
            "not a digest: x",
        ),
        (repacked(config=[1]), "the profile's config cannot be read", "Expected `object`"),
        (repacked(layer=zstd(SMALL + b"x")), "the profile is not the one its config names", "expected sha256:"),
        (repacked(layer=zstd(SMALL)[:-9]), "the profile is not the one its config names", "expected sha256:"),
        (repacked(layer=b"nonsense"), "the profile cannot be decompressed", ""),
        (repacked(layer=zstd(bytes((64 << 20) + 1))), "the profile is too large", "over"),
        ({"x": b""}, "not a profile", "no image layout"),
        ({**MARKER, "index.json": Index(manifests=()).to_bytes()}, "not a profile", "names 0 manifests"),
        ({**MARKER, "index.json": repacked()["index.json"]}, "the archive lacks a file", ""),
    ],
)
def test_an_artifact_that_is_no_profile_is_refused(
    files: dict[str, bytes], message: str, because: str, tmp_path: Path
) -> None:
    error = refused(written(tmp_path / "x", files))
    assert isinstance(error, IntegrityError)
    assert error.message == message
    assert because in (error.because or "")
    assert str(tmp_path / "x") in (error.at or "")


def test_a_profile_that_brings_sources_is_refused(tmp_path: Path) -> None:
    store, descriptor = made(EVIL)
    write_file(tmp_path / "x", descriptor, store)
    assert "Modules/main.c" in (refused(tmp_path / "x").because or "")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-3000],
        lambda data: data.replace(b'"schemaVersion":2', b'"schemaVersion":3'),
        lambda data: data.replace(b"3.14.7", b"3.14.6"),
        lambda data: b"\x28\xb5\x2f\xfd" + data,
        lambda data: b"",
    ],
    ids=["cut", "manifest", "config", "not a tar", "empty"],
)
def test_a_damaged_file_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    store, descriptor = made()
    write_file(tmp_path / "x", descriptor, store)
    (tmp_path / "x").write_bytes(damage((tmp_path / "x").read_bytes()))
    assert isinstance(refused(tmp_path / "x"), IntegrityError)


def test_every_byte_of_the_blobs_counts(tmp_path: Path) -> None:
    store, descriptor = made()
    write_file(tmp_path / "x", descriptor, store)
    data = (tmp_path / "x").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        blobs = [member for member in members if member.name.startswith("blobs/sha256/") and member.isreg()]
    assert len(blobs) == 3
    for blob in blobs:
        changed = bytearray(data)
        changed[blob.offset_data + blob.size // 2] ^= 1
        (tmp_path / "x").write_bytes(changed)
        assert isinstance(refused(tmp_path / "x"), IntegrityError)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_a_matter_of_usage(name: str, tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path / name), UsageError)


def test_what_is_not_in_the_store_cannot_be_packed() -> None:
    with pytest.raises(IntegrityError):
        assemble(trained(), MemoryStore())
