"""The stages as steps of a plan: what is run again after a failure, an interrupt or a changed recipe, and what is not.

The sandbox only pretends; plan, store and execution are the real ones.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from builder.compiling import _llvm_of
from builder.execute import execute
from builder.lock import Lock, LockedSource
from builder.plan import Step, commands_of, count_step, make_plan, train_step
from builder.python.profile import profile_for
from builder.python.versions import find
from builder.recipe import Recipe
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import BuildError, IntegrityError, LockError, OcibuildError, RecipeError
from rootfs.ports import Command, read_blob
from rootfs.tree import Tree, directory
from tests.fakes.profile import COUNTS
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore
from tests.fakes.transport import pages

RELEASE = find("3.14.7")
TEXT = b'name = "x"\n[base]\nsuite = "trixie"\n[python]\nversion = "3.14"\n[image]\ntag = "{version}-x"\n'
LOCK = Lock(
    schema=1,
    recipe="sha256:" + "0" * 64,
    platform="linux/amd64",
    epoch=1780000000,
    release=(),
    source=(LockedSource(name="cpython", version="3.14.7", urls=("u",), sha256=RELEASE.source.hex),),
    package=(),
)


def source() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("configure", "Modules/Setup.stdlib.in"):
            archive.addfile(tarfile.TarInfo(f"Python-3.14.7/{name}"))
    return buffer.getvalue()


Stop = Callable[[str], Played | None]
"""Says of a command, by name, whether it ends otherwise than well."""


def go_on(name: str) -> None:
    """Nothing stops."""


class Works:
    """A store that has a toolchain and the source, and a sandbox in which commands do what `stop` does not prevent."""

    def __init__(self, place: Path) -> None:
        self.store = MemoryStore()
        self.store.blobs[RELEASE.source] = source()  # under the digest that is pinned
        self.work = place / "work"
        self.ran: list[str] = []
        self.stop: Stop = go_on

    def _play(self, command: Command) -> Played:
        name = _name(command.argv)
        self.ran.append(name)
        if stopped := self.stop(name):
            return stopped
        places = {bind.target: bind.source for bind in command.binds}
        if name == "train":
            _write(places["/build"] / "Python/ceval.gcda", b"adcg")
        if name == "gather":
            _write(places["/build"] / "layout.fdata", COUNTS)
        if name == "lay out":
            _write(places["/build"] / "python", b"\x7fELF, laid out")
        if name == "make install":
            _write(places["/usr/local"] / "bin/python3.14", b"\x7fELF")
            for path in ("os.py", "json/tool.py", "ensurepip/__init__.py", "ensurepip/_bundled/pip-1-py3-none-any.whl"):
                _write(places["/usr/local"] / "lib/python3.14" / path, b"x")
        return Played()

    def has(self, step: Step) -> Digest:
        """Have a step's result; `ran` are the commands that it took."""
        self.ran.clear()
        for before in step.walk():
            if before.kind == "rootfs":
                self.store.link(before.key, self.store.put([Tree([directory("tmp")]).to_bytes()]).digest)
        tools = Tools(
            store=self.store,
            transport=pages({}),
            sandbox=ScriptedSandbox(self._play),
            reporter=ListReporter(),
            mirrors={},
            work=self.work,
            jobs=2,
        )
        return execute(step, tools)

    def left(self) -> list[str]:
        """What the log directories that are left hold."""
        return sorted(path.name for path in self.work.glob("*/log/*"))


def _name(argv: tuple[str, ...]) -> str:
    """A command's, for people."""
    program, words = argv[0].rpartition("/")[2], set(argv)
    if program == "make":
        names = {"install": "make install", "build_all": "make", "Python/frozen.o": "freeze"}
        name = next(names[target] for target in names if target in words)
        return "instrument" if any("-fprofile-generate" in word for word in argv) and name == "make" else name
    if program == "setarch":
        return "train" if "-m" in words else "practice"
    if program == "llvm-bolt":
        return "equip" if "-instrument" in words else "lay out"
    if program == "sh":
        return "gather" if "merge-fdata" in argv[-1] else "strip"
    if program.startswith("python"):
        return "pip" if "--find-links" in words else "byte-compile" if "compileall" in words else "check"
    return program


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def works(tmp_path: Path) -> Works:
    return Works(tmp_path)


