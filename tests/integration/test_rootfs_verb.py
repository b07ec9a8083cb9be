"""`ocibuild rootfs`: one tree in every form, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from builder.cli import run
from builder.oci.layout import read_layout
from builder.standalone import Target
from rootfs.errors import UsageError

pytestmark = pytest.mark.archive


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rootfs")


@pytest.fixture(scope="module")
def where(place: Path, shared_store: Path, debian_mirror: str, debian_security_mirror: str) -> list[str]:
    """Options that point every run at the same mirror, store and lock."""
    return [
        *("--mirror", debian_mirror, "--security-mirror", debian_security_mirror),
        *("--store", str(shared_store), "--lock", str(place / "essential.lock.toml")),
    ]


def make(where: list[str], output: Path | str, *argv: str) -> int:
    return run(["rootfs", "trixie", "--variant", "essential", *where, "--output", str(output), *argv])


@pytest.fixture(scope="module")
def tar(place: Path, where: list[str]) -> Path:
    assert make(where, place / "root.tar") == 0
    return place / "root.tar"


def test_the_line_on_stdout_is_the_file_and_its_digest(
    tar: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    again = tar.with_name("again.tar")
    assert make(where, again) == 0
    digest = hashlib.sha256(again.read_bytes()).hexdigest()
    assert capsys.readouterr().out == f"{again}@sha256:{digest}\n"
    assert again.read_bytes() == tar.read_bytes()


def test_owners_and_modes_are_those_of_the_packages(tar: Path) -> None:
    with tarfile.open(tar) as archive:
        members = {member.name: member for member in archive}
    assert members["."].mode == 0o755
    assert members["tmp"].mode == 0o1777
    assert (members["usr/sbin/unix_chkpwd"].mode, members["usr/sbin/unix_chkpwd"].gid) == (0o2755, 42)
    assert members["bin"].linkname == "usr/bin"
    assert max(member.mtime for member in members.values()) <= members["."].mtime


@pytest.mark.parametrize("name", ["root.tar.gz", "root.tar.zst", "root.tgz"])
def test_a_compressed_archive_holds_the_same_tar(name: str, tar: Path, where: list[str]) -> None:
    path = tar.with_name(name)
    assert make(where, path) == 0
    data = path.read_bytes()
    if name.endswith("zst"):
        plain = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    else:
        plain = gzip.decompress(data)
    assert plain == tar.read_bytes()


def test_an_image_has_the_tars_digest_for_its_diff_id(tar: Path, where: list[str], peer: Callable[[str], str]) -> None:
    layout = tar.with_name("layout")
    assert make(where, f"oci:{layout}:trixie") == 0
    config = subprocess.run(
        [peer("skopeo"), "inspect", "--config", f"oci:{layout}:trixie"], capture_output=True, text=True, check=True
    ).stdout
    assert hashlib.sha256(tar.read_bytes()).hexdigest() in config
    assert len(read_layout(layout).manifests) == 1


def test_a_directory_holds_the_files(tar: Path, where: list[str]) -> None:
    target = tar.with_name("directory")
    assert make(where, target) == 0
    assert (target / "usr/bin/bash").stat().st_mode & 0o777 == 0o755
    assert (target / "bin").is_symlink()
    if os.geteuid() == 0:
        assert (target / "usr/sbin/unix_chkpwd").stat().st_gid == 42


def test_a_directory_that_is_there_is_not_touched(
    tar: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tar.with_name("full")
    (target / "mine").mkdir(parents=True)
    assert make(where, target) == 7
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_the_lock_is_used_and_a_stale_one_made_anew(place: Path, where: list[str], tar: Path) -> None:
    lock = place / "essential.lock.toml"
    before = lock.read_bytes()
    assert make(where, tar.with_name("more.tar"), "--include", "hostname,gzip") == 0
    after = lock.read_bytes()
    assert before != after
    assert make(where, tar.with_name("same.tar")) == 0
    assert lock.read_bytes() == before
    assert tar.with_name("same.tar").read_bytes() == tar.read_bytes()


def test_an_excluded_package_that_is_needed_exits_4(
    where: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(where, place / "never.tar", "--exclude", "mawk,gawk,original-awk") == 4
    errors = capsys.readouterr().err
    assert "awk" in errors
    assert "base-files" in errors
    assert not (place / "never.tar").exists()


@pytest.mark.parametrize("argv", [["jessie"], ["trixie", "--arch", "pdp11"]])
def test_what_nobody_knows_exits_3(argv: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rootfs", *argv, "--output", str(place / "never.tar")]) == 3
    assert "hint:" in capsys.readouterr().err
    assert not (place / "never.tar").exists()


@pytest.mark.parametrize(
    ("text", "form"),
    [("a.tar", "tar"), ("a.tar.gz", "tar.gz"), ("a.tgz", "tar.gz"), ("a.tar.zst", "tar.zst"), ("a", "dir"),
     ("a.tar.d", "dir"), ("oci:a", "oci"), ("oci:a:b", "oci")],
)  # fmt: skip
def test_targets_say_their_form(text: str, form: str) -> None:
    assert Target.parse(text).form == form


def test_a_target_without_a_path_is_refused() -> None:
    with pytest.raises(UsageError):
        Target.parse("oci:")
