"""Storms: every kind of request is answered badly several times in a row, and a push or a pull comes through.

The registry is the scripted one of tests/peers, behind real sockets; only the waits are none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from builder.finding import find_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.source import gather, store_source
from builder.registry.transfer import push
from builder.transit import fetch_in
from rootfs.errors import TransferError
from rootfs.store import DiskStore
from rootfs.tree import Tree, file
from tests.conformance.scenario import MANIFEST
from tests.fakes.profile import tools_with
from tests.fakes.reporter import ListReporter
from tests.peers.misbehaving import Clock
from tests.peers.misbehaving import transport as in_no_time
from tests.peers.quirky import Fault, Quirks, Quirky
from tests.peers.quirkyserver import Listener

STATUSES = (429, 500, 502, 503, 504)
IN_A_ROW = 4
BODIES_IN_A_ROW = 2  # whether such a one was carried out nobody knows, so it is begun anew less often
Serve = Callable[..., tuple[Quirky, Registry]]


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


@pytest.fixture
def image(store: DiskStore) -> Descriptor:
    layers = [pack(Tree([file(name, name.encode() * 10)]), store, created_by="", epoch=0) for name in ("a", "b")]
    made = assemble(layers, ImageConfig(platform=Platform(architecture="amd64"), created=0))
    for document in (made.config, made.manifest):
        store.put([document])
    return made.descriptor


def blobs_of(image: Descriptor, store: DiskStore) -> list[str]:
    return [str(digest) for digest in gather(store_source(store), image).held]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A registry with these faults, and the way to it."""
    with ExitStack() as stack:

        def begin(*faults: Fault) -> tuple[Quirky, Registry]:
            quirky = Quirky(Quirks(faults=faults))
            listener = stack.enter_context(Listener("registry", quirky, None))
            thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.shutdown)
            transport = stack.enter_context(in_no_time(Clock()))
            host = f"localhost:{listener.server_port}"
            quirky.address["registry"] = f"http://{host}"
            return quirky, Registry(transport, Reference.parse(f"{host}/storm:v1"), plain_http=True)

        yield begin


@pytest.mark.parametrize("status", STATUSES)
def test_a_push_through_a_storm(serve: Serve, store: DiskStore, image: Descriptor, status: int) -> None:
    blobs = blobs_of(image, store)
    reads = ["^HEAD .*/manifests/v1", f"^HEAD .*/manifests/{image.digest}"]
    reads += [f"^HEAD .*/blobs/{digest}" for digest in blobs]
    writes = [f"^PUT .*/uploads/.*{digest.partition(':')[2]}" for digest in blobs]
    writes += ["^POST .*/uploads/", f"^PUT .*/manifests/{image.digest}", "^PUT .*/manifests/v1"]
    faults = [Fault(on=on, status=status, times=IN_A_ROW) for on in reads]
    faults += [Fault(on=on, status=status, times=BODIES_IN_A_ROW) for on in writes]
    quirky, registry = serve(*faults)
    push(store, image, registry, ["v1"], ListReporter())
    assert quirky.tags["storm", "v1"] == str(image.digest)
    assert {digest for _, digest in quirky.blobs} == set(blobs)
    assert [fault.on for fault, met in zip(faults, quirky.befallen, strict=True) if met <= fault.times] == []


@pytest.mark.parametrize("status", STATUSES)
def test_a_pull_through_a_storm(serve: Serve, store: DiskStore, image: Descriptor, status: int, tmp_path: Path) -> None:
    blobs = blobs_of(image, store)
    reads = ["^GET .*/manifests/v1", f"^GET .*/referrers/{image.digest}", r"^HEAD .*/manifests/sha256-\w+\.sig"]
    reads += [f"^GET .*/blobs/{digest}" for digest in blobs]
    faults = [Fault(on=on, status=status, times=IN_A_ROW) for on in reads]
    quirky, registry = serve(*faults)
    quirky.quirks, calm = Quirks(), quirky.quirks
    push(store, image, registry, ["v1"], ListReporter())
    quirky.quirks, quirky.befallen = calm, [0] * len(faults)
    fresh = DiskStore(tmp_path / "fresh")
    fetch_in(find_image(str(registry.reference), connect=lambda _: registry), tools_with(fresh, tmp_path)[0])
    assert set(blobs_of(image, fresh)) == set(blobs)
    assert [fault.on for fault, met in zip(faults, quirky.befallen, strict=True) if met <= fault.times] == []


def test_a_storm_without_end_is_told_and_moves_no_tag(serve: Serve, store: DiskStore, image: Descriptor) -> None:
    for status in STATUSES:
        quirky, registry = serve(Fault(on=MANIFEST, status=status, times=0))
        with pytest.raises(TransferError) as caught:
            push(store, image, registry, ["v1"], ListReporter())
        assert (caught.value.because or "").startswith(str(status))
        assert quirky.tags == {}


@pytest.mark.parametrize("on", ["^POST .*/uploads/", MANIFEST, "^HEAD .*/blobs/", r"^PUT .*/uploads/\w"])
def test_what_a_registry_does_not_do_is_not_asked_for_again(
    serve: Serve, store: DiskStore, image: Descriptor, on: str
) -> None:
    """501 is no weather."""
    quirky, registry = serve(Fault(on=on, status=501, times=0))
    with pytest.raises(TransferError) as caught:
        push(store, image, registry, ["v1"], ListReporter())
    assert "`ocibuild registry probe`" in (caught.value.hint or "")
    assert quirky.befallen[0] <= 2 * len(blobs_of(image, store))  # each blob once, for a mount and for its upload
    assert quirky.tags == {}
