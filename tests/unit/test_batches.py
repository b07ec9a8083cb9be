"""The order in which dpkg gets packages."""

from __future__ import annotations

import pytest

from rootfs.debian.batches import batches
from rootfs.debian.package import Package


def package(name: str, **fields: str) -> Package:
    lines = [f"{field.replace('_', '-')}: {value}\n" for field, value in fields.items()]
    return Package.parse(f"Package: {name}\nVersion: 1\nArchitecture: all\n{''.join(lines)}")


BASE = package("base", Essential="yes", Depends="libc, shell")
LIBC = package("libc")
SHELL = package("dash", Provides="shell")

CASES = {
    "essential, what it needs, then the others": (
        [package("x", Depends="base"), BASE, SHELL, LIBC],
        [("base", "dash", "libc"), ("x",)],
    ),
    "a pre-dependency is configured before": (
        [BASE, LIBC, SHELL, package("b"), package("a", Pre_Depends="b")],
        [("base", "dash", "libc"), ("b",), ("a",)],
    ),
    "what depends on what must wait waits too": (
        [package("user", Depends="late"), package("late", Pre_Depends="early"), package("early")],
        [("early",), ("late", "user")],
    ),
    "a circle of Depends is one batch": (
        [package("a", Depends="b"), package("b", Depends="a")],
        [("a", "b")],
    ),
    "a circle of Pre-Depends is dpkg's trouble": (
        [package("a", Pre_Depends="b"), package("b", Pre_Depends="a"), package("c")],
        [("c",), ("a", "b")],
    ),
    "any alternative will do": (
        [package("a", Pre_Depends="none | b"), package("b"), package("c", Depends="z | a")],
        [("b",), ("a", "c")],
    ),
    "a need that nobody meets is nobody's": ([package("a", Pre_Depends="gone")], [("a",)]),
    "nothing": ([], []),
}


@pytest.mark.parametrize(("packages", "expected"), CASES.values(), ids=CASES.keys())
def test_order(packages: list[Package], expected: list[tuple[str, ...]]) -> None:
    assert list(batches(packages)) == expected
