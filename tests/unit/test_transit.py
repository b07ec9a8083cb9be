"""Images into the store: the blobs come while what is attached is looked for, and a failure of either ends both."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from builder.finding import FoundImage, find_image
from builder.oci.descriptor import LAYER_TAR, MANIFEST, Descriptor
from builder.oci.layout import referrers_tag
from builder.oci.manifest import Manifest
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.transit import fetch_in
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from tests.fakes.profile import tools_with
from tests.fakes.registry import MemoryRegistry
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER, CONFIG = b"a layer", b"{}"
IMAGE = Manifest(
    config=Descriptor.of(CONFIG_TYPE, CONFIG),
    layers=(Descriptor.of(LAYER_TAR, LAYER),),
)
ROOT = Descriptor.of(MANIFEST, IMAGE.to_bytes())
TAG = f"{referrers_tag(ROOT.digest)}.sig"


@pytest.fixture
def server() -> MemoryRegistry:
    server = MemoryRegistry()
    signature = Manifest(config=Descriptor.of(CONFIG_TYPE, CONFIG), layers=(Descriptor.of("text/plain", b"signed"),))
    for name, content in (("v1", IMAGE), (TAG, signature)):
        data = content.to_bytes()
        for known in (name, str(Descriptor.of(MANIFEST, data).digest)):
            server.manifests[known] = (MANIFEST, data)
    server.blobs |= {str(Digest.of(data)): data for data in (LAYER, CONFIG, b"signed")}
    return server


@pytest.fixture
def found(server: MemoryRegistry) -> FoundImage:
    registry = Registry(FakeTransport(server), Reference.parse("r.example.org/a"))
    return find_image("r.example.org/a:v1", connect=lambda _: registry)


def test_blobs_come_while_what_is_attached_is_looked_for(
    server: MemoryRegistry, found: FoundImage, tmp_path: Path
) -> None:
    together = threading.Barrier(2, timeout=10)

    def wait(request: Request) -> Response | None:
        if request.url.endswith(TAG) and request.method == "HEAD":
            together.wait()
        if request.url.endswith(str(IMAGE.layers[0].digest)):
            together.wait()
        return None

    server.fault = wait
    store = MemoryStore()
    what, attached = fetch_in(found, tools_with(store, tmp_path)[0])
    assert what.root.digest == ROOT.digest
    assert {str(digest) for digest in store.blobs} >= server.blobs.keys()
    assert [one.annotations for one in attached] == [{"org.opencontainers.image.ref.name": TAG}]


def test_without_referrers_nothing_is_asked_about_them(
    server: MemoryRegistry, found: FoundImage, tmp_path: Path
) -> None:
    asked: list[str] = []
    server.fault = lambda request: asked.append(request.url)  # type: ignore[func-returns-value]
    _, attached = fetch_in(found, tools_with(MemoryStore(), tmp_path)[0], referrers=False)
    assert attached == ()
    assert all("/blobs/" in url for url in asked)


@pytest.mark.parametrize("name", [TAG, str(IMAGE.layers[0].digest)])
def test_a_failure_of_either_is_the_pull_s(
    server: MemoryRegistry, found: FoundImage, tmp_path: Path, name: str
) -> None:
    server.fault = lambda request: server.error(request, 403, "DENIED") if request.url.endswith(name) else None
    with pytest.raises(TransferError) as caught:
        fetch_in(found, tools_with(MemoryStore(), tmp_path)[0])
    assert (caught.value.because or "").startswith("403")
