"""The table of CPython releases and its look-up."""

from __future__ import annotations

import pytest

from builder.python.versions import RELEASES, find
from rootfs.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "version"), [("3.14", "3.14.7"), ("3.14.7", "3.14.7"), ("3.14.5", "3.14.5"), ("3.13", "3.13.15")]
)
def test_a_line_is_its_newest_release_and_a_version_is_itself(text: str, version: str) -> None:
    assert find(text).version == version


def test_where_the_source_lies() -> None:
    release = find("3.14.7")
    assert release.upstream == "https://www.python.org/ftp/python/3.14.7/Python-3.14.7.tar.xz"
    assert release.pool == "pool/main/p/python3.14/python3.14_3.14.7.orig.tar.xz"
    assert release.source.hex.startswith("3b48dac8fb59")
    assert (release.line, release.numbers, release.suite) == ("3.14", (3, 14, 7), "trixie")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("3.14.9", "3.14.7"),
        ("3.15", "3.14.5"),
        ("3.13.6", "3.13.5"),
        ("3.12", "3.13.5"),
        ("2.7.18", "3.13.15"),
        ("3.14.7.1", "3.14.7"),
        ("latest", "3.13.5"),
        ("3.²", "3.13.5"),
        ("", "3.13.5"),
    ],
)
def test_what_cannot_be_built_names_the_nearest_first(text: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match="cannot be built yet") as caught:
        find(text)
    assert (caught.value.hint or "").startswith(f"known releases: {nearest}")
    assert all(release.version in (caught.value.hint or "") for release in RELEASES)


def test_the_table_is_newest_first_without_repeats() -> None:
    numbers = [release.numbers for release in RELEASES]
    assert numbers == sorted(set(numbers), reverse=True)
    assert len({release.source for release in RELEASES}) == len(RELEASES)
