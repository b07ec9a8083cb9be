"""The solver on small archives made for the purpose; `tests/integration/test_archive.py` has the real one."""

from __future__ import annotations

import pytest

from rootfs.debian.index import PackageIndex, PackagesFile
from rootfs.debian.package import Package
from rootfs.debian.solve import Selection, solve
from rootfs.errors import IntegrityError, RecipeError, ResolveError


def index(*stanzas: str) -> PackageIndex:
    """An archive from lines such as `a 1 Depends: b | c; Provides: d`."""
    made = PackageIndex()
    made.add(packages(*stanzas), "debian", suites={"trixie", "stable"})
    return made


def packages(*stanzas: str) -> str:
    """The text of a Packages file."""
    made = []
    for stanza in stanzas:
        name, version, *fields = stanza.split(" ", 2)
        lines = [f"Package: {name}", f"Version: {version}"]
        lines += [field.strip() for field in "".join(fields).split(";") if field.strip()]
        made.append("\n".join([*lines, *(["Architecture: amd64"] if "Architecture:" not in stanza else [])]))
    return "\n\n".join(made) + "\n"


def chosen(selection: Selection) -> list[str]:
    return [str(package) for package in selection.packages]


def test_dependencies_are_followed_and_the_newest_version_is_taken() -> None:
    archive = index("a 1 Depends: b (>= 1)", "b 1", "b 2~rc1", "b 2")
    assert chosen(solve(archive, ["a"])) == ["a 1", "b 2"]


def test_essential_packages_come_along_unless_told_not_to() -> None:
    archive = index("a 1", "base 1 Essential: yes")
    assert chosen(solve(archive, ["a"])) == ["a 1", "base 1"]
    assert chosen(solve(archive, ["a"], essential=False)) == ["a 1"]


def test_an_older_version_is_taken_when_the_wish_says_so() -> None:
    assert chosen(solve(index("a 1", "a 2"), ["a (<< 2)"])) == ["a 1"]


def test_the_first_alternative_is_taken_and_one_that_is_there_already_suffices() -> None:
    archive = index("a 1 Depends: b | c", "b 1", "c 1", "d 1 Depends: c | b")
    assert chosen(solve(archive, ["a"])) == ["a 1", "b 1"]
    assert chosen(solve(archive, ["d", "b"])) == ["b 1", "d 1"]


def test_a_denied_package_gives_way_to_the_next_alternative() -> None:
    archive = index("a 1 Depends: systemd | standalone", "systemd 1", "standalone 1")
    assert chosen(solve(archive, ["a"], deny=["systemd"])) == ["a 1", "standalone 1"]


def test_providers_are_ranked_by_priority_before_name() -> None:
    archive = index("a 1 Depends: awk", "gawk 1 Provides: awk", "mawk 1 Provides: awk; Priority: required")
    assert chosen(solve(archive, ["a"])) == ["a 1", "mawk 1"]


def test_a_real_package_goes_before_its_providers() -> None:
    archive = index("a 1 Depends: b", "aaa 1 Provides: b; Priority: required", "b 1")
    assert chosen(solve(archive, ["a"])) == ["a 1", "b 1"]


def test_an_unversioned_provides_does_not_satisfy_a_versioned_wish() -> None:
    archive = index("a 1 Depends: v (>= 2)", "one 1 Provides: v", "two 1 Provides: v (= 2)")
    assert chosen(solve(archive, ["a"])) == ["a 1", "two 1"]


def test_a_choice_that_ends_in_a_conflict_is_taken_back() -> None:
    archive = index("a 1 Depends: x | y, z", "x 1 Depends: w | v", "w 1", "v 1", "y 1", "z 1 Conflicts: w, v")
    assert chosen(solve(archive, ["a"])) == ["a 1", "y 1", "z 1"]


def test_breaks_with_a_version_only_hits_that_version() -> None:
    archive = index("a 1 Breaks: b (<< 2)", "b 1", "b 2")
    assert chosen(solve(archive, ["a", "b"])) == ["a 1", "b 2"]
    with pytest.raises(ResolveError, match="b"):
        solve(archive, ["a", "b (= 1)"])


def test_a_package_may_conflict_with_what_it_provides_itself() -> None:
    archive = index("mta 1 Provides: mail; Conflicts: mail", "other 1 Provides: mail")
    assert chosen(solve(archive, ["mta"])) == ["mta 1"]
    with pytest.raises(ResolveError) as caught:
        solve(archive, ["mta", "other"])
    assert caught.value.because == "other 1: conflicts with mta 1 (wanted by mta <- request)"


