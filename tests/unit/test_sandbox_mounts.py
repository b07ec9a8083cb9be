"""Mounts as values: their order, their checks, and what the child is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootfs.ports import Bind
from rootfs.sandbox import child
from rootfs.sandbox.mounts import STANDARD, BindMount, Symlink, arrange, to_values


def bind(target: str, *, writable: bool = False) -> Bind:
    return Bind(source=Path("/src"), target=target, writable=writable)


def test_a_mount_comes_after_what_it_lies_on() -> None:
    targets = [mount.target for mount in arrange([bind("/a/b/c"), bind("/a"), bind("/a-b"), bind("/a/b")])]
    assert [t for t in targets if t.startswith("/a")] == ["/a", "/a/b", "/a/b/c", "/a-b"]
    assert targets.index("/dev") < targets.index("/dev/null")
    assert targets.index("/proc") < targets.index("/proc/sys")


@pytest.mark.parametrize("target", ["", "build", "/", "/a/", "/a//b", "/a/../b", "/a/./b", "/a\0b", "../a"])
def test_a_target_must_be_a_plain_absolute_path(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        arrange([bind(target)])


@pytest.mark.parametrize("targets", [("/a", "/a"), ("/dev/null",), ("/tmp",), ("/proc",)])
def test_a_place_is_taken_once(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two mounts"):
        arrange(bind(target) for target in targets)


def test_the_child_makes_only_the_points_on_a_tmpfs_of_ours() -> None:
    values = to_values(arrange([bind("/build"), bind("/build/in"), bind("/tmp/work"), bind("/tmp/work/deeper")]))
    made = {str(value["target"]): value["make"] for value in values}
    assert made["/tmp/work"]
    assert made["/dev/null"]
    assert made["/dev/shm"]
    assert not any(made[target] for target in ("/build", "/build/in", "/tmp/work/deeper", "/proc/sys", "/tmp", "/dev"))


def test_binds_are_read_only_unless_asked() -> None:
    mounts = {mount.target: mount for mount in arrange([bind("/a"), bind("/b", writable=True)])}
    assert mounts["/a"] == BindMount(source="/src", target="/a")
    assert mounts["/b"] == BindMount(source="/src", target="/b", writable=True)


def test_a_relative_source_is_made_absolute() -> None:
    mounts = arrange([Bind(source=Path("here"), target="/a")])
    assert BindMount(source=str(Path.cwd() / "here"), target="/a") in mounts


def test_the_child_knows_every_kind_of_mount() -> None:
    kinds = {value["kind"] for value in to_values(arrange([bind("/a")]))}
    assert kinds == set(child.PLACERS)


def test_no_device_but_the_harmless_ones() -> None:
    devices = {mount.target for mount in STANDARD if isinstance(mount, BindMount) and mount.device}
    assert devices == {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}
    assert Symlink(target="/dev/ptmx", link="pts/ptmx") in STANDARD
