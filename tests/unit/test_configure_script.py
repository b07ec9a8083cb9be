"""Maintainer scripts as text, and the table that says what stands for them."""

from __future__ import annotations

import re

import pytest

from rootfs.configure import alternatives, scripts
from rootfs.configure.script import Script
from rootfs.configure.scripts import effects_of
from rootfs.configure.table import TABLE, MergedUsr, Row
from rootfs.debian.deb import Unpacked
from rootfs.debian.package import Package
from rootfs.errors import BuildError
from rootfs.tree import Tree

TIMER = """# Automatically added by dh_installsystemd/{version}
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ] ; then
\t# The following line should be removed in trixie or trixie+1
\tdeb-systemd-helper unmask '{unit}' >/dev/null || true
\tif deb-systemd-helper --quiet was-enabled '{unit}'; then
\t\tdeb-systemd-helper enable '{unit}' >/dev/null || true
\telse
\t\tdeb-systemd-helper update-state '{unit}' >/dev/null || true
\tfi
fi
# End automatically added section
"""
MOVED = """# Automatically added by dh_installdeb/13.24.2
dpkg-maintscript-helper rm_conffile /etc/cron.daily/apt 1.2.10\\~ -- "$@"
# End automatically added section
"""
INIT = """# Automatically added by dh_installinit/13.24.2
if [ "$1" = "configure" ] || [ "$1" = "abort-upgrade" ]; then
\tif [ -z "$DPKG_ROOT" ] && [ -x "/etc/init.d/x" ]; then
\t\tupdate-rc.d x defaults >/dev/null
\t\tinvoke-rc.d --skip-systemd-native x start || exit 1
\tfi
fi
# End automatically added section
"""
AWK = """# Automatically added by dh_installalternatives/13.24.1
if [ "$1" = "configure" ]; then
        update-alternatives --install /usr/bin/awk awk /usr/bin/mawk 5 \\
            --slave /usr/bin/nawk nawk /usr/bin/mawk
fi
# End automatically added section
"""
SHELL = "#!/bin/sh\nset -e\n\n"
READLINE = """#! /bin/sh -e

install_from_default() {
  if [ ! -f $2 ]; then
    cp -p $1 $2
  fi
}

if [ "$1" = "configure" ] && [ "$2" = "" ]; then
  install_from_default /usr/share/readline/inputrc /etc/inputrc
fi


"""

LIBREADLINE = """#!/bin/sh

set -e

if test "$1" = install -o "$1" = upgrade; then
\t# DEP17 P1 mitigation. Remove these diversions via postinst once trixie is released.
\tfor lib in libhistory.so.8 libhistory.so.8.2 libreadline.so.8 libreadline.so.8.2; do
\t\tdpkg-divert --package libreadline8t64 --no-rename --divert "/lib/aarch64-linux-gnu/$lib.usr-is-merged" --add \
"/lib/aarch64-linux-gnu/$lib"
\tdone
fi



exit 0
"""


def script(text: str, package: str = "a") -> Script:
    return Script(package=package, kind="postinst", text=text)


def unpacked(name: str, architecture: str = "all", **scripts: str) -> Unpacked:
    package = Package({"Package": name, "Version": "1", "Architecture": architecture})
    return Unpacked(package=package, control={kind: text.encode() for kind, text in scripts.items()}, tree=Tree())


def timer(version: str = "13.24.2", unit: str = "apt.timer") -> str:
    return TIMER.format(version=version, unit=unit)


@pytest.mark.parametrize(
    "text", [SHELL, SHELL + timer(), SHELL + MOVED + timer() + "\nexit 0\n", SHELL + INIT, "#!/bin/sh -e\n# x\n"]
)
def test_debhelpers_sections_do_nothing(text: str) -> None:
    assert script(text).does_nothing
    assert effects_of([unpacked("a", postinst=text)]).handlers == ()


@pytest.mark.parametrize(
    "line",
    [
        "adduser --system x",
        "deb-systemd-helper enable 'x' >/dev/null || true; adduser x",
        'dpkg-maintscript-helper rm_conffile /etc/x 1 -- "$@" && adduser x',
        "systemd-tmpfiles --create x.conf; adduser x || true",
    ],
)
def test_a_section_with_any_other_line_is_not_skipped(line: str) -> None:
    text = SHELL + timer().replace("fi\n# End", f"\t{line}\nfi\n# End")
    assert not script(text).does_nothing
    assert line in script(text).handwritten


def test_the_digest_outlives_debhelper_and_new_units() -> None:
    written = SHELL + "touch /etc/x\n\n"
    old, new = script(written + timer()), script(written + timer("13.30", "other.timer") + timer("13.30"))
    assert old.digest == new.digest == script(written).digest
    assert old.digest != script(written.replace("/etc/x", "/etc/y") + timer()).digest


