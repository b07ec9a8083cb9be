"""What is asked of the sandbox, and what is left, when real dpkg configures; the sandbox here runs nothing."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.conventional import conventional
from rootfs.debian.deb import Unpacked
from rootfs.debian.package import Package
from rootfs.errors import BuildError
from rootfs.ports import Command
from rootfs.tree import FileEntry, Tree, directory, file
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore

AMD64 = Architecture.parse("amd64")


def unpacked(name: str, *entries: FileEntry, essential: str = "yes") -> Unpacked:
    stanza = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nEssential: {essential}\n"
    return Unpacked(package=Package.parse(stanza), control={"control": stanza.encode()}, tree=Tree(entries))


DPKG = unpacked(
    "dpkg",
    file("usr/bin/dpkg", b"dpkg"),
    directory("var"),
    directory("var/it's local", 0o2775, gid=50),
    directory("var/lib"),
)
MORE = unpacked("more", file("usr/bin/more", b"more", uid=9), essential="no")


def play(command: Command) -> Played:
    """Every command works; the last one packs a root of one file."""
    if command.argv[0] == "tar":
        (out,) = (bind.source for bind in command.binds if bind.writable)
        with tarfile.open(out / "root.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("./etc"))
    return Played()


def run(*packages: Unpacked, sandbox: ScriptedSandbox, work: Path, reporter: ListReporter | None = None) -> Tree:
    store = MemoryStore()
    debs = {one.package.name: store.put([one.package.name.encode()]).digest for one in packages}
    return conventional(
        packages, debs, store=store, sandbox=sandbox, work=work, epoch=7, architecture=AMD64, reporter=reporter
    )


def test_dpkg_installs_the_essential_packages_then_the_others(tmp_path: Path) -> None:
    sandbox = ScriptedSandbox(play)
    assert list(run(MORE, DPKG, sandbox=sandbox, work=tmp_path / "work")) == ["etc"]
    owners, first, second, *_ = (command.argv for command in sandbox.commands)
    assert owners[-1] == "chown 0:50 '/var/it'\"'\"'s local'\nchmod 2775 '/var/it'\"'\"'s local'"
    assert first[-2:] == ("--install", "/tmp/debs/dpkg.deb")
    assert second[-2:] == ("--install", "/tmp/debs/more.deb")
    assert not (tmp_path / "work").exists()


def test_every_command_may_write_with_a_range_of_ids_and_no_clock(tmp_path: Path) -> None:
    sandbox = ScriptedSandbox(play)
    run(DPKG, sandbox=sandbox, work=tmp_path / "work")
    assert {(c.ids, c.writable, c.environment["SOURCE_DATE_EPOCH"]) for c in sandbox.commands} == {("range", True, "7")}


def test_what_dpkg_finds_in_the_root(tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}

    def look(command: Command) -> Played:
        assert command.root.parent.stat().st_mode & 0o077 == 0
        if not seen:
            files = [path for path in command.root.rglob("*") if path.is_file()]
            seen.update({path.relative_to(command.root).as_posix(): path.read_bytes() for path in files})
        return play(command)

    run(DPKG, MORE, sandbox=ScriptedSandbox(look), work=tmp_path / "work")
    assert seen == {
        "usr/bin/dpkg": b"dpkg",
        "usr/sbin/policy-rc.d": b"#!/bin/sh\nexit 101\n",
        "var/lib/dpkg/arch": b"amd64\n",
        "var/lib/dpkg/status": b"",
    }


def test_a_failure_shows_the_end_of_the_log_and_leaves_only_that(tmp_path: Path) -> None:
    sandbox = ScriptedSandbox(lambda c: Played(output="a\nboom\n", exit=1) if "--install" in c.argv else Played())
    reporter = ListReporter()
    with pytest.raises(BuildError, match="install-1 exited 1") as caught:
        run(DPKG, sandbox=sandbox, work=tmp_path / "work", reporter=reporter)
    assert caught.value.because == "a\nboom"
    assert Path(caught.value.at or "").read_text() == "a\nboom\n"
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["log"]
    assert ("finish", "configure with dpkg", "failed") in reporter.events


@pytest.mark.parametrize(
    ("packages", "message"), [([MORE], "there is no dpkg"), ([DPKG, MORE, MORE], "a package comes twice")]
)
def test_a_selection_that_cannot_be(packages: list[Unpacked], message: str, tmp_path: Path) -> None:
    sandbox = ScriptedSandbox()
    with pytest.raises(BuildError, match=message):
        run(*packages, sandbox=sandbox, work=tmp_path / "work")
    assert sandbox.commands == []
