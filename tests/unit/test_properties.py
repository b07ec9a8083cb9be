"""Properties of what is parsed, written and read again, tried on generated values."""

from __future__ import annotations

import io
import json
import random
import tarfile
from dataclasses import replace
from functools import cmp_to_key

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from rootfs.debian.control import format_stanza, parse_stanza
from rootfs.debian.relation import Relation, parse_relations
from rootfs.debian.tar import members
from rootfs.debian.version import Version
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError
from rootfs.tree import FileEntry, Kind, Slice, Tree, normalise

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy

# Control data

names = st.from_regex(r"[A-Za-z][!-9;-~]{0,11}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=20)
lines = texts.filter(lambda text: text == text.strip(" \t"))
values = st.builds(
    lambda first, more: first + "".join(f"\n {line}" for line in more), lines, st.lists(texts, max_size=3)
)
stanzas = st.dictionaries(names, values, min_size=1, max_size=6)


@unhurried
@given(stanzas)
def test_a_stanza_is_read_as_it_was_written(fields: dict[str, str]) -> None:
    assert parse_stanza(format_stanza(fields)) == fields
    assert list(parse_stanza(format_stanza(fields))) == list(fields)


# Versions

parts = st.text("019azAZ.+~", max_size=6)
versions = st.builds(
    lambda epoch, upstream, revision: f"{epoch}{upstream}{revision}",
    st.sampled_from(["", "0:", "00:", "1:", "10:"]),
    parts.map(lambda text: "1" + text),
    st.one_of(st.just(""), parts.filter(bool).map(lambda text: "-" + text)),
).map(Version.parse)


@unhurried
@given(versions, versions)
def test_of_two_versions_one_is_lower_or_they_are_equal(a: Version, b: Version) -> None:
    assert (a < b) + (a == b) + (b < a) == 1
    assert (a <= b) == (not b < a)
    assert a != b or hash(a) == hash(b)


@unhurried
@given(st.lists(versions, min_size=3, max_size=3))
def test_the_order_of_versions_is_transitive(three: list[Version]) -> None:
    low, middle, high = sorted(three)
    assert low <= middle <= high
    assert low <= high
    assert low != high or low == middle == high


def policy_order(a: str, b: str) -> int:
    """Policy 5.6.12 word by word, for an upstream version: parts without digits and numbers by turns."""

    def weight(text: str) -> int:
        if not text or text[0].isdigit():
            return 0
        return -1 if text[0] == "~" else ord(text[0]) + 256 * (not text[0].isalpha())

    while a or b:
        while (a and not a[0].isdigit()) or (b and not b[0].isdigit()):
            if weight(a) != weight(b):
                return weight(a) - weight(b)
            a, b = a[1:], b[1:]
        digits = [len(text) - len(text.lstrip("0123456789")) for text in (a, b)]
        numbers = [int(text[:count] or "0") for text, count in zip((a, b), digits, strict=True)]
        if numbers[0] != numbers[1]:
            return numbers[0] - numbers[1]
        a, b = a[digits[0] :], b[digits[1] :]
    return 0


@unhurried
@given(st.lists(parts.map(lambda text: "1" + text), max_size=8))
def test_versions_sort_as_the_words_of_policy_sort_them(several: list[str]) -> None:
    assert sorted(several, key=Version.parse) == sorted(several, key=cmp_to_key(policy_order))


# Relations

packages = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,8}", fullmatch=True)
relations = st.builds(
    lambda name, qualifier, constraint: Relation(
        name=name, qualifier=qualifier, operator=constraint[0], version=constraint[1]
    ),
    packages,
    st.sampled_from([None, "any", "native", "amd64"]),
    st.one_of(st.just((None, None)), st.tuples(st.sampled_from(["<<", "<=", "=", ">=", ">>"]), versions)),
)
clauses = st.lists(st.lists(relations, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple)


@unhurried
@given(clauses, st.sampled_from([", ", ",", " ,\n ", ",  "]), st.sampled_from([" | ", "|", "  |\t"]))
def test_relations_are_read_as_they_were_written(field: tuple[tuple[Relation, ...], ...], comma: str, bar: str) -> None:
    assert parse_relations(comma.join(bar.join(map(str, clause)) for clause in field)) == field


@unhurried
@given(versions, versions)
def test_a_constraint_and_its_opposite_are_never_both_satisfied(one: Version, other: Version) -> None:
    for operator, opposite in (("<<", ">="), (">>", "<=")):
        answers = [Relation(name="a", operator=op, version=one).accepts(other) for op in (operator, opposite)]
        assert sorted(answers) == [False, True]
    both = [Relation(name="a", operator=op, version=one).accepts(other) for op in ("<=", ">=")]
    assert Relation(name="a", operator="=", version=one).accepts(other) is all(both)


# Trees

names_of_files = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=6
).filter(lambda name: name not in (".", ".."))
undecodable = st.binary(min_size=1, max_size=6).map(lambda data: data.decode("utf-8", "surrogateescape"))
tree_paths = st.lists(
    st.one_of(names_of_files, undecodable.filter(lambda name: not set(name) & set("/\0."))), min_size=1, max_size=3
)
contents = st.one_of(
    st.binary(max_size=10),
    st.builds(
        Slice, blob=st.binary(max_size=4).map(Digest.of), offset=st.integers(0, 2**40), size=st.integers(0, 2**40)
    ),
)
modes, ids, times = st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**33)
entries = st.builds(
    lambda path, kind, mode, uid, gid, mtime, content, link: FileEntry(
        path="/".join(path),
        kind=kind,
        mode=mode,
        uid=uid,
        gid=gid,
        mtime=mtime,
        content=content if kind is Kind.FILE else b"",
        link=link if kind in (Kind.SYMLINK, Kind.HARDLINK) else "",
    ),
    *(tree_paths, st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK])),
    *(modes, ids, ids, times, contents, names_of_files),
)