def recipe(*overrides: str) -> Recipe:
    return Recipe.parse(TEXT, at="x.toml", overrides=overrides)


def installed(*overrides: str, lock: Lock = LOCK) -> Step:
    """The step that installs CPython, of a recipe with these overrides."""
    return next(step for step in make_plan(recipe(*overrides), lock).walk() if step.kind == "install")


LED = "python.variant=optimized-lto"
LAID_OUT = (LED, "python.layout=bolt")
INSTALL = ["check", "pip", "byte-compile", "byte-compile"]
PLAIN = ["configure", "make", "make install", *INSTALL]


def press_ctrl_c(at: str) -> Stop:
    def stop(name: str) -> None:
        if name == at:
            raise KeyboardInterrupt

    return stop


def fail(at: str, output: str = "") -> Stop:
    return lambda name: Played(exit=2, output=output) if name == at else None


def test_a_build_runs_every_stage_once_and_leaves_no_directory(works: Works) -> None:
    works.has(installed())
    assert works.ran == PLAIN
    assert works.left() == []
    works.has(installed())
    assert works.ran == []


def test_the_newest_llvm_of_the_toolchain_is_found(tmp_path: Path) -> None:
    assert _llvm_of(tmp_path) == ""
    for name in ("llvm-19/bin", "llvm-9/bin", "llvm-21/lib", "llvm-x/bin"):
        (tmp_path / "usr/lib" / name).mkdir(parents=True)
    assert _llvm_of(tmp_path) == "19"


def test_an_interrupt_in_make_does_not_lose_configure(works: Works) -> None:
    works.stop = press_ctrl_c("make")
    with pytest.raises(KeyboardInterrupt):
        works.has(installed())
    works.stop = go_on
    works.has(installed())
    assert works.ran == PLAIN[1:]


def test_an_interrupt_in_the_training_does_not_lose_the_instrumented_build(works: Works) -> None:
    works.stop = press_ctrl_c("train")
    with pytest.raises(KeyboardInterrupt):
        works.has(train_step(recipe(LED), LOCK))
    assert works.ran == ["configure", "freeze", "instrument", "train"]
    works.stop = go_on
    works.has(train_step(recipe(LED), LOCK))
    assert works.ran == ["train", "practice"]


@pytest.mark.parametrize(
    ("override", "ran"),
    [
        ("python.pyc=none", INSTALL[:2]),
        ("python.without=['json']", INSTALL),
        ("python.pip=false", ["check", "byte-compile"]),
        ("python.march=x86-64-v3", PLAIN[1:]),
        ("python.configure=['--with-dtrace']", PLAIN),
    ],
)
def test_a_changed_recipe_goes_on_from_the_last_stage_that_is_the_same(
    works: Works, override: str, ran: list[str]
) -> None:
    works.has(installed())
    works.has(installed(override))
    assert works.ran == ran


def test_a_module_that_is_not_there_costs_no_second_compile(works: Works) -> None:
    with pytest.raises(RecipeError, match="no module jsn"):
        works.has(installed("python.without=['jsn']"))
    works.has(installed("python.without=['json']"))
    assert works.ran == INSTALL


@pytest.mark.parametrize("stage", ["configure", "make", "make install", "check", "pip", "byte-compile"])
def test_a_stage_that_fails_has_no_result_and_leaves_its_log(works: Works, stage: str) -> None:
    works.stop = fail(stage)
    step = installed()
    with pytest.raises(OcibuildError) as caught:
        works.has(step)
    assert caught.value.at is not None
    assert Path(caught.value.at).exists()
    assert works.store.lookup(step.key) is None
    works.stop = go_on
    works.has(step)
    begun = {"make install": "make", **dict.fromkeys(("pip", "byte-compile"), "check")}.get(stage, stage)
    assert works.ran == PLAIN[PLAIN.index(begun) :]
    assert works.left() == []


