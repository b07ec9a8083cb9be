"""Slimming rules on small trees; what real dpkg leaves is compared in tests/integration/test_slim.py."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rootfs.errors import RecipeError
from rootfs.sizes import NO_PACKAGE, Row, package_sizes, render, rule_sizes
from rootfs.slim import Saved, _compiled, slim
from rootfs.slimrules import RULES, Rule, named, paths
from rootfs.tree import FileEntry, Kind, Tree, file, symlink
from tests.fakes.store import MemoryStore

DPKG = "etc/dpkg/dpkg.cfg.d/ocibuild-slim"
APT = "etc/apt/apt.conf.d/ocibuild-slim"


def hardlink(path: str, target: str) -> FileEntry:
    return FileEntry(path=path, kind=Kind.HARDLINK, link=target)


def tree(*entries: FileEntry | str) -> Tree:
    return Tree(file(one, b"12345") if isinstance(one, str) else one for one in entries).with_parents()


def leaves(given: Tree) -> list[str]:
    """What is no directory."""
    return [path for path, entry in given.items() if entry.kind is not Kind.DIRECTORY]


WHOLE = tree(
    "etc/apt/apt.conf.d/01old",
    "etc/dpkg/dpkg.cfg.d/old",
    "usr/bin/tool",
    "usr/share/bug/tool/script",
    "usr/share/doc/tool/README",
    "usr/share/doc/tool/copyright",
    "usr/share/doc/tool/examples/one",
    "usr/share/info/tool.info.gz",
    "usr/share/lintian/overrides/tool",
    "usr/share/locale/de/LC_MESSAGES/tool.mo",
    "usr/share/locale/de_AT/LC_MESSAGES/tool.mo",
    "usr/share/locale/del/LC_MESSAGES/tool.mo",
    "usr/share/locale/locale.alias",
    "usr/share/man/de/man1/tool.1.gz",
    "usr/share/man/man1/tool.1.gz",
    "var/lib/dpkg/info/tool.list",
)


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ("docs", ["usr/share/doc/tool/README", "usr/share/doc/tool/examples/one"]),
        ("man", ["usr/share/man/de/man1/tool.1.gz", "usr/share/man/man1/tool.1.gz"]),
        ("info", ["usr/share/info/tool.info.gz"]),
        ("lintian", ["usr/share/lintian/overrides/tool"]),
        ("bug", ["usr/share/bug/tool/script"]),
        ("apt-cache", []),
        ("locale", [f"usr/share/locale/{name}/LC_MESSAGES/tool.mo" for name in ("de", "de_AT", "del")]),
        ("locale:de", ["usr/share/locale/del/LC_MESSAGES/tool.mo"]),
        ("locale:C,en,del", [f"usr/share/locale/{name}/LC_MESSAGES/tool.mo" for name in ("de", "de_AT")]),
    ],
)
def test_a_rule_leaves_out_its_files_and_says_what_that_saves(rule: str, gone: list[str]) -> None:
    slimmed = slim(WHOLE, [named(rule)])
    assert sorted(set(leaves(WHOLE)) - set(slimmed.tree)) == gone
    assert slimmed.saved[named(rule).name].size == 5 * len(gone)
    lost = set(WHOLE) - set(slimmed.tree)
    assert slimmed.saved[named(rule).name].entries == len(lost)


def test_all_rules_together_leave_the_program_and_its_licence() -> None:
    rules = [rule for rule in RULES.values() if rule.name != "programs"]
    slimmed = slim(WHOLE, rules)
    old = {"etc/apt/apt.conf.d/01old", "etc/dpkg/dpkg.cfg.d/old", "usr/share/locale/locale.alias"}
    wanted = {*old, "usr/bin/tool", "usr/share/doc/tool/copyright", "var/lib/dpkg/info/tool.list", DPKG, APT}
    assert set(leaves(slimmed.tree)) == wanted
    assert list(slimmed.saved) == [rule.name for rule in rules]


def test_no_rule_changes_nothing() -> None:
    assert slim(WHOLE, []).tree == WHOLE


def test_the_sections_of_the_manual_stay_as_empty_directories() -> None:
    slimmed = slim(WHOLE, [named("man")]).tree
    assert [path for path in slimmed if path.startswith("usr/share/man")] == ["usr/share/man", "usr/share/man/man1"]


def test_the_last_filter_that_matches_decides() -> None:
    whole = tree("opt/a/x", "opt/a/y", "opt/b/x")
    assert leaves(slim(whole, [paths(exclude=["/opt/*"], include=["*/x"])]).tree) == ["opt/a/x", "opt/b/x"]
    both = [paths(include=["*/x"]), paths(exclude=["/opt/a/*"])]
    assert leaves(slim(whole, both).tree) == ["opt/b/x"]
    assert slim(whole, both).saved == {"paths": Saved(entries=2, size=10)}


def test_a_copyright_file_survives_every_filter() -> None:
    slimmed = slim(WHOLE, [named("docs"), paths(exclude=["/usr/*", "/usr/share/doc/tool/copyright"])]).tree
    assert [path for path in leaves(slimmed) if path.startswith("usr/")] == ["usr/share/doc/tool/copyright"]


def test_a_directory_stays_when_something_in_it_does() -> None:
    slimmed = slim(tree("opt/a/x"), [paths(exclude=["/opt", "/opt/a"])])
    assert list(slimmed.tree) == ["opt", "opt/a", "opt/a/x"]
    assert slimmed.saved["paths"] == Saved()


def test_dpkg_s_database_is_out_of_reach() -> None:
    assert leaves(slim(WHOLE, [paths(exclude=["*"])]).tree) == [
        "usr/share/doc/tool/copyright",
        "var/lib/dpkg/info/tool.list",
    ]


def test_a_hard_link_becomes_the_file_when_that_goes() -> None:
    target = FileEntry(path="a/file", kind=Kind.FILE, mode=0o4755, uid=1, gid=2, mtime=3, content=b"content")
    whole = tree(target, hardlink("a/other", "a/file"), hardlink("b/first", "a/file"), hardlink("b/second", "a/file"))
    slimmed = slim(whole, [paths(exclude=["/a/*"])]).tree
    assert leaves(slimmed) == ["b/first", "b/second"]
    first = slimmed["b/first"]
    assert (first.kind, first.mode, first.uid, first.gid, first.content) == (Kind.FILE, 0o4755, 1, 2, b"content")
    assert slimmed["b/second"].link == "b/first"


def test_links_of_the_alternatives_system_go_with_what_they_lead_to() -> None:
    whole = tree(
        "usr/share/man/man1/mawk.1.gz",
        "usr/bin/mawk",
        symlink("etc/alternatives/awk", "/usr/bin/mawk"),
        symlink("etc/alternatives/awk.1.gz", "/usr/share/man/man1/mawk.1.gz"),
        symlink("etc/alternatives/builtins.7.gz", "/usr/share/man/man7/bash-builtins.7.gz"),
        "usr/share/man/man7/bash-builtins.7.gz",
        "var/lib/dpkg/alternatives/awk",
        "var/lib/dpkg/alternatives/builtins.7.gz",
        symlink("usr/bin/awk", "/etc/alternatives/awk"),
        symlink("usr/share/man/man1/awk.1.gz", "/etc/alternatives/awk.1.gz"),
        symlink("usr/share/elsewhere/awk.1.gz", "/etc/alternatives/awk.1.gz"),
        symlink("usr/share/elsewhere/dangling", "/usr/share/man/man1/mawk.1.gz"),
    )
    slimmed = slim(whole, [named("man")])
    assert leaves(slimmed.tree) == [
        "etc/alternatives/awk",
        "usr/bin/awk",
        "usr/bin/mawk",
        "usr/share/elsewhere/dangling",
        "var/lib/dpkg/alternatives/awk",
    ]
    assert slimmed.saved["man"] == Saved(entries=7, size=15)


def _content(given: Tree, path: str) -> bytes:
    content = given[path].content
    assert isinstance(content, bytes)
    return content


def test_the_filters_persist_for_later_installations() -> None:
    slimmed = slim(WHOLE, [named("docs"), named("apt-cache"), paths(exclude=["/opt/*"], include=["/opt/k*"])]).tree
    assert _content(slimmed, DPKG).decode().splitlines() == [
        "path-exclude=/usr/share/doc/*",
        "path-exclude=/usr/share/doc-base/*",
        "path-exclude=/usr/share/gtk-doc/*",
        "path-exclude=/opt/*",
        "path-include=/opt/k*",
        "path-include=/usr/share/doc/*/copyright",
    ]
    assert b'Keep-Downloaded-Packages "false";' in _content(slimmed, APT)


def test_nothing_persists_where_there_is_no_dpkg_and_no_apt() -> None:
    assert list(slim(tree("bin/x"), list(RULES.values())).tree) == ["bin", "bin/x"]


@pytest.mark.parametrize("text", ["doc", "", "locale:", "locale:de,", "locale:../x", "man:de", "docs:", "locale:*"])
def test_a_name_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="no rule to slim by") as caught:
        named(text)
    assert caught.value.hint


@pytest.mark.parametrize("glob", ["", "usr/share", "/a\npath-exclude=/b", " /a", "/a ", "/a\0"])
def test_a_glob_that_dpkg_could_not_hold_is_refused(glob: str) -> None:
    with pytest.raises(RecipeError, match="not a glob over paths"):
        paths(exclude=[glob])


globs = st.one_of(
    st.text("ab/.*?[]!^-\\z", max_size=10),
    st.lists(st.sampled_from(["*", "?", "a", "/", "[!a]", "[^/]", "[a-c]", "[]]", "[[:alpha:]]", "\\*", "[z-a]"])).map(
        "".join
    ),
)


@settings(max_examples=500, deadline=None)
@given(globs, st.text("abz/.*-]^", max_size=8))
def test_globs_match_as_those_of_the_c_library(glob: str, path: str) -> None:
    wanted = ctypes.CDLL(None).fnmatch(glob.encode(), path.encode(), 0)
    assert (_compiled(glob)(path) is not None) is (wanted == 0)


PLACES = ["/a", "/a/b", "/a/bc", "/b", "/a/b/c", "", "/a/b/c/*", "/*"]
filters = st.lists(
    st.tuples(
        st.sampled_from(PLACES), st.sampled_from(["/*", "/b*", "/?", "*", "/c", "/*/c", "/[a-b]*"]), st.booleans()
    ),
    max_size=6,
)
files = st.sets(
    st.lists(st.sampled_from(["a", "b", "bc", "c"]), min_size=1, max_size=5).map(lambda parts: "/".join([*parts, "f"]))
)


@settings(max_examples=300, deadline=None)
@given(filters, files)
def test_of_many_filters_the_last_that_matches_decides(chosen: list[tuple[str, str, bool]], names: set[str]) -> None:
    """As if each path were held against each glob."""
    rules = [paths(**{"include" if keep else "exclude": [place + rest]}) for place, rest, keep in chosen]
    kept = leaves(slim(tree(*names), rules).tree)
    verdicts = {
        name: [keep for place, rest, keep in chosen if _compiled(place + rest)(f"/{name}")] or [True] for name in names
    }
    assert set(kept) == {name for name, verdict in verdicts.items() if verdict[-1]}


def test_a_glob_with_many_stars_is_fast() -> None:
    slim(tree("a" * 100), [paths(exclude=["/" + "a*" * 12 + "b"])])


SIZED = tree(
    "etc/hosts",
    "usr/bin/both",
    "usr/bin/small",
    "usr/lib/big",
    file("usr/lib/bigger", b"x" * 100),
    hardlink("usr/lib/link", "usr/lib/big"),
    symlink("lib", "usr/lib"),
    file("var/lib/dpkg/info/big.list", b"/.\n/lib\n/lib/big\n/lib/bigger\n/usr/lib/link\n/usr/bin/both\n/gone\n"),
    file("var/lib/dpkg/info/small:amd64.list", b"/.\n/usr\n/usr/bin/small\n/usr/bin/both\n"),
)


def test_sizes_add_up_to_the_whole_tree() -> None:
    rows = package_sizes(SIZED, MemoryStore())
    assert rows[0] == Row(name="big", entries=5, size=110)
    assert rows[2] == Row(name="small:amd64", entries=1, size=5)
    assert [row.name for row in rows] == ["big", NO_PACKAGE, "small:amd64"]
    assert sum(row.size for row in rows) == sum(entry.size for entry in SIZED.values())
    assert sum(row.entries for row in rows) == len(leaves(SIZED))


def test_sizes_are_a_table() -> None:
    rows: Sequence[Row] = [Row(name="a", entries=1200, size=1_000_000)]
    assert render(rows, {"docs": Saved(entries=3, size=4)}).splitlines() == [
        "package     files           bytes",
        "a           1,200       1,000,000",
        "total       1,200       1,000,000",
        "",
        "rule        saves           bytes",
        "docs            3               4",
    ]


def test_what_each_rule_would_save_is_told_for_each_alone() -> None:
    assert rule_sizes(WHOLE)["info"] == Saved(entries=1, size=5)
    assert rule_sizes(WHOLE)["docs"] == Saved(entries=2, size=10)
    assert "apt-cache" not in rule_sizes(WHOLE)
    assert rule_sizes(tree("bin/x")) == {}


def test_a_rule_may_be_made_by_hand() -> None:
    assert slim(WHOLE, [Rule(name="mine")]).saved == {"mine": Saved()}


def test_every_rule_says_why() -> None:
    assert [rule.name for rule in RULES.values() if not rule.because] == []
    assert len({rule.because for rule in RULES.values()}) == len(RULES)


def test_gconv_keeps_unicode_and_the_western_encodings() -> None:
    place = "usr/lib/x86_64-linux-gnu/gconv"
    kept = ["ANSI_X3.110", "CP1252", "ISO8859-1", "ISO8859-15", "UNICODE", "UTF-16", "UTF-32", "UTF-7"]
    gone = "ARMSCII-8 BIG5 CP1125 CP1251 CP1258 CP932 EUC-JP GBK IBM037 INIS ISO-2022-JP ISO646 ISO8859-10 ISO8859-16"
    gone += " ISO8859-2 ISO8859-9E ISO_2033 KOI8-R SJIS T.61 TIS-620 UHC VISCII libJIS MACINTOSH"
    names = [f"{place}/{name}.so" for name in (*kept, *gone.split())]
    left = slim(tree(*names, f"{place}/gconv-modules", f"{place}/gconv-modules.cache"), [named("gconv")]).tree
    assert leaves(left) == sorted(
        [f"{place}/{name}.so" for name in kept] + [f"{place}/gconv-modules{e}" for e in ("", ".cache")]
    )


def test_programs_leave_libraries_and_data() -> None:
    whole = tree("usr/bin/env", "usr/sbin/ldconfig", "usr/lib/x86_64-linux-gnu/libc.so.6", "etc/passwd", "etc/profile")
    left = slim(whole.with_entries([symlink("bin", "usr/bin")]), [named("programs")]).tree
    assert leaves(left) == ["bin", "etc/passwd", "usr/lib/x86_64-linux-gnu/libc.so.6"]


def test_the_lists_that_scanners_read_lose_what_went() -> None:
    status = "var/lib/dpkg/status.d"
    sums = b"0  lib/gone.so\n1  usr/lib/stays.so\n2  usr/share/never/there\n"
    whole = tree("usr/lib/gone.so", "usr/lib/stays.so").with_entries(
        [symlink("lib", "usr/lib"), file(f"{status}/p", b"Package: p\n"), file(f"{status}/p.md5sums", sums)]
    )
    left = slim(whole, [paths(exclude=["/usr/lib/gone.so"])]).tree
    assert left[f"{status}/p.md5sums"].content == b"1  usr/lib/stays.so\n2  usr/share/never/there\n"
    assert left[f"{status}/p"] == whole[f"{status}/p"]
