"""What the verbs say of a command line before they work, and where their bytes and lines go."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from builder.cli import run
from builder.cli.deliver import goals
from builder.finding import find_image
from builder.oci.config import ImageConfig
from rootfs.errors import UsageError

TOOL = Path(sys.executable).with_name("ocibuild")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with something to pack, and a store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCIBUILD_STORE", str(tmp_path / "store"))
    Path("t").mkdir()
    Path("t/motd").write_text("hello\n")
    return tmp_path


def packed(*argv: str) -> None:
    assert run(["pack", "t", *argv]) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pack", "t", "-o", "oci:o", "--tag", "b d"], "not a reference name: 'b d'"),
        (["pack", "t", "-o", "oci:o:b d"], "not a reference name: 'b d'"),
        (["pack", "t", "-o", "o.tar", "--tag", "b"], "--tag names the image in a layout"),
        (["pack", "t", "-o", "oci:o:a", "--tag", "b"], "--tag names the image in a layout"),
        (["pack", "t", "-o", "docker-archive:o.tar:Wee"], "not an image's name: 'Wee'"),
        (["pack", "t", "-o", "oci:o", "--compression", "bogus"], "unknown layer compression: bogus"),
        (["pack", "t", "-o", "oci:o", "--platform", "foo/bar"], "unknown architecture: foo/bar"),
        (["pack", "t", "-o", "oci:o", "--stop-signal", "TERM"], "not a signal"),
        (["pack", "t", "--push", "r.example.org/x"], "hint: write r.example.org/x:TAG"),
        (["pack", "t", "-o", "docker://r.example.org/x:1"], "hint: say --push"),
        (["mutate", "gone", "-o", "oci:o", "--compression", "gzip:99"], "no such level of gzip"),
        (["recipe", "gone", "-o", "oci:o:b d"], "not a reference name: 'b d'"),
        (["recipe", "gone", "-o", "oci-archive:o:a", "--tag", "b"], "two names for one image"),
        (["recipe", "gone", "-o", "docker-archive:o:a:1", "--tag", "b"], "two names for one image"),
        (["recipe", "gone", "-o", "o.tar.xz"], "not written as such an archive"),
        (["recipe", "gone", "-o", "docker-daemon:o"], "is not written to"),
        (["copy", "gone", "oci:o:bad tag"], "not a reference name: 'bad tag'"),
        (["copy", "gone", "-"], "docker-archive:-"),
        (["copy", "gone", "bundle:-"], "not written to stdout"),
        (["pull", "r.example.org/x:1", "oci:o:bad tag"], "not a reference name"),
        *((["index", "gone", "-o", place], "holds one platform") for place in ("o.tar", "docker-archive:o", "dir:o")),
        (["rootfs", "trixie", "-o", "o", "--arch", "foo"], "unknown architecture: foo"),
        (["rootfs", "trixie", "-o", "o", "--slim", "bogus"], "no rule to slim by: bogus"),
        (["rootfs", "trixie", "-o", "o", "--include", "apt=1=2,git"], "not a wish for a package: apt=1=2"),
        (["explain", "dpkg", "--include", "a b"], "not a wish for a package: a b"),
        (["rootfs", "trixie", "-o", "o", "--snapshot", "now"], "not a snapshot: now"),
        (["rootfs", "trixie", "-o", "o", "--repository", "x"], "not a repository: x"),
        (["rootfs", "bogus", "-o", "o"], "no keys are pinned for the suite bogus"),
        (["rootfs", "sid", "-o", "o", "--updates"], "sid has no updates"),
        (["explain", "dpkg", "--suite", "../x"], "not the name of a suite"),
        (["inspect", "--files", "dist/wee"], "--files took dist/wee for its pattern"),
        (["inspect"], "Missing argument 'IMAGE'"),
    ],
)
def test_a_mistake_is_found_before_any_work(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert not list(Path().glob("o*"))


def test_a_tag_may_be_named_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    packed("-o", "oci:a", "--tag", "1", "--platform", "amd64")
    assert run(["mutate", "a:1", "-o", "b.oci.tar", "--tag", "2", "--env", "A=1"]) == 0
    assert run(["index", "b.oci.tar:2", "-o", "oci:c", "--tag", "3"]) == 0
    assert [line.partition("@")[0] for line in capsys.readouterr().out.splitlines()] == ["a:1", "b.oci.tar:2", "c:3"]
    with pytest.raises(UsageError):
        goals(None, "3", ["r.example.org/x:1"])


def test_pack_says_of_a_config_what_mutate_does() -> None:
    said = ["--expose", "8080", "--volume", "/data", "--stop-signal", "SIGINT", "--env", "A=1", "--created", "0"]
    packed("-o", "oci:a:1", *said)
    packed("-o", "oci:b:1")
    assert run(["mutate", "b:1", "-o", "oci:c:1", *said]) == 0
    configs = []
    for name in ("a", "c"):
        manifest = json.loads(b"".join((found := find_image(name)).fetch(found.descriptor)))
        blob = Path(name, "blobs", *manifest["config"]["digest"].split(":"))
        configs.append(ImageConfig.parse(blob.read_bytes()))
    assert configs[0] == configs[1]
    assert (configs[0].exposed_ports, configs[0].volumes) == (("8080/tcp",), ("/data",))
    assert configs[0].stop_signal == "SIGINT"


@pytest.mark.parametrize(("form", "end"), [("docker-archive", ":wee:1"), ("oci-archive", ":1"), ("tar", "")])
def test_an_archive_goes_to_stdout_and_the_line_to_stderr(form: str, end: str) -> None:
    packed("-o", "oci:a:1")
    assert run(["copy", "a:1", f"{form}:file.tar{end}"]) == 0
    done = subprocess.run([TOOL, "copy", "a:1", f"{form}:-{end}"], capture_output=True, check=True)
    assert done.stdout == Path("file.tar").read_bytes()
    assert f"-{end}@sha256:".encode() in done.stderr
    appended = subprocess.run(["sh", "-c", f"{TOOL} copy a:1 {form}:-{end} >>more.tar"], check=True)
    assert appended.returncode == 0
    assert Path("more.tar").read_bytes() == done.stdout


def test_pack_streams_an_archive() -> None:
    done = subprocess.run([TOOL, "pack", "t", "-o", "docker-archive:-:a:1", "--json"], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "manifest.json" in archive.getnames()
    assert json.loads(done.stderr.splitlines()[-1])["places"][0].startswith("-:a:1@sha256:")


def test_a_reader_that_goes_away_ends_the_stream_with_141() -> None:
    packed("-o", "oci:a:1")
    for form in ("docker-archive", "tar"):
        read, write = os.pipe()
        os.close(read)
        with subprocess.Popen([TOOL, "copy", "a:1", f"{form}:-"], stdout=write, stderr=subprocess.PIPE) as process:
            os.close(write)
            process.communicate()
        assert process.returncode == 141


def test_no_archive_is_printed_on_a_terminal() -> None:
    packed("-o", "oci:a:1")
    for argv in (["copy", "a:1", "docker-archive:-"], ["pack", "t", "-o", "tar:-"], ["rootfs", "trixie", "-o", "-"]):
        terminal, inside = os.openpty()
        with subprocess.Popen([TOOL, *argv], stdout=inside, stderr=subprocess.PIPE) as process:
            os.close(inside)
            error = process.communicate()[1]
        os.close(terminal)
        assert process.returncode == 2
        assert b"not printed on a terminal" in error
