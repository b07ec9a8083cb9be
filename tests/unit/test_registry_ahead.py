"""Layers go before the image is made, nothing else does; what fails is the push's; who is not let in knows first."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.execute import execute
from builder.oci.descriptor import Descriptor
from builder.oci.manifest import Manifest
from builder.plan import Step
from builder.registry.ahead import Ahead
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.source import gather, store_source
from builder.registry.transfer import Outcome, send
from builder.registry.upload import Action
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import BuildError, IntegrityError, TransferError
from rootfs.ports import Request, Response, read_blob
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, body_of
from tests.unit.test_registry_transfer import image
from tests.unit.test_remote import IMAGE, LAYER, PLAN, ROOTFS, TREE

LAYERS = (b"lower" * 100, b"upper" * 100)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def reporter() -> ListReporter:
    return ListReporter()


def layers_of(store: MemoryStore, root: Descriptor) -> tuple[Descriptor, ...]:
    return Manifest.parse(read_blob(store, root.digest)).layers


def push(store: MemoryStore, root: Descriptor, registry: Registry, ahead: Ahead) -> Outcome:
    source = store_source(store)
    return send(gather(source, root), source, registry, ["v1"], ListReporter(), earlier=ahead.of(registry))


def sent(transport: FakeTransport, method: str) -> list[str]:
    return [request.url for request in transport.requests if request.method == method]


def notes(reporter: ListReporter) -> list[str]:
    return [str(event[1]) for event in reporter.events if event[0] == "note"]


def test_layers_are_there_before_the_push_and_told_as_its_own(
    store: MemoryStore, server: MemoryRegistry, transport: FakeTransport, registry: Registry, reporter: ListReporter
) -> None:
    root = image(store, *LAYERS)
    layers = layers_of(store, root)
    with Ahead(store, reporter, [registry]) as ahead:
        ahead.packed(layers[:1])
        ahead.packed(layers)  # each is sent once
    assert server.blobs.keys() == {str(layer.digest) for layer in layers}
    assert server.manifests == {}
    assert len(sent(transport, "PUT")) == len(layers)
    transport.requests.clear()
    outcome = push(store, root, registry, ahead)
    assert "v1" in server.manifests
    assert not [url for url in sent(transport, "PUT") for layer in layers if str(layer.digest.hex) in url]
    assert {one.descriptor.digest: (one.action, one.bytes) for one in outcome.blobs} == {
        blob.digest: (Action.UPLOADED, blob.size) for blob in (*layers, Manifest.parse(store.blobs[root.digest]).config)
    }


def test_the_push_waits_for_what_is_under_way(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, reporter: ListReporter
) -> None:
    root = image(store, *LAYERS)
    first = layers_of(store, root)[0]
    begun, go = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if request.method == "PUT" and first.digest.hex in request.url:
            begun.set()
            assert go.wait(10)
        return None

    server.fault = hold
    with Ahead(store, reporter, [registry]) as ahead, ThreadPoolExecutor(1) as pool:
        ahead.packed([first])
        assert begun.wait(10)
        pushing = pool.submit(push, store, root, registry, ahead)
        with pytest.raises(TimeoutError):
            pushing.result(timeout=0.2)
        assert "v1" not in server.manifests
        go.set()
        assert {one.action for one in pushing.result(timeout=10).blobs} == {Action.UPLOADED}


def test_what_fails_is_told_and_left_to_the_push(
    store: MemoryStore, server: MemoryRegistry, transport: FakeTransport, registry: Registry, reporter: ListReporter
) -> None:
    root = image(store, *LAYERS)
    server.fault = lambda request: server.error(request, 500, "UNKNOWN") if request.method == "PUT" else None
    with Ahead(store, reporter, [registry]) as ahead:
        ahead.packed(layers_of(store, root)[:1])
        ahead.packed(layers_of(store, root))
        for layer in layers_of(store, root):
            ahead._uploads[registry.reference.name][layer.digest].result(timeout=10)
        assert server.blobs == {}
        assert "tried again when the image is made" in notes(reporter)[0]
        server.fault = lambda request: None
        outcome = push(store, root, registry, ahead)
    assert {one.action for one in outcome.blobs} == {Action.UPLOADED}
    assert "v1" in server.manifests


def test_what_was_collected_meanwhile_is_sent_again(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, reporter: ListReporter
) -> None:
    root = image(store, *LAYERS)
    with Ahead(store, reporter, [registry]) as ahead:
        ahead.packed(layers_of(store, root))
    server.blobs.clear()
    push(store, root, registry, ahead)
    assert {str(layer.digest) for layer in layers_of(store, root)} <= server.blobs.keys()


def test_every_repository_gets_them_and_the_same_one_once(
    store: MemoryStore, transport: FakeTransport, reporter: ListReporter
) -> None:
    root = image(store, LAYERS[0])
    names = ("r.example.org/a", "r.example.org/a", "r.example.org/b", "s.example.org/a")
    registries = [Registry(transport, Reference.parse(name)) for name in names]
    with Ahead(store, reporter, registries) as ahead:
        ahead.packed(layers_of(store, root))
    begun = [event[1] for event in reporter.events if event[0] == "begin"]
    digest = layers_of(store, root)[0].digest.hex[:12]
    assert sorted(map(str, begun)) == [f"push {digest} to {name}" for name in sorted(set(names))]
    assert begun.index(f"push {digest} to {names[0]}") < begun.index(f"push {digest} to {names[2]}")
    assert [len(ahead.of(one).uploads) for one in registries] == [1, 0, 1, 1]


@pytest.mark.parametrize("status", [403, 404, 405])
def test_who_is_not_let_in_is_told_before_the_work(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, reporter: ListReporter, status: int
) -> None:
    server.fault = lambda request: server.error(request, status, "DENIED") if request.method == "POST" else None
    with pytest.raises(TransferError) as caught, Ahead(store, reporter, [registry]) as ahead:
        ahead.begins()
    assert caught.value.hint


def test_who_is_let_in_leaves_no_session_behind_and_is_asked_once(
    store: MemoryStore, server: MemoryRegistry, transport: FakeTransport, registry: Registry, reporter: ListReporter
) -> None:
    with Ahead(store, reporter, [registry]) as ahead:
        ahead.begins()
        ahead.begins()
    assert [request.method for request in transport.requests] == ["POST", "DELETE"]
    assert transport.requests[1].url == f"https://r.example.org{server.location}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_stops_no_build(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, reporter: ListReporter, status: int
) -> None:
    server.fault = lambda request: server.error(request, status, "TOOMANYREQUESTS")
    with Ahead(store, reporter, [registry]) as ahead:
        ahead.begins()
    assert str(status) in notes(reporter)[0]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TransferError("the build failed")])
def test_a_build_that_ends_stops_what_is_under_way(
    store: MemoryStore,
    server: MemoryRegistry,
    registry: Registry,
    reporter: ListReporter,
    error: BaseException,
) -> None:
    root = image(store, *LAYERS)
    begun, go = threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if request.method == "PUT":
            begun.set()
            assert go.wait(10)
            body_of(request)  # of which nothing comes any more
        return None

    server.fault = hold
    timer = threading.Timer(0.2, go.set)

    def build() -> None:
        with Ahead(store, reporter, [registry]) as ahead:
            ahead.packed(layers_of(store, root))
            assert begun.wait(10)
            timer.start()
            raise error

    with pytest.raises(type(error)):
        build()
    timer.join()
    assert server.blobs == {}
    assert server.manifests == {}
    assert notes(reporter) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_a_build_that_fails_is_not_held_up_by_a_silent_registry(
    store: MemoryStore,
    server: MemoryRegistry,
    registry: Registry,
    reporter: ListReporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builder.registry.ahead._GRACE", 0.1)
    root = image(store, *LAYERS)
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def hold(request: Request) -> Response | None:
        if request.method == "PUT":
            begun.set()
            assert go.wait(10)
            ended.set()
        return None

    server.fault = hold

    def build() -> None:
        with Ahead(store, reporter, [registry]) as ahead:
            ahead.packed(layers_of(store, root))
            assert begun.wait(10)
            raise BuildError("it failed")

    with pytest.raises(BuildError):
        build()
    assert not ended.is_set()
    go.set()
    assert ended.wait(10)


class Told:
    """`builder.tools.PushAhead` that writes down when it was told what."""

    def __init__(self, reporter: ListReporter) -> None:
        self._reporter = reporter

    def begins(self) -> None:
        self._reporter.events.append(("begins",))

    def packed(self, layers: Sequence[Descriptor]) -> None:
        self._reporter.events.append(("packed", len(layers)))


@pytest.fixture
def tools(store: MemoryStore, reporter: ListReporter, tmp_path: Path) -> Tools:
    store.link(ROOTFS.key, store.put([TREE.to_bytes()]).digest)
    return Tools(
        store=store,
        transport=FakeTransport(MemoryRegistry()),
        sandbox=ScriptedSandbox(),
        reporter=reporter,
        mirrors={},
        work=tmp_path,
        jobs=1,
        ahead=Told(reporter),
    )


def test_the_executor_tells_of_layers_when_they_are_packed(
    store: MemoryStore, reporter: ListReporter, tools: Tools
) -> None:
    image = execute(PLAN, tools)
    assert [event for event in reporter.events if event[0] != "advance"] == [
        ("begins",),
        ("packed", 0),
        ("begin", "a layer", None, "B"),
        ("packed", 1),
        ("finish", "a layer", "done"),
        ("begin", "an image", None, "B"),
        ("finish", "an image", "done"),
    ]
    del store.links[PLAN.key]
    reporter.events.clear()
    execute(PLAN, tools)
    assert reporter.events[:2] == [("begins",), ("packed", 1)]  # what is there goes first
    reporter.events.clear()
    assert execute(PLAN, tools) == image
    assert reporter.events == []  # nothing is left to be done, so nobody is asked


def test_a_layer_that_needs_no_compile_is_packed_before_one_begins(reporter: ListReporter, tools: Tools) -> None:
    """However many steps it still takes; the compile here cannot even begin."""
    said = {"rules": [], "exclude": [], "include": [], "platform": "linux/amd64"}
    slim = Step(kind="slim", title="slim", parameters=said, inputs=(ROOTFS,))
    layer = Step(kind="layer", title="a layer", parameters=LAYER, inputs=(slim,))
    compiled = Step(kind="arrange", title="lay out", parameters={"counts": str(Digest.of(b"nowhere"))})
    with pytest.raises(IntegrityError, match="not here"):
        execute(Step(kind="image", title="an image", parameters=IMAGE, inputs=(compiled, layer)), tools)
    assert ("packed", 1) in reporter.events
