"""The image verbs on a real registry: pack, mutate, diff, extract, check and inspect where images lie."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.cli import run as verb
from builder.images import read_image
from tests.integration.test_mutate import run
from tests.peers.registry import registry

pytestmark = pytest.mark.peer

Ocibuild = Callable[..., str]
SIZE = 3 << 20


@pytest.fixture
def host(peer: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path / "registry") as name:
        yield name


@pytest.fixture
def ocibuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ocibuild:
    """Run a verb with a store of its own name; its stdout, or stderr where a status other than 0 is meant."""
    monkeypatch.chdir(tmp_path)

    def call(name: str, *argv: str, status: int = 0, store: str = "store") -> str:
        plain = [] if name in ("pack", "mutate") and "--push" not in argv else ["--plain-http"]
        got = verb([name, *argv, *plain, "--store", str(tmp_path / store)])
        said = capsys.readouterr()
        assert got == status, said.err
        return said.out.rstrip("\n") if status in (0, 1) else said.err

    return call


@pytest.fixture
def pushed(ocibuild: Ocibuild, host: str, tmp_path: Path) -> str:
    """An image of two layers that was packed and pushed at once, by a store that nobody uses after."""
    for name, content in (("lower/etc/motd", b"hello\n"), ("lower/lib/big", bytes(range(256)) * (SIZE // 256))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "upper/etc").mkdir(parents=True)
    (tmp_path / "upper/etc/motd").write_bytes(b"hi\n")
    words = ["--created", "1600000000", "--env", "A=1"]
    line = ocibuild("pack", "lower", "upper", *words, "--push", f"{host}/one:1", store="packing")
    assert re.match(rf"{host}/one@sha256:[0-9a-f]{{64}}\Z", line)
    return f"{host}/one:1"


def gets(tmp_path: Path) -> list[str]:
    """The blobs that were asked for with GET so far."""
    log = (tmp_path / "registry/log").read_text(errors="replace")
    return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64})', log)


def layers(peer: Callable[[str], str], reference: str) -> list[str]:
    manifest = json.loads(run(peer("crane"), "--insecure", "manifest", reference))
    return [layer["digest"] for layer in manifest["layers"]]


def test_pack_check_extract_diff_inspect(
    ocibuild: Ocibuild, pushed: str, host: str, peer: Callable[[str], str]
) -> None:
    run(peer("crane"), "--insecure", "validate", "--remote", pushed)
    assert ocibuild("check", "--strict", pushed).endswith(": 0 errors, 0 notes")
    assert ocibuild("extract", pushed, "/etc/motd") == "hi"
    ocibuild("extract", pushed, "/lib", "-o", "out")
    assert Path("out/big").stat().st_size == SIZE
    assert "no lib/bag" in ocibuild("extract", pushed, "lib/bag", status=2)
    other = f"{host}/one:2"
    ocibuild("mutate", pushed, "--env", "A=2", "--append", "lower", "--push", other)
    found = json.loads(ocibuild("diff", pushed, other, "--json"))
    assert {"config", "files"} <= set(found)
    assert [one for one in found["config"] if "A" in json.dumps(one)]
    assert "etc/motd" in json.dumps(found["files"])
    ocibuild("diff", pushed, other, "--exit-code", status=1)
    assert json.loads(ocibuild("inspect", other, "--json"))["digest"]


def test_inspect_fetches_no_layer_that_nobody_asks_for(
    ocibuild: Ocibuild, pushed: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    config = json.loads(run(peer("crane"), "--insecure", "manifest", pushed))["config"]["digest"]
    before = len(gets(tmp_path))
    text = ocibuild("inspect", pushed)
    value = json.loads(ocibuild("inspect", pushed, "--json"))
    assert set(gets(tmp_path)[before:]) == {config}
    assert "--packages, --files, --layers and --sizes fetch them" in text
    assert [one["digest"] for one in value["layers"]] == layers(peer, pushed)
    assert value["totals"]["files"] is None
    assert value["attached"] == []
    told = json.loads(run(peer("skopeo"), "inspect", "--tls-verify=false", f"docker://{pushed}"))
    assert [value["digest"], value["created"], value["env"]] == [told["Digest"], told["Created"], told["Env"]]
    held = json.loads(ocibuild("inspect", pushed, "--files", "--json"))
    assert set(layers(peer, pushed)) <= set(gets(tmp_path))
    assert [one["path"] for one in held["files"]] == ["etc", "etc/motd", "lib", "lib/big"]
    assert held["totals"]["files"] == 2
    run(peer("crane"), "--insecure", "validate", "--remote", pushed)


def test_inspect_shows_what_is_attached(ocibuild: Ocibuild, pushed: str, peer: Callable[[str], str]) -> None:
    ocibuild("copy", pushed, "oci:here:1")
    ocibuild("sbom", "here:1", "--attach")
    ocibuild("copy", "here:1", pushed)
    types = {one["artifactType"] for one in json.loads(ocibuild("inspect", pushed, "--json"))["attached"]}
    assert types
    text = ocibuild("inspect", pushed)
    assert all(kind in text.partition("== What is attached")[2] for kind in types)


def test_a_layer_with_whiteouts_is_appended_as_crane_does(
    ocibuild: Ocibuild, pushed: str, host: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "layer.tar", "w") as layer:
        for name in ("etc/.wh.motd", "lib/.wh..wh..opq", "lib/small"):
            layer.addfile(tarfile.TarInfo(name))
    ocibuild("mutate", pushed, "--append", "layer.tar", "--push", f"{host}/one:ours")
    crane = (peer("crane"), "--insecure")
    run(
        *crane, "append", "--base", pushed, "--new_layer", str(tmp_path / "layer.tar"), "--new_tag", f"{host}/one:crane"
    )
    found = []
    for tag in ("ours", "crane"):
        run(*crane, "validate", "--remote", f"{host}/one:{tag}")
        run(*crane, "export", f"{host}/one:{tag}", str(tmp_path / "all.tar"))
        with tarfile.open(tmp_path / "all.tar") as all_files:
            found.append({member.name.rstrip("/") for member in all_files if not member.isdir()})
    assert found[0] == found[1]
    assert "lib/small" in found[0]
    assert not found[0] & {"etc/motd", "etc/.wh.motd"}
    held = json.loads(ocibuild("inspect", f"{host}/one:ours", "--files", "--json"))
    assert [one["path"] for one in held["files"]] == ["etc", "lib", "lib/small"]


def test_layers_of_a_mutated_image_stay_where_they_are(
    ocibuild: Ocibuild, pushed: str, host: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/x").write_bytes(b"x\n")
    words = ["--env", "A=2", "--append", "more"]
    ocibuild("mutate", pushed, *words, "--push", f"{host}/one:2", "--push", f"{host}/other:2")
    before, after = layers(peer, pushed), layers(peer, f"{host}/one:2")
    assert after[:2] == before
    assert len(after) == 3
    assert after == layers(peer, f"{host}/other:2")
    assert set(gets(tmp_path)).isdisjoint(before)
    assert not list((tmp_path / "store").rglob(before[0].partition(":")[2]))
    run(peer("crane"), "--insecure", "validate", "--remote", f"{host}/other:2")
    # written to the disk it is whole
    ocibuild("mutate", pushed, *words, "--push", f"{host}/one:3", "-o", "oci:here:x")
    assert f"sha256:{before[0].partition(':')[2]}" in gets(tmp_path)
    assert ocibuild("check", "here:x").endswith(": 0 errors, 0 notes")
    assert str(read_image("here:x").descriptor.digest) in ocibuild("mutate", pushed, *words, "--push", f"{host}/one:4")


def test_from_one_registry_to_another_without_the_disk(
    ocibuild: Ocibuild, pushed: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    with registry(peer("docker-registry"), tmp_path / "second") as second:
        ocibuild("mutate", pushed, "--user", "7", "--push", f"{second}/copy:1")
        run(peer("crane"), "--insecure", "validate", "--remote", f"{second}/copy:1")
        assert layers(peer, f"{second}/copy:1") == layers(peer, pushed)
    big = layers(peer, pushed)[0].partition(":")[2]
    assert not list((tmp_path / "store").rglob(big))


def test_squash_and_recompress_there(
    ocibuild: Ocibuild, pushed: str, host: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    ocibuild("mutate", pushed, "--squash", "--push", f"{host}/one:squashed")
    ocibuild("mutate", pushed, "--compression", "zstd", "--push", f"{host}/one:zstd")
    for tag in ("squashed", "zstd"):
        run(peer("skopeo"), "copy", "--src-tls-verify=false", f"docker://{host}/one:{tag}", f"oci:{tag}:x")
        assert ocibuild("extract", f"oci:{tag}:x", "etc/motd") == "hi"
        assert ocibuild("check", "--strict", f"{host}/one:{tag}").endswith(": 0 errors, 0 notes")
    run(peer("umoci"), "unpack", "--rootless", "--image", "squashed:x", "bundle")
    assert (tmp_path / "bundle/rootfs/etc/motd").read_bytes() == b"hi\n"
    assert len(layers(peer, f"{host}/one:squashed")) == 1
    configs = [run(peer("crane"), "--insecure", "config", name) for name in (pushed, f"{host}/one:zstd")]
    assert configs[0] == configs[1]


def test_a_blob_that_is_gone_is_a_finding_and_a_registry_that_is_gone_is_not(
    ocibuild: Ocibuild, pushed: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    lowest = layers(peer, pushed)[0].partition(":")[2]
    (link,) = (tmp_path / "registry").rglob(f"one/_layers/sha256/{lowest}/link")
    link.unlink()
    assert f"error: sha256:{lowest} the registry lacks it" in ocibuild("check", pushed, status=1)
    assert "error: " in ocibuild("check", f"{pushed}0", status=6)
