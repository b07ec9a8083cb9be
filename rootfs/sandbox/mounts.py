"""What a sandbox shows of the host, as values.

Law: pure. A mount describes itself and is checked before anything happens; `rootfs.sandbox.child` carries it out and
reads only what `to_value` wrote. Targets are absolute paths inside the sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from rootfs.ports import Bind


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Something that appears at `target`."""

    target: str

    def to_value(self) -> dict[str, object]:
        """The JSON object the child reads: the fields and, as `kind`, the class's name in lower case."""
        return {"kind": type(self).__name__.lower(), **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount(Mount):
    """A host directory or file, with the mounts below it; never setuid, and no device unless `device`.

    An `optional` one is left out when the host has no such `source`.
    """

    source: str
    writable: bool = False
    device: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proc(Mount):
    """A fresh proc(5) of the sandbox's own process ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnly(Mount):
    """What is at `target` already, made read-only; left out when nothing is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs(Mount):
    """An empty file system in memory; `mode` is that of its root directory."""

    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevPts(Mount):
    """Pseudo-terminals of the sandbox's own (devpts, newinstance)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Symlink(Mount):
    """A symbolic link with the text `link`, on a tmpfs of the sandbox."""

    link: str


def _device(name: str, *, optional: bool = False) -> BindMount:
    path = f"/dev/{name}"
    return BindMount(source=path, target=path, writable=True, device=True, optional=optional)


STANDARD: tuple[Mount, ...] = (
    Proc(target="/proc"),
    # With the host's root as the sandbox's root, these would be the host's own knobs.
    ReadOnly(target="/proc/bus"),
    ReadOnly(target="/proc/fs"),
    ReadOnly(target="/proc/irq"),
    ReadOnly(target="/proc/sys"),
    ReadOnly(target="/proc/sysrq-trigger"),
    Tmpfs(target="/dev", mode=0o755),
    *(_device(name) for name in ("full", "null", "random", "urandom", "zero")),
    _device("tty", optional=True),
    DevPts(target="/dev/pts"),
    Symlink(target="/dev/ptmx", link="pts/ptmx"),
    Tmpfs(target="/dev/shm", mode=0o1777),  # noqa: S108 - the sandbox's, not the host's
    Symlink(target="/dev/fd", link="/proc/self/fd"),
    Symlink(target="/dev/stdin", link="/proc/self/fd/0"),
    Symlink(target="/dev/stdout", link="/proc/self/fd/1"),
    Symlink(target="/dev/stderr", link="/proc/self/fd/2"),
    Tmpfs(target="/tmp", mode=0o1777),  # noqa: S108 - the sandbox's, not the host's
)


def arrange(binds: Iterable[Bind]) -> tuple[Mount, ...]:
    """The standard mounts and `binds`, each after what it lies on; ValueError for a target that makes no sense."""
    wanted = (
        BindMount(source=os.fspath(bind.source.absolute()), target=bind.target, writable=bind.writable)
        for bind in binds
    )
    mounts = sorted((*STANDARD, *wanted), key=lambda mount: mount.target.split("/"))
    targets = [mount.target for mount in mounts]
    for target in targets:
        _check_target(target)
        if targets.count(target) > 1:
            raise ValueError(f"two mounts at {target}")
    return tuple(mounts)


def to_values(mounts: tuple[Mount, ...]) -> list[dict[str, object]]:
    """The child's orders. `make`: the mount point lies on a tmpfs of ours, so the child makes it."""
    by_target = {mount.target: mount for mount in mounts}
    return [{**mount.to_value(), "make": _on_tmpfs(mount, by_target)} for mount in mounts]


def _on_tmpfs(mount: Mount, by_target: dict[str, Mount]) -> bool:
    below = (by_target.get(str(above)) for above in PurePosixPath(mount.target).parents)
    return isinstance(next((base for base in below if base), None), Tmpfs)


def _check_target(target: str) -> None:
    parts = target.split("/")
    if parts[0] != "" or len(parts) < 2 or "\0" in target:
        raise ValueError(f"a mount's target is an absolute path: {target!r}")
    if any(part in ("", ".", "..") for part in parts[1:]):
        raise ValueError(f"a mount's target is a plain path below the root: {target!r}")
