"""Which builds are laid out, by which commands, and what is taken for counts."""

from __future__ import annotations

import pytest

from builder.python.flags import Options
from builder.python.layout import canonical, check, layout_commands, settled
from builder.python.lines import line_of
from builder.python.packages import packages_for
from rootfs.errors import IntegrityError, RecipeError
from tests.fakes.profile import COUNTS

LED = Options(variant="optimized-lto")


def came_to(
    wanted: str, options: Options = LED, *, version: str = "3.14", suite: str = "trixie", architecture: str = "amd64"
) -> str:
    return settled(wanted, line_of(version), options, suite=suite, architecture=architecture)


def test_a_build_that_is_led_by_a_profile_can_have_it() -> None:
    assert (came_to("none"), came_to("bolt"), came_to("auto")) == ("none", "bolt", "none")
    assert came_to("auto", Options(variant="optimized"), version="3.13") == "bolt"


@pytest.mark.parametrize(
    ("options", "place", "because"),
    [
        (Options(), {}, "variant is plain"),
        (Options(variant="optimized", compiler="clang"), {}, "compiler is clang"),
        (LED, {"version": "3.11"}, "from 3.12 on; this is 3.11"),
        (Options(variant="optimized", shared=True), {}, "python.shared"),
        (Options(variant="optimized", free_threaded=True, jit=True), {}, "python.free_threaded or python.jit"),
        (LED, {"architecture": "arm64"}, "this is arm64"),
        (LED, {"suite": "bookworm"}, "this is bookworm"),
    ],
    ids=str,
)
def test_where_it_cannot_be_had_auto_does_without_and_bolt_is_refused(
    options: Options, place: dict[str, str], because: str
) -> None:
    assert came_to("auto", options, **place) == came_to("none", options, **place) == "none"
    with pytest.raises(RecipeError, match=r"python\.layout") as caught:
        came_to("bolt", options, **place)
    assert because in (caught.value.because or "")
    assert "auto" in (caught.value.hint or "")


def test_its_package_is_part_of_the_toolchain_when_it_is_wanted() -> None:
    assert "bolt-19" in packages_for("trixie", bolt=True).toolchain
    assert not any("bolt" in name for name in packages_for("trixie").toolchain)


def test_the_program_that_counts_is_made_from_the_one_that_is_laid_out() -> None:
    said = layout_commands(line_of("3.13"))
    assert said.equip[:2] == said.arrange[:2] == ("llvm-bolt", "/usr/local/bin/python3.13")
    assert "-instrument" in said.equip
    assert "-data=layout.fdata" in said.arrange
    assert "lib/python3.13/lib-dynload/*.so" in said.strip[-1]


def test_counts_are_sorted_and_rare_branches_left_out() -> None:
    rare = b"1 f/1 a 1 f/1 c 0 9\n"
    lines = COUNTS.splitlines(keepends=True)
    assert canonical(b"".join((*reversed(lines), rare)), at="x") == COUNTS
    assert canonical(COUNTS, at="x") == COUNTS


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"x\n", COUNTS + b"1 f 0 1 g 0 5\n", COUNTS + b"1 f zz 1 g 0 0 5\n", COUNTS.replace(b" ", b"\0"),
     b"no_lbr cycles\n", COUNTS + b"1 f 0 1 g 0 0 -5\n", b"\x7fELF"],
)  # fmt: skip
def test_what_is_no_counts_is_refused(data: bytes) -> None:
    check(COUNTS, at="x")
    with pytest.raises(IntegrityError, match="not counts") as caught:
        check(data, at="here")
    assert caught.value.at == "here"