def test_dependency_cycles_end() -> None:
    assert chosen(solve(index("a 1 Depends: b", "b 1 Depends: a"), ["a"])) == ["a 1", "b 1"]


def test_why_not_names_the_chain_and_each_alternative() -> None:
    archive = index("app 1 Depends: lib", "lib 1 Depends: gone (>= 3) | no", "gone 2", "no 1")
    with pytest.raises(ResolveError) as caught:
        solve(archive, ["app"], deny=["no"])
    assert caught.value.message == "cannot satisfy `gone (>= 3) | no`"
    assert caught.value.at == "wanted by lib <- app <- request"
    assert caught.value.because == "\n    gone (>= 3): only 2 is there\n    no 1: denied"


def test_explain_says_who_pulls_a_package_by_which_relation_and_who_else_needs_it() -> None:
    archive = index("a 1 Depends: b (>= 1), d", "b 1 Pre-Depends: c", "c 1", "d 1 Depends: x | c", "x 1 Conflicts: a")
    assert solve(archive, ["a"]).explain("c").splitlines() == [
        "c 1: c <- b <- a <- request",
        "  b Pre-Depends: c",
        "  a Depends: b (>= 1)",
        "  request: a",
        "  also needed by 1:",
        "    d Depends: x | c",
    ]


def test_explain_leads_back_to_an_essential_package() -> None:
    assert solve(index("base 1 Essential: yes; Depends: b", "b 1"), []).explain("b").splitlines() == [
        "b 1: b <- base <- Essential",
        "  base Depends: b",
        "  Essential: base",
    ]


def test_explain_finds_a_virtual_package_and_suggests_a_name() -> None:
    selection = solve(index("a 1 Depends: awk", "mawk 1 Provides: awk"), ["a"])
    assert selection.explain("awk").startswith("mawk 1 provides awk: mawk <- a <- request\n")
    with pytest.raises(ResolveError) as caught:
        selection.explain("mwak")
    assert caught.value.hint == "did you mean mawk?"


def test_the_order_of_the_wishes_does_not_change_a_set_without_choices() -> None:
    archive = index("a 1 Depends: b", "b 1", "c 1 Depends: b")
    assert chosen(solve(archive, ["a", "c"])) == chosen(solve(archive, ["c", "a"]))


@pytest.mark.parametrize("text", ["Version: 1\n", "Package: a\nVersion: 1\n", "Package: a\n"])
def test_a_stanza_without_its_fields_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Package.parse(text)


def test_a_wish_may_name_a_version_and_what_depends_on_another_is_then_refused() -> None:
    archive = index("a 1", "a 2", "b 1 Depends: a (>= 2)")
    assert chosen(solve(archive, ["a=1"])) == ["a 1"]
    with pytest.raises(ResolveError) as caught:
        solve(archive, ["a=1", "b"])
    assert (caught.value.message, caught.value.at) == ("cannot satisfy `a (>= 2)`", "wanted by b <- request")
    assert caught.value.because == "a 2: version 1 is already chosen"


def test_a_wish_for_a_version_that_is_not_there_says_which_are() -> None:
    with pytest.raises(ResolveError) as caught:
        solve(index("a 1", "a 2"), ["a=3"])
    assert caught.value.because == "there is 2 (stable, trixie), 1 (stable, trixie)"


@pytest.fixture
def two_suites() -> PackageIndex:
    """A release and its backports, which apt leaves alone unless they are asked for (pin 100)."""
    made = PackageIndex()
    made.add(packages("a 1 Depends: b", "b 1", "c 1 Depends: b"), "debian", suites={"trixie"})
    made.add(packages("a 2 Depends: b (>= 2)", "b 2", "c 2"), "debian", suites={"trixie-backports"}, pin=100)
    return made


def test_backports_are_left_alone_until_a_wish_names_them(two_suites: PackageIndex) -> None:
    assert chosen(solve(two_suites, ["a"])) == ["a 1", "b 1"]
    assert chosen(solve(two_suites, ["c/trixie-backports"])) == ["c 2"]


def test_a_wish_for_a_suite_takes_from_it_what_only_it_can_satisfy(two_suites: PackageIndex) -> None:
    assert chosen(solve(two_suites, ["a/trixie-backports", "c"])) == ["a 2", "b 2", "c 1"]


@pytest.mark.parametrize("wish", ["a=", "a/", "A", "a (1)", "a b", "a=1:"])
def test_a_malformed_wish_is_the_recipes_mistake(wish: str) -> None:
    with pytest.raises(RecipeError, match="not a wish"):
        solve(index("a 1"), [wish])


