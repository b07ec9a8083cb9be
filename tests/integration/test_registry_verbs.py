"""push, pull, copy, tags, referrers and delete between real registries, layouts and archives, as peers see them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.cli import run
from builder.oci.config import ImageConfig
from builder.oci.descriptor import INDEX, Descriptor, Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.oci.manifest import Index
from builder.trust.attach import Document, artifact, attach
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.tree import Tree, file
from tests.peers.olareg import olareg
from tests.peers.registry import registry
from tests.peers.toxiproxy import toxiproxy
from tests.peers.zot import zot

pytestmark = pytest.mark.peer

SBOM = Document(media_type="application/spdx+json", file_name="sbom.json", data=b'{"sbom": 1}')
Peer = Callable[[str], str]
Said = Callable[..., str]

WRITER = """
import sys
from pathlib import Path
from builder.oci.descriptor import EMPTY, MANIFEST, Descriptor
from builder.oci.manifest import Manifest
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.fakes.reporter import ListReporter

host, store, who = sys.argv[1], DiskStore(Path(sys.argv[2])), sys.argv[3]
subject = Descriptor(media_type=MANIFEST, digest=Digest.of(b"subject"), size=7)
store.put([b"{}"])
with HttpTransport() as transport:
    registry = Registry(transport, Reference.parse(f"{host}/race"), plain_http=True)
    for number in range(20):
        manifest = Manifest(config=Descriptor.of(EMPTY, b"{}"), layers=(Descriptor.of(EMPTY, b"{}"),),
            annotations={"of": f"{who}-{number}"}, artifact_type="text/plain", subject=subject).to_bytes()
        store.put([manifest])
        push(store, Descriptor.of(MANIFEST, manifest), registry, [], ListReporter())
