"""`ocibuild inspect` of small images, as text and as JSON, and of what is none."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import run
from builder.finding import find_image
from builder.images import read_image, tree_of
from builder.look.inspect import inspect_image
from builder.look.tables import shown, table
from builder.oci.config import ImageConfig
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.oci.mediatypes import FOREIGN_GZIP
from rootfs.digest import Digest
from rootfs.tree import Tree, directory, file
from tests.unit.test_images import HOST, tools_in

LOWER = Tree([directory("bin"), file("bin/sh", b"shell" * 1000), file("gone", b"1" * 5000)])
UPPER = Tree([directory("bin"), file("bin/sh", b"other" * 10), file("b\x1b[31m\udcff", b"x")])


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An image of two layers with all that a config can say, and escapes for a terminal in it."""
    tools = tools_in(tmp_path / "built")
    layers = [
        pack(LOWER, tools.store, created_by="lower", epoch=0, lowest=True, compression="zstd"),
        pack(UPPER, tools.store, created_by="\x1b[31mupper", epoch=0),
    ]
    config = ImageConfig(
        platform=HOST,
        created=86_400,
        env=("A=b",),
        entrypoint=("tini", "--"),
        cmd=("python3", "-c", "pass it"),
        user="alice",
        working_dir="/srv",
        labels={"x": "1\n2"},
        exposed_ports=("80/tcp",),
        volumes=("/data",),
        stop_signal="SIGINT",
    )
    image = assemble(layers, config)
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(tmp_path / "image", tools.store, image.descriptor, ref_name="1")
    return tmp_path / "image"


def inspect(layout: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert run(["inspect", str(layout), "--store", str(layout.parent / "store"), *argv]) == 0
    output = capsys.readouterr()
    return output.out


def test_what_an_image_is(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = inspect(layout, capsys).splitlines()
    facts = dict(line.split(maxsplit=1) for line in lines[: lines.index("")])
    assert facts.pop("digest").startswith("sha256:")
    assert facts == {
        "image": str(layout),
        "platform": str(HOST),
        "created": "1970-01-02T00:00:00Z",
        "entrypoint": "tini --",
        "cmd": "python3 -c 'pass it'",
        "env": "A=b",
        "user": "alice",
        "working": "dir  /srv",
        "port": "80/tcp",
        "volume": "/data",
        "stop": "signal  SIGINT",
        "label": "x=1\\n2",
    }
    assert [line.split()[0] for line in lines[lines.index("") + 1 :]] == ["layer", "1", "2", "total", "3"]
    assert lines[-4].split()[3] == "tar+zstd"
    assert lines[-3].endswith("  \\x1b[31mupper")
    assert lines[-1] == "3 files of 5,051 bytes"


def test_the_same_for_programs(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(inspect(layout, capsys, "--json"))
    assert value["cmd"] == ["python3", "-c", "pass it"]
    assert value["volumes"] == ["/data"]
    assert value["totals"]["compressed"] == sum(layer["compressed"] for layer in value["layers"])
    assert value["totals"]["unpacked"] == sum(layer["unpacked"] for layer in value["layers"])
    assert [layer["created_by"] for layer in value["layers"]] == ["lower", "\x1b[31mupper"]
    assert "sizes" not in value


def test_sizes_of_an_image_without_dpkg_or_python_say_so(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect(layout, capsys, "--sizes")
    assert "== Debian packages\nthere is no dpkg database" in text
    assert "== CPython\nthere is none\n" in text
    assert "== What each rule would still save\nnothing\n" in text
    value = json.loads(inspect(layout, capsys, "--sizes", "--json"))
    assert value["sizes"]["total"] == {
        "name": "total",
        "files": value["totals"]["files"],
        "size": value["totals"]["size"],
        "compressed": value["totals"]["compressed"],
    }
    assert {path for row in value["sizes"]["unowned"] for path in row["paths"]} == {"bin/sh", "gone", "b\x1b[31m\udcff"}


def test_history_that_does_not_fit_the_layers_is_not_shown(layout: Path) -> None:
    tools = tools_in(layout.parent)
    image = read_image(str(layout))
    short = replace(image, config=replace(image.config, history=image.config.history[:1]))
    assert [
        layer.created_by
        for layer in inspect_image(short, tree_of(image, tools.store, tools.reporter), tools.store, sizes=False).layers
    ] == ["", ""]


def test_a_layer_that_left_nothing_behind_may_be_gone_from_the_store(layout: Path) -> None:
    tools = tools_in(layout.parent)
    image = read_image(str(layout))
    tree = tree_of(image, tools.store, tools.reporter)
    found = inspect_image(image, tree, tools_in(layout.parent / "empty").store, sizes=False)
    assert (found.unpacked, found.layers[0].unpacked) == (None, None)
    assert "?" in found.render()


def test_a_foreign_layer_that_is_not_here_is_noted_and_left_out(
    layout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_image(str(layout))
    value = json.loads(b"".join(found.fetch(found.descriptor)))
    value["layers"][0] |= {"mediaType": FOREIGN_GZIP, "urls": ["https://example.org/layer"]}
    data = json.dumps(value).encode()
    (layout / "blobs/sha256" / Digest.of(data).hex).write_bytes(data)
    absent = layout / "blobs/sha256" / value["layers"][0]["digest"].partition(":")[2]
    whole = inspect(layout, capsys, "--json")
    absent.unlink()
    changed = replace(found.descriptor, digest=Digest.of(data), size=len(data)).to_dict()
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [changed]}))
    for options in ([], ["--layers", "--files"]):
        assert run(["inspect", str(layout), "--store", str(layout.parent / "store"), *options]) == 0
        told = capsys.readouterr()
        assert "is left out: a foreign layer, which its maker has: https://example.org/layer" in told.err
        assert "\n2 files of 51 bytes\n" in told.out
    assert [line.split()[:2] for line in told.out.partition("== Layers\n")[2].splitlines()[1:2]] == [["2", "2"]]
    assert re.search(r"^-0644 +0:0 +50 +2 +bin/sh$", told.out, re.MULTILINE)
    after = json.loads(inspect(layout, capsys, "--json"))
    assert [one["digest"] for one in after["layers"]] == [one["digest"] for one in json.loads(whole)["layers"]]


def test_no_image_and_a_damaged_one(layout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(layout.parent / "store")]
    assert run(["inspect", str(layout.parent / "nothing"), *store]) == 2
    assert run(["inspect", f"{layout}:2", *store]) == 2
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(data[:-1] + b"x")
    assert run(["inspect", str(layout), *store]) == 5
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err


def test_a_table_has_columns() -> None:
    assert table(("a", "number"), [("long", "1"), ("b", "22")]) == "a     number\nlong       1\nb         22\n"
    assert shown("plain é") == "plain é"
    assert shown("a\x1b\n\udcff\u202e") == "a\\x1b\\n\\udcff\\u202e"
