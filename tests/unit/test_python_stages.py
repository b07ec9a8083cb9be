"""The stages of a compile: what each begins with, what it leaves, and what it says when something fails.

The sandbox only pretends: a function writes what the real commands would.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builder.python import stages
from builder.python.counters import members
from builder.python.flags import Commands
from builder.python.workshop import Workshop
from rootfs.digest import Digest
from rootfs.errors import BuildError, HostError, IntegrityError
from rootfs.ports import Command, read_blob, read_content
from rootfs.tree import FileEntry, Kind, Tree, file
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore

COMMANDS = Commands(
    configure=("/build/configure", "--with-dtrace"),
    instrument=("make", "counting"),
    train=("./python", "-m", "test"),
    compile=("make", "all"),
    install=("make", "install"),
)
FREEZING = Commands(configure=COMMANDS.configure, freeze=("make", "Python/frozen.o"))
LONG = b"object code" * 1000

Play = Callable[[str, Mapping[str, Path]], Played | None]


def tarball(*files: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, data, mode in files:
            member = tarfile.TarInfo(f"Python-3.14.7/{name}")
            member.size, member.mode, member.mtime, member.uid = len(data), mode, 1700000000, 501
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


SOURCE = tarball(("configure", b"#!/bin/sh\n", 0o775), ("Python/ceval.c", b"int main;", 0o664))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A workshop whose commands do nothing; `play` says otherwise."""
    return Workshop(
        toolchain=tmp_path / "toolchain",
        work=tmp_path / "work",
        environment={"SOURCE_DATE_EPOCH": "1780000000"},
        sandbox=ScriptedSandbox(),
        reporter=ListReporter(),
    )


def play(workshop: Workshop, act: Play) -> list[str]:
    """Have `act` see each command and the host's directory of each of its binds; the list that the commands come to."""
    seen: list[str] = []

    def played(command: Command) -> Played:
        words = " ".join(command.argv)
        seen.append(words)
        places = {bind.target: bind.source for bind in command.binds}
        return act(words, places) or Played()

    sandbox = workshop.sandbox
    assert isinstance(sandbox, ScriptedSandbox)
    sandbox.play = played
    return seen


def write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def fail_at(word: str, output: str = "", status: int = 2) -> Play:
    return lambda words, _: Played(output=output, exit=status) if word in words else None


def configured(workshop: Workshop, store: MemoryStore, commands: Commands = COMMANDS, source: bytes = SOURCE) -> Tree:
    return stages.configure(workshop, store.put([source]).digest, commands, 3, store)


# configure


def test_the_source_is_configured_with_its_times_and_plain_modes(workshop: Workshop, store: MemoryStore) -> None:
    seen = play(workshop, lambda words, places: write(places["/build"] / "Makefile", b"all:"))
    tree = configured(workshop, store)
    assert seen == ["/build/configure --with-dtrace"]
    assert [path for path, entry in tree.items() if entry.kind is Kind.FILE] == [
        "Makefile",
        "Python/ceval.c",
        "configure",
    ]
    assert (tree["configure"].mode, tree["configure"].mtime) == (0o755, 1700000000)
    assert (tree["Python/ceval.c"].mode, tree["Python/ceval.c"].mtime) == (0o644, 1700000000)
    assert tree["Makefile"].mtime > 1700000000  # newer than what it was made from: make(1) goes by it


def test_what_makes_frozen_modules_stays_and_its_objects_go(workshop: Workshop, store: MemoryStore) -> None:
    """The objects are not of the flags that come."""

    def act(words: str, places: Mapping[str, Path]) -> None:
        if "frozen.o" in words:
            for name in ("Python/frozen.o", "libpython.a", "Modules/deep/x.o", "_bootstrap_python", "Python/frozen.h"):
                write(places["/build"] / name)

    seen = play(workshop, act)
    tree = configured(workshop, store, FREEZING)
    assert seen[1] == "make -j3 Python/frozen.o"
    assert {"_bootstrap_python", "Python/frozen.h"} <= set(tree)
    assert not [path for path in tree if path.endswith((".o", ".a"))]


