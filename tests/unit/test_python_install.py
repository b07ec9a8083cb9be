"""From what `make install` made to what images carry; the sandbox only pretends."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builder.python.install import Contents, Installed, install
from builder.python.versions import find
from builder.python.workshop import Workshop
from rootfs.digest import Digest
from rootfs.errors import BuildError, RecipeError
from rootfs.ports import Command, read_content
from rootfs.tree import Kind, Tree, file, symlink
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore

LIB = "usr/local/lib/python3.14"
BUNDLED = "ensurepip/_bundled/pip-26.2.1-py3-none-any.whl"
EPOCH = 1780000000

LIBRARY = (
    "__pycache__/os.cpython-314.pyc",
    "config-3.14-x86_64-linux-gnu/Makefile",
    "ctypes/__init__.py",
    "email/__pycache__/utils.cpython-314.pyc",
    "idlelib/run.py",
    "json/tool.py",
    "lib-dynload/_ctypes.so",
    "lib-dynload/_json.so",
    "lib-dynload/_testcapi.so",
    "lib-dynload/_tkinter.so",
    "lib-dynload/xxlimited.so",
    "os.py",
    "sqlite3/tests/x.py",
    "test/test_os.py",
    "tkinter/ttk.py",
    "turtle.py",
    "unittest/test.py",
)
OUTSIDE = ("bin/idle3.14", "lib/libpython3.14.a", "share/man/man1/python3.1")


def compiled(lib: str = LIB, *more: str) -> Tree:
    """What `make install` leaves, of some line of CPython."""
    name = lib.rpartition("/")[2]
    entries = [file(f"{lib}/{path}", path.encode()) for path in (*LIBRARY, *more)]
    entries += [file(f"usr/local/{path}", path.encode()) for path in OUTSIDE]
    entries += [
        file(f"{lib}/ensurepip/__init__.py", b'_PIP_VERSION = "26.2.1"\n'),
        file(f"{lib}/{BUNDLED}", b"wheel"),
        file(f"{lib}/_sysconfigdata__linux_.py", b"build_time_vars = {'x': '-O3 -flto=auto', 'y': '/build'}"),
        file(f"usr/local/bin/{name}", b"\x7fELF", mode=0o700),
        symlink("usr/local/bin/python3", name),
    ]
    return Tree(entries).with_parents()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Bench:
    """`run` installs `tree` with the recipe's words; `words` are the commands that it came to."""

    def __init__(self, place: Path, store: MemoryStore) -> None:
        self.words: list[str] = []
        self.said = ""
        self.see: Callable[[str, Mapping[str, Path]], None] = lambda words, places: None
        self.store = store
        self._workshop = Workshop(
            toolchain=place / "toolchain",
            work=place / "work",
            environment={},
            sandbox=ScriptedSandbox(self._play),
            reporter=ListReporter(),
        )

    def _play(self, command: Command) -> Played:
        words = " ".join(command.argv)
        self.words.append(words)
        places = {bind.target: bind.source for bind in command.binds}
        self.see(words, places)
        if "--find-links" in words:
            (library,) = (places["/usr/local"] / "lib").glob("python*")
            path = places["/pip"] / "usr/local/lib" / library.name / "site-packages/pip/__init__.py"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"pip")
            path.chmod(0o600)
        return Played(output=self.said, exit=1) if " -c " in words and self.said else Played()

    def run(
        self, tree: Tree | None = None, *, version: str = "3.14.7", wheel: Digest | None = None, **said: object
    ) -> Installed:
        return install(
            self._workshop,
            compiled() if tree is None else tree,
            release=find(version),
            contents=Contents(**said),  # type: ignore[arg-type]
            wheel=wheel,
            epoch=EPOCH,
            store=self.store,
        )


@pytest.fixture
def bench(tmp_path: Path, store: MemoryStore) -> Bench:
    return Bench(tmp_path, store)


def files(tree: Tree) -> list[str]:
    return [path for path, entry in tree.items() if entry.kind is Kind.FILE]