@unhurried
@given(st.lists(entries, max_size=6), st.randoms())
def test_a_tree_is_read_as_it_was_written_whatever_the_order(several: list[FileEntry], chance: random.Random) -> None:
    tree = Tree({entry.path: entry for entry in several}.values())
    shuffled = list(tree.values())
    chance.shuffle(shuffled)
    data = tree.to_bytes()
    assert Tree(shuffled).to_bytes() == data
    assert Tree.from_bytes(data) == tree
    assert canonical_json(json.loads(data.decode("utf-8", "surrogateescape"))) == data


@unhurried
@given(st.text("a./\0é", max_size=12))
def test_a_normal_path_is_left_as_it_is(path: str) -> None:
    plain = "/".join(part for part in path.split("/") if part not in ("", "."))
    if ".." in path.split("/") or "\0" in path:
        with pytest.raises(IntegrityError):
            normalise(path)
    else:
        assert normalise(path) == plain == normalise(plain)


# Tar


def tar_member(entry: FileEntry) -> tarfile.TarInfo:
    """The member that Python's own tar writer makes of an entry."""
    flags = {Kind.FILE: tarfile.REGTYPE, Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE}
    info = tarfile.TarInfo(f"./{entry.path}")
    info.type = flags.get(entry.kind, tarfile.LNKTYPE)
    info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
    info.linkname = entry.link
    info.size = entry.size if isinstance(entry.content, bytes) else 0
    return info


@unhurried
@given(st.lists(entries, max_size=6), st.integers(1, 50))
def test_a_tar_that_another_wrote_is_read_member_by_member(several: list[FileEntry], repeat: int) -> None:
    """Names of up to 3,800 bytes too, which GNU tar keeps in members of their own."""
    long = [replace(entry, path="/".join([entry.path] * repeat)) for entry in several]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:
        for entry in long:
            archive.addfile(tar_member(entry), io.BytesIO(entry.content if isinstance(entry.content, bytes) else b""))
    data = stream.getvalue()
    found = list(members(stream, len(data)))
    assert len(found) == len(long)
    for entry, member in zip(long, found, strict=True):
        assert normalise(member.name) == entry.path
        assert (member.kind, member.mode, member.link) == (entry.kind, entry.mode, entry.link)
        assert (member.uid, member.gid, member.mtime) == (entry.uid, entry.gid, entry.mtime)
        content = entry.content if isinstance(entry.content, bytes) else b""
        assert data[member.offset : member.offset + member.size] == content
