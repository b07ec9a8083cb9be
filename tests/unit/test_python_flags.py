"""Configure arguments and environments of the variants."""

from __future__ import annotations

import pytest

from builder.python import flags
from rootfs.errors import RecipeError


def test_a_recipes_arguments_come_last() -> None:
    command = flags.configure_command("plain", ("--with-dtrace",))
    assert command[0] == "/build/configure"
    assert command[-1] == "--with-dtrace"
    assert command[:-1] == flags.configure_command("plain")


def test_flags_of_our_own_objects_stay_out_of_sysconfig() -> None:
    compiler_flags = [word for word in flags.configure_command("plain") if "=-" in word]
    assert [word.partition("=")[0] for word in compiler_flags] == ["CFLAGS_NODIST", "LDFLAGS_NODIST"]


@pytest.mark.parametrize("variant", ["optimized", "optimized-lto"])
def test_a_variant_to_come_is_refused_by_name(variant: str) -> None:
    with pytest.raises(RecipeError, match=f"variant {variant} cannot be built yet"):
        flags.configure_command(variant)


def test_an_unknown_variant_names_the_known() -> None:
    with pytest.raises(RecipeError, match="unknown variant: fast") as caught:
        flags.configure_command("fast")
    assert "plain, optimized" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "argument", ["--prefix=/opt", "--enable-shared", "--with-lto", "--with-lto=thin", "CFLAGS_NODIST=-O1"]
)
def test_arguments_that_would_undo_the_design_are_refused(argument: str) -> None:
    with pytest.raises(RecipeError, match=argument) as caught:
        flags.configure_command("plain", ("--with-dtrace", argument))
    assert caught.value.because


def test_the_environment_is_complete_and_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")
    environment = flags.environment(1780000000)
    assert environment["SOURCE_DATE_EPOCH"] == "1780000000"
    assert (environment["PYTHONHASHSEED"], environment["TZ"], environment["LC_ALL"]) == ("0", "UTC", "C.UTF-8")
    assert "CFLAGS" not in environment
    assert environment["ac_cv_broken_nice"] == "no"


def test_jobs() -> None:
    assert flags.make_command(3) == ("make", "-j3")
