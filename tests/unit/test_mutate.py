"""Mutating, rebasing and indexing images that lie in layouts and registries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.change.mutate import Mutation, Rebase, mutate
from builder.finding import FoundImage, find_image
from builder.multi import ABOUT, chosen, leaves, make_index
from builder.oci.annotations import BASE_DIGEST, BASE_NAME
from builder.oci.check import check_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, EMPTY, INDEX, LAYER_GZIP, MANIFEST, Descriptor, Platform
from builder.oci.edit import Edit
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.oci.manifest import Index, Manifest
from builder.oci.mediatypes import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST
from builder.registry.client import Registry
from builder.tools import Tools
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, OcibuildError, UsageError
from rootfs.ports import Store, read_blob
from rootfs.store import DiskStore
from rootfs.tree import Tree, file
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.transport import FakeTransport
from tests.unit.test_images import tools_in

AMD64, ARM64 = Platform(architecture="amd64"), Platform(architecture="arm64", variant="v8")
HELLO = Edit(env={"HELLO": "world"}, labels={"l": "v"}, annotations={"org.example.a": "1"}, user="nobody")
BACK = Edit(env={"HELLO": None}, labels={"l": None}, annotations={"org.example.a": None}, user="")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Where images are made before they are written to a layout."""
    return DiskStore(tmp_path / "made")


def image_of(store: Store, *names: str, platform: Platform = AMD64, env: tuple[str, ...] = ()) -> Image:
    """An image with a layer for each name, in the store."""
    layers = [
        pack(Tree([file(name, name.encode())]), store, created_by=name, epoch=0, lowest=number == 0)
        for number, name in enumerate(names)
    ]
    image = assemble(layers, ImageConfig(platform=platform, created=7, env=env))
    for document in (image.config, image.manifest):
        store.put([document])
    return image


def put(store: Store, media_type: str, value: Any) -> Descriptor:
    """A document in the store."""
    data = canonical_json(value)
    store.put([data])
    return Descriptor.of(media_type, data)


def found(store: Store, descriptor: Descriptor, path: Path) -> FoundImage:
    """The image, in a layout of its own."""
    write_layout(path, store, descriptor, ref_name="x")
    return find_image(f"oci:{path}:x")


Mutate = Callable[..., Descriptor]


def mutated(image: FoundImage, edit: Edit, store: Store, **wanted: Any) -> Descriptor:
    return mutate(image, Mutation(edit=edit, **wanted), tools_with(store))


def tools_with(store: Store) -> Tools:
    """Tools of which only the store and the reporter are used."""
    return replace(tools_in(Path("nowhere")), store=store)


def config_of(store: Store, descriptor: Descriptor) -> ImageConfig:
    manifest = Manifest.parse(read_blob(store, descriptor.digest))
    return ImageConfig.parse(read_blob(store, manifest.config.digest))


def test_there_and_back_has_the_same_digest(store: Store, tmp_path: Path) -> None:
    image = image_of(store, "a", "b", env=("PATH=/bin",))
    target = DiskStore(tmp_path / "target")
    there = mutated(found(store, image.descriptor, tmp_path / "one"), HELLO, target)
    assert there.digest != image.descriptor.digest
    check_image(target, there)
    config = config_of(target, there)
    assert config.env == ("PATH=/bin", "HELLO=world")
    assert (config.user, config.created, config.labels) == ("nobody", 7, {"l": "v"})
    assert Manifest.parse(read_blob(target, there.digest)).layers == tuple(one.descriptor for one in image.layers)
    back = mutated(found(target, there, tmp_path / "two"), BACK, DiskStore(tmp_path / "third"))
    assert back.digest == image.descriptor.digest


def test_no_layer_is_decompressed(store: Store, tmp_path: Path) -> None:
    blob = b"this is no gzip"
    store.put([blob])
    config = ImageConfig(platform=AMD64, created=0, diff_ids=(Digest.of(b"x"),)).to_bytes()
    store.put([config])
    manifest = Manifest(config=Descriptor.of(CONFIG, config), layers=(Descriptor.of(LAYER_GZIP, blob),)).to_bytes()
    store.put([manifest])
    target = DiskStore(tmp_path / "target")
    mutated(found(store, Descriptor.of(MANIFEST, manifest), tmp_path / "one"), HELLO, target)
    assert read_blob(target, Digest.of(blob)) == blob


