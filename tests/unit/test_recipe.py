"""Recipes, locks and plans: what is read, what is refused, and what a key depends on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from builder.lock import SCHEMA, Lock, LockedPackage, LockedRelease, LockedSource
from builder.plan import Step, make_plan
from builder.recipe import Recipe
from rootfs.digest import Digest
from rootfs.errors import LockError, RecipeError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
SMALL = b'name = "x"\n[python]\nversion = "3.14"\n[image]\ntag = "{version}-x"\n'


def parse(data: bytes = SMALL, *overrides: str) -> Recipe:
    return Recipe.parse(data, at="x.toml", overrides=overrides)


@pytest.mark.parametrize("path", [p for p in RECIPES if ".lock" not in p.name], ids=lambda path: path.stem)
def test_the_shipped_recipes_are_recipes(path: Path) -> None:
    recipe = Recipe.parse(path.read_bytes(), at=str(path))
    assert recipe.name == path.stem
    assert recipe.tag("3.14.7") == f"3.14.7-{path.stem}"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[pyhton]\n", "unknown key `pyhton`", "did you mean `python`?"),
        ("[python]\nverson = '3'\n", "unknown key `python.verson`", "did you mean `version`?"),
        ("[image]\nqqqq = 1\n", "unknown key `image.qqqq`", "known keys here: tag"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_a_suggestion(text: str, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text.encode())
    assert caught.value.message == message
    assert caught.value.at == "x.toml"
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    "text",
    ["= 1", "\xff", "name = 1", "name = 'x'", "name = '../x'\n[python]\nversion='3.14'\n[image]\ntag='x'",
     "name='x'\n[python]\nversion=3.14\n[image]\ntag='x'", "name='x'\n[python]\nversion='latest'\n[image]\ntag='x'",
     "name='x'\n[python]\nversion='3.14'\nvariant='fast'\n[image]\ntag='x'"],
)  # fmt: skip
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(text.encode("latin-1"))
    assert caught.value.exit_code == 3


def test_overrides_take_the_place_of_what_the_file_says() -> None:
    recipe = parse(SMALL, "python.version=3.14.7", "python.pip=false", 'base.packages=["a", "b"]', "image.env.A=b=c")
    assert recipe.python.version == "3.14.7"
    assert recipe.python.pip is False
    assert recipe.base.packages == ("a", "b")
    assert recipe.image.env == {"A": "b=c"}


@pytest.mark.parametrize("override", ["x", "=1", "a..b=1", "name.x=1", "base.packages=[1", "python.verson=3.14"])
def test_a_bad_override_is_refused(override: str) -> None:
    with pytest.raises(RecipeError):
        parse(SMALL, override)


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    assert parse().digest == parse(b"# comment\n" + SMALL).digest
    assert parse().digest != parse(SMALL, "python.version=3.14.7").digest


def test_a_tag_with_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(RecipeError):
        parse(SMALL, "image.tag={nonsense}").tag("3.14.7")


def lock(**changes: object) -> Lock:
    package = LockedPackage(
        name="a", version="1", architecture="amd64", sets=("runtime", "toolchain"), url="u", size=1, sha256="0" * 64
    )
    made = Lock(
        schema=SCHEMA,
        recipe=str(parse().digest),
        platform="linux/amd64",
        epoch=5,
        release=(LockedRelease(archive="debian", suite="s", codename="s", date=1, digest="d", signers=("f",)),),
        source=(LockedSource(name="cpython", version="3.14.7", urls=("u",), size=1, sha256="1" * 64),),
        package=(package,),
    )
    return msgspec.structs.replace(made, **changes)


def test_a_lock_reads_back_as_it_was_written() -> None:
    assert Lock.parse(lock().to_bytes(), at="l") == lock()


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", lock(schema=99).to_bytes(), lock().to_bytes() + b"\n[new]\n",
     lock().to_bytes().replace(b"0" * 64, b"0" * 63)],
)  # fmt: skip
def test_a_lock_that_is_none_is_refused_with_the_way_out(data: bytes) -> None:
    with pytest.raises(LockError) as caught:
        Lock.parse(data, at="l")
    assert "ocibuild lock" in (caught.value.hint or "")


def test_a_lock_belongs_to_one_recipe_and_platform() -> None:
    assert lock().matches(parse().digest, "linux/amd64")
    assert not lock().matches(parse().digest, "linux/arm64")
    assert not lock().matches(parse(SMALL, "base.security=false").digest, "linux/amd64")


def keys(plan: Step) -> dict[str, Digest]:
    return {step.title: step.key for step in plan.walk()}


def test_the_same_recipe_and_lock_give_the_same_keys() -> None:
    assert keys(make_plan(parse(), lock())) == keys(make_plan(parse(), lock()))


def test_where_a_package_was_fetched_from_is_in_no_key() -> None:
    moved = tuple(msgspec.structs.replace(package, url="elsewhere") for package in lock().package)
    assert make_plan(parse(), lock()).key == make_plan(parse(), lock(package=moved)).key


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("image.cmd=['sh']", {"image x"}),
        (
            "python.pyc=none",
            {"compile CPython 3.14.7 (plain)", "pack the python layer", "pack the pip layer", "image x"},
        ),
    ],
)
def test_a_key_changes_with_what_it_depends_on_and_nothing_else(override: str, changed: set[str]) -> None:
    before, after = keys(make_plan(parse(), lock())), keys(make_plan(parse(SMALL, override), lock()))
    assert {title for title in before if before[title] != after[title]} == changed


def test_a_changed_package_changes_all_that_rests_on_it() -> None:
    other = tuple(msgspec.structs.replace(package, sha256="2" * 64) for package in lock().package)
    before, after = make_plan(parse(), lock()), make_plan(parse(), lock(package=other))
    assert not {s.key for s in before.walk()} & {s.key for s in after.walk()}


def test_steps_come_after_their_inputs_and_once() -> None:
    seen: set[Digest] = set()
    for step in make_plan(parse(), lock()).walk():
        assert step.key not in seen
        assert all(before.key in seen for before in step.inputs)
        seen.add(step.key)
