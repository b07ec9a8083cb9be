"""Push into a real docker-registry, and pull back with skopeo."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from builder.oci.descriptor import CONFIG, INDEX, LAYER_TAR, MANIFEST, Descriptor, Platform
from builder.oci.manifest import Index, Manifest
from builder.registry.auth import Credentials, Secret
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push
from builder.registry.upload import Action
from rootfs.digest import Digest, canonical_json
from rootfs.errors import TransferError
from rootfs.ports import read_blob
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.fakes.reporter import ListReporter
from tests.peers.registry import PASSWORD, USER, registry

pytestmark = pytest.mark.peer

LAYERS = (b"\0" * 1024, b"\0" * 10240, b"\0" * 3_000_000)  # empty tar archives of different lengths
Skopeo = Callable[..., str]


@pytest.fixture(scope="module")
def host(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def locked_host(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry"), basic_auth=True) as host:
        yield host


@pytest.fixture
def skopeo(peer: Callable[[str], str]) -> Skopeo:
    program = peer("skopeo")

    def run(*argv: str) -> str:
        done = subprocess.run([program, *argv], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    with HttpTransport() as transport:
        yield transport


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path / "store")


def stored(store: DiskStore, media_type: str, data: bytes) -> Descriptor:
    store.put([data])
    return Descriptor.of(media_type, data)


def image(store: DiskStore, architecture: str) -> Descriptor:
    """An image of empty layers that differs by its architecture only."""
    diff_ids = [str(Digest.of(layer)) for layer in LAYERS]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "test"} for _ in LAYERS],
    }
    manifest = Manifest(
        config=stored(store, CONFIG, canonical_json(config)),
        layers=tuple(stored(store, LAYER_TAR, layer) for layer in LAYERS),
    )
    return stored(store, MANIFEST, manifest.to_bytes())


def test_push_and_pull_back(
    host: str, transport: HttpTransport, store: DiskStore, skopeo: Skopeo, tmp_path: Path
) -> None:
    root = image(store, "amd64")
    target = Registry(transport, Reference.parse(f"{host}/team/python"), plain_http=True)
    first = push(store, root, target, ["3.14", "latest"], ListReporter())
    assert {transfer.action for transfer in first} == {Action.UPLOADED}
    assert sum(transfer.bytes for transfer in first) > sum(map(len, LAYERS))

    name = f"docker://{host}/team/python"
    for tag in ("3.14", "latest"):
        raw = skopeo("inspect", "--raw", "--tls-verify=false", f"{name}:{tag}")
        assert Digest.of(raw.encode()) == root.digest
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"{name}:3.14", f"oci:{tmp_path}/pulled:x")
    pulled = json.loads((tmp_path / "pulled/index.json").read_text())
    assert pulled["manifests"][0]["digest"] == str(root.digest)

    second = push(store, root, target, ["3.14", "latest"], ListReporter())
    assert {(transfer.action, transfer.bytes) for transfer in second} == {(Action.EXISTS, 0)}
    assert [transfer.descriptor for transfer in second] == [transfer.descriptor for transfer in first]

    for transfer in second[:-1]:
        assert b"".join(target.open(transfer.descriptor)) == read_blob(store, transfer.descriptor.digest)
    assert target.get_manifest("latest") == (root, read_blob(store, root.digest))


def test_push_an_index(host: str, transport: HttpTransport, store: DiskStore, skopeo: Skopeo, tmp_path: Path) -> None:
    children = tuple(
        Descriptor(media_type=child.media_type, digest=child.digest, size=child.size, platform=platform)
        for platform in (Platform(architecture="amd64"), Platform(architecture="arm64"))
        for child in (image(store, platform.architecture),)
    )
    root = stored(store, INDEX, Index(manifests=children).to_bytes())
    target = Registry(transport, Reference.parse(f"{host}/index"), plain_http=True)
    transfers = push(store, root, target, ["v1"], ListReporter())
    assert [transfer.descriptor.digest for transfer in transfers[-3:]] == [*(c.digest for c in children), root.digest]
    source = f"docker://{host}/index:v1"
    skopeo("copy", "--all", "--src-tls-verify=false", "--preserve-digests", source, f"oci:{tmp_path}/pulled:x")
    pulled = json.loads((tmp_path / "pulled/index.json").read_text())
    assert pulled["manifests"][0]["digest"] == str(root.digest)


def test_what_skopeo_made_is_there_for_us(
    host: str, transport: HttpTransport, store: DiskStore, skopeo: Skopeo
) -> None:
    here = Registry(transport, Reference.parse(f"{host}/ours"), plain_http=True)
    root = image(store, "amd64")
    push(store, root, here, ["v1"], ListReporter())
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests",
           f"docker://{host}/ours:v1", f"docker://{host}/theirs:v1")  # fmt: skip
    there = Registry(transport, Reference.parse(f"{host}/theirs"), plain_http=True)
    assert there.head_manifest("v1") == root.digest
    assert {transfer.action for transfer in push(store, root, there, ["v1"], ListReporter())} == {Action.EXISTS}


@contextmanager
def cutting(host: str, cuts: list[int]) -> Iterator[str]:
    """`localhost:PORT` before the registry; each of `cuts` ends one connection after that many bytes of request."""
    name, _, port = host.partition(":")

    def copy(source: socket.socket, target: socket.socket, limited: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if limited and cuts and passed > cuts[0]:
                    cuts.pop(0)
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            while True:
                client = stack.enter_context(listener.accept()[0])
                server = stack.enter_context(socket.create_connection((name, int(port))))
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=copy, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_uploads_survive_cut_connections(host: str, transport: HttpTransport, store: DiskStore) -> None:
    cuts = [1_000_000, 2_000_000]
    with cutting(host, cuts) as cut_host:
        target = Registry(transport, Reference.parse(f"{cut_host}/cut"), plain_http=True)
        transfers = push(store, image(store, "amd64"), target, ["v1"], ListReporter())
    assert cuts == []
    assert {transfer.action for transfer in transfers} == {Action.UPLOADED}


def test_basic_auth(locked_host: str, transport: HttpTransport, store: DiskStore) -> None:
    reference = Reference.parse(f"{locked_host}/python")
    root = image(store, "amd64")
    me = Credentials(username=USER, password=Secret(PASSWORD))
    transfers = push(
        store, root, Registry(transport, reference, plain_http=True, credentials=me), ["v1"], ListReporter()
    )
    assert {transfer.action for transfer in transfers} == {Action.UPLOADED}

    wrong = Credentials(username=USER, password=Secret("hush"))
    for credentials, because in ((wrong, "401"), (None, "there are none for this host")):
        target = Registry(transport, reference, plain_http=True, credentials=credentials)
        with pytest.raises(TransferError) as caught:
            push(store, root, target, ["v2"], ListReporter())
        assert because in (caught.value.because or "")
        assert "log in" in (caught.value.hint or "")
        assert "hush" not in caught.value.render()


def test_https_to_a_plain_registry_is_told_apart(host: str, transport: HttpTransport, store: DiskStore) -> None:
    target = Registry(transport, Reference.parse(f"{host}/python"))
    with pytest.raises(TransferError) as caught:
        push(store, image(store, "amd64"), target, ["v1"], ListReporter())
    assert "--plain-http" in (caught.value.hint or "")