def test_recommends_are_followed_when_asked_for_and_may_fail() -> None:
    archive = index("a 1 Recommends: b, gone, d", "b 1 Recommends: c", "c 1", "d 1 Conflicts: a")
    assert chosen(solve(archive, ["a"])) == ["a 1"]
    assert chosen(solve(archive, ["a"], recommends=True)) == ["a 1", "b 1", "c 1"]


def test_an_alternative_that_fails_leaves_nothing_behind() -> None:
    """`left` is chosen for `first` before `gone` turns out to be missing; apt drops it at the end."""
    archive = index(
        "a 1 Depends: first | second", "first 1 Depends: left, mid", "left 1", "mid 1 Depends: gone", "second 1"
    )
    assert chosen(solve(archive, ["a"])) == ["a 1", "second 1"]


def test_what_an_alternative_left_behind_stays_where_something_suggests_it() -> None:
    archive = index(
        "a 1 Depends: first | second; Suggests: left",
        "first 1 Depends: left, mid",
        "left 1",
        "mid 1 Depends: gone",
        "second 1",
    )
    assert chosen(solve(archive, ["a"])) == ["a 1", "left 1", "second 1"]


def test_equal_providers_are_taken_as_apt_numbers_them_the_one_it_read_of_last() -> None:
    archive = index("a 1 Depends: v", "b 1 Suggests: z", "x 1 Provides: v", "y 1 Provides: v", "z 1 Provides: v")
    assert chosen(solve(archive, ["a"])) == ["a 1", "y 1"]


def test_what_a_wish_needs_without_choice_goes_before_a_choice() -> None:
    """No alternative is tried that conflicts with what is needed anyway."""
    archive = index("a 1 Depends: x | y, z", "x 1", "y 1", "z 1 Depends: w", "w 1 Conflicts: x")
    assert chosen(solve(archive, ["a"])) == ["a 1", "w 1", "y 1", "z 1"]


@pytest.mark.parametrize(
    ("relation", "multi_arch", "holds"),
    [("b:any", "allowed", True), ("b:any", "foreign", False), ("b:native", "no", True), ("b:amd64", "same", True),
     ("b:i386", "no", False), ("b", "foreign", True)],
)  # fmt: skip
def test_architecture_qualifiers_ask_for_what_policy_says(relation: str, multi_arch: str, holds: bool) -> None:
    package = index(f"b 1 Multi-Arch: {multi_arch}").named("b")[0]
    (clause,) = index(f"a 1 Depends: {relation}").named("a")[0].relations("Depends")
    assert package.satisfies(clause[0]) is holds


def test_a_package_for_all_architectures_is_native() -> None:
    assert chosen(solve(index("a 1 Depends: b:native", "b 1 Architecture: all"), ["a"])) == ["a 1", "b 1"]


def test_a_protected_package_is_preferred_to_an_equal_one() -> None:
    archive = index("a 1 Depends: v", "one 1 Provides: v; Protected: yes", "two 1 Provides: v; Priority: required")
    assert chosen(solve(archive, ["a"])) == ["a 1", "one 1"]


def test_long_chains_of_dependencies_end() -> None:
    archive = index(*(f"p{number} 1 Depends: p{number + 1}" for number in range(3000)), "p3000 1")
    assert len(solve(archive, ["p0"]).packages) == 3001


def test_a_search_without_end_is_given_up() -> None:
    """Nine pigeons and eight holes: 40,320 ways to try."""
    holes = range(8)
    pigeons = [f"p{n} 1 Depends: " + " | ".join(f"p{n}h{hole}" for hole in holes) for n in range(9)]
    places = [f"p{n}h{hole} 1 Provides: h{hole}; Conflicts: h{hole}" for n in range(9) for hole in holes]
    with pytest.raises(ResolveError) as caught:
        solve(index(*pigeons, *places), [f"p{n}" for n in range(9)])
    assert caught.value.at == "wanted by p8 <- request"
    assert "p8h0 1: conflicts with p0h0 1 (wanted by p0h0 <- p0 <- request)" in (caught.value.because or "")


def test_an_index_is_the_same_from_its_table() -> None:
    text = (
        packages("a 1 Provides: v (= 1), w; Essential: yes", "b 1 Priority: required", "a 2", "b-c 1").encode()
        + b"\n\n\n"
    )
    scanned = PackagesFile.scan(text)
    table = scanned.to_bytes()
    read = PackagesFile.from_bytes(text, table)
    assert read.to_bytes() == table
    for file in (scanned, read):
        assert [stanza.splitlines()[1] for stanza in file.stanzas("a")] == ["Version: 1", "Version: 2"]
        assert list(file.stanzas("b-")) == []
        assert (file.providers("v"), file.providers("w"), file.providers("x")) == (["a"], ["a"], [])
        assert (file.flagged("essential"), file.flagged("required")) == (["a"], ["b"])
        assert list(file.names()) == ["a", "a", "b", "b-c"]


