"""Places: a text says the form, and each form is written whole or not at all."""

from __future__ import annotations

import gzip
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from builder.cli import run
from builder.finding import bring, find_image
from builder.images import open_image
from builder.oci.archive import read_archive
from builder.oci.bundle import Account, account_of, runtime_config
from builder.oci.config import ImageConfig
from builder.oci.descriptor import INDEX, LAYER_TAR, MANIFEST, REF_NAME, Descriptor, Platform
from builder.oci.docker import converted
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import IMAGE_NAME, read_layout, write_layout
from builder.oci.manifest import Index, Manifest, parse
from builder.oci.mediatypes import DOCKER_FOREIGN, DOCKER_INDEX, DOCKER_LAYER, DOCKER_MANIFEST, FOREIGN_GZIP
from builder.places import write_place
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.sources import source_of
from builder.target import Place
from builder.tools import Tools
from builder.trust.attach import Document, artifact, attach
from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError, UsageError
from rootfs.files import STDOUT
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from rootfs.tree import Tree, directory, file, symlink
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.transport import FakeTransport
from tests.unit.test_images import HOST, image_of, tools_in

TREE = Tree(
    [
        directory("etc"),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n"),
        symlink("etc/group", "../usr/group"),
        directory("usr"),
        file("usr/group", b"root:x:0:\nweb:x:34:\nlog:x:44:a,web\nadm:x:45:web\n"),
    ]
)
S390X = Platform(architecture="s390x")


def test_a_text_says_the_form() -> None:
    for text, form, path, name in (
        ("a", "oci", "a", ""),
        ("./registry.example.org/a:1", "oci", "registry.example.org/a", "1"),
        ("oci:a:b:c", "oci", "a", "b:c"),
        ("a.oci.tar:1.0", "oci-archive", "a.oci.tar", "1.0"),
        ("oci-archive:a.tar", "oci-archive", "a.tar", ""),
        ("docker-archive:a.tar:wee:1.0", "docker-archive", "a.tar", "wee:1.0"),
        ("rel.ease/a.tar", "tar", "rel.ease/a.tar", ""),
        ("tar:a", "tar", "a", ""),
        ("a.tar.gz", "tar.gz", "a.tar.gz", ""),
        ("tar:a.tzst", "tar.zst", "a.tzst", ""),
        ("bundle:a", "bundle", "a", ""),
        ("dir:a:b", "dir", "a:b", ""),
    ):
        place = Place.parse(text)
        assert (place.form, place.path, place.tag or place.name) == (form, Path(path), name), text
        assert str(place) == (f"{Path(path)}:{name}" if name else str(Path(path)))


def test_an_archive_may_go_to_stdout() -> None:
    for text, form, said in (
        ("docker-archive:-:wee:1", "docker-archive", "-:wee:1"),
        ("oci-archive:-", "oci-archive", "-"),
        ("tar:-", "tar", "-"),
    ):
        place = Place.parse(text)
        assert (place.form, place.path, str(place)) == (form, STDOUT, said)
    assert Place.parse("-", plain="dir") == Place.parse("tar:-")
    assert Place.parse("oci-archive:./-").path == Path("-")


