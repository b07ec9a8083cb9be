"""Why this machine refused a sandbox, and what to type so that it does not.

Law: reads a few files below /proc (or a directory that looks like it) and reasons; tries nothing, changes nothing.
sysctl: user.* in namespaces(7), kernel.unprivileged_userns_clone (Debian), kernel.apparmor_restrict_unprivileged_userns
(Ubuntu); the Seccomp line of proc_pid_status(5).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rootfs.errors import BuildError, HostError, OcibuildError

_KINDS = ("user", "pid", "mnt", "net", "ipc", "uts")
_REFUSED = (errno.EPERM, errno.EACCES)
_SET_UP = ("unshare", "id-map", "id-range", "private", "root", "mount", "pivot", "hostname", "loopback")

# What each stage of `child` was about to do.
STAGES: Mapping[str, str] = {
    "unshare": "cannot make the namespaces of a sandbox",
    "id-map": "cannot map this user to root inside a sandbox",
    "id-range": "cannot map a range of ids into a sandbox",
    "loopback": "cannot bring up the sandbox's loopback interface",
    "hostname": "cannot name the sandbox's host",
    "private": "cannot part the sandbox's mounts from the host's",
    "root": "cannot make a root directory the sandbox's root",
    "mount-point": "the sandbox's root has no place for a mount",
    "mount": "cannot mount inside the sandbox",
    "pivot": "cannot enter the sandbox's root",
    "capabilities": "cannot drop capabilities",
    "no-new-privileges": "cannot forbid new privileges",
    "cwd": "the sandbox's root has no such working directory",
    "exec": "cannot execute a command in the sandbox",
    "remove": "cannot remove what was made in a sandbox",
    "internal": "the sandbox's own program failed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What the child reported: the stage, the errno (0 when there was none) and what it was about."""

    stage: str
    number: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What /proc says about sandboxes on this machine; None or empty where the kernel has no such switch."""

    limits: Mapping[str, int] = field(default_factory=dict)
    """user.max_<kind>_namespaces by kind, of the user namespace this process is in"""
    unprivileged_clone: bool | None = None
    apparmor_restricts: bool = False
    seccomp: bool = False
    no_new_privileges: bool = False
    covered: tuple[str, ...] = ()
    """mount points below /proc: a container's masks"""


class Advice(NamedTuple):
    """A cause and the fix for it."""

    because: str
    hint: str | None


def read_facts(proc: Path = Path("/proc")) -> Facts:
    """The switches as they are now."""
    kernel = proc / "sys/kernel"
    limits = {kind: _number(proc / f"sys/user/max_{kind}_namespaces") for kind in _KINDS}
    clone = _number(kernel / "unprivileged_userns_clone")
    status = dict(re.findall(r"^(\w+):\s*(\d+)", _text(proc / "self/status"), re.MULTILINE))
    points = (line.split(" ")[4] for line in _text(proc / "self/mountinfo").splitlines())
    return Facts(
        limits={kind: limit for kind, limit in limits.items() if limit is not None},
        unprivileged_clone=None if clone is None else clone != 0,
        apparmor_restricts=_number(kernel / "apparmor_restrict_unprivileged_userns") == 1,
        seccomp=status.get("Seccomp") == "2",
        no_new_privileges=status.get("NoNewPrivs") == "1",
        covered=tuple(sorted(point for point in points if point.startswith("/proc/"))),
    )


def explain(failure: Failure, facts: Facts, *, root: str) -> OcibuildError:
    """The error to raise: BuildError when the command cannot be had in `root`, HostError when the host refused."""
    refused = STAGES.get(failure.stage, failure.stage)
    message = f"{refused}: {failure.target}" if failure.target else refused
    text = os.strerror(failure.number) if failure.number else failure.target
    if failure.stage in ("exec", "cwd"):
        advice = _command_advice(failure)
        return BuildError(message, at=root, because=f"{text}{advice.because}", hint=advice.hint)
    advice = _host_advice(failure, facts)
    because = f"{text}; {advice.because}" if advice.because else text
    return HostError(message, at=root, because=because, hint=advice.hint)


