"""Control data, versions, relations and Release files."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rootfs.debian.control import format_stanza, parse_stanza
from rootfs.debian.relation import Relation, parse_relations
from rootfs.debian.release import Release
from rootfs.debian.version import Version
from rootfs.digest import Digest
from rootfs.errors import IntegrityError

STANZA = "Package: a\nVersion: 1\nDescription: short\n long\n .\n more\nConffiles:\n /etc/x 0123\n"


def test_a_stanza_keeps_its_continuation_lines() -> None:
    fields = parse_stanza(STANZA)
    assert fields["Description"] == "short\n long\n .\n more"
    assert fields["Conffiles"] == "\n /etc/x 0123"
    assert format_stanza(fields) == STANZA


@pytest.mark.parametrize("text", [" leading", "no colon", "A: 1\nA: 2", ": x", "A b: c"])
def test_what_is_no_control_data_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        parse_stanza(text)


def test_only_a_newline_ends_a_line_as_for_dpkg() -> None:
    assert parse_stanza("A: 1\x0c2\x852\u20283\nB: 4\n") == {"A": "1\x0c2\x852\u20283", "B": "4"}


def test_versions_sort_as_policy_says() -> None:
    listed = ["0~~", "0~~a", "0~", "0", "0a", "0+", "1.0~beta1", "1.0", "1.0+b1", "1.2", "1.10", "1.10a", "1:0", "2:0~"]
    versions = [Version.parse(text) for text in listed]
    assert all(a < b for a, b in pairwise(versions))


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0-0"), ("0:1", "1"), ("1.00", "1.0"), ("1.0-0", "1.0-00")])
def test_versions_written_differently_can_be_equal(one: str, other: str) -> None:
    assert Version.parse(one) == Version.parse(other)
    assert hash(Version.parse(one)) == hash(Version.parse(other))


@pytest.mark.parametrize("text", ["", "1 0", "a:1", "1_0", "-1", "1:", "é"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Version.parse(text)


numbers = st.text("0123456789abzAZ.+~", min_size=1, max_size=8).map(lambda text: "1" + text)
versions = st.one_of(numbers, st.builds("{}-{}".format, numbers, numbers), st.builds("2:{}".format, numbers))


@pytest.mark.skipif(not shutil.which("dpkg"), reason="dpkg is not installed")
@settings(max_examples=60, deadline=None)
@given(versions, versions)
def test_dpkg_agrees_on_the_order(one: str, other: str) -> None:
    a, b = Version.parse(one), Version.parse(other)
    operator = "lt" if a < b else "eq" if a == b else "gt"
    assert subprocess.run(["dpkg", "--compare-versions", one, operator, other], check=False).returncode == 0


def test_relations_read_as_policy_writes_them() -> None:
    clauses = parse_relations("a (>= 1:2.0~), b:any | c (<< 3) [amd64] <!nocheck>,\n d")
    assert [[str(r) for r in clause] for clause in clauses] == [["a (>= 1:2.0~)"], ["b:any", "c (<< 3)"], ["d"]]


@pytest.mark.parametrize(
    ("relation", "version", "holds"),
    [("a", "1", True), ("a (>= 2)", "1", False), ("a (= 1)", "1-0", True), ("a (<< 1)", "1~", True),
     ("a (>> 1)", "1", False), ("a (<= 1)", "1", True), ("a (< 1)", "1", True)],
)  # fmt: skip
def test_constraints_hold_or_not(relation: str, version: str, holds: bool) -> None:
    assert Relation.parse(relation).accepts(Version.parse(version)) is holds


@pytest.mark.parametrize("text", ["", "A b", "a (1)", "a (>= )", "a (!= 1)", "a |"])
def test_what_is_no_relation_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Relation.parse(text)


RELEASE = """Suite: stable
Codename: trixie
Date: Sat, 12 Sep 2026 07:55:41 UTC
Valid-Until: Sat, 19 Sep 2026 07:55:41 UTC
Acquire-By-Hash: yes
Components: main contrib
Architectures: amd64 arm64
SHA256:
 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/binary-amd64/Packages
"""


def _release(text: str = RELEASE) -> Release:
    return Release.parse(text, digest=Digest.of(b""), signers=("aa",))


def test_a_release_file_is_read() -> None:
    release = _release()
    assert release.date == 1789199741
    assert release.by_hash
    assert release.files["main/binary-amd64/Packages"].digest == Digest.of(b"")


def test_a_release_answers_to_its_suite_and_codename_until_it_expires() -> None:
    release = _release()
    release.expect("trixie", now=release.date)
    release.expect("stable", now=release.date)
    with pytest.raises(IntegrityError, match="another suite"):
        release.expect("bookworm", now=release.date)
    with pytest.raises(IntegrityError, match="expired"):
        release.expect("trixie", now=release.date + 8 * 86400)


@pytest.mark.parametrize("broken", ["Date: today", "SHA256:\n x y z", "Codename: a\nCodename: b"])
def test_a_malformed_release_is_refused(broken: str) -> None:
    name = broken.partition(":")[0]
    lines = [line for line in RELEASE.splitlines() if not line.startswith((name, " "))]
    with pytest.raises(IntegrityError):
        _release("\n".join(lines) + "\n" + broken)
