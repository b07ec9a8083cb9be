"""Archives of images: what is written is canonical, and what is read is believed in nothing."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.finding import find_image
from builder.images import open_image
from builder.oci import archive as module
from builder.oci.archive import read_archive, write_archive
from builder.oci.descriptor import REF_NAME
from builder.oci.dockerarchive import ImageName, write_docker_archive
from builder.oci.manifest import Index, Manifest
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, UsageError
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from rootfs.tree import Tree, file
from tests.unit.test_images import image_of, tools_in
from tests.unit.test_oci_image import an_image, an_index

Files = dict[str, bytes]


def files_of(path: Path) -> Files:
    """The files of a tar by name."""
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}  # type: ignore[union-attr]


def write_tar(path: Path, files: Files, *extra: tarfile.TarInfo) -> Path:
    """A tar as others write them; an extra of positive size has that many zeros."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def saved(place: Path, *, compress: Callable[[bytes], bytes] = lambda data: data) -> Files:
    """What `docker save` wrote before 25: two layers that are the same one, by a symbolic link."""
    tools = tools_in(place / "saved")
    image = image_of(Tree([file("etc/motd", b"hello\n")]).with_parents(), tools)
    layer = compress(gzip.decompress(read_blob(tools.store, image.layers[0].descriptor.digest)))
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"] *= 2
    data = json.dumps(config).encode()
    name = f"{Digest.of(data).hex}.json"
    entry = {"Config": name, "RepoTags": ["wee:1.0", "docker.io/me/wee:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}
    return {
        "a/layer.tar": layer,
        "a/VERSION": b"1.0",
        name: data,
        "manifest.json": json.dumps([entry]).encode(),
        "repositories": b"{}",
    }


SAME = link("b/layer.tar", "../a/layer.tar")


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def test_the_same_image_gives_the_same_bytes_also_from_another_store(tmp_path: Path, store: DiskStore) -> None:
    image, again = an_image(store), an_image(other := DiskStore(tmp_path / "other"))
    write_archive(tmp_path / "a.tar", store, image.descriptor)
    write_archive(tmp_path / "b.tar", other, again.descriptor)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert read_archive(tmp_path / "a.tar").index().manifests == (image.descriptor,)
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {member.mtime for member in tar.getmembers()} == {0}


def test_an_index_is_written_whole(tmp_path: Path, store: DiskStore) -> None:
    index = an_index(store)
    write_archive(tmp_path / "a.tar", store, index)
    found = find_image(f"{tmp_path / 'a.tar'}@{index.digest}")
    assert found.descriptor == index
    for one in Index.parse(b"".join(found.fetch(index))).manifests:
        for child in Manifest.parse(b"".join(found.fetch(one))).children:
            assert Digest.of(b"".join(found.fetch(child))) == child.digest


def test_a_docker_archive_is_a_layout_and_what_docker_load_reads(tmp_path: Path, store: DiskStore) -> None:
    image = an_image(store)
    write_docker_archive(tmp_path / "a.tar", store, image.descriptor, name="wee:1.0")
    files = files_of(tmp_path / "a.tar")
    (entry,) = json.loads(files["manifest.json"])
    manifest = Manifest.parse(image.manifest)
    assert entry["RepoTags"] == ["wee:1.0"]
    assert files[entry["Config"]] == image.config
    assert entry["Layers"] == [f"blobs/sha256/{layer.digest.hex}" for layer in manifest.layers]
    (named,) = Index.parse(files["index.json"]).manifests
    assert named.digest == image.descriptor.digest
    assert named.annotations == {"io.containerd.image.name": "docker.io/library/wee:1.0", REF_NAME: "1.0"}
    for name in ("", ":1.0", ":wee:1.0", ":docker.io/library/wee:1.0"):
        assert find_image(f"docker-archive:{tmp_path / 'a.tar'}{name}").descriptor.digest == image.descriptor.digest
    write_docker_archive(tmp_path / "b.tar", store, image.descriptor, name="")
    assert json.loads(files_of(tmp_path / "b.tar")["manifest.json"])[0]["RepoTags"] is None


@pytest.mark.parametrize("change", [b"", b"\0"])
def test_nothing_half_written_is_left(tmp_path: Path, store: DiskStore, change: bytes) -> None:
    image = an_image(store)
    path = store.root / "blobs/sha256" / image.layers[0].descriptor.digest.hex
    path.unlink()
    if change:
        path.write_bytes(change)
    (tmp_path / "out").mkdir()
    with pytest.raises(IntegrityError):
        write_archive(tmp_path / "out/a.tar", store, image.descriptor)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("wee", "docker.io/library/wee:latest", "wee:latest"),
        ("me/wee:1", "docker.io/me/wee:1", "me/wee:1"),
        ("docker.io/library/wee:1", "docker.io/library/wee:1", "wee:1"),
        ("localhost:5000/wee:1", "localhost:5000/wee:1", "localhost:5000/wee:1"),
        ("r.example.org/a/b", "r.example.org/a/b:latest", "r.example.org/a/b:latest"),
    ],
)
def test_names_as_docker_and_containerd_have_them(text: str, full: str, familiar: str) -> None:
    name = ImageName.parse(text)
    assert (name.full, name.familiar) == (full, familiar)


