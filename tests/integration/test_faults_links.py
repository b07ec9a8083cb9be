"""Links that are slow, thin or cut, in front of real registries: what was pushed and pulled is whole in the end."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.reference import Reference
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Upload, read_blob
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.peers.gate import gate
from tests.peers.olareg import olareg
from tests.peers.registry import registry
from tests.peers.toxiproxy import Link, Toxiproxy, toxiproxy
from tests.peers.zot import zot

pytestmark = pytest.mark.peer

KINDS = {"docker-registry": registry, "olareg": olareg, "zot": zot}
MIB = 1 << 20
SIZE = 8 * MIB
QUICK = (2.0, 2.0)
"""Seconds that a client here waits, for a connection and between bytes."""


@pytest.fixture(scope="module", params=KINDS)
def host(
    request: pytest.FixtureRequest, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with KINDS[request.param](peer(request.param), tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def toxics(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    with toxiproxy(peer("toxiproxy"), tmp_path_factory.mktemp("toxiproxy")) as found:
        yield found


@pytest.fixture
def link(toxics: Toxiproxy, host: str) -> Link:
    return toxics.link(host)


@pytest.fixture
def http() -> Iterator[HttpTransport]:
    with HttpTransport(timeouts=QUICK, jitter=lambda: 0.5) as transport:
        yield transport


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def blob_of(store: DiskStore, seed: str, size: int = SIZE) -> Descriptor:
    stored = store.put([hashlib.shake_256(seed.encode()).digest(size)])
    return Descriptor(media_type=LAYER_TAR, digest=stored.digest, size=stored.size)


def at(http: HttpTransport, host: str, journal: Path | None = None) -> Registry:
    kept = Journal(journal) if journal else None
    return Registry(http, Reference.parse(f"{host}/faults"), plain_http=True, journal=kept)


def upload(target: Registry, store: DiskStore, blob: Descriptor) -> Action:
    return target.upload(blob, Upload(open=lambda: store.open(blob.digest), size=blob.size)).action


def is_whole(http: HttpTransport, host: str, blob: Descriptor) -> bool:
    """What the registry has, read without the spoilt link: `open` compares size and digest."""
    return sum(map(len, at(http, host).open(blob))) == blob.size


TOXICS = {
    "reset": ("reset_peer", {"timeout": 300}),
    "silence": ("timeout", {"timeout": 0}),
    "closed": ("timeout", {"timeout": 300}),
    "slices": ("slicer", {"average_size": 4000, "size_variation": 2000, "delay": 50}),
    "thin": ("bandwidth", {"rate": 6000}),
    "far": ("latency", {"latency": 100, "jitter": 50}),
}
PASSES = ("reset", "silence", "closed")


@contextmanager
def spoilt(link: Link, name: str, *, upstream: bool) -> Iterator[None]:
    """The toxic; one that lets nothing through is taken away after a while."""
    kind, attributes = TOXICS[name]
    toxic = link.add(kind, upstream=upstream, **attributes)
    healing = threading.Timer(1, link.remove, [toxic])
    if name in PASSES:
        healing.start()
    try:
        yield
    finally:
        if name in PASSES:
            healing.join()
        else:
            link.remove(toxic)


@pytest.mark.parametrize("name", TOXICS)
def test_push(name: str, link: Link, host: str, http: HttpTransport, store: DiskStore) -> None:
    blob = blob_of(store, f"push {name} {host}")
    with spoilt(link, name, upstream=True):
        assert upload(at(http, link.host), store, blob) is Action.UPLOADED
    assert is_whole(http, host, blob)


@pytest.mark.parametrize("name", TOXICS)
def test_pull(name: str, link: Link, host: str, http: HttpTransport, store: DiskStore, tmp_path: Path) -> None:
    blob = blob_of(store, f"pull {name} {host}")
    upload(at(http, host), store, blob)
    here = DiskStore(tmp_path / "here")
    with spoilt(link, name, upstream=False):
        at(http, link.host).fetch(blob, here)
    assert Digest.of(read_blob(here, blob.digest)) == blob.digest
    assert list((here.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("tenth", range(1, 10))
def test_a_push_is_cut_at_each_tenth(tenth: int, host: str, http: HttpTransport, store: DiskStore) -> None:
    blob = blob_of(store, f"cut push {tenth} {host}")
    cuts: list[int] = []
    with gate(host) as way:

        def cut(piece: bytes, sent: int) -> bool:
            if sent >= SIZE * tenth // 10 and not cuts:
                cuts.append(sent)
                way.cut()
            return False

        way.holds = cut
        assert upload(at(http, way.host), store, blob) is Action.UPLOADED
    assert len(cuts) == 1
    assert is_whole(http, host, blob)


@pytest.mark.parametrize("tenth", range(1, 10))
def test_every_pull_is_cut_at_a_tenth(
    tenth: int, link: Link, host: str, http: HttpTransport, store: DiskStore, tmp_path: Path
) -> None:
    blob = blob_of(store, f"cut pull {tenth} {host}")
    upload(at(http, host), store, blob)
    link.add("limit_data", bytes=SIZE * tenth // 10)
    here = DiskStore(tmp_path / "here")
    at(http, link.host).fetch(blob, here)
    assert here.exists(blob.digest)


def test_a_link_that_stays_silent_is_an_error_soon(link: Link, http: HttpTransport, store: DiskStore) -> None:
    """And says what it is; nothing is left in the store."""
    blob = blob_of(store, f"silent {link.name}")
    link.add("timeout", timeout=0)
    began = time.monotonic()
    with pytest.raises(TransferError, match="HEAD failed") as caught:
        upload(at(http, link.host), store, blob)
    assert caught.value.because == "nothing came in the time allowed"
    assert time.monotonic() - began < 60
    with pytest.raises(TransferError):
        at(http, link.host).fetch(blob, DiskStore(store.root.parent / "other"))
    assert not [path for path in (store.root.parent / "other").rglob("*") if path.is_file()]


def test_two_pushers_of_one_blob(link: Link, host: str, http: HttpTransport, store: DiskStore, tmp_path: Path) -> None:
    blob = blob_of(store, f"two {host}", 40 * MIB)
    done: list[Action] = []
    link.add("bandwidth", upstream=True, rate=40_000)

    def one() -> None:
        done.append(upload(at(http, link.host, tmp_path / "journal"), store, blob))

    pushers = [threading.Thread(target=one) for _ in range(2)]
    for pusher in pushers:
        pusher.start()
    for pusher in pushers:
        pusher.join()
    assert len(done) == 2
    assert Action.UPLOADED in done
    assert is_whole(http, host, blob)
