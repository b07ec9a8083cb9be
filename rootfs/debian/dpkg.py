"""Dpkg: the database below /var/lib/dpkg as text (dpkg's deb-control(5), deb-triggers(5); lib/dpkg/parse.c, dump.c).

Law: pure; values to the bytes dpkg would have written for packages that are installed and configured. Where dpkg's own
order is that of a hash table or of a tar archive (diversions, triggers, file lists) the order here is by name.
Where dpkg itself is not among the packages nothing can use its database, and they are listed as scanners (trivy, syft,
grype) read it from distroless images: a stanza and the checksums for each, below status.d/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rootfs.debian.control import format_stanza
from rootfs.debian.package import Package
from rootfs.debian.relation import parse_relations
from rootfs.tree import FileEntry, directory, file

ADMIN = "var/lib/dpkg"
STATUS_FILES = f"{ADMIN}/status.d"
SCRIPTS = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})

# The order of dpkg's `fieldinfos` table; other fields follow in the order of the control file.
_FIRST = (
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
)
_RELATIONS = (
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
)
_FIELDS = (*_FIRST, *_RELATIONS, "Conffiles", "Description")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversion:
    """`path` of every package but `by` is unpacked as `to` (dpkg-divert(1)); both absolute, as dpkg writes them."""

    path: str
    to: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A package as the database holds it.

    `control` are the members of its control.tar by name, `paths` the relative paths it owns, `conffiles` pairs of
    (absolute path, md5 of the content in hex), or (absolute path, "newconffile remove-on-upgrade").
    """

    package: Package
    control: Mapping[str, bytes]
    paths: tuple[str, ...]
    conffiles: tuple[tuple[str, str], ...] = ()

    @property
    def stem(self) -> str:
        """What the names of its files in info/ begin with; only Multi-Arch: same names the architecture."""
        package = self.package
        same = package.fields.get("Multi-Arch") == "same"
        return f"{package.name}:{package.architecture}" if same else package.name


def database(installed: Iterable[Installed], diversions: Iterable[Diversion], architecture: str) -> Iterator[FileEntry]:
    """The files of the database, for packages in any order; `architecture` is Debian's name of the native one."""
    ordered = sorted(installed, key=lambda one: (one.package.name, one.package.architecture))
    if not any(one.package.name == "dpkg" for one in ordered):
        yield from _status_files(ordered)
        return
    for name in ("", "/alternatives", "/info", "/parts", "/triggers", "/updates"):
        yield directory(ADMIN + name)
    yield file(f"{ADMIN}/arch", f"{architecture}\n".encode())
    yield file(f"{ADMIN}/diversions", format_diversions(diversions))
    status = "".join(f"{format_status(one)}\n" for one in ordered)
    yield file(f"{ADMIN}/status", status.encode("utf-8", "surrogateescape"))
    yield file(f"{ADMIN}/info/format", b"1\n")
    for one in ordered:
        yield from _info(one)
    for name, content in format_triggers(ordered).items():
        yield file(f"{ADMIN}/triggers/{name}", content)


def _status_files(ordered: Iterable[Installed]) -> Iterator[FileEntry]:
    yield directory(STATUS_FILES)
    for one in ordered:
        place = f"{STATUS_FILES}/{one.package.name}"
        yield file(place, format_status(one).encode("utf-8", "surrogateescape"))
        yield file(f"{place}.md5sums", one.control["md5sums"])


def _info(one: Installed) -> Iterator[FileEntry]:
    stem = f"{ADMIN}/info/{one.stem}"
    paths = "/.\n" + "".join(f"/{path}\n" for path in one.paths)
    yield file(f"{stem}.list", paths.encode("utf-8", "surrogateescape"))
    for name, content in one.control.items():
        if name != "control":
            yield file(f"{stem}.{name}", content, mode=0o755 if name in SCRIPTS else 0o644)


def format_status(one: Installed) -> str:
    """The stanza of the status file: dpkg's order of fields, relations in dpkg's spelling."""
    source = one.package.fields
    # dpkg leaves out what says the default
    fields = {n: v for n, v in source.items() if (n, v) not in {("Essential", "no"), ("Multi-Arch", "no")}}
    fields["Status"] = "install ok installed"
    if one.conffiles:
        fields["Conffiles"] = "".join(f"\n {path} {md5}" for path, md5 in one.conffiles)
    for name in _RELATIONS:
        if name in fields:
            fields[name] = ", ".join(
                " | ".join(str(alternative) for alternative in clause) for clause in parse_relations(fields[name])
            )
    known = {name: fields[name] for name in _FIELDS if fields.get(name)}
    others = {name: value for name, value in fields.items() if name not in known and value}
    return format_stanza({**known, **others})


def format_diversions(diversions: Iterable[Diversion]) -> bytes:
    """The diversions file: three lines each."""
    ordered = sorted(diversions, key=lambda diversion: diversion.path)
    return "".join(f"{one.path}\n{one.to}\n{one.by}\n" for one in ordered).encode()


def format_triggers(installed: Iterable[Installed]) -> dict[str, bytes]:
    """The files of triggers/: who is interested in what; `File`, if any, holds the triggers on paths."""
    interests: dict[str, list[str]] = {}
    for one in installed:
        for line in one.control.get("triggers", b"").decode().splitlines():
            directive, _, trigger = line.partition("#")[0].strip().partition(" ")
            if directive.startswith("interest"):
                suffix = "/noawait" if directive == "interest-noawait" else ""
                interests.setdefault(trigger.strip(), []).append(one.stem + suffix)
    by_path = [f"{path} {who}\n" for path in sorted(interests) if path.startswith("/") for who in interests[path]]
    named = {
        name: "".join(f"{who}\n" for who in interests[name]).encode()
        for name in sorted(interests)
        if not name.startswith("/")
    }
    of_paths = {"File": "".join(by_path).encode()} if by_path else {}
    return {**of_paths, "Unincorp": b"", **named}
