"""Push: children first, tags last, what is there is left alone, what breaks is begun again."""

from __future__ import annotations

import threading
import time

import pytest

from builder.oci.descriptor import EMPTY, INDEX, LAYER_TAR, MANIFEST, Descriptor
from builder.oci.manifest import Index, Manifest
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.referrers import in_fallback
from builder.registry.source import gather, store_source
from builder.registry.transfer import Transfer, push, push_blob, send
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError, UsageError
from rootfs.ports import Request, Response, Upload
from tests.fakes.registry import MemoryRegistry
from tests.fakes.reporter import ListReporter
from tests.fakes.sessions import Sessions
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, body_of, reply

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


def stored(store: MemoryStore, media_type: str, data: bytes) -> Descriptor:
    store.put([data])
    return Descriptor.of(media_type, data)


def image(store: MemoryStore, *layers: bytes, config: bytes = b"{}") -> Descriptor:
    manifest = Manifest(
        config=stored(store, CONFIG_TYPE, config),
        layers=tuple(stored(store, LAYER_TAR, layer) for layer in layers),
    )
    return stored(store, MANIFEST, manifest.to_bytes())


def index(store: MemoryStore, *manifests: Descriptor) -> Descriptor:
    return stored(store, INDEX, Index(manifests=manifests).to_bytes())


def attached(store: MemoryStore, subject: Descriptor, data: bytes) -> Descriptor:
    manifest = Manifest(
        config=stored(store, EMPTY, b"{}"),
        layers=(stored(store, "text/plain", data),),
        annotations={"a": "b"},
        artifact_type="text/plain",
        subject=subject,
    )
    return stored(store, MANIFEST, manifest.to_bytes())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def actions(transfers: tuple[Transfer, ...]) -> set[Action]:
    return {transfer.action for transfer in transfers}


def writes(transport: FakeTransport) -> list[str]:
    return [request.url.partition("/v2/a/")[2] for request in transport.requests if request.method == "PUT"]


def test_children_first_and_tags_last(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, transport: FakeTransport
) -> None:
    one, two = image(store, b"shared", b"one"), image(store, b"shared", b"two", config=b'{"x":1}')
    root = index(store, one, two)
    transfers = push(store, root, registry, ["v1", "latest"], ListReporter())
    order = writes(transport)
    assert all(path.startswith("session/") for path in order[:5])
    assert sorted(order[5:7]) == sorted(f"manifests/{child.digest}" for child in (one, two))
    assert order[7:9] == [f"manifests/{root.digest}", f"manifests/{root.digest}?tag=v1&tag=latest"]
    assert sorted(order[9:]) == ["manifests/latest", "manifests/v1"]  # this registry sets no tags by a query
    assert server.blobs.keys() | {str(root.digest), str(one.digest), str(two.digest)} == set(map(str, store.blobs))
    assert len(transfers) == 8
    assert actions(transfers) == {Action.UPLOADED}
    assert sum(transfer.bytes for transfer in transfers) == sum(map(len, store.blobs.values()))


def test_the_second_push_sends_nothing(store: MemoryStore, registry: Registry, transport: FakeTransport) -> None:
    root = image(store, b"a", b"b")
    push(store, root, registry, ["v1"], ListReporter())
    transport.requests.clear()
    transfers = push(store, root, registry, ["v1"], ListReporter())
    assert {request.method for request in transport.requests} == {"HEAD"}
    assert actions(transfers) == {Action.EXISTS}
    assert {transfer.bytes for transfer in transfers} == {0}


def test_progress_counts_every_byte_once(store: MemoryStore, server: MemoryRegistry, registry: Registry) -> None:
    data = bytes(100_000)
    root = image(store, data)
    broken: list[Request] = []

    def break_once(request: Request) -> Response | None:
        if request.method == "PUT" and "session" in request.url and body_of(request) == data and not broken:
            broken.append(request)
            raise TransferError("PUT failed", retryable=True)
        return None

    server.fault = break_once
    reporter = ListReporter()
    push(store, root, registry, [], reporter)
    task = f"push {Digest.of(data).hex[:12]}"
    steps = [int(str(event[2])) for event in reporter.events if event[:2] == ("advance", task)]
    assert sum(steps) == len(data)
    assert min(steps) > 0
    assert ("begin", task, len(data), "B") in reporter.events
    assert ("finish", task, "uploaded") in reporter.events


@pytest.mark.parametrize("status", [404, 416, 500, 502, 504])
def test_a_lost_session_is_begun_anew(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, transport: FakeTransport, status: int
) -> None:
    failed: list[Request] = []

    def lose_once(request: Request) -> Response | None:
        if request.method == "PUT" and not failed:
            failed.append(request)
            return server.error(request, status, "BLOB_UPLOAD_UNKNOWN")
        return None

    server.fault = lose_once
    assert actions(push(store, image(store, b"a"), registry, ["v1"], ListReporter())) == {Action.UPLOADED}
    assert sum(request.method == "POST" for request in transport.requests) == 3


