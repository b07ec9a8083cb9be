"""What the user calls IMAGE -> an image, from a layout and from a registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.images import OpenedImage, open_image, read_image, root_of
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, EMPTY, INDEX, MANIFEST, Descriptor, Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.oci.manifest import Index, Manifest
from builder.registry.client import Registry
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.errors import IntegrityError, OcibuildError, UsageError
from rootfs.store import DiskStore
from rootfs.tree import Tree, directory, file
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox
from tests.fakes.transport import FakeTransport, pages

HOST = Platform.of(Architecture.host())


def tools_in(place: Path) -> Tools:
    """Tools with an empty store."""
    return Tools(
        store=DiskStore(place / "store"),
        transport=pages({}),
        sandbox=ScriptedSandbox(),
        reporter=ListReporter(),
        mirrors={},
        work=place / "store" / "work",
        jobs=1,
    )


def image_of(tree: Tree, tools: Tools, platform: Platform = HOST) -> Image:
    """An image of one layer, in the store."""
    layer = pack(tree, tools.store, created_by="test", epoch=0, lowest=True)
    image = assemble([layer], ImageConfig(platform=platform, created=0, env=("PATH=/bin", "A=b=c")))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    return image


@dataclass(frozen=True)
class Place:
    """A directory with dist/wee, a layout that a build in another store wrote; `image` is its only image."""

    path: Path
    image: Image
    tools: Tools

    @property
    def layout(self) -> Path:
        return self.path / "dist" / "wee"

    def open(self, text: str) -> OpenedImage:
        return open_image(text, self.tools)


TREE = Tree([directory("bin"), file("bin/python3", b"python", mode=0o755)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    built = tools_in(tmp_path / "built")
    image = image_of(TREE, built)
    write_layout(tmp_path / "dist" / "wee", built.store, image.descriptor, ref_name="1.0-wee")
    monkeypatch.chdir(tmp_path)
    return Place(path=tmp_path, image=image, tools=tools_in(tmp_path))


@pytest.mark.parametrize(
    "text",
    ["dist/wee", "wee", "wee.toml", "recipes/wee.toml", "dist/wee:1.0-wee", "oci:dist/wee", "oci:dist/wee:1.0-wee"],
)
def test_an_image_has_many_names(place: Place, text: str) -> None:
    image = place.open(text)
    assert image.descriptor.digest == place.image.descriptor.digest
    assert image.name == ("dist/wee:1.0-wee" if ":1.0" in text else "dist/wee")
    assert str(image) == f"{image.name}@{place.image.descriptor.digest}"
    assert image.environment == {"PATH": "/bin", "A": "b=c"}
    assert image.tree["bin/python3"].mode == 0o755
    assert place.open(str(image)).descriptor == image.descriptor


def test_the_root_has_the_files_and_what_a_sandbox_mounts_on(place: Place) -> None:
    root = root_of(place.open("wee"), place.tools)
    assert (root / "bin/python3").read_bytes() == b"python"
    assert {path.name for path in root.iterdir()} == {"bin", "dev", "proc", "tmp"}
    assert root_of(place.open("wee"), place.tools) == root


@pytest.mark.parametrize("text", ["nothing", "dist/none", "oci:nothing", "wee:2.0", "wee@sha256:" + "0" * 64, "built"])
def test_what_is_no_image_is_a_usage_error(place: Place, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        place.open(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["registry.example.org/team/wee", "localhost:5000/wee:1.0-wee", "other/wee"])
def test_the_end_of_a_reference_is_no_recipe_s_name(place: Place, text: str) -> None:
    """Found when `diff wee registry/team/wee` compared dist/wee with itself."""
    with pytest.raises(UsageError, match="no such image"):
        place.open(text)


def test_a_hint_offers_images_and_not_what_is_attached(place: Place) -> None:
    referrers = f"sha256-{place.image.descriptor.digest.hex}"
    write_layout(place.layout, tools_in(place.path / "built").store, place.image.descriptor, ref_name=referrers)
    with pytest.raises(UsageError) as caught:
        place.open("wee:2.0")
    assert caught.value.hint == "write dist/wee:TAG; it holds 1.0-wee"


@pytest.mark.parametrize("text", ["wee@sha256:123", "wee@x"])
def test_what_is_no_digest_is_the_user_s_mistake_and_no_damage(place: Place, text: str) -> None:
    with pytest.raises(UsageError, match="not a digest"):
        place.open(text)


def test_one_of_several_has_to_be_named(place: Place) -> None:
    other = image_of(Tree([file("other", b"")]), tools_in(place.path / "built"))
    write_layout(place.layout, DiskStore(place.path / "built" / "store"), other.descriptor, ref_name="2.0")
    with pytest.raises(UsageError, match="several") as caught:
        place.open("wee")
    assert "1.0-wee, 2.0" in str(caught.value.hint)
    assert "other" in place.open("wee:2.0").tree
    assert "other" in place.open(f"wee@{other.descriptor.digest}").tree


def test_of_an_index_this_machine_s_platform_is_taken(place: Place) -> None:
    built = tools_in(place.path / "built")
    foreign = image_of(TREE, built, Platform(architecture="s390x"))

    def write(*images: Image) -> None:
        index = Index(manifests=tuple(image.descriptor for image in images)).to_bytes()
        built.store.put([index])
        write_layout(place.layout, built.store, Descriptor.of(INDEX, index), ref_name="all")

    write(foreign, place.image)
    assert place.open("wee:all").descriptor.digest == place.image.descriptor.digest
    write(foreign)
    with pytest.raises(UsageError, match="no image for") as caught:
        place.open("wee:all")
    assert "s390x" in str(caught.value.hint)


def test_a_platform_is_found_as_runtimes_find_it(place: Place) -> None:
    """arm64 is arm64/v8, in an index within an index too; an image of another platform is not the one meant."""
    built = tools_in(place.path / "built")
    arm = image_of(TREE, built, Platform(architecture="arm64", variant="v8"))
    manifests = (arm.descriptor, image_of(TREE, built, Platform(architecture="s390x")).descriptor)
    inner = Index(manifests=manifests).to_bytes()
    outer = Index(manifests=(Descriptor.of(INDEX, inner),)).to_bytes()
    for data in (inner, outer):
        built.store.put([data])
        write_layout(place.layout, built.store, Descriptor.of(INDEX, data), ref_name="all")
        for variant in (None, "v8"):
            wanted = Platform(architecture="arm64", variant=variant)
            assert read_image("wee:all", platform=wanted).descriptor.digest == arm.descriptor.digest
    with pytest.raises(UsageError, match="no image for linux/arm64/v9"):
        read_image("wee:all", platform=Platform(architecture="arm64", variant="v9"))
    with pytest.raises(UsageError, match="no image for linux/riscv64"):
        read_image("wee:1.0-wee", platform=Platform(architecture="riscv64"))


def _blob(place: Place, descriptor: Descriptor) -> Path:
    return place.layout / "blobs" / "sha256" / descriptor.digest.hex


def _damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Write anew: the file is a hard link to the store's."""
    data = change(path.read_bytes())
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("read_before", [False, True])
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_damage_is_refused_also_when_the_image_was_read_before(
    place: Place, which: str, how: str, *, read_before: bool
) -> None:
    if read_before:
        place.open("wee")
    manifest = Manifest.parse(place.image.manifest)
    chosen = {"layer": manifest.layers[0], "config": manifest.config, "manifest": place.image.descriptor}[which]
    path = _blob(place, chosen)
    if how == "gone":
        path.unlink()
    else:
        _damage(path, lambda data: data[:-1] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError) as caught:
        place.open("wee")
    assert caught.value.at == os.path.relpath(path)


