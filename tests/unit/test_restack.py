"""Layers put on top of an image, made one, and compressed another way, through `mutate`."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.change.mutate import Mutation, mutate
from builder.change.pack import Source
from builder.change.restack import Restack
from builder.finding import FoundImage, find_image
from builder.images import OpenedImage, open_image, read_found
from builder.look.listed import listings
from builder.oci.annotations import BASE_DIGEST, BASE_NAME
from builder.oci.check import check_image, findings_of
from builder.oci.config import History
from builder.oci.descriptor import INDEX, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, Descriptor
from builder.oci.edit import Edit
from builder.oci.flatten import unpacked
from builder.oci.layer import Layer
from builder.oci.layout import write_layout
from builder.oci.manifest import Index, Manifest
from builder.oci.mediatypes import FOREIGN_GZIP
from builder.oci.rebase import Documents
from builder.oci.stack import with_appended, with_blobs, with_one
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError, UsageError
from rootfs.ports import read_blob, read_content
from rootfs.tree import Tree, directory, file
from tests.unit.test_images import image_of, tools_in
from tests.unit.test_mutate import an_index, config_of
from tests.unit.test_takeout import layout  # noqa: F401 (a fixture)


def restacked(
    image: FoundImage | Path, tools: Tools, *sources: Source, edit: Edit | None = None, **wanted: Any
) -> Descriptor:
    found = find_image(str(image)) if isinstance(image, Path) else image
    mutation = Mutation(edit=edit or Edit(), restack=Restack(append=sources, **wanted))
    return mutate(found, mutation, tools)


def files(image: OpenedImage, tools: Tools) -> dict[str, object]:
    store = tools.store
    return {
        path: (entry.kind, entry.mode, entry.uid, entry.mtime, entry.link, read_content(store, entry.content))
        for path, entry in image.tree.items()
    }


def opened(place: Path, descriptor: Descriptor, tools: Tools) -> OpenedImage:
    write_layout(place, tools.store, descriptor, ref_name="1")
    return open_image(str(place), tools)


def findings(descriptor: Descriptor, tools: Tools) -> list[str]:
    def fetch(wanted: Descriptor) -> Iterator[bytes]:
        yield read_blob(tools.store, wanted.digest)

    return [str(one) for one in findings_of(descriptor, fetch)]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A directory of the caller's: later than the image, and not root's perhaps."""
    place = tmp_path / "more"
    (place / "srv").mkdir(parents=True)
    (place / "srv/app").write_text("app\n")
    (place / "srv/app").chmod(0o640)
    return Source(name="more", path=place)


