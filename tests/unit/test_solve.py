"""The solver on small archives made for the purpose; `tests/integration/test_archive.py` has the real one."""

from __future__ import annotations

import pytest

from rootfs.debian.package import Package, PackageIndex
from rootfs.debian.solve import Selection, solve
from rootfs.errors import IntegrityError, ResolveError


def index(*stanzas: str) -> PackageIndex:
    """An archive from lines such as `a 1 Depends: b | c; Provides: d`."""
    made = PackageIndex()
    for stanza in stanzas:
        name, version, *fields = stanza.split(" ", 2)
        lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64"]
        lines += [field.strip() for field in "".join(fields).split(";") if field.strip()]
        made.add("\n".join(lines) + "\n", "debian")
    return made


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
    assert caught.value.because == "other 1: conflicts with mta"


def test_dependency_cycles_end() -> None:
    assert chosen(solve(index("a 1 Depends: b", "b 1 Depends: a"), ["a"])) == ["a 1", "b 1"]


def test_why_not_names_the_chain_and_each_alternative() -> None:
    archive = index("app 1 Depends: lib", "lib 1 Depends: gone (>= 3) | no", "gone 2", "no 1")
    with pytest.raises(ResolveError) as caught:
        solve(archive, ["app"], deny=["no"])
    assert caught.value.message == "cannot satisfy `gone (>= 3) | no`"
    assert caught.value.at == "wanted by lib <- app <- recipe"
    assert caught.value.because == "gone (>= 3): only 2 is there; no 1: denied by the recipe"


def test_explain_says_who_pulls_a_package() -> None:
    archive = index("a 1 Depends: b", "b 1 Pre-Depends: c", "c 1")
    assert solve(archive, ["a"]).explain("c") == "c <- b <- a <- recipe"


def test_the_order_of_the_wishes_does_not_change_a_set_without_choices() -> None:
    archive = index("a 1 Depends: b", "b 1", "c 1 Depends: b")
    assert chosen(solve(archive, ["a", "c"])) == chosen(solve(archive, ["c", "a"]))


@pytest.mark.parametrize("text", ["Version: 1\n", "Package: a\nVersion: 1\n", "Package: a\n"])
def test_a_stanza_without_its_fields_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Package.parse(text)