def odd_image(store: Store) -> Descriptor:
    """What others write: spaces, unknown members, Docker's media types."""
    blob = b"layer"
    store.put([blob])
    config = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-01-02T03:04:05.123456789Z",
        "config": {"Healthcheck": {"Test": ["NONE"]}, "OnBuild": ["RUN x"], "Env": None},
        "container_config": {"Cmd": ["x"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"tar"))]},
    }
    data = json.dumps(config, indent=3).encode()
    store.put([data])
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": Descriptor.of(DOCKER_CONFIG, data).to_dict(),
        "layers": [Descriptor.of(DOCKER_LAYER, blob).to_dict() | {"x-unknown": 1}],
    }
    data = json.dumps(manifest, indent=3).encode()
    store.put([data])
    return Descriptor.of(DOCKER_MANIFEST, data)


def test_what_others_wrote_stays_as_it_is_until_it_is_changed(store: Store, tmp_path: Path) -> None:
    descriptor = odd_image(store)
    image = found(store, descriptor, tmp_path / "one")
    target = DiskStore(tmp_path / "target")
    assert mutated(image, Edit(), target) == descriptor
    after = mutated(image, HELLO, target)
    assert after.media_type == MANIFEST
    manifest = json.loads(read_blob(target, after.digest))
    assert manifest["mediaType"] == MANIFEST
    assert manifest["layers"] == [Descriptor.of(LAYER_GZIP, b"layer").to_dict() | {"x-unknown": 1}]
    assert manifest["config"]["mediaType"] == CONFIG
    config = json.loads(read_blob(target, Digest.parse(manifest["config"]["digest"])))
    assert config["created"] == "2026-01-02T03:04:05.123456789Z"
    assert config["container_config"] == {"Cmd": ["x"]}
    assert config["config"]["OnBuild"] == ["RUN x"]
    assert config["config"]["Env"] == ["HELLO=world"]


def rebase(store: Store, tmp_path: Path, old: Image | None, new: Image, reference: str | None = None) -> Rebase:
    return Rebase(
        old=found(store, old.descriptor, tmp_path / "old") if old else None,
        new=found(store, new.descriptor, tmp_path / "new"),
        reference=reference,
    )


def test_rebase_there_and_back(store: Store, tmp_path: Path) -> None:
    old, new = image_of(store, "o1", "o2", env=("A=1",)), image_of(store, "n", env=("A=2",))
    app = image_of(store, "o1", "app", env=("A=1", "B=1"))
    base = image_of(store, "o1", env=("A=1",))
    target = DiskStore(tmp_path / "target")
    image = found(store, app.descriptor, tmp_path / "app")
    there = mutated(image, Edit(), target, rebase=rebase(store, tmp_path, base, new, "registry.example.org/new:1"))
    check_image(target, there)
    expected = image_of(store, "n", "app", env=("A=2", "B=1"))
    assert config_of(target, there).env == ("A=2", "B=1")
    manifest = Manifest.parse(read_blob(target, there.digest))
    assert manifest.layers[0] == Manifest.parse(new.manifest).layers[0]
    assert manifest.annotations == {BASE_NAME: "registry.example.org/new:1", BASE_DIGEST: str(new.descriptor.digest)}
    assert config_of(target, there).diff_ids[0] == ImageConfig.parse(expected.config).diff_ids[0]
    there_found = found(target, there, tmp_path / "there")
    plain = Edit(annotations={BASE_NAME: None, BASE_DIGEST: None})
    back = mutated(there_found, plain, target, rebase=rebase(store, tmp_path / "again", new, base))
    assert back.digest == app.descriptor.digest
    with pytest.raises(UsageError, match="is not the base of") as caught:
        mutated(image, Edit(), target, rebase=rebase(store, tmp_path / "bad", old, new))
    assert "layer 2 of 2" in str(caught.value.because)


