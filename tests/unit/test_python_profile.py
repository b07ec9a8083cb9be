"""What a profile fits, and what is said when it does not."""

from __future__ import annotations

import msgspec
import pytest

from builder.lock import SCHEMA, Lock, LockedPackage, LockedProfile, LockedSource
from builder.python.flags import Options, commands
from builder.python.lines import line_of
from builder.python.profile import fitting, misfits, profile_for
from rootfs.digest import Digest

PACKAGES = (
    ("cpp-14-x86-64-linux-gnu", "14.2.0-19"),
    ("gcc", "4:14.2.0-1"),
    ("gcc-14-x86-64-linux-gnu", "14.2.0-19"),
    ("g++-14", "14.2.0-19"),
    ("libc6-dev", "2.41-12"),
    ("libssl-dev", "3.5.1-1"),
    ("make", "4.4.1-2"),
)


def lock(
    *, packages: tuple[tuple[str, str], ...] = PACKAGES, source: str = "1" * 64, sets: tuple[str, ...] = ("toolchain",)
) -> Lock:
    named = (
        LockedPackage(name=name, version=version, architecture="amd64", sets=sets, url="u", size=1, sha256="0" * 64)
        for name, version in packages
    )
    return Lock(
        schema=SCHEMA,
        recipe="sha256:" + "0" * 64,
        platform="linux/amd64",
        epoch=5,
        release=(),
        source=(LockedSource(name="cpython", version="3.14.7", urls=("u",), sha256=source),),
        package=tuple(named),
    )


def profile(made: Lock | None = None, **options: object) -> LockedProfile:
    said = commands(line_of("3.14"), Options(**{"variant": "optimized", **options}))  # type: ignore[arg-type]
    return profile_for(Digest.of(b"counters"), said, made or lock())


def replaced(name: str, version: str) -> Lock:
    return lock(packages=tuple((n, version if n == name else v) for n, v in PACKAGES))


def test_a_profile_fits_what_it_was_trained_for() -> None:
    assert misfits(profile(), profile()) == []


def test_it_names_compilers_and_headers_and_nothing_else() -> None:
    named = profile()
    assert [text.partition(" ")[0] for text in named.compiler] == [
        "cpp-14-x86-64-linux-gnu",
        "gcc",
        "gcc-14-x86-64-linux-gnu",
        "g++-14",
    ]
    assert named.headers == ("libc6-dev 2.41-12", "libssl-dev 3.5.1-1")


@pytest.mark.parametrize(
    "options",
    [{"variant": "optimized-lto"}, {}],
    ids=["link-time optimisation", "the same"],
)
def test_what_only_changes_the_last_stage_takes_the_same_profile(options: dict[str, object]) -> None:
    assert misfits(profile(), profile(**options)) == []


def test_other_packages_and_other_counts_do_not_matter() -> None:
    assert misfits(profile(), profile(replaced("make", "4.5"))) == []
    assert misfits(profile(), profile(lock(packages=(*PACKAGES, ("libgcc-s1", "14"))))) == []
    other = msgspec.structs.replace(profile(), digest=str(Digest.of(b"others")))
    assert misfits(other, profile()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"march": "x86-64-v3"},
        {"configure": ("--with-dtrace",)},
        {"shared": True},
        {"free_threaded": True},
        {"train_without": ("test_re",)},
        {"training": "parallel"},
        {"compiler": "clang"},
    ],
    ids=str,
)
def test_other_commands_are_a_misfit(options: dict[str, object]) -> None:
    assert misfits(profile(), profile(**options)) == ["the commands that configure, compile or train differ"]


def test_another_source_is_named() -> None:
    assert misfits(profile(), profile(lock(source="2" * 64))) == [
        f"CPython's source is {'2' * 64}, trained was {'1' * 64}"
    ]


@pytest.mark.parametrize(
    ("name", "version"), [("gcc-14-x86-64-linux-gnu", "14.2.0-20"), ("gcc", "4:15"), ("libssl-dev", "3.5.2-1")]
)
def test_another_compiler_or_header_is_named_with_both_versions(name: str, version: str) -> None:
    was = dict(PACKAGES)[name]
    assert misfits(profile(), profile(replaced(name, version))) == [
        f"{name} {was} was there",
        f"{name} {version} is there now",
    ]


def test_a_package_that_came_or_went_is_named() -> None:
    more = lock(packages=(*PACKAGES, ("libzstd-dev", "1.5")))
    assert misfits(profile(), profile(more)) == ["libzstd-dev 1.5 is there now"]
    assert misfits(profile(more), profile()) == ["libzstd-dev 1.5 was there"]


def test_what_the_image_runs_on_does_not_matter() -> None:
    runtime = lock(packages=(("libssl-dev", "9"),), sets=("runtime",)).package
    both = msgspec.structs.replace(lock(), package=(*lock().package, *runtime))
    assert misfits(profile(), profile(both)) == []


BOLT = (*PACKAGES, ("bolt-19", "1:19.1.7-3"), ("libbolt-19-dev", "1:19.1.7-3"))


def with_layout(made: Lock | None = None, **options: object) -> LockedProfile:
    said = commands(line_of("3.14"), Options(**{"variant": "optimized", "layout": "bolt", **options}))  # type: ignore[arg-type]
    return profile_for(Digest.of(b"counters"), said, made or lock(packages=BOLT), layout=Digest.of(b"counts"))


def test_the_same_counters_lead_a_build_that_is_laid_out_and_one_that_is_not() -> None:
    assert misfits(profile(), with_layout()) == misfits(with_layout(), profile()) == []
    assert with_layout().counters == profile()
    assert fitting(profile(), with_layout()) == profile()
    assert fitting(with_layout(), profile()) == profile(), "who is not laid out has no use for counts"
    assert fitting(with_layout(), with_layout()) == with_layout()


def test_counts_fit_one_bolt_and_one_compile() -> None:
    newer = with_layout(lock(packages=(*PACKAGES, ("bolt-19", "1:19.1.8-1"))))
    assert misfits(with_layout(), newer) == ["bolt-19 1:19.1.7-3 was there", "bolt-19 1:19.1.8-1 is there now"]
    other = misfits(with_layout(variant="optimized-lto"), with_layout())
    assert [line.partition(" ")[0] for line in other] == ["compile", "compile"]
    for wanted in (newer, with_layout(variant="optimized-lto")):
        assert fitting(with_layout(), wanted) == profile(), "the counters still fit"


def test_nothing_of_a_profile_fits_another_source() -> None:
    other = with_layout(lock(packages=BOLT, source="2" * 64))
    assert fitting(with_layout(), other) is None
    assert fitting(profile(), other) is None
