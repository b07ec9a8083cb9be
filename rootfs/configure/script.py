"""Script: a maintainer script as text (policy 6), read for what it says, never run.

Law: pure. A script is its hand-written part plus the sections debhelper added. Sections that do nothing wanted on a
first installation without an init system are taken out, so that a rebuild with a newer debhelper, or a new unit file,
leaves the digest of the hand-written part as it was. So does a new version, or another architecture, of a package whose
script spells its own version or its architecture's triplet.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from rootfs.digest import Digest

TRIPLET = "@TRIPLET@"
"""Stands for the GNU triplet of a package's architecture in what a digest is of, and in the table's paths."""
_VERSION = "@VERSION@"
_SECTION = re.compile(
    r"^# Automatically added by (?P<tool>dh_\w+)/\S+\n(?P<body>.*?)^# End automatically added section$", re.M | re.S
)
# debhelper's snippets (debhelper(7), /usr/share/debhelper/autoscripts): services are enabled or started, menus updated,
# conffiles or directories moved on upgrade; none of it is wanted on a first installation without an init system.
# Alternatives are: see `registers_alternatives`.
_KNOWN_LINE = re.compile(
    r"""(
    | \#.*
    | if\ \[\ "\$1"\ =\ "configure"\ \].*;\ then
    | if\ (\[\ -z\ "\$DPKG_ROOT"\ \]\ &&\ )?\[\ -d\ /run/systemd/system\ \]\ ?;\ then
    | if\ \[\ -n\ "\$2"\ \];\ then
    | if\ \[\ -x\ "\$\(command\ -v\ systemd-tmpfiles\)"\ \];\ then
    | else | fi
    | _dh_action=\w+
    | (if\ )?deb-systemd-helper\ [^;|&]*(>/dev/null\ \|\|\ true|;\ then)
    | deb-systemd-invoke\ [^;|&]*>/dev/null\ \|\|\ true
    | systemctl\ --system\ daemon-reload\ >/dev/null\ \|\|\ true
    | systemd-tmpfiles\ ([^;|&]*\ )?--create\ [^;|&]*\|\|\ true
    | if\ (\[\ -z\ "\$DPKG_ROOT"\ \]\ &&\ )?\[\ -x\ "/etc/init\.d/[\w.+-]+"\ \];\ then
    | if\ \[\ "\$1"\ =\ "install"\ \]\ &&\ \[\ -n\ "\$2"\ \]\ &&\ \[\ -e\ "/etc/init\.d/[\w.+-]+"\ \]\ ;\ then
    | chmod\ \+x\ "/etc/init\.d/[\w.+-]+"\ >/dev/null\ \|\|\ true
    | (update-rc|invoke-rc)\.d\ [^;|&>]*(>/dev/null)?(\ ?\|\|\ exit\ 1)?
    | update-menus
    | update-alternatives\ --install\ [^;|&$`]*
    | dpkg-maintscript-helper\ (rm_conffile|mv_conffile|symlink_to_dir|dir_to_symlink)\ [^;|&]*--\ "\$@"
    )\Z""",
    re.X,
)
_NOTHING = frozenset({"", "set -e", "exit 0", ":"})
_HEREDOC = re.compile(r"<<(?P<dash>-?)'?(?P<end>\w+)'?\n(?P<text>.*?)^\t*(?P=end)$", re.M | re.S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One maintainer script: whose, which (`preinst`, `postinst`), and its text.

    `version` is the package's, `triplet` that of its architecture ("" for `all`).
    """

    package: str
    kind: str
    text: str
    version: str = ""
    triplet: str = ""

    @property
    def handwritten(self) -> str:
        """The text without debhelper's known sections; of the unknown ones, without debhelper's version."""

        def replacement(section: re.Match[str]) -> str:
            if _is_known(section["body"]):
                return ""
            return f"# Automatically added by {section['tool']}\n{section['body']}# End automatically added section"

        return _SECTION.sub(replacement, self.text).strip() + "\n"

    @property
    def digest(self) -> Digest:
        """The digest of the hand-written part: what the table is keyed by.

        The triplet and the package's own version stand in it as marks, so that it holds for every architecture and
        for the next update. A version without a revision is left: it may be as short as `1` and stand for anything.
        """
        text = self.handwritten
        if self.triplet:
            text = text.replace(self.triplet, TRIPLET)
        if "-" in self.version:
            text = re.sub(rf"(?<![\w.+~:-]){re.escape(self.version)}(?![\w.+~:-])", _VERSION, text)
        return Digest.of(text.encode("utf-8", "surrogateescape"))

    @property
    def does_nothing(self) -> bool:
        """Whether nothing is left when debhelper's known sections are taken out."""
        lines = (line.strip() for line in self.handwritten.splitlines())
        return all(line in _NOTHING or line.startswith("#") for line in lines)

    @property
    def registers_alternatives(self) -> bool:
        """Whether a section that was taken out calls update-alternatives."""
        bodies = (section["body"] for section in _SECTION.finditer(self.text))
        return any("update-alternatives" in body for body in bodies if _is_known(body))

    def commands(self, program: str) -> Iterator[list[str]]:
        """The arguments of each call of a program, up to the end of the shell command."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if line.strip().startswith(program + " "):
                words = shlex.split(line, comments=True)[1:]
                stops = [words.index(stop) for stop in ("||", "&&", ";", "|") if stop in words]
                yield words[: min(stops, default=len(words))]

    def heredocs(self) -> list[str]:
        """The here-documents in order; of a `<<-` one the leading tabs are gone."""
        return [
            re.sub(r"^\t+", "", found["text"], flags=re.M) if found["dash"] else found["text"]
            for found in _HEREDOC.finditer(self.text)
        ]


def _is_known(body: str) -> bool:
    return all(_KNOWN_LINE.match(line.strip()) for line in body.replace("\\\n", " ").splitlines())
