"""Where the profile of a build comes from: the lock, what is shipped, what is fetched, or a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from builder.app import SHIPPED, Found
from builder.artifact import admit, in_file, write_file
from builder.cli import run
from builder.lock import Lock, LockedProfile
from builder.plan import commands_of, count_step, make_plan, train_step
from builder.profiles import artifact, status, tag_of, take, train, with_profile
from builder.python.profile import profile_for
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError, RecipeError, TransferError
from rootfs.store import DiskStore
from tests.fakes.profile import ARCS, COUNTS, SMALL, gcda, package, profile, recipe_in, tools_with
from tests.fakes.store import MemoryStore

OTHER = profile({"Objects/list.gcda": gcda({1: {ARCS: (9, 9, 9)}})})
PROFILES = sorted(path for place in SHIPPED for path in (place / "profiles").glob("*.profile"))


@pytest.fixture
def recipe(tmp_path: Path) -> tuple[Found, Lock]:
    return recipe_in(tmp_path)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def pinning(found: Found, lock: Lock, data: bytes = SMALL) -> Lock:
    """The lock with this profile pinned, as one that fits."""
    said = commands_of(found.recipe, lock.python.version)
    lock = msgspec.structs.replace(lock, profile=profile_for(Digest.of(data), said, lock))
    found.lock_path.write_bytes(lock.to_bytes())
    return lock


def pinned(lock: Lock) -> LockedProfile:
    assert lock.profile is not None
    return lock.profile


def reread(found: Found) -> Lock:
    return Lock.parse(found.lock_path.read_bytes(), at="l")


def exported(found: Found, lock: Lock, path: Path, data: bytes = SMALL) -> Path:
    """A file with this profile, of a store that is gone."""
    store = MemoryStore()
    store.put([data])
    tools, _ = tools_with(store, path.parent)
    path.parent.mkdir(exist_ok=True)
    write_file(path, artifact(found, pinning(found, lock, data), tools, places=()), store)
    found.lock_path.write_bytes(lock.to_bytes())
    return path


def trained_before(found: Found, lock: Lock, tools: Tools, data: bytes = SMALL) -> None:
    """The training's result is in the store, as if it had run."""
    tools.store.link(train_step(found.recipe, lock).key, tools.store.put([data]).digest)


def plain(found: Found) -> Found:
    python = msgspec.structs.replace(found.recipe.python, variant="plain")
    return replace(found, recipe=msgspec.structs.replace(found.recipe, python=python))


