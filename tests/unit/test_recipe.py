"""Recipes, locks and plans: what is read, what is refused, and what a key depends on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from builder.app import find_recipe
from builder.lock import SCHEMA, Lock, LockedPackage, LockedProfile, LockedRelease, LockedSource
from builder.oci.layer import parse_compression
from builder.plan import Step, commands_of, count_step, make_plan, rules_of, slim_parameters, train_step
from builder.python.versions import find
from builder.recipe import Recipe
from rootfs.digest import Digest
from rootfs.errors import LockError, RecipeError

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
SMALL = b'name = "x"\n[base]\nsuite = "trixie"\n[python]\nversion = "3.14"\n[image]\ntag = "{version}-x"\n'


def parse(data: bytes = SMALL, *overrides: str) -> Recipe:
    return Recipe.parse(data, at="x.toml", overrides=overrides)


@pytest.mark.parametrize("path", [p for p in RECIPES if ".lock" not in p.name], ids=lambda path: path.stem)
def test_the_shipped_recipes_are_recipes(path: Path) -> None:
    recipe = Recipe.parse(path.read_bytes(), at=str(path))
    assert recipe.name == path.stem
    assert recipe.tag("3.14.7").startswith("3.14.7-wee")
    flavours = ("-nano", "-build")
    named = "" if recipe.python.variant == "plain" else f"-{recipe.python.variant}"
    assert recipe.tag("3.14.7").endswith((named, *flavours) if recipe.name.endswith(flavours) else named)
    assert commands_of(recipe, find(recipe.python.version).version).compile
    assert rules_of(slim_parameters(recipe.base))
    assert recipe.python.layout == ("auto" if recipe.name == "wee-lto" else "none")
    assert parse_compression(recipe.image.compression)


def test_a_level_that_a_compression_has_not_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(SMALL)
    for said in ("gzip:13", "zstd:23", "zstd:0"):
        with pytest.raises(RecipeError, match="no such level"):
            find_recipe(str(tmp_path / "x.toml"), overrides=[f"image.compression={said}"])


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


@pytest.mark.parametrize(
    ("override", "known"),
    [
        ("python.variant=fast", "known: plain, optimized, optimized-lto"),
        ("python.compiler=tcc", "known: gcc, clang"),
        ("python.modules=['tk']", "known: tkinter"),
        ("python.layout=best", "known: none, bolt, auto"),
        ("base.variant=tiny", "known: custom, essential, apt, minbase"),
    ],
)
def test_a_word_that_is_none_of_a_keys_names_those_that_are(override: str, known: str) -> None:
    with pytest.raises(RecipeError, match="not as it must be") as caught:
        parse(SMALL, override)
    assert caught.value.hint == known


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


def test_what_a_layout_comes_to_is_settled_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(SMALL)

    def layout(*overrides: str) -> str:
        return find_recipe(str(tmp_path / "x.toml"), overrides=overrides).recipe.python.layout

    assert layout("python.layout=auto") == layout() == "none"
    assert layout("python.layout=auto", "python.variant=optimized") in ("none", "bolt")  # as this machine has it
    with pytest.raises(RecipeError, match="bolt cannot be had"):
        layout("python.layout=bolt")


def test_the_digest_is_of_what_is_said_not_of_how() -> None:
    assert parse().digest == parse(b"# comment\n" + SMALL).digest
    assert parse().digest != parse(SMALL, "python.version=3.14.7").digest


def test_keys_that_came_later_count_only_when_they_say_something() -> None:
    """A lock made before there was such a key still fits."""
    assert "layering" not in parse().image.said
    assert parse().digest == parse(SMALL, "image.layering=parts", "image.budget=10").digest
    assert parse().digest == Digest.of_value(
        msgspec.to_builtins(parse())
        | {"python": {n: v for n, v in msgspec.to_builtins(parse().python).items() if n != "layout"}}
        | {"image": {n: v for n, v in msgspec.to_builtins(parse().image).items() if n in OLDER}}
    )
    assert parse().digest == parse(SMALL, "python.layout=none").digest
    for override in (
        "python.layout=bolt",
        "image.layering=packages",
        "image.budget=3",
        "image.stop_signal=SIGINT",
        'image.expose=["1/tcp"]',
    ):
        assert parse(SMALL, override).digest != parse().digest


OLDER = ("tag", "compression", "entrypoint", "cmd", "env", "labels", "user", "workdir")


@pytest.mark.parametrize(
    "text",
    [
        'annotations = { "org.opencontainers.image.licenses" = "MIT," }',
        'annotations = { "org.opencontainers.image.licence" = "MIT" }',
        'annotations = { "org.opencontainers.image.created" = "today" }',
        'expose = ["80"]',
        'volumes = ["data"]',
        'stop_signal = "TERM"',
        "budget = 0",
        "budget = 101",
        'layering = "files"',
        "healthcheck = { test = [] }",
        'healthcheck = { test = ["x"], interval = "1s" }',
    ],
)
def test_an_image_that_says_nonsense_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="image") as caught:
        parse(SMALL + text.encode())
    assert caught.value.at == "x.toml"


def test_by_package_all_layers_are_one_step() -> None:
    def kinds(*overrides: str) -> list[str]:
        recipe = parse(SMALL, *overrides)
        return [step.kind for step in make_plan(recipe, lock(recipe=str(recipe.digest))).inputs]

    assert kinds() == ["layer", "layer", "layer"]
    assert kinds("image.layering=packages") == ["layers"]
    keys = {
        make_plan(parse(SMALL, "image.layering=packages", f"image.budget={budget}"), lock()).inputs[0].key
        for budget in (5, 10)
    }
    assert len(keys) == 2


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
    assert Lock.parse(lock(profile=profile()).to_bytes(), at="l") == lock(profile=profile())


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", lock(schema=99).to_bytes(), lock().to_bytes() + b"\n[new]\n",
     lock().to_bytes().replace(b"0" * 64, b"0" * 63),
     lock().to_bytes() + b"[profile]\ndigest = 'x'\nsource = ''\ncommands = ''\ncompiler = []\nheaders = []\n"],
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


LAYERS = {"pack the python layer", "pack the pip layer", "image x"}
INSTALLED = {"install CPython 3.14.7", *LAYERS}
COMPILED = {"compile CPython 3.14.7 (plain)", *INSTALLED}
CONFIGURED = {"configure CPython 3.14.7", *COMPILED}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("image.cmd=['sh']", {"image x"}),
        ("python.pyc=none", INSTALLED),
        ("python.without=['sqlite3']", INSTALLED),
        ("python.march=x86-64-v3", COMPILED),
        ("python.configure=['--with-dtrace']", CONFIGURED),
        ("python.free_threaded=true", CONFIGURED),
        ("python.training=parallel", set()),
        ("python.train_without=['test_re']", set()),
    ],
)
def test_a_key_changes_with_what_it_depends_on_and_nothing_else(override: str, changed: set[str]) -> None:
    before, after = keys(make_plan(parse(), lock())), keys(make_plan(parse(SMALL, override), lock()))
    assert {title for title in before if before[title] != after[title]} == changed


def profile(digest: str = "a") -> LockedProfile:
    return LockedProfile(
        digest="sha256:" + digest * 64, source="1" * 64, commands="sha256:" + "b" * 64, compiler=("gcc 14",), headers=()
    )


def led(*overrides: str) -> Recipe:
    """A recipe of a build that is led by a profile."""
    return parse(SMALL, "python.variant=optimized-lto", *overrides)


def kinds(step: Step) -> list[str]:
    return [step.kind for step in step.walk() if step.kind != "fragment"]


def test_a_build_that_is_led_by_a_profile_trains_none() -> None:
    assert kinds(make_plan(led(), lock(profile=profile()))) == kinds(make_plan(parse(), lock()))
    assert kinds(make_plan(parse(), lock())) == [
        *("rootfs", "layer", "rootfs", "configure", "compile", "install", "layer", "layer", "image"),
    ]


def test_a_training_ends_with_the_profile() -> None:
    assert kinds(train_step(led(), lock())) == ["rootfs", "configure", "instrument", "train"]


def laid_out(layout: str = "") -> Lock:
    """A lock with counts to lay an interpreter out by."""
    return lock(profile=msgspec.structs.replace(profile(), layout=layout or "sha256:" + "d" * 64))


def test_an_interpreter_is_laid_out_between_compile_and_install() -> None:
    recipe = led("python.layout=bolt")
    made = kinds(make_plan(recipe, laid_out()))
    assert made[made.index("compile") :][:3] == ["compile", "arrange", "install"]
    assert kinds(count_step(recipe, lock(profile=profile()))) == ["rootfs", "configure", "compile", "count"]
    steps = {step.kind: step for step in make_plan(recipe, laid_out()).walk()}
    counted = {step.kind: step for step in count_step(recipe, laid_out()).walk()}
    assert steps["compile"].key == counted["compile"].key, "what is counted is what is laid out"


def test_without_a_layout_nothing_is_other_than_it_was() -> None:
    """Neither the counts nor what they fit are part of any key; a lock without them has not even the words."""
    assert make_plan(led(), laid_out()).key == make_plan(led(), lock(profile=profile())).key
    assert b"layout" not in lock(profile=profile()).to_bytes()
    assert b"laid" not in lock(profile=profile()).to_bytes()


def test_other_counts_change_no_compile() -> None:
    recipe = led("python.layout=bolt")
    before, after = (keys(make_plan(recipe, laid_out("sha256:" + digest * 64))) for digest in "ef")
    changed = {title for title in before if before[title] != after[title]}
    assert "lay out the interpreter" in changed
    assert "compile CPython 3.14.7 (optimized-lto)" not in changed


def test_a_layout_is_not_planned_without_counts() -> None:
    with pytest.raises(LockError, match="no counts") as caught:
        make_plan(led("python.layout=bolt"), lock(profile=profile()))
    assert "without --locked" in (caught.value.hint or "")


def test_counts_in_a_lock_are_read_back_and_must_be_a_digest() -> None:
    made = laid_out()
    assert Lock.parse(made.to_bytes(), at="l") == made
    with pytest.raises(LockError, match="cannot be read"):
        Lock.parse(made.to_bytes().replace(b"d" * 64, b"d" * 63), at="l")


def test_another_profile_changes_the_compile_and_what_rests_on_it() -> None:
    before, after = (keys(make_plan(led(), lock(profile=profile(digest)))) for digest in "ac")
    compiled = {title.replace("plain", "optimized-lto") for title in COMPILED}
    assert {title for title in before if before[title] != after[title]} == compiled


def test_a_profile_is_no_part_of_a_plain_build_nor_of_the_training() -> None:
    assert make_plan(parse(), lock()).key == make_plan(parse(), lock(profile=profile())).key
    assert train_step(led(), lock()).key == train_step(led(), lock(profile=profile())).key


def test_training_and_build_go_on_from_the_same_configured_source() -> None:
    built = {step.key for step in make_plan(led(), lock(profile=profile())).walk()}
    (configured,) = [step for step in train_step(led(), lock()).walk() if step.kind == "configure"]
    assert configured.key in built


def test_the_trained_variants_share_their_training() -> None:
    assert train_step(led(), lock()).key == train_step(led("python.variant=optimized"), lock()).key


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("python.train_without=['test_re']", {"train"}),
        ("python.training=parallel", {"train"}),
        ("python.march=x86-64-v3", {"train", "compile to count", "configure CPython 3.14.7"}),
        ("python.configure=['--with-dtrace']", {"train", "compile to count", "configure CPython 3.14.7"}),
        ("python.pyc=none", set()),
        ("image.cmd=['sh']", set()),
    ],
)
def test_a_training_changes_with_what_it_depends_on_and_nothing_else(override: str, changed: set[str]) -> None:
    before, after = keys(train_step(led(), lock())), keys(train_step(led(override), lock()))
    assert {title for title in before if before[title] != after[title]} == changed


def test_the_toolchain_of_a_jit_may_run_scripts_and_no_image_does() -> None:
    """Debian's python3 is byte-compiled by its own."""
    said = {
        step.parameters["set"]: step.parameters["scripts"]
        for step in make_plan(parse(SMALL, "python.jit=true"), lock()).walk()
        if step.kind == "rootfs"
    }
    assert said == {"runtime": "native", "toolchain": "run"}


