"""Package names by suite and by what is asked for."""

from __future__ import annotations

import pytest

from builder.python.lines import LINES, line_of
from builder.python.packages import packages_for
from rootfs.errors import RecipeError


@pytest.mark.parametrize(
    ("suite", "ssl", "readline"),
    [
        ("bullseye", "libssl1.1", "libreadline8"),
        ("bookworm", "libssl3", "libreadline8"),
        ("trixie", "libssl3t64", "libreadline8t64"),
    ],
)
def test_libraries_have_the_names_of_their_suite(suite: str, ssl: str, readline: str) -> None:
    packages = packages_for(suite)
    assert {ssl, readline, "libc6", "libbz2-1.0"} <= set(packages.libraries)
    assert packages.runtime == (*packages.libraries, *packages.data)
    assert {"gcc", "g++", "make", "libssl-dev"} <= set(packages.toolchain)
    assert len(set(packages.toolchain)) == len(packages.toolchain)


def test_every_suite_of_every_line_has_its_packages() -> None:
    for line in LINES:
        for suite in line.suites:
            assert packages_for(suite, line).libraries


def test_a_line_brings_the_libraries_of_the_modules_it_has() -> None:
    new, old = packages_for("trixie", line_of("3.14")), packages_for("bullseye", line_of("2.7"))
    assert "libzstd1" in new.libraries
    assert not {"libcrypt1", "libdb5.3t64"} & set(new.libraries)
    assert {"libcrypt1", "libdb5.3"} <= set(old.libraries)
    assert "libzstd1" not in old.libraries
    assert "libdb-dev" in old.toolchain


def test_tk_clang_and_the_jit_come_when_asked_for() -> None:
    plain = packages_for("trixie", line_of("3.14"))
    more = packages_for("trixie", line_of("3.14"), tkinter=True, clang=True, jit=True)
    assert set(more.toolchain) - set(plain.toolchain) == {
        *("tk-dev", "clang-19", "libclang-rt-19-dev", "lld-19", "llvm-19", "python3")
    }
    on_sid = packages_for("sid", line_of("3.14"), clang=True, jit=True)
    assert {"clang-19", "clang-21"} <= set(on_sid.toolchain)
    assert set(more.libraries) - set(plain.libraries) == {"libtcl8.6", "libtk8.6"}
    assert plain.llvm == "19"
    assert (plain.foreign, more.foreign) == ((), ("lib32stdc++6", "libc6-i386"))


@pytest.mark.parametrize(
    ("suite", "version", "message"),
    [("trixie", "3.15", "cannot be made on trixie"), ("bullseye", "2.7", "without a JIT")],
)
def test_a_jit_that_cannot_be_made_is_refused(suite: str, version: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        packages_for(suite, line_of(version), jit=True)


def test_a_suite_without_a_table_is_refused() -> None:
    with pytest.raises(RecipeError, match="no table of packages for the suite buster"):
        packages_for("buster")