STDLIB = b"""#
@MODULE_ARRAY_TRUE@array arraymodule.c
@MODULE_MATH_TRUE@math mathmodule.c
@MODULE__SSL_TRUE@_ssl _ssl.c $(OPENSSL_LIBS)
#@MODULE_NOT_TRUE@array nothing.c
"""


def test_modules_become_part_of_the_interpreter_before_it_is_configured(workshop: Workshop, store: MemoryStore) -> None:
    seen: list[str] = []

    def act(words: str, places: Mapping[str, Path]) -> None:
        if "configure" in words:
            seen.append((places["/build"] / "Modules/Setup.local").read_text())

    play(workshop, act)
    source = tarball(("configure", b"", 0o755), ("Modules/Setup.stdlib.in", STDLIB, 0o644))
    configured(workshop, store, replace(COMMANDS, builtin=("math", "array", "unheard_of")), source)
    assert seen == ["*static*\narray arraymodule.c\nmath mathmodule.c\n"]


def test_what_an_earlier_stage_left_is_gone(workshop: Workshop, store: MemoryStore) -> None:
    write(workshop.build / "left.c")
    write(workshop.prefix / "lib/left.py")
    assert "left.c" not in configured(workshop, store)
    assert not list(workshop.work.rglob("left*"))


def test_every_command_has_the_same_environment_and_places(workshop: Workshop, store: MemoryStore) -> None:
    tree = configured(workshop, store)
    stages.compile_(workshop, tree, None, COMMANDS, 3, store)
    sandbox = workshop.sandbox
    assert isinstance(sandbox, ScriptedSandbox)
    assert len(sandbox.commands) == 3
    for command in sandbox.commands:
        assert command.environment == {"SOURCE_DATE_EPOCH": "1780000000"}
        assert [bind.target for bind in command.binds] == ["/build", "/usr/local", "/pip"]
        assert (command.root, command.cwd) == (workshop.toolchain, "/build")


def test_configures_own_log_is_named(workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, fail_at("configure", "no acceptable C compiler", 77))
    with pytest.raises(BuildError, match="configure exited 77") as caught:
        configured(workshop, store)
    assert "config.log" in (caught.value.hint or "")
    assert set(store.blobs) == {Digest.of(SOURCE)}


@pytest.mark.parametrize("name", ["../../escaped", "a/../../../escaped"])
def test_a_source_that_climbs_out_is_refused(workshop: Workshop, store: MemoryStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="leaves the tree"):
        configured(workshop, store, source=tarball((name, b"", 0o644)))
    assert not list(tmp_path.rglob("escaped"))


def test_a_source_with_links_is_refused(workshop: Workshop, store: MemoryStore) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("Python-3.14.7/Lib")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(IntegrityError, match="only files and directories"):
        configured(workshop, store, source=buffer.getvalue())


def test_a_source_that_is_no_tarball_is_refused(workshop: Workshop, store: MemoryStore) -> None:
    with pytest.raises(IntegrityError, match="not a source tarball"):
        configured(workshop, store, source=b"<html>not found</html>")


def test_a_work_directory_that_cannot_be_written_is_the_hosts_trouble(workshop: Workshop, store: MemoryStore) -> None:
    workshop.work.write_bytes(b"a file in the way")
    with pytest.raises(HostError, match="cannot write to"):
        configured(workshop, store)


def test_ctrl_c_passes_and_stores_nothing(workshop: Workshop, store: MemoryStore) -> None:
    def press(words: str, places: Mapping[str, Path]) -> Played:
        raise KeyboardInterrupt

    play(workshop, press)
    with pytest.raises(KeyboardInterrupt):
        configured(workshop, store)
    assert set(store.blobs) == {Digest.of(SOURCE)}