def test_beginning_anew_has_an_end(store: MemoryStore, server: MemoryRegistry, registry: Registry) -> None:
    tried: list[Request] = []

    def fail(request: Request) -> Response | None:
        if request.method != "POST":
            return None
        tried.append(request)
        return server.error(request, 500, "UNKNOWN")

    server.fault = fail
    with pytest.raises(TransferError, match="an upload to a"):
        push(store, image(store, b"same", config=b"same"), registry, ["v1"], ListReporter())
    assert len(tried) == 7  # a mount, and an upload that is begun anew five times
    assert not server.manifests


@pytest.mark.parametrize("number", range(4))
def test_one_refused_blob_leaves_the_tag_alone(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, transport: FakeTransport, number: int
) -> None:
    layers = [bytes([number]) * 10 for number in range(4)]
    refused = Digest.of(layers[number])
    server.fault = lambda request: (
        server.error(request, 403, "DENIED") if request.method == "PUT" and refused.hex in request.url else None
    )
    reporter = ListReporter()
    with pytest.raises(TransferError) as caught:
        push(store, image(store, *layers), registry, ["v1"], reporter)
    assert [refused.hex in request.url for request in transport.requests if request.method == "PUT"].count(True) == 1
    assert caught.value.because == "403 DENIED: said the registry"
    assert not server.manifests
    assert ("finish", f"push {refused.hex[:12]}", "failed") in reporter.events


def test_a_refusal_stops_the_other_uploads(store: MemoryStore, server: MemoryRegistry, registry: Registry) -> None:
    slow, refused = bytes(10_000), b"refused"

    def fault(request: Request) -> Response | None:
        if request.method == "PUT" and Digest.of(refused).hex in request.url:
            return server.error(request, 403, "DENIED")
        if request.method == "PUT" and Digest.of(slow).hex in request.url:
            assert isinstance(request.body, Upload)
            with request.body.open() as stream:
                while stream.read(1):
                    time.sleep(0.001)
        return None

    server.fault = fault
    with pytest.raises(TransferError, match="refused"):
        push(store, image(store, slow, refused), registry, ["v1"], ListReporter())
    assert str(Digest.of(slow)) not in server.blobs


def test_a_missing_blob_leaves_the_tag_alone(store: MemoryStore, server: MemoryRegistry, registry: Registry) -> None:
    root = image(store, b"a", b"b")
    del store.blobs[Digest.of(b"b")]
    with pytest.raises(IntegrityError, match="not in the store"):
        push(store, root, registry, ["v1"], ListReporter())
    assert not server.manifests
    server.blobs[str(Digest.of(b"b"))] = b"b"  # but when the registry has it, it is not missed
    push(store, root, registry, ["v1"], ListReporter())


def test_bad_input_is_refused_before_the_first_request(
    store: MemoryStore, registry: Registry, transport: FakeTransport
) -> None:
    root = image(store, b"a")
    with pytest.raises(UsageError):
        push(store, root, registry, ["v1", "not a tag"], ListReporter())
    with pytest.raises(IntegrityError):
        push(store, index(store, root, Descriptor.of(MANIFEST, b"gone")), registry, ["v1"], ListReporter())
    assert not transport.requests


@pytest.mark.parametrize("name", ["tag", "digest"])
def test_what_the_registry_holds_in_the_end_is_compared(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, name: str
) -> None:
    root, other = image(store, b"a"), image(store, b"b")
    spoilt = "v1" if name == "tag" else str(root.digest)

    def spoil(request: Request) -> Response | None:
        if request.method == "HEAD" and request.url.endswith(spoilt) and spoilt in server.manifests:
            server.manifests[spoilt] = (MANIFEST, store.blobs[other.digest])
        return None

    server.fault = spoil
    with pytest.raises(IntegrityError, match="something else") as caught:
        push(store, root, registry, ["v1"], ListReporter())
    assert str(other.digest) in (caught.value.because or "")
    assert ("v1" in server.manifests) is (name == "tag")  # no tag for what was not read back


def test_a_mended_upload_counts_every_byte_once(store: MemoryStore) -> None:
    data = bytes(range(256)) * 400
    blob, reporter = stored(store, LAYER_TAR, data), ListReporter()
    server = Sessions(cuts=[30_000, 60_000])
    target = Registry(FakeTransport(server), Reference.parse("r.example.org/a"))
    assert push_blob(
        blob, Upload(open=lambda: store.open(blob.digest), size=len(data)), target, reporter, threading.Event()
    ).bytes == len(data)
    assert server.received == len(data)
    assert sum(int(str(event[2])) for event in reporter.events if event[0] == "advance") == len(data)


