"""The remote cache: what one machine made, another takes; one that lies is not believed, one that is away no loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.execute import execute
from builder.oci.manifest import Manifest
from builder.plan import Step
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.remote import RemoteCache, tag_of
from builder.tools import Tools
from rootfs.digest import Digest, canonical_json
from rootfs.ports import Request, Response, read_blob
from rootfs.tree import Tree, directory, file
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport

TREE = Tree([directory("usr"), file("usr/x", b"content" * 1000)])
ROOTFS = Step(kind="rootfs", title="a rootfs", parameters={"nothing": "real"})
LAYER = {"epoch": 0, "compression": "gzip", "created_by": "test", "register": None, "part": ""}
IMAGE = {
    "image": {"env": {}, "entrypoint": [], "cmd": ["x"], "user": "", "workdir": "", "labels": {}},
    "epoch": 0,
    "python": "3.14.7",
    "platform": "linux/amd64",
    "without": [],
}
PLAN = Step(
    kind="image",
    title="an image",
    parameters=IMAGE,
    inputs=(Step(kind="layer", title="a layer", parameters=LAYER, inputs=(ROOTFS,)),),
)


@pytest.fixture
def server() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def repository(server: MemoryRegistry) -> Registry:
    return Registry(FakeTransport(server), Reference.parse("r.example.org/a"))


Machine = Callable[[MemoryStore], Tools]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    def make(store: MemoryStore) -> Tools:
        def answer(request: Request) -> Response:
            raise AssertionError(request)

        return Tools(
            store=store,
            transport=FakeTransport(answer),
            sandbox=None,  # type: ignore[arg-type]
            reporter=ListReporter(),
            mirrors={},
            work=tmp_path / "work",
            jobs=1,
        )

    return make


def made(machine: Machine, repository: Registry) -> Digest:
    """The image, made by the first machine, which keeps it."""
    store = MemoryStore()
    store.link(ROOTFS.key, store.put([TREE.to_bytes()]).digest)
    return run(machine(store), target=repository)


def run(tools: Tools, *, source: Registry | None = None, target: Registry | None = None) -> Digest:
    sources = [source] if source else []
    with RemoteCache(tools.store, tools.reporter, sources=sources, target=target) as cache:
        return execute(PLAN, Tools(**{name: getattr(tools, name) for name in Tools.__slots__} | {"cache": cache}))


def notes(tools: Tools) -> list[str]:
    assert isinstance(tools.reporter, ListReporter)
    return [str(event[1]) for event in tools.reporter.events if event[0] == "note"]


def test_the_second_machine_builds_nothing(server: MemoryRegistry, repository: Registry, machine: Machine) -> None:
    image = made(machine, repository)
    assert {tag_of(PLAN.key), tag_of(PLAN.inputs[0].key)} <= server.manifests.keys()
    assert tag_of(ROOTFS.key) not in server.manifests
    store = MemoryStore()
    tools = machine(store)
    assert run(tools, source=repository, target=repository) == image  # which it could not make: it has no rootfs
    assert notes(tools) == []
    assert all(child.digest in store.blobs for child in Manifest.parse(read_blob(store, image)).children)


def test_results_that_are_large_are_kept_compressed(
    server: MemoryRegistry, repository: Registry, machine: Machine
) -> None:
    step = Step(kind="train", title="train", parameters={})
    first, second = MemoryStore(), MemoryStore()
    data = bytes(3_000_000)
    first.link(step.key, first.put([data]).digest)
    with RemoteCache(first, ListReporter(), target=repository) as cache:
        cache.offer(step)
    assert sum(map(len, server.blobs.values())) < 10_000
    with RemoteCache(second, ListReporter(), sources=[repository]) as cache:
        assert cache.take(step)
    assert second.lookup(step.key) == Digest.of(data)


@pytest.mark.parametrize("lie", ["another key", "another artifact", "no result", "less", "bytes", "diff id"])
def test_a_cache_that_lies_is_not_believed(
    server: MemoryRegistry, repository: Registry, machine: Machine, lie: str
) -> None:
    made(machine, repository)
    tag = tag_of(PLAN.key)
    media_type, data = server.manifests[tag]
    value = json.loads(data)
    said = value["annotations"]
    match lie:
        case "another key":
            said["vnd.ocibuild.step.key"] = str(Digest.of(b""))
        case "another artifact":
            value["artifactType"] = "text/plain"
        case "no result":
            said["vnd.ocibuild.step.result"] = str(Digest.of(b""))
        case "less":
            value["layers"] = value["layers"][:-1]
        case "bytes":
            server.blobs[value["layers"][-1]["digest"]] = bytes(value["layers"][-1]["size"])
        case _:
            _another_diff_id(server, value)
    server.manifests[tag] = (media_type, canonical_json(value))
    store = MemoryStore()
    tools = machine(store)
    with RemoteCache(store, tools.reporter, sources=[repository]) as cache:
        assert not cache.take(PLAN)
    assert store.lookup(PLAN.key) is None
    assert "not as it should be" in notes(tools)[0]


def _another_diff_id(server: MemoryRegistry, value: dict[str, object]) -> None:
    """An image whose config says other files than its layers hold."""
    said, layers = value["annotations"], value["layers"]
    assert isinstance(said, dict)
    assert isinstance(layers, list)
    manifest = json.loads(server.blobs[said["vnd.ocibuild.step.result"]])
    config = json.loads(server.blobs[manifest["config"]["digest"]])
    config["rootfs"]["diff_ids"] = [str(Digest.of(b"other"))]
    for place, data in ((manifest["config"], canonical_json(config)), (layers[0], b"")):
        data = data or canonical_json(manifest)  # noqa: PLW2901
        old = place["digest"]
        place |= {"digest": str(Digest.of(data)), "size": len(data)}
        server.blobs[str(Digest.of(data))] = data
        for layer in layers:
            if layer["digest"] == old:
                layer |= {"digest": str(Digest.of(data)), "size": len(data)}
    said["vnd.ocibuild.step.result"] = str(Digest.of(canonical_json(manifest)))


def test_a_cache_that_is_away_is_asked_once_and_not_missed(
    server: MemoryRegistry, repository: Registry, machine: Machine
) -> None:
    server.fault = lambda request: server.error(request, 403, "DENIED")
    store = MemoryStore()
    store.link(ROOTFS.key, store.put([TREE.to_bytes()]).digest)
    tools = machine(store)
    run(tools, source=repository, target=repository)
    assert store.lookup(PLAN.key) is not None
    told = notes(tools)
    assert sum("not asked any more" in note for note in told) == 1
    assert sum("not kept" in note for note in told) == 1
