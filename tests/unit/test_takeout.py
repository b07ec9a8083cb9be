"""`ocibuild extract`: one file or directory out of an image; links inside, nothing outside."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from builder.cli import run
from builder.images import read_image
from builder.look.takeout import follow, take
from builder.oci.image import Image, assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from rootfs.errors import UsageError
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink
from tests.unit.test_compare import CONFIG
from tests.unit.test_images import tools_in

LOWER = Tree(
    [
        directory("etc"),
        file("etc/hosts", b"lower"),
        file("etc/gone", b""),
        file("usr/lib/libx.so.1", b"library", 0o755),
        symlink("usr/lib/libx.so", "libx.so.1"),
        symlink("lib", "usr/lib"),
        symlink("out", "../../../etc/hosts"),
        symlink("a", "b"),
        symlink("b", "/a"),
        file("bin/busybox", b"box" * 1000, 0o755),
        FileEntry(path="usr/bin/sh", kind=Kind.HARDLINK, link="bin/busybox"),
        FileEntry(path="usr/bin/vi", kind=Kind.HARDLINK, link="bin/busybox"),
        FileEntry(path="dev/null", kind=Kind.CHARACTER, device=(1, 3)),
    ]
).with_parents()
UPPER = Tree([directory("etc"), file("etc/hosts", b"upper\n", 0o600), file("etc/.wh.gone", b"")])


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    tools = tools_in(tmp_path / "built")
    layers = [
        pack(tree, tools.store, created_by="", epoch=9, lowest=tree is LOWER, whiteouts=True) for tree in (LOWER, UPPER)
    ]
    image: Image = assemble(layers, CONFIG)
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(tmp_path / "image", tools.store, image.descriptor, ref_name="1")
    return tmp_path / "image"


def extract(layout: Path, *argv: str) -> int:
    return run(["extract", str(layout), *argv, "--store", str(layout.parent / "store")])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("etc/hosts", b"upper\n"),
        ("/etc/hosts", b"upper\n"),
        ("out", b"upper\n"),
        ("../../etc/hosts", b"upper\n"),
        ("lib/libx.so", b"library"),
        ("usr/bin/vi", b"box" * 1000),
    ],
)
def test_a_file_goes_to_stdout(layout: Path, path: str, content: bytes, capfdbinary) -> None:  # type: ignore[no-untyped-def]
    assert extract(layout, path) == 0
    assert capfdbinary.readouterr().out == content


def test_a_file_goes_to_a_file_or_into_a_directory(layout: Path, tmp_path: Path) -> None:
    assert extract(layout, "lib/libx.so", "--output", str(tmp_path / "x")) == 0
    assert (tmp_path / "x").read_bytes() == b"library"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o755
    (tmp_path / "in").mkdir()
    assert extract(layout, "lib/libx.so", "-o", str(tmp_path / "in")) == 0
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["libx.so.1"]


def test_a_directory_goes_to_a_directory_or_an_archive(layout: Path, tmp_path: Path, capfdbinary) -> None:  # type: ignore[no-untyped-def]
    assert extract(layout, "usr/bin", "--output", str(tmp_path / "bin")) == 0
    assert (tmp_path / "bin/sh").read_bytes() == b"box" * 1000
    assert (tmp_path / "bin/sh").samefile(tmp_path / "bin/vi")
    assert extract(layout, "etc", "--output", str(tmp_path / "etc.tar")) == 0
    capfdbinary.readouterr()
    assert extract(layout, "etc", "--output", "-") == 0
    data = capfdbinary.readouterr().out
    assert data == (tmp_path / "etc.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["hosts"]
    assert extract(layout, "/", "--output", str(tmp_path / "root")) == 0
    assert (tmp_path / "root/out").is_symlink()  # as it is: nothing was written through it
    assert extract(layout, "/", "--output", str(tmp_path / "root")) == 7


def test_only_the_layers_that_hold_it_are_read_again(layout: Path, tmp_path: Path) -> None:
    tools = tools_in(tmp_path)
    image = read_image(str(layout))
    assert take(image, "etc/hosts", tools).file is not None
    kept = sum(path.stat().st_size for path in (tmp_path / "store/blobs/sha256").iterdir())
    assert kept < 3000  # two listings and six bytes, not the other layer
    lowest = layout / "blobs/sha256" / image.layers[0][0].digest.hex
    lowest.unlink()
    taken = take(image, "etc/hosts", tools)
    assert taken.path == "etc/hosts"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["etc/gone"], "no etc/gone"),
        (["etc/host"], "there is /etc/hosts"),
        (["usr/lib/hosts"], "there is /etc/hosts"),
        (["usr/lob/libx.so.1"], "there is /usr/lib/libx.so.1"),
        (["a"], "too many symbolic links"),
        (["etc"], "--output DIR"),
        (["etc", "-o", "etc.tar.gz"], "not compressed"),
        (["dev/null"], "it is a character"),
        (["etc/hosts/x"], "no etc/hosts/x"),
    ],
)
def test_what_cannot_be_had(layout: Path, argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(layout, *argv) == 2
    output = capsys.readouterr()
    assert told in output.err
    assert "Traceback" not in output.err
    assert output.out == ""


def test_follow() -> None:
    assert follow(LOWER, "/") == ""
    assert follow(LOWER, "out") == "etc/hosts"
    assert follow(LOWER, "lib") == "usr/lib"
    assert follow(LOWER, "lib/../../bin/./busybox") == "bin/busybox"
    with pytest.raises(UsageError):
        follow(LOWER, "a\0b")
