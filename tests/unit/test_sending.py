"""What a push to several repositories says: which of them is meant by the lines that follow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.cli.deliver import deliver
from builder.cli.sending import all_done, send_found
from builder.finding import stored_image
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.tools import Tools
from builder.transit import Delivered, Target, load, push_each
from rootfs.errors import TransferError
from rootfs.tree import Tree, file
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.transport import FakeTransport
from tests.unit.test_images import image_of, tools_in

Push = Callable[[Tools, list[Reference]], None]


def reach(reference: Reference) -> Registry:
    """A registry of its own for each repository."""
    return Registry(FakeTransport(MemoryRegistry()), reference)


def by_push(tools: Tools, references: list[Reference]) -> None:
    image = image_of(Tree([file("x", b"x")]), tools)
    found = stored_image(image.descriptor, tools.store, "it")
    rest = {"no_referrers": False, "planned": False, "check": False, "receipt": None}
    send_found(found, references, tools, reach, tags=(), as_json=False, **rest)  # type: ignore[arg-type]


def by_pack(tools: Tools, references: list[Reference]) -> None:
    image = image_of(Tree([file("x", b"x")]), tools)
    deliver(image.descriptor, None, references, tools, reach)


@pytest.mark.parametrize("push", [by_push, by_pack])
def test_each_of_several_repositories_is_named_before_what_goes_there(push: Push, tmp_path: Path) -> None:
    names = ["r.example.org/a", "s.example.org/b"]
    for wanted in (names, names[:1]):
        tools = tools_in(tmp_path / str(len(wanted)))
        push(tools, [Reference.parse(f"{name}:1") for name in wanted])
        assert isinstance(tools.reporter, ListReporter)
        told = [event[1] for event in tools.reporter.events if event[0] == "note"]
        assert told == ([f"to {name}" for name in wanted] if len(wanted) > 1 else [])
        events = [event[:2] for event in tools.reporter.events]
        if len(wanted) > 1:
            first, second = (events.index(("note", f"to {name}")) for name in wanted)
            assert any(str(task).startswith("push ") for _, task in events[first:second])


def test_a_receipt_has_the_pushes_before_the_one_that_failed(tmp_path: Path) -> None:
    tools = tools_in(tmp_path)
    image = image_of(Tree([file("x", b"x")]), tools)
    what = load(stored_image(image.descriptor, tools.store, "it"), tools)
    goals = [Target(registry=reach(Reference.parse(f"{name}.example.org/a")), tags=("1",)) for name in "rs"]

    def pushes() -> Iterator[Delivered]:
        yield next(push_each(what, goals, tools))
        raise TransferError("the second one is down")

    with pytest.raises(TransferError):
        all_done(pushes(), tmp_path / "receipt.json")
    (told,) = json.loads((tmp_path / "receipt.json").read_bytes())
    assert told["digest"] == str(image.descriptor.digest)
