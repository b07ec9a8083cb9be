"""The counters of a profile: what may be in one, and how two are compared."""

from __future__ import annotations

import io
import tarfile

import pytest

from builder.python.counters import compare, members
from rootfs.errors import IntegrityError
from tests.fakes.profile import ARCS, SMALL, TIME, TOPN, gcda, profile


def tar_of(member: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(member)
    return data.getvalue()


def named(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return tar_of(member)


def test_a_profile_is_its_counters_by_path() -> None:
    assert sorted(members(SMALL, at="x")) == ["Objects/list.gcda", "Python/x.gcda"]
    assert members(SMALL, at="x")["Python/x.gcda"] == gcda({2: {}})
    assert list(members(profile({"code.profclangd": b"any"}), at="x")) == ["code.profclangd"]


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (b"no tar", ""),
        (SMALL[:1700], "unexpected end of data"),
        (bytes(1024), "it holds no counters"),
        (profile({"a.gcda": b"", "Modules/main.c": b""}), "it holds Modules/main.c, and that is no counter"),
        (named("a.gcda", tarfile.SYMTYPE, "/etc/passwd"), "it holds a.gcda, and that is no counter"),
        (named("a.gcda", tarfile.LNKTYPE, "b.gcda"), "it holds a.gcda, and that is no counter"),
        (named("a.gcda", tarfile.FIFOTYPE), "it holds a.gcda, and that is no counter"),
    ],
)
def test_a_tar_of_anything_else_is_no_profile(data: bytes, because: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        members(data, at="x")
    assert caught.value.message == "not a profile"
    assert because in (caught.value.because or "")


def test_a_path_that_leaves_the_build_directory_is_refused() -> None:
    with pytest.raises(IntegrityError):
        members(named("../a.gcda"), at="x")


def test_a_profile_is_identical_with_itself() -> None:
    found = compare(SMALL, SMALL)
    assert (found.identical, found.differing, found.only_in_one) == (2, (), ())
    assert (found.counters, found.counters_differing) == (4, 0)
    assert str(found) == "all 2 files are identical"


@pytest.mark.parametrize("version", [b"*24B", b"*22B", b"*20A"])  # GCC 14.2, 12.2, and 10.2, which counts in words
def test_counters_that_differ_are_counted_by_kind(version: bytes) -> None:
    first = profile({"a.gcda": gcda({1: {ARCS: (7, 0, 5), TIME: (3,)}, 2: {ARCS: (0, 0)}}, version)})
    second = profile({"a.gcda": gcda({1: {ARCS: (7, 1, 6), TIME: (3,)}, 2: {ARCS: (0, 0)}}, version)})
    found = compare(first, second)
    assert (found.identical, found.differing) == (0, ("a.gcda",))
    assert found.counters == 6
    assert found.kinds == {"arcs": (5, 2), "time profiler": (1, 0)}
    assert str(found) == "0 of 1 files are identical, 1 differ; 2 of 6 counters differ (2 of 5 arcs)"


def test_the_order_in_which_values_were_merged_is_no_difference() -> None:
    first = profile({"a.gcda": gcda({1: {TOPN: (10, 2, 111, 6, 222, 4, 0, 0)}})})
    second = profile({"a.gcda": gcda({1: {TOPN: (10, 2, 222, 4, 111, 6, 0, 0)}})})
    third = profile({"a.gcda": gcda({1: {TOPN: (10, 2, 222, 6, 111, 4, 0, 0)}})})
    assert compare(first, second).differing == ("a.gcda",)
    assert compare(first, second).kinds == {"topn": (2, 0)}
    assert compare(first, second).in_bytes_only == 1
    assert "1 differ (1 in bytes only); 0 of 2 counters" in str(compare(first, second))
    assert compare(first, third).kinds == {"topn": (2, 1)}
    assert compare(first, third).in_bytes_only == 0


def test_a_function_that_is_missing_counted_nothing() -> None:
    both = profile({"a.gcda": gcda({1: {ARCS: (1,)}, 2: {ARCS: (0, 4)}})})
    one = profile({"a.gcda": gcda({1: {ARCS: (1,)}})})
    assert compare(both, one).kinds == compare(one, both).kinds == {"arcs": (3, 1)}


def test_files_of_one_profile_only_are_named() -> None:
    other = profile({"Objects/list.gcda": gcda({1: {ARCS: (7, 0, 5), TIME: (3,)}}), "new.gcda": gcda({})})
    found = compare(SMALL, other)
    assert (found.identical, found.only_in_one) == (1, ("Python/x.gcda", "new.gcda"))
    assert str(found) == "1 of 3 files are identical, 0 differ, 2 are in one only; 0 of 4 counters differ"
    assert found.to_value()["files"] == {
        "identical": 1,
        "differing": [],
        "in_bytes_only": 0,
        "only_in_one": ["Python/x.gcda", "new.gcda"],
    }


GOOD = gcda({1: {TOPN: (10, 1, 111, 6)}})


@pytest.mark.parametrize(
    "data",
    [b"", b"gcda" + GOOD[4:], GOOD[:10], GOOD[:-30], GOOD.replace(b"\n\0\0\0\0\0\0\0\1", b"\n\0\0\0\0\0\0\0\3")],
    ids=["empty", "big-endian", "cut in the header", "cut in a record", "a list that is too long"],
)
def test_a_file_that_holds_no_counters_cannot_be_compared(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        compare(profile({"a.gcda": data}), profile({"a.gcda": GOOD}))
    assert caught.value.at == "a.gcda"
