"""Pam: /etc/pam.d/common-* from the profiles of packages, as pam-auth-update(8) makes them the first time.

Law: one handler. A profile with `Default: yes` is enabled; higher priority first; `success=end` becomes a jump over the
modules that follow in the block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, directory, file

_PROFILES = "usr/share/pam-configs"
_TYPES = ("auth", "account", "password", "session", "session-noninteractive")
_NO_MODULE = "[default=1]\t\t\tpam_permit.so"
_FIELD = re.compile(r"(\S+):\s+(.*)\s*\Z")
_MODULE = re.compile(r"((?:\[[^]]+\]|\w+)\s+\S+)\s*(.*)")
# The marks of the blocks in the templates; what is between the two of a pair is replaced.
_PRIMARY = (
    '# here are the per-package modules (the "Primary" block)\n',
    "# here's the fallback if no module succeeds\n",
)
_ADDITIONAL = (
    '# and here are more per-package modules (the "Additional" block)\n',
    "# end of pam-auth-update config\n",
)

Profile = Mapping[str, str]


def enable_profiles(root: Root, _script: Script) -> Iterable[FileEntry]:
    """The five files in /etc/pam.d and what pam-auth-update remembers of them in /var/lib/pam."""
    profiles = {name: parse_profile(root.read(f"{_PROFILES}/{name}").decode()) for name in root.names(_PROFILES)}
    # by falling priority, then by falling name: pam-auth-update's `$b cmp $a`
    ordered = sorted(profiles, key=lambda name: (int(profiles[name].get("Priority", "0")), name), reverse=True)
    enabled = [name for name in ordered if profiles[name].get("Default") == "yes"]
    yield directory("var/lib/pam")
    yield file("var/lib/pam/seen", "".join(f"{name}\n" for name in ordered).encode())
    for kind in _TYPES:
        primary = _lines(profiles, enabled, kind, "Primary")
        additional = _lines(profiles, enabled, kind, "Additional")
        template = root.read(f"usr/share/pam/common-{kind}").decode()
        yield file(f"etc/pam.d/common-{kind}", _fill(template, kind, primary, additional).encode())
        yield file(f"var/lib/pam/{kind}", _saved(primary, additional).encode())


def parse_profile(text: str) -> dict[str, str]:
    """A profile's fields; continuation lines are joined by newlines, without their indent."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        match = _FIELD.match(line) or re.match(r"(\S+):()\Z", line)
        if match:
            name = match[1].removesuffix("-Final")
            fields[name] = match[2].strip()
        elif line.strip():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}".lstrip()
    if fields.get("Session-Interactive-Only") != "yes":
        for suffix in ("-Type", "", "-Initial"):
            if f"Session{suffix}" in fields:
                fields[f"Session-noninteractive{suffix}"] = fields[f"Session{suffix}"]
    return fields


def _lines(
    profiles: Mapping[str, Profile], enabled: Sequence[str], kind: str, block: str
) -> list[tuple[str, list[str]]]:
    """(profile, its lines) for a block; the first module of a block uses its `-Initial` lines when it has any."""
    field = kind.capitalize()
    found: list[tuple[str, list[str]]] = []
    for name in enabled:
        profile = profiles[name]
        if profile.get(f"{field}-Type") == block:
            text = profile.get(field, "") if found else profile.get(f"{field}-Initial") or profile.get(field, "")
            found.append((name, [line for line in text.split("\n") if line]))
    return found


def _fill(
    template: str, kind: str, primary: list[tuple[str, list[str]]], additional: list[tuple[str, list[str]]]
) -> str:
    name = kind.removesuffix("-noninteractive")
    text = _between(template, _PRIMARY, _block(name, primary, 0) or f"{name}\t{_NO_MODULE}\n", kind)
    return _between(text, _ADDITIONAL, _block(name, additional, 1), kind)


def _block(kind: str, modules: list[tuple[str, list[str]]], spare: int) -> str:
    lines = [line for _, module in modules for line in module]
    text = ""
    for index, line in enumerate(lines):
        match = _MODULE.match(line)
        if match is None:
            raise BuildError("a pam profile has a line that names no module", because=line)
        jump = len(lines) - spare - index
        text += f"{kind}\t{match[1].replace('end', str(jump))} {' '.join(match[2].split())}\n"
    return text


def _between(text: str, marks: tuple[str, str], block: str, kind: str) -> str:
    head, begin, rest = text.partition(marks[0])
    _, end, tail = rest.partition(marks[1])
    if not begin or not end:
        raise BuildError("a template of pam-auth-update lacks its marks", at=f"/usr/share/pam/common-{kind}")
    return head + begin + block + end + tail


def _saved(primary: list[tuple[str, list[str]]], additional: list[tuple[str, list[str]]]) -> str:
    modules = (primary or [("null", [_NO_MODULE])]) + additional
    return "".join(f"Module: {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in modules if lines)