@pytest.mark.parametrize(
    ("text", "version", "triplet", "same"),
    [
        ("ln -s /lib/aarch64-linux-gnu/x\nv=2.41-12\n", "2.41-12", "aarch64-linux-gnu", True),
        ("ln -s /lib/x86_64-linux-gnu/x\nv=2.40-1+b2\n", "2.40-1+b2", "x86_64-linux-gnu", True),
        ("ln -s /lib/x86_64-linux-gnu/x\nv=2.40-1\n", "2.40-2", "x86_64-linux-gnu", False),
        ("ln -s /lib/x86_64-linux-gnu/x\nv=2.40-2~1\n", "2.40-2", "x86_64-linux-gnu", False),
        ("ln -s /lib/x86_64-linux-gnu/x\nv=3\n", "3", "x86_64-linux-gnu", False),
        ("ln -s /lib/x86_64-linux-gnu/y\nv=2.41-12\n", "2.41-12", "x86_64-linux-gnu", False),
        ("ln -s /lib/x86_64-linux-gnu/x\nv=2.41-12\n", "2.41-12", "aarch64-linux-gnu", False),
    ],
)
def test_the_digest_outlives_a_new_version_and_holds_for_every_architecture(
    text: str, version: str, triplet: str, same: bool
) -> None:
    known = "ln -s /lib/x86_64-linux-gnu/x\nv=2.41-12\n"
    one = Script(package="a", kind="postinst", text=known, version="2.41-12", triplet="x86_64-linux-gnu")
    other = Script(package="a", kind="postinst", text=text, version=version, triplet=triplet)
    assert (one.digest == other.digest) is same


def test_a_diversion_is_spelled_with_the_triplet() -> None:
    effects = effects_of([unpacked("libreadline8t64", architecture="arm64", preinst=LIBREADLINE)])
    assert effects.diversions[0].path == "/lib/aarch64-linux-gnu/libhistory.so.8"
    assert effects.diversions[0].to == "/lib/aarch64-linux-gnu/libhistory.so.8.usr-is-merged"


def test_one_script_can_merge_usr(monkeypatch: pytest.MonkeyPatch) -> None:
    merges = script("mv /bin /usr\n", "usrmerge")
    row = Row(kind="postinst", sha256=merges.digest.hex, effects=(MergedUsr(),))
    monkeypatch.setattr(scripts, "TABLE", {"usrmerge": (row,)})
    assert not effects_of([unpacked("a", postinst=SHELL)]).merged_usr
    assert effects_of([unpacked("a", postinst=SHELL), unpacked("usrmerge", postinst=merges.text)]).merged_usr


def test_commands_stop_where_the_shell_command_does() -> None:
    text = (
        "update-alternatives --install \\\n  a b c 1 \\\n  #--slave d e f\n  update-alternatives --remove x || true\n"
    )
    assert list(script(text).commands("update-alternatives")) == [["--install", "a", "b", "c", "1"], ["--remove", "x"]]


def test_heredocs() -> None:
    text = "cat > x <<'EOF'\none\n two\nEOF\ncat > y <<-EOF\n\tthree\t3\n\nEOF\n"
    assert script(text).heredocs() == ["one\n two\n", "three\t3\n\n"]


def test_an_unknown_script_stops_and_is_shown() -> None:
    odd = script(SHELL + "adduser --system odd\n" + timer(), "odd")
    with pytest.raises(BuildError) as caught:
        effects_of([unpacked("odd", postinst=odd.text)])
    shown = caught.value.render()
    assert "the postinst of odd has no handler" in shown
    assert "adduser --system odd" in shown
    assert str(odd.digest) in shown
    assert "apt.timer" not in shown
    assert caught.value.hint


def test_a_changed_script_stops_and_an_unchanged_one_goes_on() -> None:
    known = effects_of([unpacked("readline-common", postinst=READLINE)])
    assert len(known.handlers) == 1
    changed = READLINE.replace("/etc/inputrc", "/etc/inputrc2")
    with pytest.raises(BuildError, match="readline-common") as caught:
        effects_of([unpacked("readline-common", postinst=changed)])
    assert "this version of it is not known" in caught.value.render()
    with pytest.raises(BuildError):
        effects_of([unpacked("other", postinst=READLINE)])
    with pytest.raises(BuildError):
        effects_of([unpacked("readline-common", preinst=READLINE)])


def test_alternatives_that_debhelper_wrote_are_registered() -> None:
    effects = effects_of([unpacked("mawk", postinst=SHELL + AWK)])
    assert [handler for handler, _ in effects.handlers] == [alternatives.register]


def test_alternatives_put_together_by_the_shell_are_not_guessed() -> None:
    with pytest.raises(BuildError, match="mawk"):
        effects_of([unpacked("mawk", postinst=SHELL + AWK.replace("/usr/bin/mawk 5", "$mawk 5"))])


def test_all_unknown_scripts_are_named() -> None:
    with pytest.raises(BuildError) as caught:
        effects_of([unpacked("b", preinst="x"), unpacked("a", postinst="y")])
    assert "postinst of a" in caught.value.message
    assert "also unknown: b/preinst" in caught.value.render()


def test_removal_scripts_are_not_looked_at() -> None:
    assert effects_of([unpacked("a", prerm="rm -rf /", postrm="rm -rf /", config="x")]).handlers == ()


def test_the_table_is_well_formed() -> None:
    assert list(TABLE)[:2] == ["base-passwd", "base-files"]
    rows = [(package, row.kind, row.sha256) for package, rows in TABLE.items() for row in rows]
    assert len(rows) == len(set(rows))
    assert all(kind in ("preinst", "postinst") for _, kind, _ in rows)
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for _, _, sha256 in rows)
    assert all(row.effects for rows in TABLE.values() for row in rows)