def test_the_commands_in_order(bench: Bench) -> None:
    bench.run()
    assert bench.words[0].startswith("/usr/local/bin/python3.14 -E -s -B -c ")
    assert " --no-index " in bench.words[1]
    assert bench.words[2].endswith(f"compileall -q --invalidation-mode unchecked-hash /{LIB}")
    assert bench.words[3].endswith(f"compileall -q --invalidation-mode unchecked-hash -d /{LIB} /pip/{LIB}")
    assert len(bench.words) == 4


def test_the_trees_hold_what_images_carry(bench: Bench, store: MemoryStore) -> None:
    installed = bench.run()
    assert files(installed.python) == [
        "usr/local/bin/python3.14",
        f"{LIB}/_sysconfigdata__linux_.py",
        f"{LIB}/ctypes/__init__.py",
        f"{LIB}/ensurepip/__init__.py",
        f"{LIB}/json/tool.py",
        f"{LIB}/lib-dynload/_ctypes.so",
        f"{LIB}/lib-dynload/_json.so",
        f"{LIB}/os.py",
        f"{LIB}/unittest/test.py",
    ]
    assert installed.python["usr/local/bin/python"].link == "python3"
    assert read_content(store, installed.python[f"{LIB}/_sysconfigdata__linux_.py"].content) == (
        f"build_time_vars = {{'x': '-O3', 'y': '/{LIB}/config'}}".encode()
    )
    assert f"{LIB}/{BUNDLED}" in files(installed.pip)


def test_owner_mode_and_time_are_facts_of_the_tree(bench: Bench) -> None:
    installed = bench.run()
    for entry in (*installed.python.values(), *installed.pip.values()):
        assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
        expected = {Kind.DIRECTORY: 0o755, Kind.SYMLINK: 0o777, Kind.FILE: 0o644}[entry.kind]
        assert entry.mode == (0o755 if entry.path.endswith("bin/python3.14") else expected), entry.path


def test_without_pip_its_tree_is_empty(bench: Bench) -> None:
    installed = bench.run(pip=False)
    assert not installed.pip
    assert f"{LIB}/{BUNDLED}" not in installed.python
    assert not any("pip" in words for words in bench.words[1:])


def test_without_byte_compiling(bench: Bench) -> None:
    bench.run(pyc="none")
    assert not any("compileall" in words for words in bench.words)


def test_a_free_threaded_library_has_a_name_of_its_own(bench: Bench) -> None:
    installed = bench.run(compiled(f"{LIB}t"))
    assert f"{LIB}t/os.py" in installed.python
    assert bench.words[-2].endswith(f"/{LIB}t")
    assert f"{LIB}t/{BUNDLED}" in installed.pip


def test_a_python_2_keeps_its_own_name_and_dates_its_sources(bench: Bench) -> None:
    """Its byte code holds the time of the source, which is the epoch in every layer."""
    lib = "usr/local/lib/python2.7"
    tree = compiled(lib, "lib-tk/turtle.py").with_entries([symlink("usr/local/bin/python", "python2")])
    times: set[float] = set()

    def see(words: str, places: Mapping[str, Path]) -> None:
        if "compileall" in words:
            times.update(path.stat().st_mtime for place in places.values() for path in place.rglob("*.py"))

    bench.see = see
    installed = bench.run(tree, version="2.7.18")
    assert installed.python["usr/local/bin/python"].link == "python2"
    assert f"{lib}/lib-tk/turtle.py" not in installed.python
    assert times == {EPOCH}
    assert not any("--invalidation-mode" in words for words in bench.words)
    assert any(words.endswith(" pip setuptools") for words in bench.words)


# Modules


def test_a_module_is_left_out_with_its_extension(bench: Bench) -> None:
    left = files(bench.run(without=("json", "ctypes")).python)
    assert not [path for path in left if "json" in path or "ctypes" in path]
    assert f"{LIB}/os.py" in left


@pytest.mark.parametrize("name", ["tkinter", "test", "turtle"])
def test_what_is_left_out_anyway_may_be_named(bench: Bench, name: str) -> None:
    assert files(bench.run(without=(name,)).python) == files(bench.run().python)


@pytest.mark.parametrize("name", ["jsn", "json.nothing", "email.py..", "email.json"])
def test_leaving_out_what_is_not_there_is_the_recipes_error(bench: Bench, store: MemoryStore, name: str) -> None:
    with pytest.raises(RecipeError, match=f"no module {name}") as caught:
        bench.run(without=(name,))
    assert "python.without" in (caught.value.hint or "")
    assert not store.blobs