def test_squash_keeps_every_file_and_says_so(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    based = {BASE_NAME: "registry.example.org/base:1", BASE_DIGEST: f"sha256:{'0' * 64}", "org.example.a": "1"}
    said = restacked(layout, tools, edit=Edit(annotations=based))
    write_layout(tmp_path / "said", tools.store, said, ref_name="1")
    one = restacked(tmp_path / "said", tools, squash=True)
    check_image(tools.store, one)
    assert findings(one, tools) == []
    image = opened(tmp_path / "one", one, tools)
    assert files(image, tools) == files(open_image(str(layout), tools), tools)
    assert [layer.media_type for layer in image.manifest.layers] == [LAYER_GZIP]
    assert image.config.history == (History(created=image.config.created, created_by="2 layers in one"),)
    assert image.manifest.annotations == {"org.example.a": "1"}


@pytest.mark.parametrize(("asked", "level"), [(None, "gzip:5"), ("gzip", "gzip:5"), ("zstd", "zstd:2")])
def test_without_a_level_it_is_that_of_pack(layout: Path, tmp_path: Path, asked: str | None, level: str) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    assert restacked(layout, tools, squash=True, compression=asked) == restacked(
        layout, tools, squash=True, compression=level
    )
    assert restacked(layout, tools, squash=True, compression="gzip:6") != restacked(layout, tools, squash=True)


def test_the_store_does_not_change_what_squash_makes(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    fresh, used = tools_in(tmp_path / "fresh"), tools_in(tmp_path / "used")
    image = read_found(find_image(str(layout)))
    for layer, diff_id in image.layers:
        unpacked(layer, diff_id, image.found.fetch, used.store)
    listings([image], used)
    one, two = (restacked(layout, tools, squash=True, compression="zstd") for tools in (fresh, used))
    assert one == two
    assert Manifest.parse(read_blob(fresh.store, one.digest)).layers[0].media_type == LAYER_ZSTD
    # what is one layer already stays the same when it is made one again
    write_layout(tmp_path / "one", fresh.store, one, ref_name="1")
    again = restacked(tmp_path / "one", used, squash=True)
    manifests = (Manifest.parse(read_blob(used.store, digest)) for digest in (one.digest, again.digest))
    assert len({manifest.layers for manifest in manifests}) == 1


def test_onto_a_base_what_is_other_than_in_it_is_one_layer(layout: Path, tmp_path: Path, source: Source) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    base = Tree([directory("etc"), file("etc/hosts", b"lower\n"), directory("old"), file("old/x", b"x")])
    lower = image_of(base, tools)
    write_layout(tmp_path / "base", tools.store, lower.descriptor, ref_name="1")
    onto, name = find_image(str(tmp_path / "base")), "registry.example.org/base:1"
    one = restacked(layout, tools, source, onto=onto, reference=name, compression="zstd")
    check_image(tools.store, one)
    assert findings(one, tools) == []
    image = opened(tmp_path / "one", one, tools)
    write_layout(tmp_path / "all", tools.store, restacked(layout, tools, source), ref_name="1")
    assert files(image, tools) == files(open_image(str(tmp_path / "all"), tools), tools)
    assert "old" not in image.tree
    assert image.manifest.layers[:-1] == tuple(layer.descriptor for layer in lower.layers)
    assert image.manifest.layers[-1].media_type == LAYER_ZSTD
    assert len(image.config.history) == len(image.config.diff_ids) == len(lower.layers) + 1
    assert image.manifest.annotations == {BASE_NAME: name, BASE_DIGEST: str(lower.descriptor.digest)}
    # of what is there already nothing is left to say
    write_layout(tmp_path / "again", tools.store, restacked(tmp_path / "base", tools, onto=onto), ref_name="1")
    assert read_found(find_image(str(tmp_path / "again"))).manifest.layers[-1].size < 200


def test_append_puts_layers_on_top(layout: Path, tmp_path: Path, source: Source) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo("srv/tar")
        member.uid, member.mtime = 7, 1
        archive.addfile(member)
    tar = Source(name="stdin", path=Path("-"), stream=io.BytesIO(data.getvalue()))
    made = restacked(layout, tools, source, tar)
    check_image(tools.store, made)
    image = opened(tmp_path / "made", made, tools)
    before = open_image(str(layout), tools)
    new = [str(layer.digest) for layer in image.manifest.layers[2:]]
    assert not [finding for finding in findings(made, tools) if finding.startswith(tuple(new))]
    assert image.manifest.layers[:2] == before.manifest.layers
    assert image.config.diff_ids[:2] == before.config.diff_ids
    assert image.config.history[:2] == before.config.history
    told = History(created=before.config.created, created_by="ocibuild mutate --append")
    assert image.config.history[2:] == (told, told)
    app, seven = image.tree["srv/app"], image.tree["srv/tar"]
    assert (app.uid, app.gid, app.mode, app.mtime) == (0, 0, 0o640, before.config.created)
    assert seven.uid == 7
    assert before.tree.items() - image.tree.items() == set()


def test_the_same_directory_gives_the_same_digest(layout: Path, tmp_path: Path, source: Source) -> None:  # noqa: F811
    digests = set()
    for jobs in (1, 5):
        tools = replace(tools_in(tmp_path / str(jobs)), jobs=jobs)
        digests.add(restacked(layout, tools, source, compression="zstd:5"))
        (source.path / "srv/app").touch()
    assert len(digests) == 1


def test_append_then_squash_is_one_layer(layout: Path, tmp_path: Path, source: Source) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    image = opened(tmp_path / "made", restacked(layout, tools, source, squash=True), tools)
    assert len(image.manifest.layers) == 1
    assert [entry.created_by for entry in image.config.history] == ["3 layers in one"]
    assert {"srv/app", "etc/hosts"} <= set(image.tree)
    assert "etc/gone" not in image.tree


def test_created_is_the_appended_files_latest_time(layout: Path, tmp_path: Path, source: Source) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    image = opened(tmp_path / "made", restacked(layout, tools, source, edit=Edit(created=1234)), tools)
    assert image.tree["srv/app"].mtime == image.config.created == image.config.history[-1].created == 1234


@pytest.mark.parametrize("how", ["zstd", "zstd:19", "gzip:1", "none"])
def test_recompressed_layers_have_the_same_diff_ids(layout: Path, tmp_path: Path, how: str) -> None:  # noqa: F811
    tools = tools_in(tmp_path)
    made = restacked(layout, tools, compression=how)
    check_image(tools.store, made)
    before, after = open_image(str(layout), tools), opened(tmp_path / "made", made, tools)
    assert after.config == before.config
    types = {"zstd": LAYER_ZSTD, "gzip": LAYER_GZIP, "none": LAYER_TAR}
    assert {layer.media_type for layer in after.manifest.layers} == {types[how.partition(":")[0]]}
    assert files(after, tools) == files(before, tools)
    # also when the store knows nothing of it, with more threads, and from what was made of it
    other = replace(tools_in(tmp_path / "other"), jobs=5)
    assert restacked(tmp_path / "made", other, compression=how) == made
    back = restacked(tmp_path / "made", other, compression="gzip:9")
    assert back == restacked(layout, tools_in(tmp_path / "third"), compression="gzip:9")


def test_a_damaged_layer_is_not_recompressed(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    (layer, _), *_ = read_found(find_image(str(layout))).layers
    blob = layout / "blobs/sha256" / layer.digest.hex
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(data[:-9] + b"?" + data[-8:])
    for wanted in ({"compression": "zstd"}, {"squash": True}):
        with pytest.raises(IntegrityError):
            restacked(layout, tools_in(tmp_path), **wanted)
    with pytest.raises(RecipeError, match="unknown layer compression"):
        restacked(layout, tools_in(tmp_path), compression="lzma")


def test_every_image_of_an_index(tmp_path: Path, source: Source) -> None:
    tools = tools_in(tmp_path)
    _, _, _, index = an_index(tools.store)
    write_layout(tmp_path / "index", tools.store, index, ref_name="1")
    made = restacked(tmp_path / "index", tools, source)
    entries = Index.parse(read_blob(tools.store, made.digest)).manifests
    assert len(entries) == 2
    layers = [Manifest.parse(read_blob(tools.store, entry.digest)).layers for entry in entries]
    assert layers[0][-1] == layers[1][-1]
    assert all(len(config_of(tools.store, entry).history) == 2 for entry in entries)
    assert made.media_type == INDEX
    check_image(tools.store, made)
    # stdin is enough for both, since it is packed once
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    stream = Source(name="stdin", path=Path("-"), stream=io.BytesIO(tar.getvalue()))
    assert restacked(tmp_path / "index", tools, stream).digest != made.digest


LAYER = Layer(
    descriptor=Descriptor(media_type=LAYER_ZSTD, digest=Digest.of(b"new"), size=3),
    diff_id=Digest.of(b"n"),
    created_by="n",
)


def documents(**config: Any) -> Documents:
    layers = [
        {**Descriptor.of(LAYER_GZIP, b"a").to_dict(), "annotations": {"containerd.io/snapshot/stargz/toc.digest": "x"}},
        {**Descriptor.of(LAYER_GZIP, b"b").to_dict(), "annotations": {"org.example.a": "1"}, "data": "YQ=="},
    ]
    diff_ids = [str(Digest.of(data)) for data in (b"ta", b"tb")]
    value = {"rootfs": {"type": "layers", "diff_ids": diff_ids}, "x": 1, **config}
    return Documents(name="n", manifest={"layers": layers, "y": 2}, config=value)


def test_the_history_tells_of_every_layer() -> None:
    """Also where it did not, and with the time as the image writes it."""
    after = with_appended(documents(created="2026-01-02T03:04:05.5Z", history=[{"created_by": "one"}]), [LAYER])
    assert after.config["history"] == [{}, {}, {"created": "2026-01-02T03:04:05.5Z", "created_by": "n"}]
    told = [{"created_by": "one"}, {"empty_layer": True}, {"created_by": "two"}]
    assert with_appended(documents(history=told), [LAYER]).config["history"] == [*told, {"created_by": "n"}]
    assert with_one(documents(history=told), LAYER).config["history"] == [{"created_by": "n"}]
    assert (after.config["x"], after.manifest["y"]) == (1, 2)


def test_annotations_that_tell_of_the_compressed_bytes_go() -> None:
    after = with_blobs(documents(), [LAYER.descriptor, LAYER.descriptor]).manifest["layers"]
    assert after == [LAYER.descriptor.to_dict(), {**LAYER.descriptor.to_dict(), "annotations": {"org.example.a": "1"}}]
    assert with_blobs(documents(), [None, None]) == documents()


def test_a_foreign_layer_is_left_and_one_that_is_missing_cannot_be_squashed(layout: Path, tmp_path: Path) -> None:  # noqa: F811
    found = find_image(str(layout))
    value = json.loads(b"".join(found.fetch(found.descriptor)))
    value["layers"][0] |= {"mediaType": FOREIGN_GZIP, "urls": ["https://example.org/layer"]}
    data = json.dumps(value).encode()
    (layout / "blobs/sha256" / Digest.of(data).hex).write_bytes(data)
    image = replace(found, descriptor=replace(found.descriptor, digest=Digest.of(data), size=len(data)))
    tools = tools_in(tmp_path)
    made = Manifest.parse(read_blob(tools.store, restacked(image, tools, compression="zstd").digest))
    assert [layer.media_type for layer in made.layers] == [FOREIGN_GZIP, LAYER_ZSTD]
    absent = Digest.parse(value["layers"][0]["digest"])
    image = replace(image, holds=lambda wanted: wanted.digest != absent)
    with pytest.raises(UsageError, match="foreign layer is not here"):
        restacked(image, tools_in(tmp_path / "other"), squash=True)
