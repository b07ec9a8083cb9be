"""A machine that is too small, as the kernel and real programs tell of it: stages run in the real sandbox.

The toolchain is an empty directory with the host's /usr bound into it; what it compiles is a shell script.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.python import stages
from builder.python.flags import Commands
from builder.python.workshop import Workshop
from rootfs.errors import BuildError, HostError
from rootfs.ports import Bind, Command, Outcome
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.tree import Tree, file
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore


class HostsPrograms(NamespaceSandbox):
    """A sandbox in which every root has the host's /usr."""

    def run(self, command: Command) -> Outcome:
        usr = Bind(source=Path("/usr"), target="/usr")
        return super().run(replace(command, binds=(usr, *command.binds)))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    root = tmp_path / "toolchain"
    for name in ("usr/local", "proc", "dev", "tmp", "build", "pip"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    made = Workshop(
        toolchain=root,
        work=tmp_path / "work",
        environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        sandbox=HostsPrograms(),
        reporter=ListReporter(),
    )
    made.clear()
    try:
        made.run("probe", ("true",))
    except HostError as error:
        pytest.skip(f"no sandbox on this machine: {error.render()}")
    return made


def compile_with(workshop: Workshop, script: str) -> Tree:
    """Compile with a Makefile whose one rule runs this."""
    source = Tree([file("Makefile", f"all:\n\t{script}\n".encode()), file("x.c", b"int x;\n")])
    commands = Commands(compile=("make", "all"), install=("cp", "made", "/usr/local/made"))
    return stages.compile_(workshop, source, None, commands, 1, MemoryStore())


def test_what_make_makes_is_installed(workshop: Workshop) -> None:
    assert list(compile_with(workshop, "cp x.c made")) == ["usr/local/made"]


@pytest.mark.parametrize(
    ("script", "what", "hint"),
    [
        ("kill -9 $$$$", "memory", "--jobs 1"),
        ("sh -c 'kill -9 $$PPID'; true", "memory", "--jobs 1"),
        ("cp x.c /dev/full", "disk space", "--store"),
    ],
    ids=["killed", "its shell killed", "full"],
)
def test_a_machine_that_is_too_small_exits_7_with_the_way_out(
    workshop: Workshop, script: str, what: str, hint: str
) -> None:
    with pytest.raises(HostError, match=f"compile: make ran out of {what}") as caught:
        compile_with(workshop, script)
    assert caught.value.exit_code == 7
    assert hint in (caught.value.hint or "")
    assert caught.value.at is not None
    assert "make" in Path(caught.value.at).read_text()


def test_an_error_of_the_source_is_not_the_machines(workshop: Workshop) -> None:
    with pytest.raises(BuildError, match="compile: make exited 2") as caught:
        compile_with(workshop, "echo x.c: error: expected one; exit 1")
    assert "expected one" in (caught.value.because or "")


def test_a_stage_that_is_killed_itself_ran_out_of_memory(workshop: Workshop) -> None:
    with pytest.raises(HostError, match="train ran out of memory"):
        stages.train(workshop, Tree([file("x", b"")]), Commands(train=("sh", "-c", "kill -9 $$")), MemoryStore())
