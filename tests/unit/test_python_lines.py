"""What is known of each line of CPython, and on which suite it is built."""

from __future__ import annotations

import pytest

from builder.python.lines import LINES, line_of, suite_for
from rootfs.errors import RecipeError


def test_every_line_from_2_7_to_3_15_is_there_newest_first() -> None:
    names = ["2.7", *(f"3.{minor}" for minor in range(5, 16))]
    assert [line.name for line in LINES] == names[::-1]
    assert all(line.suites and line.openssl for line in LINES)


@pytest.mark.parametrize(
    ("version", "name"), [("3.14", "3.14"), ("3.14.7", "3.14"), ("3.15.0rc1", "3.15"), ("2.7.18", "2.7")]
)
def test_a_version_belongs_to_its_line(version: str, name: str) -> None:
    assert line_of(version).name == name


@pytest.mark.parametrize("version", ["3.4", "3.16", "3", "", "latest", "3.1.4"])
def test_a_line_that_is_not_known_is_refused(version: str) -> None:
    with pytest.raises(RecipeError, match="no line of CPython"):
        line_of(version)


@pytest.mark.parametrize(
    ("option", "having"),
    [
        ("--enable-unicode=ucs4", ["2.7"]),
        ("--disable-test-modules", ["3.15", "3.14", "3.13", "3.12", "3.11", "3.10"]),
        ("--disable-gil", ["3.15", "3.14", "3.13"]),
        ("--with-tail-call-interp", ["3.15", "3.14"]),
        ("--with-computed-gotos", [line.name for line in LINES]),
    ],
)
def test_which_lines_know_an_option(option: str, having: list[str]) -> None:
    assert [line.name for line in LINES if line.knows(option)] == having


def test_each_line_is_given_only_options_that_it_knows() -> None:
    for line in LINES:
        assert all(line.knows(argument) for argument in line.configure)
    assert line_of("2.7").configure == ("--without-ensurepip", "--with-system-ffi", "--enable-unicode=ucs4")
    assert "--without-static-libpython" in line_of("3.14").configure


def test_modules_come_and_go() -> None:
    assert [line.name for line in LINES if line.has("lib2to3") and line.has("zoneinfo")] == [
        "3.12",
        "3.11",
        "3.10",
        "3.9",
    ]
    assert line_of("2.7").has("bsddb")
    assert not line_of("2.7").has("asyncio")
    assert all(line.has("json") for line in LINES)


def test_a_training_names_every_test_and_is_seeded() -> None:
    new, middle, old = (line_of(version).training for version in ("3.14", "3.9", "2.7"))
    assert new.command()[:4] == ("-m", "test", "--pgo", "test_array")
    assert middle.command()[:4] == ("-m", "test", "--pgo", "--randseed=1")
    assert old.command()[:5] == ("-m", "test.regrtest", "-r", "--randseed=1", "test_array")
    assert {"test_str", "test_patma", "test_sqlite3"} <= set(new.tests)
    assert {"test_unicode", "test_sqlite"} <= set(middle.tests)
    assert "test_cpickle" in old.tests
    assert not {"test_lzma", "test_dataclasses"} & set(old.tests)
    for line in LINES:
        assert len(line.training.tests) == len(set(line.training.tests)) > 35
        assert "test_embed" not in line.training.tests


def test_a_test_can_be_left_out_and_a_wrong_name_is_refused() -> None:
    training = line_of("3.14").training
    assert set(training.command()) - set(training.command(["test_time"])) == {"test_time"}
    with pytest.raises(RecipeError, match="not a test of the training") as caught:
        training.command(["test_tim"])
    assert caught.value.hint == "did you mean test_time?"


def test_the_suite_is_the_one_wanted_or_the_lines_own() -> None:
    assert (suite_for("2.7.18"), suite_for("3.14"), suite_for("3.14", "bookworm")) == (
        "bullseye",
        "trixie",
        "bookworm",
    )


@pytest.mark.parametrize(("version", "suite"), [("2.7", "trixie"), ("3.14.7", "bullseye"), ("3.6", "buster")])
def test_a_suite_that_a_line_is_not_built_on_is_refused_with_those_it_is(version: str, suite: str) -> None:
    with pytest.raises(RecipeError, match=f"is not built on {suite}") as caught:
        suite_for(version, suite)
    assert line_of(version).suite in (caught.value.hint or "")
