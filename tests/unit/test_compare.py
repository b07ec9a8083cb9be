"""`ocibuild diff`: packages, files, config and layers of two images, as text, as JSON and as an exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli import run
from builder.look.compare import file_changes
from builder.oci.config import ImageConfig
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.unit.test_images import HOST, tools_in

STATUS = "Package: {}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n\n"
PATCHLEVEL = b'#define PY_VERSION             "3.14.%d"\n'
SITE = "usr/local/lib/python3.14/site-packages"


def base(version: str, patch: int, pip: str) -> Tree:
    status = STATUS.format("same", "1") + STATUS.format("libx", version)
    return Tree(
        [
            file("var/lib/dpkg/status", status.encode()),
            file("var/lib/dpkg/info/libx:amd64.list", b"/.\n/usr/lib/libx.so\n"),
            file("usr/lib/libx.so", b"x" * 100 * len(version)),
            file("usr/local/lib/python3.14/os.py", b""),
            file("usr/local/include/python3.14/patchlevel.h", PATCHLEVEL % patch),
            file(f"{SITE}/pip-{pip}.dist-info/METADATA", b"Name: pip\n"),
        ]
    ).with_parents()


APP = Tree([directory("app", 0o700), file("app/main\x1b", b"1"), symlink("app/l", "a")])
CONFIG = ImageConfig(platform=HOST, created=0, env=("A=1", "B=2"), cmd=("a",), labels={"x": "1"})
Make = Callable[..., str]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write an image of these trees; the text that names it."""

    def layout(name: str, *trees: Tree, config: ImageConfig = CONFIG, compression: str = "zstd") -> str:
        tools = tools_in(tmp_path / "built")
        layers = [
            pack(
                tree, tools.store, created_by="", epoch=100, lowest=not number, compression=compression, whiteouts=True
            )
            for number, tree in enumerate(trees)
        ]
        image = assemble(layers, config)
        for document in (image.config, image.manifest):
            tools.store.put([document])
        write_layout(tmp_path / name, tools.store, image.descriptor, ref_name="1")
        return str(tmp_path / name)

    return layout


@pytest.fixture
def diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*argv: str, status: int = 0) -> str:
        assert run(["diff", *argv, "--store", str(tmp_path / "store")]) == status
        return capsys.readouterr().out

    return call


def test_the_same_image(make: Make, diff: Callable[..., str]) -> None:
    one = make("one", APP)
    assert diff(one, one, "--exit-code").startswith("the same image: sha256:")


def test_everything_that_can_change(make: Make, diff: Callable[..., str]) -> None:
    before = make("before", base("1.0", 1, "25"), APP)
    changed = replace(CONFIG, env=("A=1", "C=3"), cmd=("b", "c"), user="x", labels={})
    upper = Tree([directory("app", 0o755), file("app/main\x1b", b"2", mode=0o755), file("app/.wh.l", b"")])
    after = make("after", base("1.0.1", 2, "26"), upper, config=changed)
    text = diff(before, after, "--exit-code", status=1)
    assert "packages  1 changed" in text
    assert "libx     1.0     1.0.1   +200" in text
    assert "python3.14 below /usr/local  3.14.1  3.14.2" in text
    assert f"pip (/{SITE})  25      26" in text
    assert "same" not in text.partition("== Debian")[2].split()
    assert [line.split()[:2] for line in text.partition("== Config")[2].splitlines()[2:]] == [
        ["cmd", "a"],
        ["env", "B"],
        ["env", "C"],
        ["label", "x"],
        ["user", "-"],
    ]
    files = diff(before, after, "--files")
    assert "M app/main\\x1b " in files
    assert "content, mode 0644 -> 0755" in files
    assert "D app/l" in files
    assert "== Config" not in files
    value = json.loads(diff(before, after, "--json"))
    assert value["before"]["image"] == before
    named = {one["path"]: one for one in value["files"]}
    assert named["app"]["aspects"] == ["mode"]
    assert (named["app/l"]["change"], named["app/l"]["before"]["link"]) == ("removed", "a")
    assert value["fetched"] > 0
    assert [row["where"] for row in value["layers"]] == ["after", "after", "before", "before"]


def test_layers_that_both_have_are_not_fetched(make: Make, diff: Callable[..., str], tmp_path: Path) -> None:
    lower = base("1", 1, "25")
    before, after = make("before", lower), make("after", lower, APP)
    value = json.loads(diff(before, after, "--json"))
    assert [row["where"] for row in value["layers"]] == ["both", "after"]
    layout = json.loads((Path(after) / "index.json").read_bytes())["manifests"][0]
    manifest = json.loads((Path(after) / "blobs/sha256" / layout["digest"].partition(":")[2]).read_bytes())
    assert value["fetched"] == layout["size"] + manifest["config"]["size"] + manifest["layers"][1]["size"]
    text = diff(before, after, "--layers")
    assert "1 shared" in text
    # with other compression: other blobs, the same files, no layer is read for that
    again = make("again", lower, compression="gzip")
    for blob in (Path(again) / "blobs/sha256").iterdir():
        if blob.read_bytes()[:2] == b"\x1f\x8b":
            blob.unlink()
    value = json.loads(diff(before, again, "--json"))
    assert (value["files"], [row["same_files"] for row in value["layers"]]) == ([], [True, True])
    diff(before, again, "--files", "--packages", "--config", "--exit-code")
    diff(before, again, "--exit-code", status=1)


def test_a_time_alone_is_told_when_asked_for(make: Make, diff: Callable[..., str]) -> None:
    before, after = make("before", Tree([file("a", b"1")])), make("after", Tree([replace(file("a", b"1"), mtime=5)]))
    assert "1 differ in nothing but their time" in diff(before, after)
    diff(before, after, "--files", "--exit-code")
    assert "mtime 0 -> 5" in diff(before, after, "--files", "--mtime", "--exit-code", status=1)


def test_hard_links_are_compared_as_the_file_they_are() -> None:
    def linked(content: bytes) -> Tree:
        return Tree([file("a", content, 0o600), FileEntry(path="b", kind=Kind.HARDLINK, link="a")])

    assert [(one.path, one.aspects) for one in file_changes(linked(b"1"), linked(b"2"))] == [
        ("a", ("content",)),
        ("b", ("content",)),
    ]
    apart = Tree([file("a", b"1", 0o600), file("b", b"1", 0o600)])
    assert [(one.path, one.aspects) for one in file_changes(linked(b"1"), apart)] == [("b", ("link",))]
    assert not list(file_changes(linked(b"1"), linked(b"1")))
    other = Tree([replace(file("a", b"1", 0o600, 5), xattrs=(("user.a", b""),)), symlink("b", "a")])
    assert [one.aspects for one in file_changes(apart, other)] == [
        ("owner", "xattrs"),
        ("kind", "content", "mode", "link"),
    ]


def test_bad_input(make: Make, diff: Callable[..., str], tmp_path: Path) -> None:
    one, other = make("one", APP), make("other", Tree([file("x", b"1" * 5000)]))
    diff(one, str(tmp_path / "nothing"), status=2)
    diff(one, other, "--platform", "linux//", status=2)
    diff(one, status=2)
    for blob in (Path(other) / "blobs/sha256").iterdir():
        if blob.read_bytes()[:4] == b"\x28\xb5\x2f\xfd":
            data = blob.read_bytes()
            blob.unlink()
            blob.write_bytes(data[:-1] + b"?")
    diff(one, other, status=5)