"""


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run ocibuild; what it said on stdout, or with `fails` on stderr."""
    monkeypatch.chdir(tmp_path)

    def say(*argv: str, fails: int = 0, store: str = "store") -> str:
        capfd.readouterr()
        status = run([*argv, "--store", store])
        output, errors = capfd.readouterr()
        assert status == fails, errors
        assert "Traceback" not in errors
        return errors if fails else output.rstrip("\n")

    return say


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An index of two images with an SBOM of each, and an SBOM of the index."""
    store = DiskStore(tmp_path / "made")
    entries, attached = [], []
    for name in ("amd64", "arm64"):
        layer = pack(Tree([file(name, name.encode() * 50_000)]), store, created_by="", epoch=0)
        image = assemble([layer], ImageConfig(platform=Platform(architecture=name), created=0))
        for document in (image.config, image.manifest):
            store.put([document])
        entries.append(image.descriptor)
        attached.append(artifact(SBOM, image.descriptor, store, created=0))
    data = Index(manifests=tuple(entries)).to_bytes()
    store.put([data])
    root = Descriptor.of(INDEX, data)
    attached.append(artifact(SBOM, root, store, created=0))
    place = tmp_path / "layout"
    write_layout(place, store, root, ref_name="1.0")
    attach(place, attached, store)
    return place


def digest_of(layout: Path) -> str:
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    return next(str(one["digest"]) for one in entries if one["mediaType"] == INDEX and "1.0" in str(one))


def asked(program: str, *argv: str) -> str:
    done = subprocess.run([program, *argv], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(said: Said, image: str) -> set[str]:
    return {one["digest"] for one in json.loads(said("referrers", image, "--json"))}


def test_the_grand_tour_keeps_everything(
    plain: str, modern: str, peer: Peer, layout: Path, said: Said, tmp_path: Path
) -> None:
    root = digest_of(layout)
    assert said("push", str(layout), f"{plain}/tour/a:1", f"{modern}/tour/a:1", "--tag", "x").split() == [
        f"{plain}/tour/a@{root}", f"{modern}/tour/a@{root}"
    ]  # fmt: skip
    want = listed(said, f"{layout}:1.0")
    assert len(want) == 1
    with zot(peer("zot"), tmp_path / "zot") as other:
        for source, target in (
            (f"{plain}/tour/a:1", f"{modern}/tour/b:1"),
            (f"{modern}/tour/b:1", f"{modern}/tour/c:1"),
            (f"{modern}/tour/c:1", f"{other}/tour/d:1"),
            (f"{other}/tour/d:1", "oci-archive:e.tar:1"),
            ("e.tar", "f:1"),
            ("f:1", f"{plain}/tour/g:1"),
        ):
            assert said("copy", source, target).endswith(f"@{root}")
            assert listed(said, target.removeprefix("oci-archive:")) == want
    assert not list((tmp_path / "store").glob("blobs/*/*")) or (tmp_path / "e.tar").exists()
    said("pull", f"{plain}/tour/g:1", "h:1")
    children = json.loads((layout / "blobs" / root.replace(":", "/")).read_text())["manifests"]
    for child in children:
        assert len(listed(said, f"{plain}/tour/g@{child['digest']}")) == 1
    for tag in ("1", "x"):
        assert asked(peer("crane"), "digest", "--insecure", f"{modern}/tour/a:{tag}").strip() == root
    tree = json.loads(asked(peer("oras"), "discover", "--plain-http", "--format", "json", f"{plain}/tour/g:1"))
    assert {one["digest"] for one in tree["referrers"]} == want
    asked(peer("regctl"), "--host", f"reg={modern},tls=disabled", "artifact", "list", f"{modern}/tour/c:1")
    skopeo = [peer("skopeo"), "inspect", "--raw", "--tls-verify=false"]
    assert str(Digest.of(asked(*skopeo, f"docker://{plain}/tour/g:1").encode())) == root


def test_from_registry_to_registry_nothing_touches_the_disk(plain: str, modern: str, layout: Path, said: Said) -> None:
    said("push", str(layout), f"{plain}/stream:1", store="first")
    said("copy", f"{plain}/stream:1", f"{modern}/stream:1", store="second")
    assert not Path("second/blobs").exists()


def test_a_copy_keeps_the_tag(plain: str, modern: str, layout: Path, said: Said) -> None:
    said("push", str(layout), f"{plain}/kept:old")
    assert said("copy", f"{plain}/kept:old", f"{modern}/kept") == f"{modern}/kept@{digest_of(layout)}"
    assert said("tags", f"{modern}/kept") == "old"
    assert "no tag" in said("copy", f"{plain}/kept@{digest_of(layout)}", f"{modern}/kept", fails=2)


def test_what_peers_attached_travels(plain: str, modern: str, peer: Peer, layout: Path, said: Said) -> None:
    root = digest_of(layout)
    said("push", str(layout), f"{plain}/peers:1")
    Path("note").write_text("of oras")
    oras = [peer("oras"), "attach", "--plain-http", "--artifact-type", "application/x.note"]
    asked(*oras, f"{plain}/peers:1", "note:text/plain")
    asked(peer("crane"), "copy", "--insecure", f"{plain}/peers:1", f"{plain}/peers:sha256-{root[7:]}.sig")
    said("copy", f"{plain}/peers:1", f"{modern}/peers:1")
    assert said("referrers", f"{modern}/peers:1", "--get", "application/x.note") == "of oras"
    assert said("referrers", f"{modern}/peers:1", "--type", "spdx", "--json").count('"digest"') == 1
    assert f"sha256-{root[7:]}.sig" in said("tags", f"{modern}/peers").split()
    said("copy", f"{plain}/peers:1", f"{modern}/bare:1", "--no-referrers")
    assert said("tags", f"{modern}/bare") == "1"
    assert listed(said, f"{modern}/bare:1") == set()


def test_one_platform_is_copied_by_itself(plain: str, layout: Path, said: Said) -> None:
    line = said("push", str(layout), f"{plain}/one:1", "--platform", "linux/arm64")
    assert line.rpartition("@")[2] != digest_of(layout)
    assert len(listed(said, f"{plain}/one:1")) == 1


def test_some_platforms_are_an_index_of_their_own(
    plain: str, modern: str, peer: Peer, layout: Path, said: Said, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both of two are the very index; two of three are another one, which peers read."""
    root = digest_of(layout)
    both = ["--platform", "linux/arm64", "--platform", "amd64"]
    assert said("push", str(layout), f"{plain}/some:2", *both).endswith(root)
    store = DiskStore(tmp_path / "made")
    layer = pack(Tree([file("s", b"s390x")]), store, created_by="", epoch=0)
    third = assemble([layer], ImageConfig(platform=Platform(architecture="s390x"), created=0))
    for document in (third.config, third.manifest):
        store.put([document])
    value = json.loads((layout / "blobs" / root.replace(":", "/")).read_text())
    first = [Descriptor.from_dict(one) for one in value["manifests"]]
    data = Index(manifests=(first[0], third.descriptor, first[1])).to_bytes()
    store.put([data])
    whole = Descriptor.of(INDEX, data)
    write_layout(layout, store, whole, ref_name="3")
    attach(layout, [artifact(SBOM, whole, store, created=0)], store)
    assert said("push", f"{layout}:3", f"{plain}/some:3").endswith(str(whole.digest))
    capfd.readouterr()
    assert run(["copy", f"{plain}/some:3", f"{modern}/some:3", "--platform", "amd64,arm64", "--store", "store"]) == 0
    line, notes = capfd.readouterr()
    got = line.strip().rpartition("@")[2]
    assert f"{got} is a new index, of linux/amd64, linux/arm64" in notes
    assert f"left behind, as it is about all of {plain}/some:3@{whole.digest}: application/spdx+json" in notes
    assert got == root  # of the same two entries, so whatever was attached to that one would fit
    listed_by = json.loads(asked(peer("crane"), "manifest", "--insecure", f"{modern}/some:3"))
    assert [one["digest"] for one in listed_by["manifests"]] == [one["digest"] for one in value["manifests"]]
    for one in value["manifests"]:
        assert len(listed(said, f"{modern}/some@{one['digest']}")) == 1
    assert said("pull", f"{plain}/some:3", "oci:narrow:3", "--platform", "linux/amd64,linux/arm64").endswith(root)
    errors = said("pull", f"{plain}/some:3", "oci:none:3", "--platform", "linux/amd64,linux/riscv64", fails=2)
    assert "no image for linux/riscv64" in errors
    assert "there is linux/amd64, linux/arm64, linux/s390x" in errors