def _command_advice(failure: Failure) -> Advice:
    if failure.stage == "cwd":
        return Advice("", "a bind whose target is the working directory needs that directory in the root")
    if failure.number == errno.ENOENT:
        return Advice(" (the file, or the interpreter or loader it names)", "is its package in the root?")
    if failure.number == errno.EACCES:
        return Advice(
            " (not executable, or the root lies on a file system mounted noexec)",
            "keep the store on a file system without noexec: --store or OCIBUILD_STORE",
        )
    if failure.number == errno.ENOEXEC:
        return Advice(" (made for another architecture?)", None)
    return Advice("", None)


def _host_advice(failure: Failure, facts: Facts) -> Advice:
    """The likeliest cause first: a switch that is off beats a filter that may be."""
    rules = (_limit_advice, _switch_advice, _range_advice, _mask_advice, _filter_advice, _place_advice)
    return next((advice for rule in rules if (advice := rule(failure, facts))), Advice("", None))


def _limit_advice(failure: Failure, facts: Facts) -> Advice | None:
    """namespaces(7): ENOSPC is a limit of this or an outer user namespace reached."""
    if failure.stage != "unshare":
        return None
    for kind, limit in facts.limits.items():
        if limit == 0:
            name = f"user.max_{kind}_namespaces"
            return Advice(f"{name} is 0", f"sudo sysctl -w {name}=15000")
    if failure.number != errno.ENOSPC:
        return None
    return Advice(
        "a limit on namespaces is reached, here or in an outer user namespace",
        "sudo sysctl -w user.max_user_namespaces=15000",
    )


def _switch_advice(failure: Failure, facts: Facts) -> Advice | None:
    if failure.number not in _REFUSED or failure.stage not in _SET_UP:
        return None
    if facts.unprivileged_clone is False:
        name = "kernel.unprivileged_userns_clone"
        return Advice(f"{name} is 0", f"sudo sysctl -w {name}=1")
    if facts.apparmor_restricts:
        name = "kernel.apparmor_restrict_unprivileged_userns"
        return Advice(f"{name} is 1", f"sudo sysctl -w {name}=0")
    return None


def _range_advice(failure: Failure, facts: Facts) -> Advice | None:
    """proc_pid_status(5), NoNewPrivs: newuidmap(1) is a setuid program."""
    if failure.stage != "id-range" or not facts.no_new_privileges:
        return None
    return Advice(
        "setuid programs have no effect for this process (no_new_privs)",
        "start the container without: --security-opt no-new-privileges",
    )


def _mask_advice(failure: Failure, facts: Facts) -> Advice | None:
    """mount_namespaces(7): a new proc may not show more than the one that is there."""
    if failure.stage != "mount" or failure.target != "/proc" or failure.number != errno.EPERM:
        return None
    because = f"parts of /proc are covered here ({', '.join(facts.covered[:3]) or 'by an outer container'})"
    return Advice(because, "start the container with: podman run --security-opt unmask=ALL, "
                  "or docker run --security-opt systempaths=unconfined")  # fmt: skip


def _filter_advice(failure: Failure, facts: Facts) -> Advice | None:
    if failure.stage not in _SET_UP or failure.number not in (*_REFUSED, errno.ENOSYS):
        return None
    if facts.seccomp:
        return Advice(
            "a seccomp filter is active, as in a container of docker's default",
            "start the container with: --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined",
        )
    if failure.stage == "unshare":
        return Advice("this process is in a chroot, or a security module forbids it", None)
    return None


def _place_advice(failure: Failure, _: Facts) -> Advice | None:
    if failure.stage == "unshare" and failure.number == errno.EINVAL:
        return Advice("this kernel is built without one of the namespaces", "use a kernel with CONFIG_USER_NS=y")
    if failure.stage == "mount-point" and failure.number == errno.ENOENT:
        return Advice(
            "the directory is missing", "a root holds an empty directory for every mount, /proc /dev /tmp too"
        )
    if failure.stage == "mount-point" and failure.number == errno.ELOOP:
        return Advice("a symbolic link is on the way", "name the place the link leads to")
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