def test_a_plain_build_needs_no_profile(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    tools, reporter = tools_with(store, tmp_path)
    assert with_profile(plain(found), lock, tools, locked=True, places=()) == lock
    assert not reporter.events
    with pytest.raises(RecipeError, match="the recipe has no profile"):
        train(plain(found), lock, tools)


def test_the_pinned_one_that_is_here_is_taken(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    lock = pinning(found, lock)
    store.put([SMALL])
    tools, reporter = tools_with(store, tmp_path)
    assert with_profile(found, lock, tools, locked=True, places=()) == lock
    assert reporter.events == [("note", f"profile {Digest.of(SMALL)}: pinned")]


def test_the_pinned_one_is_taken_from_those_that_are_shipped(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    exported(found, lock, tmp_path / "profiles/other.profile", OTHER)
    path = exported(found, lock, tmp_path / "profiles/small.profile")
    lock = pinning(found, lock)
    tools, reporter = tools_with(store, tmp_path)
    assert with_profile(found, lock, tools, locked=True, places=[tmp_path / "none", tmp_path]) == lock
    assert list(store.blobs) == [Digest.of(SMALL)]
    assert reporter.events == [("note", f"profile {Digest.of(SMALL)}: pinned, taken from {path}")]


def test_the_pinned_one_that_is_nowhere_is_missed_before_anything_is_fetched(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    lock = pinning(found, lock)
    tools, _ = tools_with(store, tmp_path)
    with pytest.raises(IntegrityError) as caught:
        with_profile(found, lock, tools, locked=False, places=())
    assert str(Digest.of(SMALL)) in caught.value.message
    assert "profile pull" in (caught.value.hint or "")


def test_the_pinned_one_is_not_missed_where_all_is_compiled(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    lock = pinning(found, lock)
    tree = store.put([b'{"entries":[]}']).digest
    for step in make_plan(found.recipe, lock).walk():
        if step.kind == "compile":
            store.link(step.key, tree)
    tools, _ = tools_with(store, tmp_path)
    assert with_profile(found, lock, tools, locked=False, places=()) == lock


def test_a_shipped_one_that_fits_is_pinned(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    path = exported(found, lock, tmp_path / "profiles/small.profile")
    tools, reporter = tools_with(store, tmp_path)
    made = with_profile(found, lock, tools, locked=False, places=[tmp_path])
    assert made == reread(found) == pinning(found, lock)
    assert reporter.events == [("note", f"profile {Digest.of(SMALL)}: shipped as {path}, pinned")]


def test_one_that_does_not_fit_is_not_taken_but_trained(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    older = msgspec.structs.replace(lock, package=(package("gcc-14", "14.2.0-18"), *lock.package[1:]))
    exported(found, older, tmp_path / "profiles/small.profile")
    tools, reporter = tools_with(store, tmp_path)
    trained_before(found, lock, tools, OTHER)
    made = with_profile(found, lock, tools, locked=False, places=[tmp_path])
    assert pinned(made).digest == str(Digest.of(OTHER))
    assert made == reread(found)
    assert reporter.events == [("note", "no profile is pinned, no shipped one fits: pinning what training gives")]


def test_locked_neither_trains_nor_pins(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    exported(found, lock, tmp_path / "profiles/small.profile")
    tools, _ = tools_with(store, tmp_path)
    with pytest.raises(LockError, match="the lock names no profile"):
        with_profile(found, lock, tools, locked=True, places=[tmp_path])
    assert not store.blobs


def test_a_pinned_one_that_does_not_fit_is_an_error_that_says_what_changed(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    lock = pinning(found, lock)
    lock = msgspec.structs.replace(lock, package=(lock.package[0], package("libssl-dev", "3.6")))
    tools, _ = tools_with(store, tmp_path)
    with pytest.raises(LockError) as caught:
        with_profile(found, lock, tools, locked=False, places=())
    because = caught.value.because or ""
    assert [line.strip() for line in because.splitlines()] == [
        "libssl-dev 3.5 was there",
        "libssl-dev 3.6 is there now",
    ]
    assert "profile train" in (caught.value.hint or "")


def test_a_damaged_shipped_profile_is_named(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    path = exported(found, lock, tmp_path / "profiles/small.profile")
    path.write_bytes(path.read_bytes()[:700])
    tools, _ = tools_with(store, tmp_path)
    with pytest.raises(IntegrityError) as caught:
        with_profile(found, lock, tools, locked=False, places=[tmp_path])
    assert str(path) in (caught.value.at or "")


def test_training_takes_the_place_of_what_was_pinned_and_says_so(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    lock = pinning(found, lock, OTHER)
    tools, reporter = tools_with(store, tmp_path)
    trained_before(found, lock, tools)
    made, comparison = train(found, lock, tools)
    assert comparison is None
    assert pinned(made).digest == pinned(reread(found)).digest == str(Digest.of(SMALL))
    assert reporter.events == [("note", f"{found.lock_path}: pinned before was {Digest.of(OTHER)}")]


@pytest.mark.parametrize("is_pinned", [False, True])
def test_training_again_compares_and_keeps_what_is_pinned(
    is_pinned: bool, recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    tools, _ = tools_with(store, tmp_path)
    if is_pinned:
        store.put([SMALL])
        lock = pinning(found, lock)
    else:
        trained_before(found, lock, tools)
    step = train_step(found.recipe, lock)
    toolchain, instrumented = step.inputs
    anew = replace(instrumented, parameters={**instrumented.parameters, "again": "w"})
    assert anew.inputs == instrumented.inputs  # configured once
    store.link(replace(step, inputs=(toolchain, anew)).key, store.put([OTHER]).digest)
    made, comparison = train(found, lock, tools, again="w")
    assert pinned(made).digest == pinned(reread(found)).digest == str(Digest.of(SMALL))
    assert comparison is not None
    assert comparison.differing == ("Objects/list.gcda",)
    assert comparison.only_in_one == ("Python/x.gcda",)


def test_training_again_runs_it_again(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    tools, _ = tools_with(store, tmp_path)
    trained_before(found, lock, tools)
    with pytest.raises(TransferError):  # the first thing a training wants is the toolchain, and there is no network
        train(found, lock, tools, again="w")


def test_one_that_was_fetched_is_pinned(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    path = exported(found, lock, tmp_path / "x.profile")
    tools, _ = tools_with(store, tmp_path)
    made = take(found, lock, in_file(path), tools)
    assert made == reread(found) == pinning(found, lock)
    assert list(store.blobs) == [Digest.of(SMALL)]
    assert take(found, made, in_file(path), tools) == made


def test_one_that_was_fetched_takes_the_place_of_another_only_when_told(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    path = exported(found, lock, tmp_path / "x.profile")
    lock = pinning(found, lock, OTHER)
    tools, _ = tools_with(store, tmp_path)
    with pytest.raises(LockError) as caught:
        take(found, lock, in_file(path), tools)
    assert "--replace" in (caught.value.hint or "")
    assert reread(found) == lock
    assert not store.blobs
    assert pinned(take(found, lock, in_file(path), tools, instead=True)).digest == str(Digest.of(SMALL))


def test_one_for_another_version_is_refused_with_what_differs(
    recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = recipe
    source = msgspec.structs.replace(lock.source[0], version="3.14.6", sha256="2" * 64)
    path = exported(found, msgspec.structs.replace(lock, source=(source,)), tmp_path / "x.profile")
    tools, _ = tools_with(store, tmp_path)
    for instead in (False, True):
        with pytest.raises(LockError) as caught:
            take(found, lock, in_file(path), tools, instead=instead)
        assert f"trained for CPython 3.14.6 on {lock.platform}" in caught.value.message
        assert "2222" in (caught.value.because or "")
    assert not store.blobs


@pytest.fixture
def laid_out(tmp_path: Path) -> tuple[Found, Lock]:
    """A recipe whose interpreter is laid out."""
    found, lock = recipe_in(tmp_path)
    python = msgspec.structs.replace(found.recipe.python, layout="bolt")
    found = replace(found, recipe=msgspec.structs.replace(found.recipe, python=python))
    return found, msgspec.structs.replace(lock, package=(*lock.package, package("bolt-19"), package("libbolt-19-dev")))


def counted_before(found: Found, lock: Lock, tools: Tools, data: bytes = SMALL) -> None:
    """The counting's result is in the store, as if it had run."""
    tools.store.link(count_step(found.recipe, pinning(found, lock, data)).key, tools.store.put([COUNTS]).digest)
    found.lock_path.write_bytes(lock.to_bytes())


def with_layout(found: Found, lock: Lock) -> Lock:
    """The lock with a profile that has counts pinned, as one that fits."""
    said = commands_of(found.recipe, lock.python.version)
    whole = profile_for(Digest.of(SMALL), said, lock, layout=Digest.of(COUNTS))
    return msgspec.structs.replace(lock, profile=whole)


def test_what_is_trained_for_a_layout_is_counted_too(
    laid_out: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = laid_out
    tools, _ = tools_with(store, tmp_path)
    trained_before(found, lock, tools)
    counted_before(found, lock, tools)
    made, _ = train(found, lock, tools)
    assert made == reread(found) == with_layout(found, lock)


def test_a_profile_without_counts_gets_them_unless_nothing_may_be_pinned(
    laid_out: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = laid_out
    tools, reporter = tools_with(store, tmp_path)
    store.put([SMALL])
    counted_before(found, lock, tools)
    lock = msgspec.structs.replace(with_layout(found, lock), profile=pinned(with_layout(found, lock)).counters)
    with pytest.raises(LockError, match="no counts to lay out by") as caught:
        with_profile(found, lock, tools, locked=True, places=())
    assert "without --locked" in (caught.value.hint or "")
    made = with_profile(found, lock, tools, locked=False, places=())
    assert made == with_layout(found, lock)
    assert "pinning what counting gives" in str(reporter.events[-1])
    assert with_profile(found, made, tools, locked=True, places=()) == made


def test_a_shipped_one_serves_who_is_laid_out_and_who_is_not(
    laid_out: tuple[Found, Lock], recipe: tuple[Found, Lock], tmp_path: Path
) -> None:
    found, lock = laid_out
    whole = MemoryStore()
    for blob in (SMALL, COUNTS):
        whole.put([blob])
    (tmp_path / "profiles").mkdir()
    shipped = tmp_path / "profiles/x.profile"
    write_file(shipped, artifact(found, with_layout(found, lock), tools_with(whole, tmp_path)[0], places=()), whole)
    tools, _ = tools_with(MemoryStore(), tmp_path)
    assert with_profile(found, lock, tools, locked=False, places=[tmp_path]) == with_layout(found, lock)
    other, plainer = recipe
    made = pinned(with_profile(other, plainer, tools, locked=False, places=[tmp_path]))
    assert (made.digest, made.layout, made.laid) == (str(Digest.of(SMALL)), "", ())


def test_counts_that_are_nowhere_are_missed_only_where_something_is_laid_out(
    laid_out: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = laid_out
    lock = with_layout(found, lock)
    tools, _ = tools_with(store, tmp_path)
    store.put([SMALL])
    with pytest.raises(IntegrityError, match=f"not here: {Digest.of(COUNTS)}"):
        with_profile(found, lock, tools, locked=False, places=())
    tree = store.put([b'{"entries":[]}']).digest
    for step in make_plan(found.recipe, lock).walk():
        if step.kind == "arrange":
            store.link(step.key, tree)
    assert with_profile(found, lock, tools, locked=False, places=()) == lock


def test_a_fetched_profile_brings_its_counts_and_one_without_takes_none_away(
    laid_out: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = laid_out
    whole = MemoryStore()
    for blob in (SMALL, COUNTS):
        whole.put([blob])
    locked = with_layout(found, lock)
    bare = msgspec.structs.replace(lock, profile=pinned(locked).counters)
    for name, one in (("whole", locked), ("bare", bare)):
        write_file(tmp_path / name, artifact(found, one, tools_with(whole, tmp_path)[0], places=()), whole)
    tools, _ = tools_with(store, tmp_path)
    assert take(found, lock, in_file(tmp_path / "whole"), tools) == locked
    assert Digest.of(COUNTS) in store.blobs
    assert take(found, locked, in_file(tmp_path / "bare"), tools) == locked
    others = msgspec.structs.replace(
        locked, profile=msgspec.structs.replace(pinned(locked), layout="sha256:" + "9" * 64)
    )
    with pytest.raises(LockError, match="pins another profile"):
        take(found, others, in_file(tmp_path / "whole"), tools)


def test_counts_of_another_bolt_are_left_out_of_what_is_fetched_and_that_is_said(
    laid_out: tuple[Found, Lock], store: MemoryStore, tmp_path: Path
) -> None:
    found, lock = laid_out
    whole = MemoryStore()
    for blob in (SMALL, COUNTS):
        whole.put([blob])
    write_file(
        tmp_path / "x", artifact(found, with_layout(found, lock), tools_with(whole, tmp_path)[0], places=()), whole
    )
    newer = msgspec.structs.replace(lock, package=(*lock.package[:3], package("bolt-19", "2")))
    tools, reporter = tools_with(store, tmp_path)
    made = take(found, newer, in_file(tmp_path / "x"), tools)
    assert pinned(made) == pinned(with_layout(found, lock)).counters
    assert "left out" in str(reporter.events)


def test_status_says_where_it_is(recipe: tuple[Found, Lock], store: MemoryStore, tmp_path: Path) -> None:
    found, lock = recipe
    with pytest.raises(LockError):
        status(found, lock, store, places=())
    path = exported(found, lock, tmp_path / "profiles/small.profile")
    lock = pinning(found, lock)
    assert (status(found, lock, store, places=()).size, status(found, lock, store, places=()).shipped) == (None, None)
    assert status(found, lock, store, places=[tmp_path]).shipped == str(path)
    store.put([SMALL])
    assert status(found, lock, store, places=()).size == len(SMALL)


def test_the_tag_says_whose_profile_it_is(recipe: tuple[Found, Lock]) -> None:
    assert tag_of(*recipe) == "3.14.7-fast-profile"


def test_the_verbs_on_one_machine_and_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, lock = recipe_in(tmp_path)
    first, second = DiskStore(tmp_path / "first"), ["--store", str(tmp_path / "second")]
    first.put([SMALL])
    pinning(found, lock)
    argv = [str(found.path), "--store", str(first.root)]

    assert run(["profile", "show", *argv]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"profile   {Digest.of(SMALL)}",
        "here      in the store, 0.0 MB",
        "fits      yes",
    ]
    assert run(["profile", "export", *argv, str(tmp_path / "x.profile")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/x.profile@sha256:")

    found.lock_path.write_bytes(lock.to_bytes())
    assert run(["profile", "show", str(found.path), *second]) == 3
    assert run(["profile", "export", str(found.path), str(tmp_path / "y"), *second]) == 3
    capsys.readouterr()
    assert run(["profile", "import", str(found.path), str(tmp_path / "x.profile"), *second]) == 0
    assert capsys.readouterr().out == f"{Digest.of(SMALL)}\n"
    assert run(["profile", "show", "--json", str(found.path), *second]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["profile"], shown["misfits"], shown["size"]) == (str(Digest.of(SMALL)), [], len(SMALL))

    pinning(found, lock, OTHER)
    assert run(["profile", "import", str(found.path), str(tmp_path / "x.profile"), *second]) == 3
    assert "--replace" in capsys.readouterr().err


def test_what_does_not_fit_is_shown_with_exit_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, lock = recipe_in(tmp_path)
    lock = pinning(found, lock)
    found.lock_path.write_bytes(msgspec.structs.replace(lock, package=lock.package[1:]).to_bytes())
    assert run(["profile", "show", str(found.path), "--store", str(tmp_path / "s")]) == 3
    assert "fits      no: gcc-14 14.2.0-19 was there" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["train"], ["show"], ["push", "r.example/a"], ["export", "x"]])
def test_a_plain_recipe_has_no_profile_and_that_is_said_before_anything_is_resolved(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["profile", verb[0], "wee", *verb[1:], "--lock", str(tmp_path / "l"), "--mirror", "http://127.0.0.1:9/x"]
    assert run(argv) == 3
    assert "plain" in capsys.readouterr().err


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_shipped_profile_is_small_and_whole(path: Path, store: MemoryStore) -> None:
    assert path.stat().st_size < 600_000
    assert admit(in_file(path), store).digest in map(str, store.blobs)