def test_a_training_test_that_fails_is_named_and_no_profile_is_kept(works: Works) -> None:
    step = train_step(recipe(LED), LOCK)
    works.stop = fail("train", "[1/43] test_json\ntest test_json failed\n")
    with pytest.raises(BuildError, match=r"train \(test_json failed\) exited 2") as caught:
        works.has(step)
    assert '"test_json"' in (caught.value.hint or "")
    assert works.store.lookup(step.key) is None
    works.stop = go_on
    works.has(train_step(recipe(LED, "python.train_without=['test_json']"), LOCK))
    assert works.ran == ["train", "practice"]


def led_lock(profile: Digest, layout: Digest | None = None) -> Lock:
    """The lock of a recipe that is led by this profile, and laid out by these counts."""
    said = commands_of(recipe(LED), "3.14.7")
    return msgspec.structs.replace(LOCK, profile=profile_for(profile, said, LOCK, layout=layout))


def test_a_profile_leads_the_build_that_configures_no_second_time(works: Works) -> None:
    profile = works.has(train_step(recipe(LED), LOCK))
    assert b"Python/ceval.gcda" in read_blob(works.store, profile)
    works.has(installed(LED, lock=led_lock(profile)))
    assert works.ran == PLAIN[1:]


def test_what_is_counted_is_compiled_once_and_laid_out_by_its_counts(works: Works) -> None:
    profile = works.has(train_step(recipe(*LAID_OUT), LOCK))
    counts = works.has(count_step(recipe(*LAID_OUT), led_lock(profile)))
    assert works.ran == ["make", "make install", "equip", "practice", "gather"]
    assert read_blob(works.store, counts) == COUNTS
    lock = led_lock(profile, counts)
    works.has(installed(*LAID_OUT, lock=lock))
    assert works.ran == ["lay out", "strip", *INSTALL]
    works.has(installed(*LAID_OUT, "python.pyc=none", lock=lock))
    assert works.ran == INSTALL[:2]


def test_counts_that_are_not_here_are_an_error_before_anything_is_laid_out(works: Works) -> None:
    profile = works.has(train_step(recipe(*LAID_OUT), LOCK))
    with pytest.raises(IntegrityError, match="profile is not here"):
        works.has(installed(*LAID_OUT, lock=led_lock(profile, Digest.of(b"somewhere else"))))
    assert "lay out" not in works.ran


def test_a_profile_that_is_not_here_is_an_error_before_anything_is_made(works: Works) -> None:
    step = installed(LED, lock=led_lock(Digest.of(b"somewhere else")))
    with pytest.raises(IntegrityError, match="profile is not here") as caught:
        works.has(step)
    assert "ocibuild profile" in (caught.value.hint or "")
    assert "make" not in works.ran


def test_a_lock_with_another_source_is_refused_before_anything_runs(works: Works) -> None:
    """By hand, or by a merge: nothing is stored under the key that the wrong digest gives."""
    other = msgspec.structs.replace(LOCK.source[0], sha256="2" * 64)
    step = installed(lock=msgspec.structs.replace(LOCK, source=(other,)))
    with pytest.raises(LockError, match="not the release of that name") as caught:
        works.has(step)
    assert str(RELEASE.source) in (caught.value.because or "")
    assert works.ran == []
    assert all(works.store.lookup(before.key) is None for before in step.walk() if before.kind != "rootfs")


def test_a_result_whose_contents_are_gone_is_made_again(works: Works) -> None:
    works.has(installed())
    (configured,) = [step for step in installed().walk() if step.kind == "configure"]
    del works.store.blobs[works.store.links[configured.key]]
    works.has(installed("python.pyc=none"))
    assert works.ran == INSTALL[:2]
    works.has(installed("python.march=x86-64-v3"))
    assert works.ran == PLAIN