def test_a_manifest_that_is_there_is_not_looked_into_unless_asked(
    store: MemoryStore, registry: Registry, transport: FakeTransport, server: MemoryRegistry
) -> None:
    root = index(store, image(store, b"a"), image(store, b"b", config=b'{"x":1}'))
    push(store, root, registry, ["v1", "v2"], ListReporter())
    source = store_source(store)
    graph = gather(source, root)
    transport.requests.clear()
    outcome = send(graph, source, registry, ["v1", "v2"], ListReporter())
    assert sorted(request.url.rpartition("/")[2] for request in transport.requests) == [str(root.digest), "v1", "v2"]
    assert outcome.tags == {"v1": False, "v2": False}
    lost = str(Digest.of(b"b"))
    del server.blobs[lost]
    assert actions(send(graph, source, registry, ["v1"], ListReporter()).transfers) == {Action.EXISTS}
    checked = send(graph, source, registry, ["v1"], ListReporter(), check=True)
    assert [str(one.descriptor.digest) for one in checked.blobs if one.action is Action.UPLOADED] == [lost]
    assert server.blobs[lost] == b"b"


def test_what_is_attached_goes_along_and_is_listed(
    store: MemoryStore, server: MemoryRegistry, registry: Registry
) -> None:
    root = image(store, b"a")
    note = attached(store, root, b"note")
    about = attached(store, note, b"a note about the note")
    push(store, root, registry, ["v1"], ListReporter(), attached=[note, about])
    for subject, one in ((root, note), (note, about)):
        (entry,) = in_fallback(registry, subject.digest)
        assert (entry.digest, entry.artifact_type, entry.annotations) == (one.digest, "text/plain", {"a": "b"})
    del server.manifests[f"sha256-{root.digest.hex}"]
    source = store_source(store, [note, about])
    again = send(gather(source, root), source, registry, ["v1"], ListReporter())
    assert again.referrers == {(root.digest, note.digest): True, (note.digest, about.digest): False}
    assert len(in_fallback(registry, root.digest)) == 1
    alone = gather(source, root, referrers=False)
    assert set(alone.nodes) == {root.digest}


def test_a_registry_that_drops_what_is_attached_is_told_of(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.registry.transfer._LAGS", (0.0, 0.0))
    root = image(store, b"a")
    note = attached(store, root, b"note")
    empty = Index(manifests=()).to_bytes()

    def says_so_only(request: Request) -> Response | None:
        if "/referrers/" in request.url:
            return reply(request, 200, empty, {"Content-Type": INDEX})
        if request.method == "PUT" and str(note.digest) in request.url:
            server.manifests[str(note.digest)] = (MANIFEST, body_of(request))
            return reply(request, 201, headers={"OCI-Subject": str(root.digest)})
        return None

    server.fault = says_so_only
    with pytest.raises(IntegrityError, match="dropped") as caught:
        push(store, root, registry, ["v1"], ListReporter(), attached=[note])
    assert str(note.digest) in (caught.value.because or "")
    assert "v1" not in server.manifests


@pytest.mark.parametrize(("status", "rest"), [(405, "does this registry take"), (400, "")])
def test_a_registry_that_refuses_what_is_attached(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, status: int, rest: str
) -> None:
    """As Amazon ECR did; the image's own manifest is another matter."""
    root = image(store, b"layer")
    about = attached(store, root, b"an SBOM")
    for wrong in (root, about):
        server.fault = lambda request, wrong=wrong: (  # type: ignore[misc]
            server.error(request, status, "UNSUPPORTED") if body_of_put(request) == str(wrong.digest) else None
        )
        with pytest.raises(TransferError) as caught:
            push(store, root, registry, ["v1"], ListReporter(), attached=[about])
        hint = caught.value.hint or ""
        assert ("--no-referrers leaves that behind" in hint) is (wrong is about)
        assert rest in hint
        assert "v1" not in server.manifests


def body_of_put(request: Request) -> str:
    """The digest under which a manifest is put."""
    return request.url.rpartition("/manifests/")[2] if request.method == "PUT" else ""


def test_several_tags_are_set_by_one_request_where_the_registry_does_that(
    store: MemoryStore, server: MemoryRegistry, registry: Registry, transport: FakeTransport
) -> None:
    root = image(store, b"a")

    def tags(request: Request) -> Response | None:
        if request.method == "PUT" and "?tag=" in request.url:
            for tag in ("v1", "v2"):
                server.manifests[tag] = (MANIFEST, body_of(request))
            return reply(request, 201, headers={"OCI-Tag": "v1, v2"})
        return None

    server.fault = tags
    push(store, root, registry, ["v1", "v2"], ListReporter())
    assert writes(transport)[-1] == f"manifests/{root.digest}?tag=v1&tag=v2"
    assert registry.facts.several_tags is True


def test_an_image_without_end_is_refused(store: MemoryStore) -> None:
    root = image(store, b"a")
    for _ in range(12):
        root = index(store, root)
    with pytest.raises(IntegrityError, match="without end"):
        gather(store_source(store), root)
