"""The table of CPython releases and its look-up."""

from __future__ import annotations

import pytest

from builder.python.versions import RELEASES, find
from rootfs.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.14", "3.14.7"),
        ("3.14.7", "3.14.7"),
        ("3.14.5", "3.14.5"),
        ("3.13", "3.13.15"),
        ("3.12", "3.12.14"),
        ("3.9.2", "3.9.2"),
        ("2.7", "2.7.18"),
        ("3.15", "3.15.0rc2"),  # there is no final one
        ("3.15.0rc1", "3.15.0rc1"),
    ],
)
def test_a_line_is_its_newest_release_and_a_version_is_itself(text: str, version: str) -> None:
    assert find(text).version == version


def test_where_the_source_lies() -> None:
    release = find("3.14.7")
    assert release.upstream == "https://www.python.org/ftp/python/3.14.7/Python-3.14.7.tar.xz"
    assert release.pool == "pool/main/p/python3.14/python3.14_3.14.7.orig.tar.xz"
    assert release.source.hex.startswith("3b48dac8fb59")
    assert (release.line, release.numbers, release.suite) == ("3.14", (3, 14, 7), "trixie")


def test_a_candidate_lies_beside_its_release_and_sorts_before_it() -> None:
    release = find("3.15.0rc1")
    assert release.upstream == "https://www.python.org/ftp/python/3.15.0/Python-3.15.0rc1.tar.xz"
    assert release.pool == "pool/main/p/python3.15/python3.15_3.15.0~rc1.orig.tar.xz"
    assert (release.line, release.numbers, release.is_final) == ("3.15", (3, 15, 0), False)
    assert find("3.14.7").order < release.order < (3, 15, 0, 3, 0)


def test_an_old_source_may_be_a_tgz() -> None:
    release = find("2.7.18")
    assert release.upstream == "https://www.python.org/ftp/python/2.7.18/Python-2.7.18.tgz"
    assert release.pool == "pool/main/p/python2.7/python2.7_2.7.18.orig.tar.gz"
    assert (release.file_name, release.suite) == ("Python-2.7.18.tgz", "bullseye")


def test_what_is_built_here_has_a_source_in_the_pool_and_a_size() -> None:
    pooled = {release.line for release in RELEASES if release.pool}
    assert pooled == {"2.7", "3.9", "3.11", "3.13", "3.14", "3.15"} == {r.line for r in RELEASES if r.facts.built}
    assert all((release.size is None) == (not release.pool) for release in RELEASES)
    assert {r.line for r in RELEASES} == {"2.7", *(f"3.{minor}" for minor in range(5, 16))}


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("3.14.9", "3.14.7"),
        ("3.16", "3.15.0rc2"),
        ("3.13.6", "3.13.5"),
        ("2.7.17", "2.7.18"),
        ("3.14.7.1", "3.14.7"),
        ("latest", "2.7.18"),
        ("3.²", "3.5.10"),
        ("", "2.7.18"),
    ],
)
def test_what_is_not_known_names_the_nearest_first(text: str, nearest: str) -> None:
    with pytest.raises(RecipeError, match="is not known") as caught:
        find(text)
    assert (caught.value.hint or "").startswith(f"known releases: {nearest}")
    assert all(release.version in (caught.value.hint or "") for release in RELEASES)


def test_the_table_is_newest_first_without_repeats() -> None:
    orders = [release.order for release in RELEASES]
    assert orders == sorted(set(orders), reverse=True)
    assert len({release.source for release in RELEASES}) == len(RELEASES)
