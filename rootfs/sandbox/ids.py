"""Which ids of the host stand for 0 to 65535 in a sandbox, when one is not enough (subuid(5), user_namespaces(7)).

Law: reads files, maps nothing. Who is root maps the ids to themselves. Anybody else is root of the sandbox, and 1 and
above are their subordinate ids; so what root of the sandbox made belongs to them.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rootfs.errors import HostError

Line = tuple[int, int, int]
"""first id inside, first id outside, count: a line of uid_map"""

_WANTED = 65536
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin")
_NEITHER = "or run as root, or choose what needs one id only: no maintainer script"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """Lines of uid_map and gid_map, and the programs that may write them by kind; None: this process may."""

    uid: tuple[Line, ...]
    gid: tuple[Line, ...]
    helpers: Mapping[str, str] | None = None

    def to_value(self) -> dict[str, object]:
        """The JSON object the child reads."""
        return asdict(self)


def find_range() -> IdMap:
    """The map for whoever runs this; HostError, with the fix, when the machine gives them no range."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        for kind in ("uid", "gid"):
            check_identity(_read(Path(f"/proc/self/{kind}_map")), kind)
        return IdMap(uid=((0, 0, _WANTED),), gid=((0, 0, _WANTED),))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    helpers = {kind: _helper(f"new{kind}map") for kind in ("uid", "gid")}
    return IdMap(
        uid=subordinate(_read(Path("/etc/subuid")), name=name, uid=uid, own=uid, kind="uid"),
        gid=subordinate(_read(Path("/etc/subgid")), name=name, uid=uid, own=gid, kind="gid"),
        helpers=helpers,
    )


def subordinate(text: str, *, name: str, uid: int, own: int, kind: str) -> tuple[Line, ...]:
    """The map from what subuid(5) or subgid(5) says of a user, by name or by number, in as many ranges as it takes.

    `own` is the user's own id. HostError when there is no range, or not 65535 ids in all of them.
    """
    lines, inside = [(0, own, 1)], 1
    for first, count in _ranges(text, name, uid):
        apart = all(first + count <= start or start + size <= first for _, start, size in lines)
        if apart and inside < _WANTED:
            lines.append((inside, first, min(count, _WANTED - inside)))
            inside += lines[-1][2]
    if inside < _WANTED:
        option = f"--add-sub{kind}s"
        found = f"{inside - 1} ids are not enough" if inside > 1 else "no entry"
        raise HostError(
            f"user {name} has no range of {kind}s for a sandbox",
            at=f"/etc/sub{kind}",
            because=f"{found}: {_WANTED - 1} are needed, for packages give files to others than root",
            hint=f"sudo usermod {option} 100000-165535 {name} (a range nobody else has), {_NEITHER}",
        )
    return tuple(lines)


def _ranges(text: str, name: str, uid: int) -> list[tuple[int, int]]:
    fields = (line.split(":") for line in text.splitlines())
    return [
        (int(first), int(count))
        for owner, first, count in (f for f in fields if len(f) == 3)
        if owner in (name, str(uid)) and first.isdecimal() and count.strip().isdecimal()
    ]


def check_identity(text: str, kind: str) -> None:
    """HostError unless the user namespace with this uid_map has all ids that are wanted."""
    have = sum(max(0, min(int(f[0]) + int(f[2]), _WANTED) - int(f[0])) for f in map(str.split, text.splitlines()))
    if have < _WANTED:
        raise HostError(
            f"this root has no range of {kind}s for a sandbox",
            at=f"/proc/self/{kind}_map",
            because=f"the user namespace it lives in has {have} of {_WANTED} {kind}s",
            hint="start the outer container, or unshare, with a map of 65536 ids",
        )


def _helper(name: str) -> str:
    """The path of newuidmap(1) or newgidmap(1), which must have the right to do what it is for."""
    path = next((place for folder in _PLACES if os.access(place := f"{folder}/{name}", os.X_OK)), None)
    if path is None:
        raise HostError(f"{name} is not installed", hint=f"sudo apt-get install uidmap, {_NEITHER}")
    if not os.stat(path).st_mode & stat.S_ISUID and not _has_capabilities(path):  # noqa: PTH116 - a plain path
        raise HostError(f"{name} cannot map ids", at=path, because="it is not setuid", hint=f"sudo chmod u+s {path}")
    return path


def _has_capabilities(path: str) -> bool:
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