def test_tkinter_stays_when_it_was_asked_for(bench: Bench) -> None:
    added = set(files(bench.run(modules=("tkinter",)).python)) - set(files(bench.run().python))
    assert added == {f"{LIB}/{path}" for path in ("lib-dynload/_tkinter.so", "tkinter/ttk.py", "turtle.py")}


def test_missing_modules_name_the_packages_they_want(bench: Bench) -> None:
    bench.said = "FAILED ssl: ModuleNotFoundError: No module named '_ssl'\nFAILED bz2: ImportError: no\nok zlib\n"
    with pytest.raises(BuildError, match="modules missing or broken: ssl, bz2") as caught:
        bench.run()
    assert caught.value.hint == "the toolchain wants libbz2-dev, libssl-dev"
    assert "ssl: ModuleNotFoundError: No module named '_ssl'" in (caught.value.because or "")


def test_a_module_asked_for_whose_library_is_absent_names_its_package(bench: Bench) -> None:
    bench.said = "FAILED tkinter: ModuleNotFoundError: No module named '_tkinter'\n"
    with pytest.raises(BuildError, match="modules missing or broken: tkinter") as caught:
        bench.run(modules=("tkinter",))
    assert caught.value.hint == "the toolchain wants tk-dev"


def test_a_module_that_is_left_out_is_not_missed(bench: Bench) -> None:
    bench.run(without=("ctypes",))
    bench.run()
    asked, all_asked = (words for words in bench.words if " -c " in words)
    assert "import ctypes" in all_asked
    assert "import ctypes" not in asked


def test_an_interpreter_that_does_not_run_says_so(bench: Bench) -> None:
    bench.said = "Segmentation fault\n"
    with pytest.raises(BuildError, match="does not run") as caught:
        bench.run()
    assert caught.value.because == "Segmentation fault"


def test_an_installation_without_a_library_says_so(bench: Bench) -> None:
    with pytest.raises(BuildError, match="left 0 libraries"):
        bench.run(Tree())


# Another pip


def wheel_of(version: str, store: MemoryStore) -> Digest:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pip/_vendor/x-1.0.dist-info/METADATA", "Name: x\n")
        archive.writestr(f"pip-{version}.dist-info/METADATA", "Name: pip\n")
    return store.put([buffer.getvalue()]).digest


def test_another_pip_takes_the_place_of_the_bundled_one_for_venv_too(bench: Bench, store: MemoryStore) -> None:
    wheel = wheel_of("25.0", store)
    installed = bench.run(wheel=wheel)
    place = f"{LIB}/ensurepip/_bundled/pip-25.0-py3-none-any.whl"
    assert [path for path in files(installed.pip) if path.endswith(".whl")] == [place]
    assert Digest.of(read_content(store, installed.pip[place].content)) == wheel
    module = read_content(store, installed.python[f"{LIB}/ensurepip/__init__.py"].content)
    assert module == b'_PIP_VERSION = "25.0"\n'
    assert f"/{place}/pip install" in bench.words[1]


@pytest.mark.parametrize("data", [b"<html>", b"PK\x05\x06" + bytes(18)], ids=["no zip", "an empty zip"])
def test_what_is_no_wheel_of_pip_is_refused(bench: Bench, store: MemoryStore, data: bytes) -> None:
    with pytest.raises(BuildError, match="not a wheel of pip"):
        bench.run(wheel=store.put([data]).digest)


def test_a_pip_that_ensurepip_would_not_find_is_refused(bench: Bench, store: MemoryStore) -> None:
    changed = compiled().with_entries([file(f"{LIB}/ensurepip/__init__.py", b"_PIP_VERSION = _newest()\n")])
    with pytest.raises(BuildError, match=r"pip 25\.0 cannot take the place of the bundled one") as caught:
        bench.run(changed, wheel=wheel_of("25.0", store))
    assert caught.value.because == 'there is no line _PIP_VERSION = "26.2.1"'


def test_a_release_without_a_bundled_pip_says_so(bench: Bench) -> None:
    with pytest.raises(BuildError, match="bundles 0 pip wheels"):
        bench.run(compiled().where(lambda entry: not entry.path.endswith(".whl")))