def test_a_plan_writes_nothing_and_a_receipt_says_what_was_done(plain: str, layout: Path, said: Said) -> None:
    target = f"{plain}/receipt:1"
    plan = json.loads(said("push", str(layout), target, "--plan", "--json"))[0]
    assert {one["action"] for one in (*plan["blobs"], *plan["manifests"])} == {"upload"}
    assert plan["tags"] == [{"tag": "1", "moves": True}]
    said("tags", f"{plain}/receipt", fails=6)
    said("push", str(layout), target, "--receipt", "r.json")
    (done,) = json.loads(Path("r.json").read_text())
    assert done["bytesSent"] == plan["bytes"]
    assert len(done["referrers"]) == 3
    assert done["tags"] == [{"tag": "1", "moved": True}]
    assert not {"authorization", "password", "http"} & set(Path("r.json").read_text().lower().split('"'))
    (again,) = json.loads(said("push", str(layout), target, "--json", "--check"))
    assert again["bytesSent"] == 0
    assert {one["action"] for one in (*again["blobs"], *again["manifests"])} == {"exists"}
    mounted: list[dict[str, Any]] = json.loads(said("push", str(layout), f"{plain}/other:1", "--plan", "--json"))
    assert {one["action"] for one in mounted[0]["blobs"]} == {"mount"}


def test_deleting_says_what_else_would_go(plain: str, modern: str, layout: Path, said: Said) -> None:
    for host in (plain, modern):
        said("push", str(layout), f"{host}/gone:1", "--tag", "2")
    assert said("delete", f"{modern}/gone:1") == f"{modern}/gone:1"
    assert said("tags", f"{modern}/gone") == "2"
    errors = said("delete", f"{plain}/gone:1", fails=2)
    assert "with it would go: 2" in errors
    root = digest_of(layout)
    assert "with it would go: 2" in said("delete", f"{modern}/gone@{root}", fails=2)
    gone = said("delete", f"{plain}/gone:1", "--force", "--referrers").split()
    assert gone[-1] == f"{plain}/gone@{root}"
    assert len(gone) == 3  # what was attached, the tag that listed it, and the index
    said("delete", f"{plain}/gone:1", fails=6)


