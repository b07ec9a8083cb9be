"""Executing a plan: what goes from one step to the next, and what is stored of it."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from builder.execute import execute
from builder.oci.layer import Layer
from builder.plan import Step
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.ports import Request, Response, read_blob
from rootfs.tree import Tree
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport

EPOCH = 1_700_000_000
ROOTFS = Step(
    kind="rootfs",
    title="a root file system of no package",
    parameters={
        "set": "runtime",
        "platform": "linux/amd64",
        "scripts": "native",
        "epoch": EPOCH,
        "sources": "Types: deb\n",
    },
)
SLIM = Step(
    kind="slim",
    title="leave out apt's sources",
    parameters={"rules": [], "exclude": ["/etc/apt/*"], "include": [], "platform": "linux/amd64"},
    inputs=(ROOTFS,),
)
LAYER = Step(
    kind="layer",
    title="a layer",
    parameters={"epoch": EPOCH, "compression": "gzip", "created_by": "test", "register": None, "part": ""},
    inputs=(SLIM,),
)


class WatchedStore(MemoryStore):
    """A store that remembers which blobs were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[Digest] = []

    def open(self, digest: Digest) -> BinaryIO:
        self.opened.append(digest)
        return super().open(digest)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    def answer(request: Request) -> Response:
        raise AssertionError(request)

    return Tools(
        store=WatchedStore(),
        transport=FakeTransport(answer),
        sandbox=None,  # type: ignore[arg-type]
        reporter=ListReporter(),
        mirrors={},
        work=tmp_path / "work",
        jobs=1,
    )


def made(step: Step, tools: Tools) -> Digest:
    digest = tools.store.lookup(step.key)
    assert digest is not None
    return digest


def test_a_tree_goes_from_step_to_step_and_is_stored_as_well(tools: Tools) -> None:
    assert isinstance(tools.store, WatchedStore)
    layer = Layer.from_bytes(read_blob(tools.store, execute(LAYER, tools)))
    assert layer.descriptor.digest in tools.store.blobs
    trees = [made(ROOTFS, tools), made(SLIM, tools)]
    assert not set(trees) & set(tools.store.opened)
    whole, slimmed = (Tree.from_bytes(read_blob(tools.store, digest)) for digest in trees)
    assert "etc/apt/sources.list.d/debian.sources" in whole
    assert "etc/apt/sources.list.d/debian.sources" not in slimmed
    assert "etc/apt" in slimmed


@pytest.mark.parametrize("last", [ROOTFS, SLIM])
def test_a_step_goes_on_from_the_stored_tree_where_the_other_ran_before(tools: Tools, last: Step) -> None:
    assert isinstance(tools.store, WatchedStore)
    at_once = execute(LAYER, tools)
    apart = Tools(**{name: getattr(tools, name) for name in Tools.__slots__} | {"store": WatchedStore()})
    assert isinstance(apart.store, WatchedStore)
    execute(last, apart)
    apart.store.opened.clear()
    assert execute(LAYER, apart) == at_once
    assert made(last, apart) in apart.store.opened
    assert apart.store.blobs == tools.store.blobs
    assert apart.store.links == tools.store.links
