"""What `ocibuild inspect` adds when it is asked: layers, packages, files, raw bytes, the platforms of an index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.cli import run
from builder.oci.descriptor import INDEX, Descriptor, Platform
from builder.oci.layout import write_layout
from builder.oci.manifest import Index
from tests.unit.test_compare import APP, Make, base, make  # noqa: F401 (a fixture)
from tests.unit.test_images import HOST, TREE, image_of, tools_in
from tests.unit.test_takeout import layout  # noqa: F401 (a fixture)


def inspect(image: str, capsys: pytest.CaptureFixture[str], *argv: str, status: int = 0) -> str:
    assert run(["inspect", image, *argv, "--store", str(Path(image.partition(":")[0]).parent / "store")]) == status
    return capsys.readouterr().out


def test_layers(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    text = inspect(str(layout), capsys, "--layers").partition("== Layers\n")[2].splitlines()
    assert text[0].split() == ["layer", "files", "bytes", "replaces", "whiteouts", "of", "it", "not", "seen"]
    assert [line.split() for line in text[1:]] == [
        ["1", "12", "3,012", "0", "0", "5"],
        ["2", "1", "6", "1", "1", "0"],
    ]
    value = json.loads(inspect(str(layout), capsys, "--layers", "--json"))
    assert value["layer_contents"][1]["replaces"] == 1
    assert "packages" not in value


def test_packages(make: Make, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    image = make("image", base("1.0", 3, "25.1"), APP)
    text = inspect(image, capsys, "--packages")
    assert "python3.14 below /usr/local  3.14.3" in text
    assert "pip (/usr/local/lib/python3.14/site-packages)  25.1" in text
    assert "libx     1.0      amd64           300" in text
    value = json.loads(inspect(image, capsys, "--packages", "--json"))
    assert [one["name"] for one in value["packages"]] == ["same", "libx"]
    assert value["pythons"] == {"python3.14 below /usr/local": "3.14.3"}
    none = inspect(make("none", APP), capsys, "--packages")
    assert none.endswith("== Debian packages\nnone\n")


def test_files(make: Make, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    image = make("image", base("1.0", 3, "25.1"), APP)
    lines = inspect(image, capsys, "--files", "app/*").partition("== Files\n")[2].splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["l0777", "0:0", "0", "2", "app/l", "->", "a"],
        ["-0644", "0:0", "1", "2", "app/main\\x1b"],
    ]
    value = json.loads(inspect(image, capsys, "--json", "--files"))
    assert len(value["files"]) == value["totals"]["files"] + sum(one["kind"] == "dir" for one in value["files"])
    assert all(one["digest"].startswith("sha256:") for one in value["files"] if one["size"])


def test_bytes_as_they_are(make: Make, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    image = make("image", APP)
    manifest = inspect(image, capfd, "--raw")
    assert Descriptor.of("a/b", manifest.encode()).digest.hex in {path.name for path in Path(image).rglob("*")}
    config = inspect(image, capfd, "--config")
    assert json.loads(manifest)["config"]["digest"] == str(Descriptor.of("a/b", config.encode()).digest)
    inspect(image, capfd, "--config", "--raw", status=2)


def test_an_index(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tools = tools_in(tmp_path / "built")
    images = [image_of(TREE, tools, platform) for platform in (HOST, Platform(architecture="s390x"))]
    index = Index(manifests=tuple(image.descriptor for image in images)).to_bytes()
    tools.store.put([index])
    write_layout(tmp_path / "all", tools.store, Descriptor.of(INDEX, index), ref_name="1")
    image = str(tmp_path / "all")
    assert inspect(image, capfd, "--raw").encode() == index
    assert inspect(image, capfd, "--raw", "--platform", "s390x").encode() == images[1].manifest
    text = inspect(image, capfd)
    assert f"linux/s390x        {images[1].descriptor.digest}" in text
    value = json.loads(inspect(image, capfd, "--json", "--platform", "linux/s390x"))
    assert value["platform"] == "linux/s390x"
    assert [one["platform"]["architecture"] for one in value["platforms"]] == [HOST.architecture, "s390x"]
    inspect(image, capfd, "--platform", "linux/mips", status=2)