def test_the_base_is_known_by_the_annotations(store: Store, tmp_path: Path) -> None:
    base, new = image_of(store, "o"), image_of(store, "n")
    registry = MemoryRegistry()
    registry.manifests[str(base.descriptor.digest)] = (MANIFEST, base.manifest)
    registry.blobs[str(Digest.of(base.config))] = base.config
    transport = FakeTransport(registry)
    app = image_of(store, "o", "app")
    said = {BASE_NAME: "registry.example.org/a:1", BASE_DIGEST: str(base.descriptor.digest)}
    target = DiskStore(tmp_path / "target")
    image = mutated(found(store, app.descriptor, tmp_path / "app"), Edit(annotations=dict(said)), target)
    there = mutate(
        found(target, image, tmp_path / "said"),
        Mutation(rebase=rebase(store, tmp_path, None, new)),
        tools_with(target),
        connect=lambda reference: Registry(transport, reference),
    )
    manifest = Manifest.parse(read_blob(target, there.digest))
    assert manifest.layers[0] == Manifest.parse(new.manifest).layers[0]
    assert manifest.annotations == {BASE_DIGEST: str(new.descriptor.digest)}
    with pytest.raises(UsageError, match="does not say its base") as caught:
        mutated(
            found(store, app.descriptor, tmp_path / "app"), Edit(), target, rebase=rebase(store, tmp_path, None, new)
        )
    assert "--rebase-from" in str(caught.value.hint)


def an_index(store: Store) -> tuple[Image, Image, Descriptor, Descriptor]:
    """amd64 and arm64, an attestation about amd64, and their index."""
    amd, arm = image_of(store, "a"), image_of(store, "a", platform=ARM64)
    statement = b"{}"
    store.put([statement])
    about = Manifest(
        config=Descriptor.of(EMPTY, b"{}"),
        layers=(Descriptor.of("application/vnd.in-toto+json", statement),),
        artifact_type="application/vnd.in-toto+json",
    ).to_bytes()
    store.put([about])
    entry = replace(
        Descriptor.of(MANIFEST, about),
        platform=Platform(os="unknown", architecture="unknown"),
        annotations={ABOUT: str(amd.descriptor.digest), "vnd.docker.reference.type": "attestation-manifest"},
    )
    data = Index(manifests=(arm.descriptor, amd.descriptor, entry)).to_bytes()
    store.put([data])
    return amd, arm, entry, Descriptor.of(INDEX, data)


def test_all_images_of_an_index_are_changed_and_what_told_about_them_goes(store: Store, tmp_path: Path) -> None:
    amd, arm, about, index = an_index(store)
    image = found(store, index, tmp_path / "one")
    target, reporter = DiskStore(tmp_path / "target"), ListReporter()
    assert mutated(image, Edit(), target).digest == index.digest
    there = mutate(image, Mutation(edit=HELLO), replace(tools_with(target), reporter=reporter))
    value = Index.parse(read_blob(target, there.digest))
    assert [one.platform for one in value.manifests] == [ARM64, AMD64]
    assert {config_of(target, one).user for one in value.manifests} == {"nobody"}
    assert value.annotations == {"org.example.a": "1"}
    assert "1 attestations left out" in str(reporter.__dict__)
    one = mutated(image, HELLO, target, platform="linux/arm64")
    assert one.digest == value.manifests[0].digest
    with pytest.raises(UsageError, match="no image for linux/s390x") as caught:
        mutated(image, HELLO, target, platform="linux/s390x")
    assert "linux/amd64, linux/arm64" in str(caught.value.hint)
    assert {leaf.descriptor.digest for leaf in leaves(image)} == {
        one.digest for one in (amd.descriptor, arm.descriptor, about)
    }


def test_two_entries_for_one_image_keep_what_each_says(store: Store, tmp_path: Path) -> None:
    entries = [image_of(store, "a").descriptor.to_dict() | {"annotations": {"n": number}} for number in "12"]
    index = put(store, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    after = mutated(found(store, index, tmp_path / "one"), HELLO, store)
    manifests = json.loads(read_blob(store, after.digest))["manifests"]
    assert [one["annotations"]["n"] for one in manifests] == ["1", "2"]
    assert manifests[0]["digest"] == manifests[1]["digest"] != entries[0]["digest"]


def indexed(images: list[FoundImage], store: Store, **annotations: str) -> Descriptor:
    return make_index(images, store, annotations=annotations, reporter=ListReporter())


def test_the_same_images_make_the_same_index(store: Store, tmp_path: Path) -> None:
    amd, arm, about, index = an_index(store)
    nested = put(store, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [index.to_dict()]})
    names = [
        found(store, one, tmp_path / str(number))
        for number, one in enumerate((arm.descriptor, amd.descriptor, index, nested))
    ]
    target = DiskStore(tmp_path / "target")
    one = indexed(names, target)
    assert {indexed(some, DiskStore(tmp_path / "t")) for some in (names[::-1], [names[3]], [names[2]])} == {one}
    value = Index.parse(read_blob(target, one.digest))
    assert [entry.digest for entry in value.manifests] == [
        amd.descriptor.digest,
        about.digest,
        arm.descriptor.digest,
    ]
    assert [entry.annotations for entry in value.manifests] == [{}, about.annotations, {}]
    plain = indexed(names[:2], target, **{"org.example.a": "b"})
    check_image(target, plain)
    assert Index.parse(read_blob(target, plain.digest)).annotations == {"org.example.a": "b"}


