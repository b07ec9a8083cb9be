"""The stages that count an interpreter and lay it out; the sandbox only pretends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from builder.python import stages
from builder.python.layout import LayoutCommands
from builder.python.workshop import Workshop
from rootfs.errors import BuildError, IntegrityError
from rootfs.ports import Command, read_blob, read_content
from rootfs.tree import Kind, Tree, file
from tests.fakes.profile import COUNTS
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore

Play = Callable[[str, Mapping[str, Path]], Played | None]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A workshop whose commands do nothing; `play` says otherwise."""
    return Workshop(
        toolchain=tmp_path / "toolchain",
        work=tmp_path / "work",
        environment={},
        sandbox=ScriptedSandbox(),
        reporter=ListReporter(),
    )


def play(workshop: Workshop, act: Play) -> list[str]:
    """Have `act` see each command and where the host has what it sees; the list that the commands come to."""
    seen: list[str] = []

    def played(command: Command) -> Played:
        seen.append(" ".join(command.argv))
        return act(seen[-1], {bind.target: bind.source for bind in command.binds}) or Played()

    sandbox = workshop.sandbox
    assert isinstance(sandbox, ScriptedSandbox)
    sandbox.play = played
    return seen


def fail_at(word: str, output: str = "", status: int = 2) -> Play:
    return lambda words, _: Played(output=output, exit=status) if word in words else None


LAYOUT = LayoutCommands(
    equip=("llvm-bolt", "/usr/local/bin/python3.14", "-instrument"),
    gather=("merge-fdata",),
    arrange=("llvm-bolt", "/usr/local/bin/python3.14", "-data"),
    strip=("strip",),
)
LINKED = Tree([file("usr/local/bin/python3.14", b"linked", mode=0o755), file("usr/local/lib/x.so", b"module")])
LINKED = LINKED.with_parents()


def test_counting_ends_with_canonical_counts_and_the_interpreter_as_it_was(
    workshop: Workshop, store: MemoryStore
) -> None:
    def act(words: str, places: Mapping[str, Path]) -> None:
        assert (places["/usr/local"] / "bin/python3.14").read_bytes() == b"linked"
        if words == "merge-fdata":
            counts = (b"1 f 1 1 f 2 0 9", *reversed(COUNTS.splitlines()), b"")
            (places["/build"] / "layout.fdata").write_bytes(b"\n".join(counts))

    seen = play(workshop, act)
    counts = stages.count(workshop, LINKED, LAYOUT, ("./python", "-c", "pass"), store)
    assert read_blob(store, counts) == COUNTS
    assert seen == ["llvm-bolt /usr/local/bin/python3.14 -instrument", "./python -c pass", "merge-fdata"]


@pytest.mark.parametrize("stage", ["-instrument", "./python", "merge-fdata"])
def test_counting_that_fails_has_no_counts(stage: str, workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, fail_at(stage))
    with pytest.raises(BuildError):
        stages.count(workshop, LINKED, LAYOUT, ("./python", "-c", "pass"), store)
    assert not [blob for blob in store.blobs.values() if b"lto_priv" in blob]


def test_the_interpreter_laid_out_takes_the_place_of_the_linked_one(workshop: Workshop, store: MemoryStore) -> None:
    def act(words: str, places: Mapping[str, Path]) -> None:
        if words.endswith("-data"):
            assert (places["/build"] / "layout.fdata").read_bytes() == COUNTS
            (places["/build"] / "python").write_bytes(b"laid out")
            (places["/build"] / "python").chmod(0o755)
        if words == "strip":
            (places["/build"] / "python").write_bytes(b"stripped")

    seen = play(workshop, act)
    made = stages.arrange(workshop, LINKED, store.put([COUNTS]).digest, LAYOUT, store)
    assert len(seen) == 2
    assert [path for path in made if made[path].kind is Kind.FILE] == ["usr/local/bin/python3.14", "usr/local/lib/x.so"]
    assert read_content(store, made["usr/local/bin/python3.14"].content) == b"stripped"
    assert made["usr/local/bin/python3.14"].mode == 0o755
    assert read_content(store, made["usr/local/lib/x.so"].content) == b"module"


def test_counts_that_do_not_fit_the_interpreter_are_named(workshop: Workshop, store: MemoryStore) -> None:
    play(workshop, fail_at("-data", "BOLT-ERROR: stale functions exceed specified threshold\n", 1))
    with pytest.raises(BuildError, match="lay out exited 1") as caught:
        stages.arrange(workshop, LINKED, store.put([COUNTS]).digest, LAYOUT, store)
    assert "profile train" in (caught.value.hint or "")
    with pytest.raises(IntegrityError, match="not counts"):
        stages.arrange(workshop, LINKED, store.put([b"#!/bin/sh\n"]).digest, LAYOUT, store)
