"""`ocibuild rootfs`: one tree in every form, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import zstandard

from builder.cli import run
from builder.oci.layout import read_layout
from builder.target import Place
from rootfs.errors import UsageError
from tests.fakes.archive import Signer
from tests.integration.test_damaged_mirror import build

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
def test_what_nobody_knows_exits_2(argv: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rootfs", *argv, "--output", str(place / "never.tar")]) == 2
    assert "hint:" in capsys.readouterr().err
    assert not (place / "never.tar").exists()


@pytest.mark.parametrize(
    ("text", "form"),
    [("a.tar", "tar"), ("a.tar.gz", "tar.gz"), ("a.tgz", "tar.gz"), ("a.tar.zst", "tar.zst"), ("a", "dir"),
     ("a.tar.d", "dir"), ("oci:a", "oci"), ("oci:a:b", "oci")],
)  # fmt: skip
def test_targets_say_their_form(text: str, form: str) -> None:
    assert Place.parse(text, plain="dir").form == form


def test_a_target_without_a_path_is_refused() -> None:
    with pytest.raises(UsageError):
        Place.parse("oci:", plain="dir")


@pytest.fixture(scope="module")
def repository(place: Path, peer: Callable[[str], str]) -> Iterator[str]:
    """`URL SUITE COMPONENT` of a repository on loopback with a key of its own, written to `place`/tiny.asc."""
    tiny = build(place / "tiny", "2", peer("dpkg-deb"), Signer())
    for url, data in tiny.inline.items():
        path = place / "served" / url.removeprefix("https://archive.example.org/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place / "tiny.asc").write_text(str(tiny.signer.certificate))
    (place / "other.asc").write_text(str(Signer().certificate))
    handler = partial(QuietHandler, directory=str(place / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/debian tiny main"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def custom(where: list[str], output: Path, spec: str) -> int:
    options = [*where[:6], "--variant", "custom", "--include", "tiny-tool", "--repository", spec]
    return run(["rootfs", "trixie", *options, "--output", str(output)])


def test_another_repository_gives_packages_under_its_own_key(repository: str, place: Path, where: list[str]) -> None:
    output = place / "custom.tar"
    assert custom(where, output, f"{repository} key={place / 'tiny.asc'}") == 0
    with tarfile.open(output) as archive:
        names = set(archive.getnames())
        sources = archive.extractfile("etc/apt/sources.list.d/debian.sources")
        assert sources is not None
        text = sources.read().decode()
    assert {"usr/share/tiny-tool/text", "usr/share/tiny-data/text"} <= names
    assert repository.partition(" ")[0] in text
    assert "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n" in text


def test_a_repository_signed_by_another_key_exits_5(
    repository: str, place: Path, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert custom(where, place / "never.tar", f"{repository} key={place / 'other.asc'}") == 5
    assert "127.0.0.1" in capsys.readouterr().err
    assert not (place / "never.tar").exists()


@pytest.mark.parametrize(
    "spec", ["http://127.0.0.1/debian", "ftp://x y z key=a", "http://127.0.0.1/x tiny main key=/none"]
)
def test_what_is_no_repository_exits_2(spec: str, place: Path, where: list[str]) -> None:
    assert custom(where, place / "never.tar", spec) == 2


def test_slimmed_it_is_smaller_and_says_what_it_saved(
    where: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slim = place / "slim.tar"
    assert run(["rootfs", "trixie", "--variant", "essential", *where[:6], "--slim", "docs,man,locale", "--sizes",
                "--output", str(slim)]) == 0  # fmt: skip
    rows = capsys.readouterr().out
    saved = [
        int(row.split()[-1].replace(",", "")) for row in rows.splitlines() if row.startswith(("docs", "man", "locale"))
    ]
    assert len(saved) == 3
    assert min(saved) > 1_000_000
    assert slim.stat().st_size < (place / "root.tar").stat().st_size - sum(saved)


def test_a_rule_that_is_none_exits_2_with_a_suggestion(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rootfs", "trixie", *where, "--slim", "dosc", "--sizes"]) == 2
    assert "docs" in capsys.readouterr().err


def test_explain_names_the_chain(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "libsystemd0", "--variant", "apt", *where[:6]]) == 0
    told = capsys.readouterr().out
    assert "libsystemd0" in told.splitlines()[0]
    assert "coreutils Pre-Depends: libsystemd0" in told
    assert run(["explain", "emacs", *where[:6]]) == 4


def test_a_foreign_architecture_is_assembled_without_running_anything(where: list[str], place: Path) -> None:
    output = place / "arm64.tar"
    assert (
        run(["rootfs", "trixie", "--variant", "essential", "--arch", "arm64", *where[:6], "--output", str(output)]) == 0
    )
    with tarfile.open(output) as archive:
        assert "usr/lib/aarch64-linux-gnu/libc.so.6" in archive.getnames()
        assert "etc/ld.so.cache" in archive.getnames()