def test_two_images_of_one_platform_are_both_named(store: Store, tmp_path: Path) -> None:
    bare = Platform(architecture="arm64")
    images = [image_of(store, "a", platform=ARM64), image_of(store, "b", platform=bare)]
    names = [found(store, one.descriptor, tmp_path / str(number)) for number, one in enumerate(images)]
    with pytest.raises(UsageError, match="two images for linux/arm64") as caught:
        indexed(names, store)
    for name, image in zip(names, images, strict=True):
        assert f"{name.name}@{image.descriptor.digest}" in str(caught.value.because)


def test_windows_versions_are_platforms_of_their_own(store: Store, tmp_path: Path) -> None:
    def image(version: str) -> FoundImage:
        config = {"os": "windows", "architecture": "amd64", "os.version": version, "rootfs": {"type": "layers"}}
        manifest = {"schemaVersion": 2, "config": put(store, CONFIG, config).to_dict(), "layers": []}
        return found(store, put(store, MANIFEST, manifest), tmp_path / version)

    index = indexed([image("10.0.2"), image("10.0.1")], store)
    entries = json.loads(read_blob(store, index.digest))["manifests"]
    assert [entry["platform"]["os.version"] for entry in entries] == ["10.0.1", "10.0.2"]


def test_an_entry_that_lies_about_its_platform_is_refused(store: Store, tmp_path: Path) -> None:
    amd = image_of(store, "a")
    index = put(store, INDEX, json.loads(Index(manifests=(replace(amd.descriptor, platform=ARM64),)).to_bytes()))
    with pytest.raises(IntegrityError, match="two platforms"):
        indexed([found(store, index, tmp_path / "one")], store)


def test_artifacts_are_no_images(store: Store, tmp_path: Path) -> None:
    _, _, about, _ = an_index(store)
    store.put([b"{}"])
    name = found(store, replace(about, platform=None, annotations={}), tmp_path / "one")
    for verb in (lambda: indexed([name], store), lambda: mutated(name, HELLO, store), lambda: chosen(name, None)):
        with pytest.raises(UsageError, match="not an image"):
            verb()


def test_indexes_without_end_are_refused(store: Store, tmp_path: Path) -> None:
    """Each holds the one before twice: 2**40 ways to walk, and none is walked."""
    descriptor = image_of(store, "a").descriptor
    for depth in range(40):
        entries = [descriptor.to_dict(), descriptor.to_dict() | {"annotations": {"n": str(depth)}}]
        descriptor = put(store, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        if depth == 6:
            write_layout(tmp_path / "fine", store, descriptor, ref_name="x")
    assert len(leaves(find_image(f"oci:{tmp_path}/fine:x"))) == 1
    endless = FoundImage(
        name="endless", descriptor=descriptor, fetch=lambda one: iter([read_blob(store, one.digest)]), near=True
    )
    for verb in (lambda: indexed([endless], store), lambda: mutated(endless, HELLO, store)):
        with pytest.raises(IntegrityError, match="without end"):
            verb()


def test_an_index_that_claims_to_hold_itself_is_not_believed(store: Store, tmp_path: Path) -> None:
    claimed = Descriptor(media_type=INDEX, digest=Digest.of(b"claimed"), size=0)
    data = Index(manifests=(claimed,)).to_bytes()
    claimed = replace(claimed, size=len(data))
    write_layout(tmp_path / "l", store, image_of(store, "a").descriptor, ref_name="x")
    path = tmp_path / "l/blobs/sha256" / claimed.digest.hex
    path.write_bytes(data)
    index = {"schemaVersion": 2, "manifests": [claimed.to_dict()]}
    (tmp_path / "l/index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError):
        indexed([find_image(f"oci:{tmp_path}/l")], store)


def test_layers_and_diff_ids_that_do_not_fit_are_refused(store: Store, tmp_path: Path) -> None:
    image = image_of(store, "a")
    manifest = json.loads(image.manifest) | {"layers": []}
    with pytest.raises(OcibuildError, match="do not fit"):
        mutated(found(store, put(store, MANIFEST, manifest), tmp_path / "one"), HELLO, store)