@pytest.mark.parametrize("text", ["", "Wee:1", "wee:", "a b", "wee:1:2", "/wee", "wee@sha256:0"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError):
        ImageName.parse(text)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("layer", [bytes, gzip.compress, zstandard.compress], ids=["tar", "tar.gz", "tar.zst"])
def test_what_docker_saved_is_read_and_has_one_digest(
    tmp_path: Path, pack: Callable[[bytes], bytes], layer: Callable[[bytes], bytes]
) -> None:
    plain = write_tar(tmp_path / "plain.tar", saved(tmp_path, compress=layer), SAME)
    path = tmp_path / "saved.tar"
    path.write_bytes(pack(plain.read_bytes()))
    image = open_image(str(path), tools_in(tmp_path))
    assert list(image.tree) == ["etc", "etc/motd"]
    assert image.descriptor == find_image(str(plain)).descriptor
    for name in ("wee:1.0", "docker.io/library/wee:1.0", "me/wee:2"):
        assert find_image(f"docker-archive:{path}:{name}").descriptor == image.descriptor
    with pytest.raises(UsageError, match="no such image") as caught:
        find_image(f"{path}:wee:3")
    assert "wee:1.0, docker.io/me/wee:2" in str(caught.value.hint)


def test_a_classic_manifest_is_what_the_bytes_say(tmp_path: Path) -> None:
    files = saved(tmp_path)
    found = find_image(str(write_tar(tmp_path / "a.tar", files, SAME)))
    manifest = Manifest.parse(b"".join(found.fetch(found.descriptor)))
    assert found.descriptor.digest == Digest.of(manifest.to_bytes())
    assert [one.digest for one in manifest.layers] == [Digest.of(files["a/layer.tar"])] * 2


def without(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        del files[name]

    return change


def put(name: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files.update({name: content})


@pytest.mark.parametrize(
    ("change", "extra", "named"),
    [
        (put("../out", b""), [SAME], "../out"),
        (put("/abs", b""), [SAME], "/abs"),
        (put("a/../../x", b""), [SAME], "a/../../x"),
        (put("x", b""), [SAME, tarfile.TarInfo("./x")], "x"),
        (put("x", b""), [link("b/layer.tar", "../../layer.tar")], "b/layer.tar"),
        (put("x", b""), [link("b/layer.tar", "/etc/passwd")], "b/layer.tar"),
        (put("x", b""), [link("b/layer.tar", "../../etc/passwd", tarfile.LNKTYPE)], "b/layer.tar"),
        (put("x", b""), [link("b/layer.tar", "layer.tar")], "b/layer.tar"),
        (put("x", b""), [], "b/layer.tar"),
        (without("a/layer.tar"), [SAME], "a/layer.tar"),
        (put("a/layer.tar", b"other bytes"), [SAME], ""),
        (put("manifest.json", b"[]"), [SAME], ""),
        (put("manifest.json", b"{}"), [SAME], "manifest.json"),
        (put("manifest.json", b"[" * 100_000), [SAME], "manifest.json"),
        (put("manifest.json", b" " * (5 << 20)), [SAME], "manifest.json"),
        (put("manifest.json", b'[{"Config":"x"}]'), [SAME], ""),
        (without("manifest.json"), [SAME], ""),
    ],
)
def test_hostile_archives_are_refused_by_name(
    tmp_path: Path, change: Callable[[Files], None], extra: list[tarfile.TarInfo], named: str
) -> None:
    files = saved(tmp_path)
    change(files)
    path = write_tar(tmp_path / "a.tar", files, *extra)
    with pytest.raises((IntegrityError, UsageError)) as caught:
        open_image(str(path), tools_in(tmp_path))
    assert named in caught.value.render()


def test_a_config_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    files = saved(tmp_path)
    name = next(name for name in files if len(name) == 69)
    files[name] += b" "
    with pytest.raises(IntegrityError, match="digest differs") as caught:
        find_image(str(write_tar(tmp_path / "a.tar", files, SAME)))
    assert name in str(caught.value.at)


@pytest.mark.parametrize("what", ["size", "sparse", "pax", "cut", "garbage"])
def test_headers_that_lie_are_refused(tmp_path: Path, what: str) -> None:
    path = write_tar(tmp_path / "a.tar", saved(tmp_path), SAME)
    data = path.read_bytes()
    info = tarfile.TarInfo("liar")
    match what:
        case "size":
            info.size = 1 << 40
        case "sparse":
            info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99"}
        case "pax":
            info.type, info.size = tarfile.XHDTYPE, 1 << 30
        case _:
            pass
    liar = info.tobuf(tarfile.GNU_FORMAT if what == "size" else tarfile.PAX_FORMAT)
    path.write_bytes({"cut": data[:700], "garbage": b"\1" * 700 + b"ustar"}.get(what, liar + data))
    with pytest.raises(IntegrityError) as caught:
        open_image(f"docker-archive:{path}", tools_in(tmp_path))
    assert str(path) in str(caught.value.at)


def test_bombs_and_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FREE", 1 << 20)
    monkeypatch.setattr(module, "_MEMBERS", 10)
    for name, packed in (("a", gzip.compress(bytes(8 << 20))), ("b", zstandard.compress(bytes(8 << 20)))):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(IntegrityError, match="bomb"):
            read_archive(tmp_path / name)
    many = write_tar(tmp_path / "many.tar", {f"{number}": b"" for number in range(11)})
    with pytest.raises(IntegrityError, match="too many"):
        read_archive(many)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.tar.gz", gzip.compress(bytes(9999))[:-9]),
        ("cut.tar.zst", zstandard.compress(bytes(9999))[:-3]),
        ("x.tar.xz", lzma.compress(b"x")),
        ("junk.tar", b"junk" * 300),
        ("empty.tar", b""),
    ],
    ids=["gzip", "zstd", "xz", "junk", "empty"],
)
def test_what_is_no_archive_of_an_image(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for text in (f"{tmp_path / name}", f"docker-archive:{tmp_path / name}", f"oci-archive:{tmp_path / name}"):
        with pytest.raises(OcibuildError):
            find_image(text)


@pytest.mark.parametrize("how", ["gone", "changed", "link"])
def test_a_damaged_archive_of_a_layout_is_refused_with_the_blob_s_name(
    tmp_path: Path, store: DiskStore, how: str
) -> None:
    image = an_image(store)
    write_archive(tmp_path / "a.tar", store, image.descriptor)
    name = f"blobs/sha256/{image.layers[1].descriptor.digest.hex}"
    files = files_of(tmp_path / "a.tar")
    content = files.pop(name)
    if how == "changed":
        files[name] = content[:-1] + bytes([content[-1] ^ 1])
    extra = [link(name, "../../index.json")] if how == "link" else []
    path = write_tar(tmp_path / "b.tar", files, *extra)
    with pytest.raises(IntegrityError) as caught:
        open_image(str(path), tools_in(tmp_path))
    assert name in str(caught.value.at)


def test_a_file_system_s_archive_is_no_image_and_the_error_says_what_makes_one(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "rootfs.tar", {"etc/motd": b""}, link("bin", "/usr/bin"), link("x", "../../y"))
    with pytest.raises(IntegrityError, match="holds no image") as caught:
        find_image(str(path))
    assert "pack" in str(caught.value.hint)


def test_an_archive_may_be_replaced_while_it_is_read(tmp_path: Path, store: DiskStore) -> None:
    image = an_image(store)
    write_archive(tmp_path / "a.tar", store, image.descriptor)
    found = find_image(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").unlink()
    assert b"".join(found.fetch(image.descriptor)) == image.manifest


def test_an_archive_comes_on_stdin(tmp_path: Path, store: DiskStore) -> None:
    def inspected(data: bytes, name: str) -> tuple[int, bytes, bytes]:
        words = ("inspect", "--config", "--store", str(tmp_path / "mine"), name)
        argv = (sys.executable, "-m", "builder", *words)
        done = subprocess.run(argv, input=data, capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    image = an_image(store)
    write_archive(tmp_path / "a.tar", store, image.descriptor)
    data = (tmp_path / "a.tar").read_bytes()
    assert inspected(data, "-") == (0, image.config, b"")
    assert inspected(gzip.compress(data), f"oci-archive:-@{image.descriptor.digest}") == (0, image.config, b"")
    files = saved(tmp_path)
    data = write_tar(tmp_path / "saved.tar", files, SAME).read_bytes()
    (config,) = (content for name, content in files.items() if name.endswith(".json") and len(name) > 64)
    assert inspected(data, "docker-archive:-:wee:1.0") == (0, config, b"")
    status, _, errors = inspected(b"", "-")
    assert status == 2
    assert b"nothing came on stdin" in errors
    assert inspected(b"hello", "-")[0] == 5


def test_a_layout_of_an_unknown_version_is_refused(tmp_path: Path) -> None:
    files = {"oci-layout": b'{"imageLayoutVersion":"2.0.0"}', "index.json": Index(manifests=()).to_bytes()}
    with pytest.raises(IntegrityError, match="version"):
        find_image(str(write_tar(tmp_path / "a.tar", files)))
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    with pytest.raises(UsageError, match="no such image"):
        find_image(str(write_tar(tmp_path / "b.tar", files)))


def test_a_name_that_is_not_read_says_what_is(tmp_path: Path) -> None:
    for text in (f"dir:{tmp_path}", f"bundle:{tmp_path}", "docker-daemon:wee:1", f"tar:{tmp_path}/x.tar"):
        with pytest.raises(UsageError, match="not read") as caught:
            find_image(text)
        assert caught.value.hint