# instrument


def counting(words: str, places: Mapping[str, Path]) -> None:
    """What an instrumented build and its training leave."""
    build = places["/build"]
    if "counting" in words:
        write(build / "Python/ceval.o", LONG)
        write(build / "python", b"\x7fELF")
        write(build / "Python/ceval.gcda", b"counted while building")
    elif "test" in words:
        write(build / "Python/ceval.gcda", b"adcg counted")
        write(build / "Modules/_re.gcda", b"adcg more")
        write(build / "Lib/__pycache__/os.pyc", b"cached")


def test_an_instrumented_build_goes_on_from_the_configured_one_and_has_counted_nothing(
    workshop: Workshop, store: MemoryStore
) -> None:
    seen = play(workshop, counting)
    before = configured(workshop, store)
    tree = stages.instrument(workshop, before, COMMANDS, 3, store)
    assert seen[1:] == ["make -j3 counting"]
    assert "Python/ceval.o" in tree
    assert not [path for path in tree if path.endswith(".gcda")]
    assert tree["configure"] == before["configure"]  # its time, and its content where that was: nothing is kept twice
    assert sum(b"#!/bin/sh" in blob for blob in store.blobs.values() if blob != SOURCE) == 1


# train


def trained(workshop: Workshop, store: MemoryStore) -> Digest:
    before = configured(workshop, store)
    return stages.train(workshop, stages.instrument(workshop, before, COMMANDS, 3, store), COMMANDS, store)


def test_a_profile_is_the_counters_at_their_places_and_nothing_else(workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, counting)
    profile = read_blob(store, trained(workshop, store))
    assert members(profile, at="it") == {"Modules/_re.gcda": b"adcg more", "Python/ceval.gcda": b"adcg counted"}
    with tarfile.open(fileobj=io.BytesIO(profile)) as archive:
        facts = {(member.mtime, member.uid, member.mode) for member in archive}
    assert facts == {(0, 0, 0o755), (0, 0, 0o644)}
    assert sum(LONG in blob for blob in store.blobs.values()) == 1


def test_equal_counts_are_an_equal_profile_wherever_and_whenever(tmp_path: Path, workshop: Workshop) -> None:
    stores = MemoryStore(), MemoryStore()
    play(workshop, counting)
    first = trained(workshop, stores[0])
    other = Workshop(
        toolchain=tmp_path / "another",
        work=tmp_path / "elsewhere",
        environment={},
        sandbox=workshop.sandbox,
        reporter=ListReporter(),
    )
    assert trained(other, stores[1]) == first


def test_the_practice_follows_the_tests_and_counts_too(workshop: Workshop, store: MemoryStore) -> None:
    seen = play(workshop, counting)
    before = configured(workshop, store)
    said = replace(COMMANDS, practice=("./python", "-c", "work()"))
    stages.train(workshop, stages.instrument(workshop, before, said, 3, store), said, store)
    assert seen[-2:] == ["./python -m test", "./python -c work()"]
    play(workshop, fail_at("work()", "ZeroDivisionError"))
    with pytest.raises(BuildError, match="practice exited 2"):
        stages.train(workshop, before, said, store)


def test_a_training_that_counts_nothing_is_an_error(workshop: Workshop, store: MemoryStore) -> None:
    with pytest.raises(BuildError, match="counted nothing"):
        trained(workshop, store)