def test_an_artifact_is_no_image(place: Place) -> None:
    built = tools_in(place.path / "built")
    built.store.put([b"{}"])
    artifact = Manifest(config=Descriptor.of(EMPTY, b"{}"), layers=(), artifact_type="text/plain").to_bytes()
    built.store.put([artifact])
    write_layout(place.layout, built.store, Descriptor.of(MANIFEST, artifact), ref_name="sbom")
    with pytest.raises(IntegrityError, match="not an image"):
        place.open("wee:sbom")


def test_a_config_of_another_image_is_refused(place: Place) -> None:
    built = tools_in(place.path / "built")
    config = replace(ImageConfig.parse(place.image.config), diff_ids=()).to_bytes()
    built.store.put([config])
    manifest = replace(Manifest.parse(place.image.manifest), config=Descriptor.of(CONFIG, config)).to_bytes()
    built.store.put([manifest])
    write_layout(place.layout, built.store, Descriptor.of(MANIFEST, manifest), ref_name="odd")
    with pytest.raises(IntegrityError, match="do not fit"):
        place.open("wee:odd")


def test_an_image_in_a_registry(place: Place) -> None:
    registry = MemoryRegistry()
    manifest = Manifest.parse(place.image.manifest)
    for descriptor in manifest.children:
        registry.blobs[str(descriptor.digest)] = _blob(place, descriptor).read_bytes()
    registry.manifests["1.0"] = (MANIFEST, place.image.manifest)
    registry.manifests[str(place.image.descriptor.digest)] = (MANIFEST, place.image.manifest)
    transport = FakeTransport(registry)

    def reach(text: str) -> OpenedImage:
        return open_image(text, place.tools, connect=lambda reference: Registry(transport, reference))

    assert reach("docker://registry.example.org/a:1.0").descriptor.digest == place.image.descriptor.digest
    image = reach("registry.example.org/a:1.0")
    assert str(image) == f"registry.example.org/a:1.0@{place.image.descriptor.digest}"
    assert list(image.tree) == list(TREE)
    asked = len([request for request in transport.requests if "blobs" in request.url])
    assert reach(str(image)).tree["bin"].mode == 0o755
    # the config again, and no layer
    assert len([request for request in transport.requests if "blobs" in request.url]) == asked + 1
    for text in ("registry.example.org/a", "registry.example.org/a:absent"):
        with pytest.raises(OcibuildError):
            reach(text)