def test_clang_with_a_profile_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(RecipeError, match="cannot be made yet"):
        commands_of(led("python.compiler=clang"), "3.14.7")
    assert "CC=clang" in commands_of(parse(SMALL, "python.compiler=clang"), "3.14.7").configure


@pytest.mark.parametrize("name", ["mmap", "_json"])
def test_a_module_that_is_part_of_a_trained_interpreter_cannot_be_left_out(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} cannot be left out") as caught:
        commands_of(led(f"python.without=['sqlite3', '{name}']"), "3.14.7")
    assert "part of the interpreter" in (caught.value.because or "")
    assert commands_of(parse(SMALL, f"python.without=['{name}']"), "3.14.7").builtin == ()


def test_a_build_that_wants_a_profile_is_not_planned_without_one() -> None:
    """The compiler would only leave its optimisations out, and say nothing."""
    with pytest.raises(LockError, match="names no profile") as caught:
        make_plan(led(), lock())
    assert "ocibuild profile train" in (caught.value.hint or "")


def test_another_pip_changes_what_is_installed() -> None:
    wheel = LockedSource(name="pip", version="25.0", urls=("u",), size=1, sha256="3" * 64)
    with_pip = lock(source=(*lock().source, wheel))
    before, after = keys(make_plan(parse(), lock())), keys(make_plan(parse(), with_pip))
    assert {title for title in before if before[title] != after[title]} == INSTALLED
    other = msgspec.structs.replace(wheel, sha256="4" * 64)
    assert make_plan(parse(), lock(source=(*lock().source, other))).key != make_plan(parse(), with_pip).key


def test_the_platform_and_the_epoch_are_in_every_stage() -> None:
    stages = ("configure", "compile", "install")
    for changed in ({"platform": "linux/arm64"}, {"epoch": 6}):
        before, after = make_plan(parse(), lock()), make_plan(parse(), lock(**changed))
        for kind in stages:
            one, other = (next(step for step in plan.walk() if step.kind == kind) for plan in (before, after))
            assert one.key != other.key
            assert one.parameters != other.parameters


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