# The logs of real runs with --pgo: 3.8 to 3.13, in one process and in several.
SERIAL = """0:00:00 load avg: 7.94 [1/3] test_good
0:00:00 load avg: 7.94 [2/3] test_json
test test_json failed
0:00:00 load avg: 7.94 [3/3] test_re -- test_json failed (1 error, 1 failure)
test_re failed (uncaught exception)

Total duration: 124 ms
Total test files: run=3/3 failed=2
Result: FAILURE
"""
PARALLEL = """0:00:00 load avg: 8.03 [1/3] test_re worker non-zero exit code (Exit code -11 (SIGSEGV))
Fatal Python error: Segmentation fault
0:00:00 load avg: 8.03 [2/3] test_good passed
0:00:00 load avg: 8.03 [3/3] test_json failed (1 error, 1 failure)
test test_json failed

Total duration: 429 ms
"""
OLD_PARALLEL = "[1/3] test_re crashed (Exit code -11)\n[2/3] test_json failed\n[3/3] test_good passed\n"
OF_2 = "[ 1/3] test_good\n[ 2/3] test_re\ntest test_re crashed -- <type 'exceptions.RuntimeError'>: x\n1 test failed:\n"
DIED = "0:00:00 load avg: 9.39 [ 1/43] test_good\n0:00:00 load avg: 9.39 [ 2/43] test_re\n"


@pytest.mark.parametrize(
    ("log", "names"),
    [
        (SERIAL, ["test_json", "test_re"]),
        (PARALLEL, ["test_re", "test_json"]),
        (OLD_PARALLEL, ["test_re", "test_json"]),
        (OF_2, ["test_re"]),
        (DIED, ["test_re"]),
        ("[1/2] test_asyncio.test_tasks failed (1 failure)\n", ["test_asyncio.test_tasks"]),
        ("[1/2] test_slow timed out (20 min 3 sec)\n", ["test_slow"]),
        ("[1/2] test_os failed (env changed)\n[2/2] test_re\nTotal duration: 1 sec\nResult: FAILURE\n", []),
        ("./python: error while loading shared libraries\n", []),
        ("", []),
    ],
)
def test_failed_tests_are_found_in_the_log_of_any_version(log: str, names: list[str]) -> None:
    assert stages.failed_tests(log.splitlines()) == names


def test_a_failed_training_names_its_tests_and_how_to_leave_them_out(workshop: Workshop, store: MemoryStore) -> None:
    rest = "".join(f"[{number}/300] test_x{number} passed\n" for number in range(300))
    play(workshop, fail_at("-m test", SERIAL + rest))
    with pytest.raises(BuildError) as caught:
        trained(workshop, store)
    assert caught.value.message == "compile: train (test_json, test_re failed) exited 2"
    assert caught.value.hint == 'what cannot pass here goes into python.train_without: "test_json", "test_re"'
    assert caught.value.at == str(workshop.work / "log/train.log")
    assert not any(b"counted" in blob for blob in store.blobs.values())


# compile


def making(words: str, places: Mapping[str, Path]) -> None:
    if words == "make install":
        write(places["/usr/local"] / "bin/python3.14", b"\x7fELF")
        (places["/usr/local"] / "bin/python3").symlink_to("python3.14")


def test_what_is_installed_is_a_tree_below_usr_local(workshop: Workshop, store: MemoryStore) -> None:
    seen = play(workshop, making)
    tree = stages.compile_(workshop, configured(workshop, store), None, COMMANDS, 3, store)
    assert seen[1:] == ["make -j3 all", "make install"]
    assert [path for path, entry in tree.items() if entry.kind is not Kind.DIRECTORY] == [
        "usr/local/bin/python3",
        "usr/local/bin/python3.14",
    ]
    assert {entry.mtime for entry in tree.values()} == {0}


def test_the_counters_lie_beside_the_objects_when_make_begins(workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, counting)
    profile = trained(workshop, store)
    found: list[bytes] = []

    def act(words: str, places: Mapping[str, Path]) -> None:
        if words == "make -j3 all":
            found.extend(path.read_bytes() for path in sorted(places["/build"].rglob("*.gcda")))

    play(workshop, act)
    stages.compile_(workshop, configured(workshop, store), profile, COMMANDS, 3, store)
    assert found == [b"adcg more", b"adcg counted"]