def test_a_packages_file_is_read_however_its_stanzas_are_set() -> None:
    text = (
        b"\n\nVersion: 1\nPackage: late\nProvides: v (= 1),\n w, x\n\n\n\n"
        b"Package:  spaced \nPriority: important \nPriority-Of: required\nDescription: none\n Essential: yes\n\n"
        b"Package: last\nEssential: yes"
    )
    file = PackagesFile.scan(text)
    assert list(file.names()) == ["last", "late", "spaced"]
    assert list(file.stanzas("late")) == ["Version: 1\nPackage: late\nProvides: v (= 1),\n w, x"]
    assert list(file.stanzas("last")) == ["Package: last\nEssential: yes"]
    assert [file.providers(name) for name in ("v", "w", "x")] == [["late"]] * 3
    assert [file.flagged(name) for name in ("important", "required", "essential")] == [["spaced"], [], ["last"]]
    assert PackagesFile.scan(bytearray(text)).to_bytes() == file.to_bytes()


def test_a_table_of_another_file_is_refused() -> None:
    table = PackagesFile.scan(packages("a 1", "b 1").encode()).to_bytes()
    with pytest.raises(IntegrityError, match="does not belong"):
        list(PackagesFile.from_bytes(packages("c 1", "d 1").encode(), table).stanzas("a"))
    with pytest.raises(IntegrityError, match="not a table"):
        PackagesFile.from_bytes(b"", b"{}")


@pytest.mark.parametrize("text", [b"Version: 1\n", b"Package:\nVersion: 1\n", b"Package: \xff\n"])
def test_a_packages_file_with_a_nameless_stanza_is_refused(text: bytes) -> None:
    with pytest.raises(IntegrityError, match="no Package field"):
        PackagesFile.scan(text)


def test_a_stanza_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not UTF-8"):
        list(PackagesFile.scan(b"Package: a\nVersion: \xff\n").stanzas("a"))


def test_a_misspelt_wish_is_answered_with_the_names_that_come_near() -> None:
    with pytest.raises(ResolveError) as caught:
        solve(index("python3-numpy 1", "other 1"), ["python3-numpi"])
    assert (caught.value.because, caught.value.hint) == (
        "python3-numpi: no such package",
        "did you mean python3-numpy?",
    )


def test_what_is_omitted_is_taken_to_be_there() -> None:
    archive = index(
        "certificates 1 Depends: tool (>= 2), questions | questions-2",
        "tool 2 Depends: engine",
        "engine 1",
        "questions 1 Provides: questions-2; Depends: language",
        "language 5",
    )
    selection = solve(archive, ["certificates"], omit=["tool", "questions"], essential=False)
    assert chosen(selection) == ["certificates 1"]
    assert chosen(solve(archive, ["certificates", "engine"], omit=["tool", "questions"])) == [
        "certificates 1",
        "engine 1",
    ]


def test_a_wish_for_what_is_omitted_does_not_bring_it_back() -> None:
    assert chosen(solve(index("a 1", "b 1"), ["a", "b"], omit=["b"], deny=["b"])) == ["a 1"]


def test_an_omitted_provider_keeps_others_out() -> None:
    archive = index("files 1 Pre-Depends: awk", "first 1 Provides: awk", "second 1 Provides: awk")
    for omitted in ("first", "second"):
        assert chosen(solve(archive, ["files"], omit=[omitted])) == ["files 1"]


def test_an_omitted_package_is_left_out_of_the_essential_ones() -> None:
    archive = index("shell 1 Essential: yes; Depends: library", "library 1", "a 1 Depends: shell (>= 1)")
    assert chosen(solve(archive, ["a"], omit=["shell"])) == ["a 1"]


def test_its_version_still_counts() -> None:
    archive = index("a 1 Depends: b (>= 3)", "b 2")
    with pytest.raises(ResolveError):
        solve(archive, ["a"], omit=["b"])


def test_what_is_omitted_must_be_a_package() -> None:
    with pytest.raises(RecipeError, match="no package to omit: debcnf") as caught:
        solve(index("debconf 1"), ["debconf"], omit=["debcnf"])
    assert caught.value.hint == "did you mean debconf?"
