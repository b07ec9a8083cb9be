"""Runtime bundle: an image's config as the `config.json` that runc and crun read (runtime-spec 1.0.2; image-spec 1.1,
conversion.md).

Law: pure; an image's config, its accounts and the ids of who runs it -> bytes. Nobody is looked up on this machine:
users and groups are those of the image. The container has no network but its own loopback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.oci.config import ImageConfig, rfc3339
from rootfs.digest import canonical_json
from rootfs.errors import IntegrityError

Line = tuple[int, int, int]
"""first id inside, first id outside, count"""

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANNOTATION = "org.opencontainers.image"
# What Docker, podman and containerd let a container's root do.
_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
_MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who a process of the image is: ids, those of its further groups, and its home ("" when none is known)."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


def account_of(user: str, passwd: str, group: str) -> Account:
    """`Config.User` (`[NAME|UID][:NAME|GID]`) looked up in the image's own files, as runc does it.

    IntegrityError for a name that is not in them. A number needs no entry; without one its group is 0.
    """
    who, _, which = user.partition(":")
    accounts = [fields for line in passwd.splitlines() if len(fields := line.split(":")) >= 6]
    entry = next((one for one in accounts if (who or "0") in (one[0], one[2])), None)
    if entry is None and not who.isdecimal() and who:
        raise _unknown("user", who, "etc/passwd")
    uid = _number(entry[2] if entry else who or "0", "etc/passwd")
    gid = _number(entry[3], "etc/passwd") if entry else 0
    groups = [fields for line in group.splitlines() if len(fields := line.split(":")) >= 4]
    if which:
        found = next((one for one in groups if which in (one[0], one[2])), None)
        if found is None and not which.isdecimal():
            raise _unknown("group", which, "etc/group")
        return Account(uid=uid, gid=_number(found[2] if found else which, "etc/group"), home=entry[5] if entry else "")
    further = [_number(one[2], "etc/group") for one in groups if entry and entry[0] in one[3].split(",")]
    return Account(uid=uid, gid=gid, groups=tuple(dict.fromkeys(further)), home=entry[5] if entry else "")


def runtime_config(
    config: ImageConfig, account: Account, *, uids: Sequence[Line] = (), gids: Sequence[Line] = ()
) -> bytes:
    """The bytes of `config.json`; with `uids` and `gids` (lines of uid_map and gid_map) for who is not root."""
    names = {pair.partition("=")[0] for pair in config.env}
    env = [*config.env, *([] if "PATH" in names else [_PATH])]
    env += [f"HOME={account.home}"] if account.home and "HOME" not in names else []
    rootless = bool(uids)
    value: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": account.uid, "gid": account.gid, "additionalGids": list(account.groups)},
            "args": [*config.entrypoint, *config.cmd] or ["sh"],
            "env": env,
            "cwd": config.working_dir or "/",
            "capabilities": _capabilities(account),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "localhost",
        "mounts": _mounts(rootless=rootless),
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces(rootless=rootless)],
            "maskedPaths": [*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
        },
        "annotations": _annotations(config),
    }
    if rootless:
        value["linux"] |= {"uidMappings": _mapping(uids), "gidMappings": _mapping(gids)}
    return canonical_json(value)


def _capabilities(account: Account) -> Mapping[str, list[str]]:
    """Root has them; anybody else could only gain them from a file that has."""
    names = [f"CAP_{name}" for name in _CAPABILITIES]
    return {"bounding": names} | ({} if account.uid else {"effective": names, "permitted": names})


def _namespaces(*, rootless: bool) -> list[str]:
    return [*(["user"] if rootless else []), "pid", "network", "ipc", "uts", "mount"]


def _mounts(*, rootless: bool) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    group = [] if rootless else ["gid=5"]  # the group tty: not among the ids of who has but one
    rows: list[tuple[str, str, str, list[str]]] = [
        ("/proc", "proc", "proc", safe),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group]),
        ("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),  # noqa: S108 - in the container
        ("/dev/mqueue", "mqueue", "mqueue", safe),
        ("/sys", "sysfs", "sysfs", [*safe, "ro"]),
    ]
    return [
        {"destination": place, "type": kind, "source": source, "options": options}
        for place, kind, source, options in rows
    ]


def _annotations(config: ImageConfig) -> dict[str, str]:
    """conversion.md, "Annotation Fields"; a label of the same name wins."""
    told = {
        "os": config.platform.os,
        "architecture": config.platform.architecture,
        "variant": config.platform.variant or "",
        "created": rfc3339(config.created),
        "stopSignal": config.stop_signal,
        "exposedPorts": ",".join(config.exposed_ports),
    }
    return {f"{_ANNOTATION}.{name}": value for name, value in told.items() if value} | dict(config.labels)


def _mapping(lines: Sequence[Line]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in lines]


def _number(text: str, at: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) > 2**32 - 2:
        raise IntegrityError(f"not an id: {text!r:.40}", at=at)
    return int(text)


def _unknown(kind: str, name: str, at: str) -> IntegrityError:
    hint = f"the image's config says so: `ocibuild mutate --user` gives it another {kind}"
    return IntegrityError(f"the image has no {kind} {name!r:.60}", at=at, hint=hint)
