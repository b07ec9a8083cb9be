"""The order of a compile and what it does when something fails; a sandbox that only pretends."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.python.compile import Compiled, PythonOptions, compile_python
from builder.python.versions import find
from rootfs.digest import Digest
from rootfs.errors import BuildError, HostError, IntegrityError, RecipeError
from rootfs.ports import Command, Outcome, read_content
from rootfs.tree import Kind
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore

LIBRARY = "usr/local/lib/python3.14"
WHEEL = "Lib/ensurepip/_bundled/pip-26.2.1-py3-none-any.whl"
INSTALLED = (
    "bin/idle3.14",
    "lib/python3.14/__pycache__/os.cpython-314.pyc",
    "lib/python3.14/config-3.14-x86_64-linux-gnu/Makefile",
    "lib/python3.14/email/__pycache__/utils.cpython-314.pyc",
    "lib/python3.14/ensurepip/__init__.py",
    "lib/python3.14/ensurepip/_bundled/pip-26.2.1-py3-none-any.whl",
    "lib/python3.14/idlelib/run.py",
    "lib/python3.14/os.py",
    "lib/python3.14/turtle.py",
    "lib/python3.14/unittest/test.py",
    "share/man/man1/python3.1",
)


def _tarball(*members: tuple[str, bytes, int]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, data, mode in members:
            member = tarfile.TarInfo(f"Python-3.14.7/{name}")
            member.size, member.mode, member.mtime, member.uid = len(data), mode, 1700000000, 501
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


SOURCE = _tarball(("configure", b"#!/bin/sh\n", 0o775), ("README.rst", b"CPython\n", 0o664), (WHEEL, b"wheel", 0o600))


class PretendSandbox:
    """`rootfs.ports.Sandbox` that writes what the real commands would, and fails when told to."""

    def __init__(self, failing: str = "", exit_: int = 2, output: tuple[str, ...] = ()) -> None:
        self.commands: list[Command] = []
        self._failing = failing
        self._exit = exit_
        self._output = output

    def run(self, command: Command) -> Outcome:
        self.commands.append(command)
        words = " ".join(command.argv)
        places = {bind.target: bind.source for bind in command.binds}
        if self._failing and self._failing in words:
            assert command.on_line is not None
            for line in self._output:
                command.on_line(line)
            return Outcome(exit=self._exit, log=command.log, seconds=1.0)
        if words == "make install":
            for name in INSTALLED:
                _write(places["/usr/local"] / name, 0o644)
            _write(places["/usr/local"] / "bin/python3.14", 0o700)
            (places["/usr/local"] / "bin/python3").symlink_to("python3.14")
        if "--find-links" in words:
            _write(places["/pip"] / LIBRARY / "site-packages/pip/__init__.py", 0o600)
        return Outcome(exit=0, log=command.log, seconds=1.0)

    def words(self) -> list[str]:
        return [" ".join(command.argv) for command in self.commands]


def _write(path: Path, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode())
    path.chmod(mode)


Compile = Callable[..., Compiled]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def run(tmp_path: Path, store: MemoryStore) -> Compile:
    def compile_(sandbox: PretendSandbox, source: bytes = SOURCE, **options: object) -> Compiled:
        return compile_python(
            release=replace(find("3.14.7"), source=Digest.of(source)),
            source=store.put([source]).digest,
            options=PythonOptions(**options),  # type: ignore[arg-type]
            toolchain=tmp_path / "toolchain",
            work=tmp_path / "work",
            epoch=1780000000,
            jobs=3,
            store=store,
            sandbox=sandbox,
            reporter=ListReporter(),
        )

    return compile_


def test_the_steps_in_order(run: Compile) -> None:
    sandbox = PretendSandbox()
    run(sandbox, configure_args=("--with-dtrace",))
    words = sandbox.words()
    assert words[0].startswith("/build/configure --prefix=/usr/local ")
    assert words[0].endswith(" --with-dtrace")
    assert words[1:3] == ["make -j3", "make install"]
    assert words[3].startswith("/usr/local/bin/python3.14 -I -B -c ")
    assert " --no-index " in words[4]
    assert words[5].endswith("compileall -q --invalidation-mode unchecked-hash /usr/local/lib/python3.14")
    assert words[6].endswith("unchecked-hash -s /pip -p / /pip/usr/local/lib/python3.14")
    assert len(words) == 7
    for command in sandbox.commands:
        assert command.environment["SOURCE_DATE_EPOCH"] == "1780000000"
        assert [bind.target for bind in command.binds] == ["/build", "/usr/local", "/pip"]


def test_the_source_is_unpacked_with_its_times_and_plain_modes(run: Compile, tmp_path: Path) -> None:
    run(PretendSandbox())
    for name, mode in (("configure", 0o755), ("README.rst", 0o644)):
        status = (tmp_path / "work/build" / name).stat()
        assert (status.st_mode & 0o7777, int(status.st_mtime)) == (mode, 1700000000)


def test_the_trees_hold_what_images_carry(run: Compile, store: MemoryStore) -> None:
    compiled = run(PretendSandbox())
    assert [path for path, entry in compiled.python.items() if entry.kind is not Kind.DIRECTORY] == [
        "usr/local/bin/python",
        "usr/local/bin/python3",
        "usr/local/bin/python3.14",
        f"{LIBRARY}/ensurepip/__init__.py",
        f"{LIBRARY}/os.py",
        f"{LIBRARY}/unittest/test.py",
    ]
    assert compiled.python["usr/local/bin/python"].link == "python3"
    assert [path for path, entry in compiled.pip.items() if entry.kind is Kind.FILE] == [
        f"{LIBRARY}/ensurepip/_bundled/pip-26.2.1-py3-none-any.whl",
        f"{LIBRARY}/site-packages/pip/__init__.py",
    ]
    wheel = compiled.pip[f"{LIBRARY}/ensurepip/_bundled/pip-26.2.1-py3-none-any.whl"]
    assert read_content(store, wheel.content) == b"wheel"


def test_owner_mode_and_time_are_facts_of_the_tree(run: Compile) -> None:
    compiled = run(PretendSandbox())
    for entry in (*compiled.python.values(), *compiled.pip.values()):
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
        expected = {Kind.DIRECTORY: 0o755, Kind.SYMLINK: 0o777, Kind.FILE: 0o644}[entry.kind]
        assert entry.mode == (0o755 if entry.path.endswith("bin/python3.14") else expected), entry.path


def test_without_pip_its_tree_is_empty(run: Compile) -> None:
    sandbox = PretendSandbox()
    assert len(run(sandbox, pip=False).pip) == 0
    assert not any("pip" in words for words in sandbox.words()[4:])


def test_without_byte_compiling(run: Compile) -> None:
    sandbox = PretendSandbox()
    run(sandbox, pyc="none")
    assert not any("compileall" in words for words in sandbox.words())


def test_a_variant_to_come_touches_nothing(run: Compile, tmp_path: Path) -> None:
    sandbox = PretendSandbox()
    with pytest.raises(RecipeError, match="cannot be built yet"):
        run(sandbox, variant="optimized")
    assert (sandbox.commands, (tmp_path / "work").exists()) == ([], False)


def test_a_failed_step_shows_the_end_of_its_log(run: Compile, store: MemoryStore, tmp_path: Path) -> None:
    output = tuple(f"line {number}" for number in range(30))
    with pytest.raises(BuildError, match=r"compile: make exited 2") as caught:
        run(PretendSandbox("make -j3", output=output))
    assert caught.value.because == "\n".join(output[-20:])
    assert caught.value.at == str(tmp_path / "work/log/make.log")
    assert caught.value.hint
    assert set(store.blobs) == {Digest.of(SOURCE)}


def test_configures_own_log_is_named(run: Compile) -> None:
    with pytest.raises(BuildError, match="configure exited 77") as caught:
        run(PretendSandbox("/build/configure", exit_=77, output=("no acceptable C compiler",)))
    assert "config.log" in (caught.value.hint or "")


def test_a_killed_step_hints_at_memory(run: Compile) -> None:
    with pytest.raises(BuildError, match="exited 137") as caught:
        run(PretendSandbox("make -j3", exit_=137))
    assert "fewer jobs" in (caught.value.hint or "")


def test_missing_modules_name_the_packages_they_want(run: Compile) -> None:
    output = ("failed ssl: ModuleNotFoundError: No module named '_ssl'", "failed bz2: ImportError: no")
    with pytest.raises(BuildError, match="modules missing or broken: ssl, bz2") as caught:
        run(PretendSandbox(" -c ", exit_=1, output=output))
    assert caught.value.hint == "the toolchain wants libbz2-dev, libssl-dev"
    assert "ssl: ModuleNotFoundError: No module named '_ssl'" in (caught.value.because or "")


def test_an_interpreter_that_does_not_run_says_so(run: Compile) -> None:
    with pytest.raises(BuildError, match="does not run") as caught:
        run(PretendSandbox(" -c ", exit_=139, output=("Segmentation fault",)))
    assert caught.value.because == "Segmentation fault"


def test_what_an_earlier_compile_left_is_gone(run: Compile, tmp_path: Path) -> None:
    left = tmp_path / "work/out/usr/local/lib/python3.14/left.py"
    _write(left, 0o644)
    assert f"{LIBRARY}/left.py" not in run(PretendSandbox()).python


def test_ctrl_c_passes_and_stores_nothing(run: Compile, store: MemoryStore) -> None:
    class Interrupted(PretendSandbox):
        def run(self, command: Command) -> Outcome:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted())
    assert set(store.blobs) == {Digest.of(SOURCE)}


@pytest.mark.parametrize("name", ["../../escaped", "a/../../../escaped"])
def test_a_source_that_climbs_out_is_refused(run: Compile, tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="leaves the tree"):
        run(PretendSandbox(), _tarball((name, b"", 0o644)))
    assert not list(tmp_path.rglob("escaped"))


def test_a_source_with_links_is_refused(run: Compile) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("Python-3.14.7/Lib")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(IntegrityError, match="only files and directories"):
        run(PretendSandbox(), buffer.getvalue())


def test_a_source_that_is_no_tarball_is_refused(run: Compile) -> None:
    with pytest.raises(IntegrityError, match="not a source tarball"):
        run(PretendSandbox(), b"<html>not found</html>")


def test_a_work_directory_that_cannot_be_written_is_the_hosts_trouble(run: Compile, tmp_path: Path) -> None:
    (tmp_path / "work").write_bytes(b"a file in the way")
    with pytest.raises(HostError, match="cannot write to"):
        run(PretendSandbox())