def test_a_tag_alone_goes_where_only_manifests_can_be_deleted(
    plain: str, modern: str, peer: Peer, layout: Path, said: Said, tmp_path: Path
) -> None:
    for host in (plain, modern):
        name = f"{host}/untagged"
        said("push", str(layout), f"{name}:1", "--tag", "2")
        assert said("delete", f"{name}:1", "--untag") == f"{name}:1"
        assert [tag for tag in said("tags", name).split() if not tag.startswith("sha256-")] == ["2"]
        assert said("pull", f"{name}:2", f"oci:kept-{host.partition(':')[2]}:2").endswith(digest_of(layout))
        assert len(listed(said, f"{name}:2")) == 1
        said("delete", f"{name}:1", "--untag", fails=6)
        assert "--untag without a tag" in said("delete", f"{name}@{digest_of(layout)}", "--untag", fails=2)
    with registry(peer("docker-registry"), tmp_path / "keeps", deletes=False) as host:
        said("push", str(layout), f"{host}/kept:1")
        assert "deletes nothing" in said("delete", f"{host}/kept:1", "--untag", fails=6)
        assert said("pull", f"{host}/kept:1", "oci:still:1").endswith(digest_of(layout))


def test_two_who_attach_at_once_lose_nothing(plain: str, tmp_path: Path, said: Said) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, plain, str(tmp_path / who), who], stderr=subprocess.PIPE)
        for who in ("one", "two")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=300)
        assert writer.returncode == 0, errors.decode()
    text = said("tags", f"{plain}/race")
    assert text == f"sha256-{Digest.of(b'subject').hex}"
    blob = said("copy", f"{plain}/race:{text}", "raced:1").rpartition("@")[2]
    entries = json.loads(Path(f"raced/blobs/{blob.replace(':', '/')}").read_text())["manifests"]
    names = {one["annotations"]["of"] for one in entries}
    assert names == {f"{who}-{number}" for who in ("one", "two") for number in range(20)}


def test_a_damaged_layout_is_named_and_no_tag_is_set(plain: str, layout: Path, said: Said) -> None:
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.unlink()
    blob.write_bytes(data)
    assert str(blob) in said("push", str(layout), f"{plain}/damaged:1", fails=5)
    assert said("tags", f"{plain}/damaged", fails=6)


def test_the_first_download_that_fails_ends_the_others(peer: Peer, tmp_path: Path, said: Said) -> None:
    store = DiskStore(tmp_path / "made")
    sizes = {"small": 1 << 20, "big": 24 << 20}
    trees = [Tree([file(name, hashlib.shake_256(name.encode()).digest(size))]) for name, size in sizes.items()]
    small, big = (pack(tree, store, created_by="", epoch=0) for tree in trees)
    image = assemble([small, big], ImageConfig(platform=Platform(architecture="amd64"), created=0))
    for document in (image.config, image.manifest):
        store.put([document])
    write_layout(tmp_path / "layout", store, image.descriptor, ref_name="1.0")
    with (
        olareg(peer("olareg"), tmp_path / "olareg") as host,
        toxiproxy(peer("toxiproxy"), tmp_path / "toxiproxy") as toxics,
    ):
        said("push", "layout", f"{host}/a:1")
        digest = small.descriptor.digest
        (tmp_path / "olareg/blobs/a/blobs/sha256" / digest.hex).unlink()
        link = toxics.link(host)
        link.add("bandwidth", rate=2000)
        errors = said("pull", f"{link.host}/a:1", "oci:there", fails=6, store="other")
    assert f"error: registry refused: blob {digest}" in errors
    assert f"fetch {big.descriptor.digest.hex[:12]}: failed" in errors
    assert not (tmp_path / "there").exists()


def test_bad_words_are_told_without_a_traceback(plain: str, layout: Path, said: Said) -> None:
    for argv, status, word in (
        (("push", str(layout), "nowhere"), 2, "no registry"),
        (("push", "nothing", f"{plain}/a:1"), 2, "no such image"),
        (("push", str(layout), f"{plain}/a:1", "--tag", "no tag"), 2, "not a tag"),
        (("push", str(layout), f"{plain}/a:1", "--platform", "linux/s390x"), 2, "no image for"),
        (("push", str(layout), f"{plain}/a@sha256:{'0' * 64}"), 2, "another digest"),
        (("pull", f"{plain}/a", "x"), 2, "a tag or a digest"),
        (("pull", f"{plain}/a:missing", "x"), 6, "404"),
        (("tags", f"{plain}/a:1"), 2, "a reference is one"),
        (("delete", f"{plain}/a"), 2, "a tag or a digest"),
        (("referrers", f"{plain}/a:1", "--type", "x"), 6, "404"),
        (("copy", str(layout), "x:1", "--receipt", "r"), 2, "for registries"),
    ):
        assert word in said(*argv, fails=status), argv
