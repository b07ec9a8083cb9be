"""What a repository has under cosign's tags is not lost: a signature that is there stays there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.oci.descriptor import MANIFEST, REF_NAME, Descriptor
from builder.oci.manifest import Manifest
from builder.registry.client import Registry
from builder.registry.receipt import make_plan
from builder.registry.reference import Reference
from builder.registry.source import Graph, Source, gather, store_source
from builder.registry.survey import survey
from builder.registry.transfer import send
from rootfs.digest import Digest
from rootfs.errors import TransferError
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport
from tests.unit.test_registry_transfer import image, stored

PAYLOAD = b"all sign the same words"


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport(MemoryRegistry())


@pytest.fixture
def registry(transport: FakeTransport) -> Registry:
    return Registry(transport, Reference.parse("r.example.org/a"))


def signatures(store: MemoryStore, *names: str) -> Descriptor:
    """What cosign's tag holds: a layer for each signature, which is an annotation of it."""
    layer = stored(store, "application/vnd.dev.cosign.simplesigning.v1+json", PAYLOAD)
    layers = tuple(replace(layer, annotations={"dev.cosignproject.cosign/signature": name}) for name in names)
    config = stored(store, "application/vnd.oci.image.config.v1+json", b"{}")
    return stored(store, MANIFEST, Manifest(config=config, layers=layers).to_bytes())


def graph_of(store: MemoryStore, root: Descriptor, tag: str, *names: str) -> tuple[Graph, Source]:
    """An image, and what a tag about it holds."""
    held = replace(signatures(store, *names), annotations={REF_NAME: tag})
    source = replace(store_source(store), tagged=lambda subject: [held] if subject == root.digest else [])
    return gather(source, root), source


def pushed(store: MemoryStore, root: Descriptor, registry: Registry, tag: str, *names: str) -> None:
    graph, source = graph_of(store, root, tag, *names)
    send(graph, source, registry, ["v1"], ListReporter())


@pytest.mark.parametrize("end", ["sig", "att"])
def test_the_list_that_holds_the_other_stays(end: str, registry: Registry) -> None:
    store = MemoryStore()
    root = image(store, b"layer")
    tag = f"sha256-{root.digest.hex}.{end}"
    both = signatures(store, "one", "two").digest
    for names, expected in (
        (["one"], signatures(store, "one").digest),
        (["one", "two"], both),
        (["two"], both),
        (["one"], both),
    ):
        graph, source = graph_of(store, root, tag, *names)
        plan = make_plan(graph, registry, survey(graph, registry, ["v1"]), ["v1"], set())
        before = registry.head_manifest(tag)
        send(graph, source, registry, ["v1"], ListReporter())
        assert registry.head_manifest(tag) == expected, names
        assert plan.tags[tag] == (before != expected)


def test_two_lists_of_which_none_holds_the_other_are_an_error_before_anything_is_sent(
    registry: Registry, transport: FakeTransport
) -> None:
    store = MemoryStore()
    root = image(store, b"layer")
    tag = f"sha256-{root.digest.hex}.sig"
    pushed(store, root, registry, tag, "one", "theirs")
    there = registry.head_manifest(tag)
    transport.requests.clear()
    with pytest.raises(TransferError, match="signatures in the registry would be lost") as caught:
        pushed(store, root, registry, tag, "one", "ours", "more")
    assert caught.value.because == "it holds 1 that this image comes without, and lacks 2 of its own"
    assert caught.value.at == f"r.example.org/a:{tag}"
    assert {request.method for request in transport.requests} <= {"HEAD", "GET"}
    assert registry.head_manifest(tag) == there


def test_a_newer_sbom_takes_the_place_of_the_older(registry: Registry) -> None:
    store = MemoryStore()
    root = image(store, b"layer")
    tag = f"sha256-{root.digest.hex}.sbom"
    for name in ("old", "new"):
        pushed(store, root, registry, tag, name)
        held: Digest | None = registry.head_manifest(tag)
        assert held == signatures(store, name).digest