UNWRITTEN = ("-", "docker-daemon:a:1", "containers-storage:a", "a.tar.xz", "a.zip:1")
UNCLEAR = ("myregistry/app:v1", "library/alpine:3.20", "a/b/c:x")
MISTYPED = ("localhost:5000/a@sha256:1", "localhost:5000/UPPER:1", "r.example.org/a@sha256:1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "bundle:",
        "oci::x",
        "docker-archive:a.tar.gz",
        "oci-archive:a.tzst",
        "r.example.org/a:1",
        "\0",
        "docker://r.example.org/a:1",
        "oci:a:b d",
        "a.oci.tar:-1",
        "docker-archive:a.tar:Wee",
        "bundle:-",
        "oci:-:1",
        *UNWRITTEN,
        *MISTYPED,
        *UNCLEAR,
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Place.parse(text)
    assert caught.value.hint


def test_what_other_tools_push_to_is_no_directory_unless_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in UNCLEAR:
        with pytest.raises(UsageError) as caught:
            Place.parse(text)
        hint = caught.value.hint or ""
        assert f"write oci:{text}" in hint
        assert f"registry.example.org/{text}" in hint
    Path("myregistry").mkdir()
    for text in ("myregistry/app:v1", "oci:other/app:v1", "./other/app:v1", "other/app", "other:v1", "/other/app:v1"):
        assert Place.parse(text).form == "oci"


def test_a_registry_is_refused_with_what_the_verb_has() -> None:
    for text in ("localhost:5000/a:1", "docker://r.example.org/a:1"):
        with pytest.raises(UsageError) as caught:
            Place.parse(text, elsewhere="`ocibuild copy` to it")
        assert "`ocibuild copy` to it" in (caught.value.hint or "")
        assert "--push" not in (caught.value.hint or "")


def said(tree: Tree) -> list[tuple[str, str, str, int]]:
    """What a tree holds, wherever its contents lie."""
    return [(path, entry.kind, entry.link, entry.size) for path, entry in tree.items()]


def put(text: str, tools: Tools, descriptor: Descriptor, name: str = "") -> Digest:
    place = replace(Place.parse(text), **({"name": name} if name else {}))
    return write_place(place, tools.store, descriptor, reporter=tools.reporter)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.chdir(tmp_path)
    return tools_in(tmp_path / "built")


@pytest.mark.parametrize("text", ["oci:l", "a.oci.tar", "oci-archive:a.tar:x", "docker-archive:a.tar:wee:1"])
def test_an_image_goes_through_every_form_unchanged(tools: Tools, text: str) -> None:
    image = image_of(TREE, tools)
    assert put(text, tools, image.descriptor) == image.descriptor.digest
    other = tools_in(Path("other"))
    found = find_image(text)
    bring(found, other.store)
    assert found.descriptor.digest == image.descriptor.digest
    put("oci:back", other, found.descriptor)
    assert said(open_image("back", tools).tree) == said(open_image(text, other).tree) == said(TREE)


def test_a_name_stays_until_there_is_another(tools: Tools) -> None:
    image = image_of(TREE, tools)

    def notes(text: str, source: Descriptor, name: str = "") -> Descriptor:
        put(text, tools, source, name)
        return find_image(text.removeprefix("oci:")).descriptor

    first = notes("oci:a:1.0", image.descriptor, "me/wee:2")
    assert first.annotations == {REF_NAME: "1.0", IMAGE_NAME: "docker.io/me/wee:2"}
    assert notes("b", first).annotations == first.annotations
    assert notes("c:3", first).annotations == {REF_NAME: "3"}
    assert notes("d.oci.tar", image.descriptor).annotations == {REF_NAME: "latest"}
    put("docker-archive:e.tar", tools, first)
    with tarfile.open("e.tar") as tar:
        assert json.loads(tar.extractfile("manifest.json").read())[0]["RepoTags"] == ["me/wee:2"]  # type: ignore[union-attr]


def index_of(tools: Tools, *images: Image) -> Descriptor:
    data = Index(manifests=tuple(image.descriptor for image in images)).to_bytes()
    tools.store.put([data])
    return Descriptor.of(INDEX, data)


def test_an_index_goes_whole_where_it_can_and_else_as_this_machine_s_image(tools: Tools) -> None:
    ours, theirs = image_of(TREE, tools), image_of(TREE, tools, S390X)
    index = index_of(tools, ours, theirs)
    for text in ("oci:l", "a.oci.tar"):
        assert put(text, tools, index) == index.digest
    assert put("docker-archive:d.tar:wee:1", tools, index) == ours.descriptor.digest
    assert isinstance(tools.reporter, ListReporter)
    assert ("note", f"a docker-archive holds one platform, and of the index gets {HOST}") in tools.reporter.events
    with pytest.raises(UsageError, match="no image for"):
        put("r.tar", tools, index_of(tools, theirs, image_of(TREE, tools, Platform(architecture="riscv64"))))


def test_an_archive_names_nothing_but_its_image(tools: Tools) -> None:
    """Who loads it makes an image of each name; the tag that cosign gave a signature is kept elsewhere."""
    image, signature = image_of(TREE, tools), image_of(TREE, tools, S390X).descriptor
    tag = f"sha256-{image.descriptor.digest.hex}.sig"
    document = Document(media_type="application/x", file_name="x", data=b"x")
    plain = artifact(document, image.descriptor, tools.store, created=0)
    attached = (plain, replace(signature, annotations={REF_NAME: tag}))
    for text in ("oci-archive:a.tar:1", "oci:l:1"):
        write_place(Place.parse(text), tools.store, image.descriptor, reporter=tools.reporter, attached=attached)
        source = source_of(find_image(text), tools.store)
        assert [one.annotations for one in source.tagged(image.descriptor.digest)] == [{REF_NAME: tag}]
        assert [one.digest for one in source.attached(image.descriptor.digest)] == [plain.digest]
    names = [one.annotations.get(REF_NAME) for one in read_archive(Path("a.tar")).index().manifests]
    assert names == ["1", None, None]
    assert {one.annotations.get(REF_NAME) for one in read_layout(Path("l")).manifests} == {"1", None, tag, tag[:-4]}


def test_the_files_of_an_image_as_a_tar(tools: Tools) -> None:
    image = image_of(TREE, tools)
    digest = put("r.tar", tools, image.descriptor)
    assert Digest.of(Path("r.tar").read_bytes()) == digest
    with tarfile.open("r.tar") as tar:
        assert {member.name for member in tar} == {".", *TREE}
    put("r.tar.gz", tools, image.descriptor)
    put("tar:r.tzst", tools, image.descriptor)
    assert Digest.of(gzip.decompress(Path("r.tar.gz").read_bytes())) == digest
    with zstandard.ZstdDecompressor().stream_reader(Path("r.tzst").read_bytes(), read_across_frames=True) as stream:
        assert Digest.of(stream.read()) == digest


def test_times_stay_also_when_the_config_is_older(tools: Tools) -> None:
    tree = Tree([replace(file("x", b"x"), mtime=99)])
    layer = pack(tree, tools.store, created_by="", epoch=99)
    image = assemble([layer], ImageConfig(platform=HOST, created=0))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    put("r.tar", tools, image.descriptor)
    with tarfile.open("r.tar") as tar:
        assert tar.getmember("x").mtime == 99


def test_directory_and_bundle_are_new_or_refused_and_nothing_is_left(tools: Tools) -> None:
    image = image_of(TREE, tools)
    for text in ("dir:d", "bundle:b"):
        put(text, tools, image.descriptor)
        with pytest.raises(HostError, match="cannot"):
            put(text, tools, image.descriptor)
    assert Path("d/etc/passwd").read_bytes() == Path("b/rootfs/etc/passwd").read_bytes()
    assert json.loads(Path("b/config.json").read_bytes())["root"]["path"] == "rootfs"
    bad = assemble(image.layers, ImageConfig(platform=HOST, created=0, user="nobody-known"))
    for document in (bad.config, bad.manifest):
        tools.store.put([document])
    with pytest.raises(IntegrityError, match="no user 'nobody-known'"):
        put("bundle:c", tools, bad.descriptor)
    assert {path.name for path in Path().iterdir()} == {"built", "d", "b"}


PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n33x:x:7:7::/:/\nodd:x:8:8\n"
GROUP = "root:x:0:\nweb:x:34:\nlog:x:44:a,web\nadm:x:45:web\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Account(uid=0, gid=0, home="/root")),
        ("web", Account(uid=33, gid=34, groups=(44, 45), home="/srv")),
        ("33", Account(uid=33, gid=34, groups=(44, 45), home="/srv")),
        ("web:log", Account(uid=33, gid=44, home="/srv")),
        ("1234", Account(uid=1234, gid=0)),
        ("1234:77", Account(uid=1234, gid=77)),
        (":log", Account(uid=0, gid=44, home="/root")),
    ],
)
def test_users_are_those_of_the_image(user: str, expected: Account) -> None:
    assert account_of(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize("user", ["nobody", "web:nobody", "-1", "4294967295", "web:99999999999", "odd", "\u0663"])
def test_users_that_the_image_does_not_have(user: str) -> None:
    with pytest.raises(IntegrityError):
        account_of(user, PASSWD, GROUP)


def test_a_bundle_says_what_the_config_says() -> None:
    config = ImageConfig(
        platform=HOST,
        created=0,
        env=("A=1", "HOME=/x"),
        entrypoint=("/e",),
        cmd=("c",),
        working_dir="/w",
        labels={"l": "1"},
        stop_signal="SIGINT",
    )
    value = json.loads(runtime_config(config, Account(uid=33, gid=34, groups=(44,), home="/srv")))
    process = value["process"]
    assert (process["args"], process["cwd"]) == (["/e", "c"], "/w")
    assert process["user"] == {"uid": 33, "gid": 34, "additionalGids": [44]}
    assert process["env"][:2] == ["A=1", "HOME=/x"]
    assert process["env"][2].startswith("PATH=")
    assert process["capabilities"].keys() == {"bounding"}
    assert value["annotations"]["l"] == "1"
    assert value["annotations"]["org.opencontainers.image.stopSignal"] == "SIGINT"
    assert {"type": "user"} not in value["linux"]["namespaces"]
    rootless = json.loads(
        runtime_config(ImageConfig(platform=HOST, created=0), Account(uid=0, gid=0), uids=((0, 5, 1),))
    )
    assert rootless["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 5, "size": 1}]
    assert rootless["process"]["args"] == ["sh"]
    assert "effective" in rootless["process"]["capabilities"]


def test_docker_s_schema_and_back(tools: Tools) -> None:
    image = image_of(TREE, tools)
    index = index_of(tools, image, image_of(TREE, tools, S390X))
    docker = converted(index, tools.store, "docker")
    document = parse(DOCKER_INDEX, read_blob(tools.store, docker.digest))
    manifest = parse(DOCKER_MANIFEST, read_blob(tools.store, document.children[0].digest))
    assert isinstance(manifest, Manifest)
    assert [layer.media_type for layer in manifest.layers] == [DOCKER_LAYER]
    assert manifest.config.digest == Digest.of(image.config)
    put("oci:l", tools, docker)
    assert said(open_image("l", tools).tree) == said(TREE)
    assert converted(docker, tools.store, "docker") == docker
    assert converted(docker, tools.store, "oci").digest == index.digest
    assert converted(index, tools.store, "oci") == index


def test_docker_s_documents_are_read_from_a_registry_but_not_those_of_its_first_schema(tools: Tools) -> None:
    image = image_of(TREE, tools)
    docker = converted(image.descriptor, tools.store, "docker")
    registry = MemoryRegistry()
    manifest = read_blob(tools.store, docker.digest)
    for child in parse(DOCKER_MANIFEST, manifest).children:
        registry.blobs[str(child.digest)] = read_blob(tools.store, child.digest)
    registry.manifests |= {"1": (DOCKER_MANIFEST, manifest), str(docker.digest): (DOCKER_MANIFEST, manifest)}
    registry.manifests["old"] = ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion":1}')
    transport = FakeTransport(registry)

    def connect(reference: Reference) -> Registry:
        return Registry(transport, reference)

    other = tools_in(Path("other"))
    assert said(open_image("registry.example.org/a:1", other, connect=connect).tree) == said(TREE)
    with pytest.raises(IntegrityError, match="first schema"):
        find_image("registry.example.org/a:old", connect=connect)


def test_what_docker_s_schema_cannot_say_is_refused(tools: Tools) -> None:
    layer = pack(TREE, tools.store, created_by="", epoch=0, compression="zstd")
    image = assemble([layer], ImageConfig(platform=HOST, created=0))
    plain = replace(Manifest.parse(image.manifest), layers=(replace(layer.descriptor, media_type=LAYER_TAR),))
    about = replace(Manifest.parse(image_of(TREE, tools).manifest), subject=image.descriptor)
    for manifest in (image.manifest, plain.to_bytes(), about.to_bytes()):
        tools.store.put([manifest])
        with pytest.raises(UsageError) as caught:
            converted(Descriptor.of(MANIFEST, manifest), tools.store, "docker")
        assert caught.value.hint


@pytest.mark.parametrize("media_type", [FOREIGN_GZIP, DOCKER_FOREIGN])
def test_a_foreign_layer_is_copied_when_it_is_there_and_else_its_urls(tools: Tools, media_type: str) -> None:
    image = image_of(TREE, tools)
    layer = replace(image.layers[0].descriptor, media_type=media_type, urls=("https://example.org/layer",))
    data = replace(Manifest.parse(image.manifest), layers=(layer,)).to_bytes()
    tools.store.put([data])
    put("oci:whole", tools, Descriptor.of(MANIFEST, data))
    assert said(open_image("whole", tools_in(Path("first"))).tree) == said(TREE)
    assert isinstance(tools.store, DiskStore)
    (tools.store.root / "blobs/sha256" / layer.digest.hex).unlink()
    put("oci:part", tools, Descriptor.of(MANIFEST, data))
    assert not (Path("part/blobs/sha256") / layer.digest.hex).exists()
    other = tools_in(Path("other"))
    found = find_image("part")
    bring(found, other.store)
    put("a.oci.tar", other, found.descriptor)
    assert Manifest.parse(b"".join(found.fetch(found.descriptor))).layers[0].urls == ("https://example.org/layer",)
    for text in ("part", "a.oci.tar"):
        with pytest.raises(UsageError, match="foreign") as caught:
            open_image(text, other)
        assert "https://example.org/layer" in str(caught.value.because)
    with pytest.raises(UsageError, match="not be whole"):
        put("docker-archive:d.tar", other, found.descriptor)


def copy(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit status of `ocibuild copy`, and stdout, or stderr when it failed."""
    status = run(["copy", "--store", "store", *argv])
    output = capsys.readouterr()
    return status, output.out if status == 0 else output.err


def test_the_verb_copies_and_prints_one_line(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    image, other = image_of(TREE, tools), image_of(TREE, tools, S390X)
    index = index_of(tools, image, other)
    write_layout(Path("l"), tools.store, index, ref_name="1.0")

    assert copy(capsys, "l", "a.oci.tar") == (0, f"a.oci.tar@{index.digest}\n")
    assert read_layout(Path("l")).manifests[0].digest == find_image("a.oci.tar:1.0").descriptor.digest
    assert copy(capsys, "l", "docker-archive:d.tar", "--name", "wee:1") == (
        0,
        f"d.tar:wee:1@{image.descriptor.digest}\n",
    )
    assert copy(capsys, "l", "m:x", "--platform", "linux/s390x") == (0, f"m:x@{other.descriptor.digest}\n")
    assert (
        copy(capsys, "d.tar:wee:1", "r.tar", "--json")[1]
        == json.dumps({"target": "r.tar", "digest": str(Digest.of(Path("r.tar").read_bytes())), "attached": []}) + "\n"
    )
    document = Document(media_type="application/x", file_name="x", data=b"x")
    made = artifact(document, index, tools.store, created=0)
    attach(Path("l"), [made], tools.store)
    assert json.loads(copy(capsys, "l", "with.oci.tar", "--json")[1])["attached"] == [str(made.digest)]
    assert json.loads(copy(capsys, "l", "without.oci.tar", "--json", "--no-referrers")[1])["attached"] == []
    for form in ([], ["--format", "docker"]):
        assert run(["copy", "--store", "store", "l", "docker-archive:d.tar", *form]) == 0
        assert f"taken of the index l: {HOST}; --platform says another\n" in capsys.readouterr().err
    assert copy(capsys, "l", "oci:dk", "--format", "docker")[0] == 0
    assert find_image("dk").descriptor.media_type == DOCKER_INDEX


def test_the_verb_refuses_what_it_cannot_do(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    image, other = image_of(TREE, tools), image_of(TREE, tools, S390X)
    write_layout(Path("l"), tools.store, index_of(tools, image, other), ref_name="1.0")
    put("r.tar", tools, image.descriptor)
    Path("full").mkdir()
    Path("full/x").touch()
    for argv, said in (
        (("l", "a.tar", "--all"), "one platform"),
        (("l", "a", "--all", "--platform", "linux/amd64"), "--all"),
        (("l", "docker-archive:x.tar", "--platform", "linux/riscv64"), "no image for"),
        (("l", "docker-archive:x.tar:BAD"), "not an image's name"),
        (("l", "docker-archive:x.tar:a:1", "--name", "b:1"), "two names"),
        (("l", "a", "--tag", "x"), "for registries"),
        (("l", "oci:full"), "something other"),
        (("nothing", "b"), "no such image"),
        (("r.tar", "b"), "no image"),
        (("l", "b:..bad"), "reference name"),
    ):
        status, errors = copy(capsys, *argv)
        assert status in (2, 5, 7), argv
        assert said in errors
        assert "Traceback" not in errors
    assert not Path("b").exists()
