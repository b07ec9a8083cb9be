"""Refusals and their causes, from files that look like /proc."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from rootfs.errors import BuildError, HostError
from rootfs.sandbox import child
from rootfs.sandbox.probe import STAGES, Facts, Failure, explain, read_facts

OPEN = {"sys/user/max_user_namespaces": "15000\n", "self/status": "Name:\tx\nSeccomp:\t0\n"}
MASKS = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /proc rw - proc proc rw\n3 2 0:3 / /proc/kcore rw - tmpfs t rw\n"


def proc(folder: Path, files: dict[str, str]) -> Facts:
    for name, text in {**OPEN, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_facts(folder)


def unshare(number: int = errno.EPERM) -> Failure:
    return Failure(stage="unshare", number=number, target="")


CASES = [
    (
        {"sys/user/max_user_namespaces": "0\n"},
        unshare(errno.ENOSPC),
        "user.max_user_namespaces is 0",
        "sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        {"sys/user/max_net_namespaces": "0\n"},
        unshare(errno.ENOSPC),
        "user.max_net_namespaces is 0",
        "sudo sysctl -w user.max_net_namespaces=15000",
    ),
    ({}, unshare(errno.ENOSPC), "limit on namespaces", "user.max_user_namespaces=15000"),
    (
        {"sys/kernel/unprivileged_userns_clone": "0\n"},
        unshare(),
        "kernel.unprivileged_userns_clone is 0",
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
        Failure(stage="id-map", number=errno.EACCES, target="/proc/self/uid_map"),
        "kernel.apparmor_restrict_unprivileged_userns is 1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    ({"self/status": "Seccomp:\t2\n"}, unshare(), "seccomp", "seccomp=unconfined"),
    (
        {"self/status": "Seccomp:\t2\n", "self/mountinfo": MASKS},
        Failure(stage="mount", number=errno.EPERM, target="/proc"),
        "covered here (/proc/kcore)",
        "unmask=ALL",
    ),
    (
        {"self/status": "Seccomp:\t2\nNoNewPrivs:\t1\n"},
        Failure(stage="id-range", number=errno.EPERM, target="newuidmap: write to uid_map failed"),
        "no_new_privs",
        "without: --security-opt no-new-privileges",
    ),
    ({}, unshare(errno.EINVAL), "without one of the namespaces", "CONFIG_USER_NS"),
    (
        {},
        Failure(stage="mount-point", number=errno.ENOENT, target="/build"),
        "the directory is missing",
        "empty directory for every mount",
    ),
]


@pytest.mark.parametrize(("files", "failure", "because", "hint"), CASES)
def test_a_refusal_names_its_cause_and_a_fix(
    tmp_path: Path, files: dict[str, str], failure: Failure, because: str, hint: str
) -> None:
    error = explain(failure, proc(tmp_path, files), root="/r")
    assert isinstance(error, HostError)
    assert error.at == "/r"
    assert because in (error.because or "")
    assert hint in (error.hint or "")


def test_a_cause_is_not_guessed_when_there_is_no_sign_of_one(tmp_path: Path) -> None:
    facts = proc(tmp_path, {"sys/kernel/unprivileged_userns_clone": "1\n"})
    error = explain(Failure(stage="mount", number=errno.ENOMEM, target="/tmp"), facts, root="/r")
    assert (error.because, error.hint) == ("Cannot allocate memory", None)


def test_a_bad_root_is_not_blamed_on_a_container(tmp_path: Path) -> None:
    facts = proc(tmp_path, {"self/status": "Seccomp:\t2\n"})
    error = explain(Failure(stage="mount-point", number=errno.EACCES, target="/dev"), facts, root="/r")
    assert "seccomp" not in error.render()


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (Failure(stage="exec", number=errno.ENOENT, target="gcc"), "loader"),
        (Failure(stage="exec", number=errno.EACCES, target="gcc"), "noexec"),
        (Failure(stage="exec", number=errno.ENOEXEC, target="gcc"), "architecture"),
        (Failure(stage="cwd", number=errno.ENOENT, target="/build"), "/build"),
    ],
)
def test_a_command_that_is_not_there_is_no_fault_of_the_host(failure: Failure, word: str) -> None:
    error = explain(failure, Facts(), root="/r")
    assert isinstance(error, BuildError)
    assert word in error.render()


def test_an_empty_proc_is_no_trouble(tmp_path: Path) -> None:
    assert read_facts(tmp_path) == Facts()


def test_facts_of_this_machine_can_be_read() -> None:
    assert "user" in read_facts().limits


def test_every_stage_of_the_child_has_its_sentence() -> None:
    calls = [node for node in ast.walk(ast.parse(Path(child.__file__).read_text())) if isinstance(node, ast.Call)]
    named = {
        node.args[0].value
        for node in calls
        if ast.unparse(node.func) in ("step", "Refusal") and isinstance(node.args[0], ast.Constant)
    }
    assert len(named) > 8
    assert named | {"internal"} == set(STAGES)