@pytest.mark.parametrize(
    "entry",
    [file("Makefile", b"all:\n\trm -rf /"), FileEntry(path="x.gcda", kind=Kind.SYMLINK, link="/etc/passwd")],
    ids=["a Makefile", "a link"],
)
def test_a_profile_with_anything_but_counters_is_refused(
    workshop: Workshop, store: MemoryStore, entry: FileEntry
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(entry.path)
        member.linkname, member.size = entry.link, entry.size
        member.type = tarfile.SYMTYPE if entry.kind is Kind.SYMLINK else tarfile.REGTYPE
        archive.addfile(member, io.BytesIO(read_content(store, entry.content)))
    seen = play(workshop, making)
    tree = configured(workshop, store)
    with pytest.raises(IntegrityError, match="not a profile"):
        stages.compile_(workshop, tree, store.put([buffer.getvalue()]).digest, COMMANDS, 3, store)
    assert not any("make" in words for words in seen)


MISFIT = (
    "Python/ceval.c:1:5: error: number of counters in profile data for function 'g' does not match its profile data "
    "(counter 'arcs', expected 2 and have 3) [-Werror=coverage-mismatch]\nmake: *** [Python/ceval.o] Error 1\n"
)


@pytest.mark.parametrize(
    ("output", "hinted"), [(MISFIT, True), ("x.c:1: error: expected ';'\n", False)], ids=["misfit", "another error"]
)
def test_only_a_profile_that_does_not_fit_is_blamed(
    workshop: Workshop, store: MemoryStore, output: str, hinted: bool
) -> None:
    play(workshop, counting)
    profile = trained(workshop, store)
    play(workshop, fail_at("make -j3 all", output))
    with pytest.raises(BuildError, match="compile: make exited 2") as caught:
        stages.compile_(workshop, configured(workshop, store), profile, COMMANDS, 3, store)
    assert ("train it anew" in (caught.value.hint or "")) is hinted
    assert output.splitlines()[0] in (caught.value.because or "")


def test_a_failed_command_shows_the_end_of_its_log(workshop: Workshop, store: MemoryStore) -> None:
    output = [f"line {number}" for number in range(300)]
    play(workshop, fail_at("make -j3", "\n".join(output)))
    tree = configured(workshop, store)
    blobs = set(store.blobs)
    with pytest.raises(BuildError, match="compile: make exited 2") as caught:
        stages.compile_(workshop, tree, None, COMMANDS, 3, store)
    assert caught.value.because == "\n".join(output[-20:])
    assert caught.value.at == str(workshop.work / "log/make.log")
    assert caught.value.hint
    assert set(store.blobs) == blobs


@pytest.mark.parametrize(
    ("output", "status", "message", "hint"),
    [
        ("", 137, "make ran out of memory", "--jobs 1"),
        ("gcc: fatal error: Killed signal terminated program cc1\nmake: *** Error 1\n", 2, "out of memory", "--jobs 1"),
        ("cc1: out of memory allocating 65536 bytes after a total of 1 bytes\n", 2, "out of memory", "--jobs 1"),
        ("/tmp/ccX.s: No space left on device\nmake: *** Error 1\n", 2, "make ran out of disk space", "--store"),
    ],
)
def test_a_machine_that_is_too_small_is_the_hosts_trouble(
    workshop: Workshop, store: MemoryStore, output: str, status: int, message: str, hint: str
) -> None:
    play(workshop, fail_at("make -j3", output, status))
    tree = configured(workshop, store)
    with pytest.raises(HostError, match=message) as caught:
        stages.compile_(workshop, tree, None, COMMANDS, 3, store)
    assert caught.value.exit_code == 7
    assert hint in (caught.value.hint or "")
    assert caught.value.at == str(workshop.work / "log/make.log")


def test_a_crash_is_no_lack_of_memory(workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, fail_at("make -j3", "Segmentation fault\n", 139))
    tree = configured(workshop, store)
    with pytest.raises(BuildError, match="make exited 139"):
        stages.compile_(workshop, tree, None, COMMANDS, 3, store)
