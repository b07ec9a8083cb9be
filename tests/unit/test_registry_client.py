"""One repository of a registry: verbs, secrets, refusals."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from builder.oci.descriptor import LAYER_TAR, MANIFEST, SIZE_LIMIT, Descriptor
from builder.registry.auth import Credentials, Secret
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.quirks import Facts
from builder.registry.reference import Reference
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Request, Response, Upload
from tests.fakes.registry import MemoryRegistry
from tests.fakes.transport import FakeTransport, reply

DATA = b"a layer"
BLOB = Descriptor.of(LAYER_TAR, DATA)
BODY = Upload(open=lambda: cast(BinaryIO, io.BytesIO(DATA)), size=len(DATA))
DOCUMENT = b'{"schemaVersion":2}'
DESCRIBED = Descriptor.of(MANIFEST, DOCUMENT)
ME = Credentials(username="me", password=Secret("hush"))
HOST = "https://r.example.org"


class Ticks:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def registry(transport: FakeTransport, ticks: Ticks) -> Registry:
    return Registry(transport, Reference.parse("r.example.org/a"), credentials=ME, clock=ticks)


def seen(transport: FakeTransport) -> list[str]:
    return [f"{request.method} {request.url.removeprefix(HOST)}" for request in transport.requests]


def secrets(transport: FakeTransport) -> list[str | None]:
    return [request.headers.get("Authorization") for request in transport.requests]


def test_a_blob_is_uploaded_once(registry: Registry, transport: FakeTransport) -> None:
    assert not registry.exists(BLOB)
    assert registry.put(BLOB, BODY) is Action.UPLOADED
    assert registry.put(BLOB, BODY) is Action.EXISTS
    assert registry.exists(BLOB)
    assert b"".join(registry.open(BLOB)) == DATA
    quoted = str(BLOB.digest).replace(":", "%3A")
    assert seen(transport)[1:4] == [
        f"HEAD /v2/a/blobs/{BLOB.digest}",
        f"POST /v2/a/blobs/uploads/?mount={quoted}",
        f"PUT /v2/a/session/1?_state=abc%3D&digest={quoted}",
    ]


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("session/2", f"{HOST}/v2/a/blobs/uploads/session/2?digest="),
        ("/s", f"{HOST}/s?digest="),
        (f"{HOST}/s?b=%2F&a=1", f"{HOST}/s?b=%2F&a=1&digest="),
        ("https://storage.example.net/s", "https://storage.example.net/s?digest="),
        ("https://u:p@storage.example.net/s", "https://storage.example.net/s?digest="),
    ],
)
def test_where_an_upload_goes(
    registry: Registry, server: MemoryRegistry, transport: FakeTransport, location: str, url: str
) -> None:
    server.location = location
    registry.put(BLOB, BODY)
    assert transport.requests[-1].url.startswith(url)


@pytest.mark.parametrize("location", ["http://r.example.org/s", "ftp://r.example.org/s", "http://[::1/", ""])
def test_where_an_upload_does_not_go(registry: Registry, server: MemoryRegistry, location: str) -> None:
    server.location = location
    with pytest.raises(TransferError):
        registry.put(BLOB, BODY)


def test_plain_http_only_when_asked_for(transport: FakeTransport, registry: Registry) -> None:
    registry.exists(BLOB)
    Registry(transport, Reference.parse("localhost:5000/a"), plain_http=True).exists(BLOB)
    Registry(transport, Reference.parse("localhost:5000/a")).exists(BLOB)
    assert [request.url.partition("/v2/")[0] for request in transport.requests] == [
        HOST,
        "http://localhost:5000",
        "https://localhost:5000",
    ]


def test_one_token_does_for_a_push_and_another_for_what_is_read(
    registry: Registry, server: MemoryRegistry, transport: FakeTransport
) -> None:
    server.realm = f"{HOST}/token"
    registry.put(BLOB, BODY)
    asked = [request.url for request in transport.requests if request.url.startswith(server.realm)]
    assert [url.partition("scope=")[2] for url in asked] == ["repository%3Aa%3Apull%2Cpush"]
    registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    assert server.issued == 1
    assert "hush" not in repr(transport.requests)


def test_a_token_is_renewed_before_it_ends(
    registry: Registry, server: MemoryRegistry, transport: FakeTransport, ticks: Ticks
) -> None:
    server.realm, server.lifetime = f"{HOST}/token", 100
    registry.exists(BLOB)
    ticks.now = 49.0
    registry.exists(BLOB)
    assert server.issued == 1
    ticks.now = 51.0
    registry.exists(BLOB)
    assert server.issued == 2
    assert secrets(transport).count(None) == 1  # only the first request went without, and was challenged


def test_a_token_that_ended_early_is_renewed(registry: Registry, server: MemoryRegistry) -> None:
    server.realm = f"{HOST}/token"
    assert not registry.exists(BLOB)
    server.issued += 1  # the registry forgets the token
    assert not registry.exists(BLOB)
    assert server.issued == 3


def test_a_token_of_another_thread_that_is_over_too(server: MemoryRegistry, registry: Registry) -> None:
    """While we ask without any token, another thread gets one, and the registry forgets it."""
    server.realm = f"{HOST}/token"

    def between(request: Request) -> None:
        server.fault = lambda _: None
        assert not registry.exists(BLOB)
        server.issued += 1

    server.fault = between
    assert not registry.exists(BLOB)
    assert server.issued == 3


def test_threads_that_are_refused_together_ask_once(registry: Registry, server: MemoryRegistry) -> None:
    server.realm = f"{HOST}/token"
    together = threading.Barrier(4, timeout=10)

    def wait(request: Request) -> Response | None:
        if "Authorization" not in request.headers and "/blobs/" in request.url:
            together.wait()
        return None

    server.fault = wait
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(registry.exists, [BLOB] * 4)) == [False] * 4
    assert server.issued == 1


def test_an_upload_elsewhere_gets_no_secret(
    registry: Registry, server: MemoryRegistry, transport: FakeTransport
) -> None:
    server.realm = f"{HOST}/token"
    server.location = "https://storage.example.net/s"
    elsewhere: list[Request] = []

    def storage(request: Request) -> object:
        if not request.url.startswith("https://storage"):
            return None
        elsewhere.append(request)
        return reply(request, 401, headers={"WWW-Authenticate": 'Basic realm="give it to me"'})

    server.fault = storage  # type: ignore[assignment]
    with pytest.raises(TransferError, match="registry refused: blob"):
        registry.put(BLOB, BODY)
    assert [(request.method, request.headers.get("Authorization")) for request in elsewhere] == [
        ("PUT", None),
        ("DELETE", None),
    ]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("MANIFEST_UNKNOWN", "`ocibuild tags r.example.org/a` lists what is"),
        ("NAME_UNKNOWN", "is the repository's name right?"),
    ],
)
def test_a_tag_that_is_not_there(server: MemoryRegistry, registry: Registry, code: str, hint: str) -> None:
    body = f'{{"errors":[{{"code":"{code}","message":"unknown"}}]}}'.encode()
    server.fault = lambda request: reply(request, 404, body) if request.method == "GET" else None
    with pytest.raises(TransferError) as caught:
        registry.get_manifest("v1")
    assert hint in (caught.value.hint or "")


def test_a_wrong_password(server: MemoryRegistry, registry: Registry) -> None:
    server.fault = lambda request: reply(request, 401, headers={"WWW-Authenticate": "Basic realm=x"})
    with pytest.raises(TransferError) as caught:
        registry.exists(BLOB)
    assert (caught.value.because or "").startswith("401")
    assert caught.value.hint == "log in to the registry: `ocibuild login r.example.org`"
    assert "hush" not in caught.value.render()


@pytest.mark.parametrize(
    ("status", "body", "because", "hint"),
    [
        (403, b'{"errors":[{"code":"DENIED","message":"no","detail":{"x":1}}]}', "403 DENIED: no", "login r.example"),
        (400, b'{"errors":[{"code":"A"},{"message":"b"},7]}', "400 A; b", None),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "400 Client sent", "leave out --plain-http"),
        (413, b"<html>too large</html>", "413", "proxy before the registry"),
        (500, b'{"errors":[{"code":"X","message":"\\u001b[31mred\\u0007"}]}', "500 X: [31mred", None),
        (500, b"x" * 5000, f"500 {'x' * 300}", None),
        (500, b"[" * 60_000, "500 [[[", None),
        (501, b"", "501", "`ocibuild registry probe`"),
        (507, b"", "507", "disk or quota is full"),
        (511, b"<html>log in</html>", "511", "log in to the network"),
    ],
)
def test_refusals(
    server: MemoryRegistry, registry: Registry, status: int, body: bytes, because: str, hint: str | None
) -> None:
    server.fault = lambda request: reply(request, status, body)
    with pytest.raises(TransferError, match="registry refused") as caught:
        registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    assert (caught.value.because or "").startswith(because)
    assert len(caught.value.because or "") < 320
    assert (hint or "") in (caught.value.hint or "")
    assert caught.value.retryable == (status == 500)


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_told(server: MemoryRegistry, registry: Registry, status: int) -> None:
    server.fault = lambda request: reply(request, status, b"slowly", headers={"Retry-After": "7200"})
    with pytest.raises(TransferError) as caught:
        registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    assert caught.value.because == f"{status} slowly (it asks to wait 7200 seconds)"


def test_a_blob_that_the_registry_lost(registry: Registry) -> None:
    with pytest.raises(TransferError) as caught:
        list(registry.open(BLOB))
    assert "`ocibuild push --check`" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "Text/HTML"])
def test_a_page_is_no_manifest(server: MemoryRegistry, registry: Registry, kind: str) -> None:
    """A network that wants a login answers everything with its own page."""
    server.fault = lambda request: reply(request, 200, b"<html>welcome</html>", headers={"Content-Type": kind})
    for ask in (registry.get_manifest, registry.head_manifest):
        with pytest.raises(TransferError) as caught:
            ask("v1")
        assert caught.value.at == "https://r.example.org/v2/a/manifests/v1"
        assert "a network that wants a login" in (caught.value.hint or "")
        assert not caught.value.retryable


def test_whose_account_was_refused_is_told(transport: FakeTransport, server: MemoryRegistry) -> None:
    server.fault = lambda request: reply(request, 401, headers={"WWW-Authenticate": "Basic realm=x"})
    account = Credentials(username="porter", password=Secret("hush"), source="/home/me/.docker/config.json")
    registry = Registry(transport, Reference.parse("r.example.org/a"), credentials=account)
    with pytest.raises(TransferError) as caught:
        registry.exists(BLOB)
    assert caught.value.because == "401 (with the account of /home/me/.docker/config.json)"
    assert "hush" not in caught.value.render()


def test_bytes_that_are_not_the_described_ones(server: MemoryRegistry, registry: Registry) -> None:
    for wrong in (DATA[::-1], DATA + b"more", DATA[:-1]):
        server.blobs[str(BLOB.digest)] = wrong
        with pytest.raises(IntegrityError):
            list(registry.open(BLOB))


def test_no_more_is_read_than_described(server: MemoryRegistry, registry: Registry) -> None:
    long = iter([DATA] * 100)
    server.fault = lambda request: Response(status=200, url=request.url, headers={}, chunks=long)
    with pytest.raises(IntegrityError, match="size"):
        list(registry.open(BLOB))
    assert len(list(long)) == 98


def test_a_missing_blob(registry: Registry) -> None:
    with pytest.raises(TransferError, match="refused: blob"):
        list(registry.open(BLOB))


def test_manifests(registry: Registry) -> None:
    assert registry.head_manifest("v1") is None
    registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    assert registry.head_manifest("v1") == DESCRIBED.digest
    assert registry.get_manifest("v1") == (DESCRIBED, DOCUMENT)
    assert registry.get_manifest(DESCRIBED.digest) == (DESCRIBED, DOCUMENT)


def test_what_a_tag_stands_for_is_read_once(registry: Registry, transport: FakeTransport) -> None:
    registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    for name in ("v1", DESCRIBED.digest, "v1"):
        assert registry.get_manifest(name) == (DESCRIBED, DOCUMENT)
    assert [line.partition(" ")[0] for line in seen(transport)].count("GET") == 2


def test_a_digest_is_counted_when_the_registry_tells_none(server: MemoryRegistry, registry: Registry) -> None:
    server.fault = lambda request: reply(request, 200, DOCUMENT, {"Content-Type": f"{MANIFEST}; charset=utf-8"})
    assert registry.head_manifest("v1") == DESCRIBED.digest
    assert registry.get_manifest("v1") == (DESCRIBED, DOCUMENT)


def test_a_manifest_that_is_another_one(server: MemoryRegistry, registry: Registry) -> None:
    told = {"Docker-Content-Digest": str(Digest.of(b"other"))}
    server.fault = lambda request: reply(request, 200, DOCUMENT, told)
    with pytest.raises(IntegrityError, match="digest differs"):
        registry.get_manifest("v1")
    server.fault = lambda request: reply(request, 200, DOCUMENT)
    with pytest.raises(IntegrityError, match="digest differs"):
        registry.get_manifest(Digest.of(b"other"))


def test_an_endless_manifest(server: MemoryRegistry, registry: Registry) -> None:
    server.fault = lambda request: reply(request, 200, b" " * (SIZE_LIMIT + 10))
    with pytest.raises(IntegrityError, match="too large"):
        registry.get_manifest("v1")


def test_a_digest_that_is_none(server: MemoryRegistry, registry: Registry) -> None:
    server.fault = lambda request: reply(request, 200, headers={"Docker-Content-Digest": "nonsense"})
    with pytest.raises(IntegrityError, match="not a digest"):
        registry.head_manifest("v1")


def test_a_warning_is_shown_once(server: MemoryRegistry, transport: FakeTransport) -> None:
    notes: list[str] = []
    target = Registry(transport, Reference.parse("r.example.org/a"), note=notes.append)
    server.fault = lambda request: reply(request, 200, headers={"Warning": '299 - "going away"'})
    for _ in range(3):
        target.exists(BLOB)
    assert notes == ["r.example.org says: going away"]


def test_a_long_upload_gets_a_fresh_token(server: MemoryRegistry, registry: Registry, ticks: Ticks) -> None:
    server.realm, server.lifetime = f"{HOST}/token", 100
    registry.put(BLOB, BODY)
    issued = server.issued
    ticks.now = 20.0  # good for small requests until 50
    registry.put_manifest("v1", DESCRIBED, DOCUMENT)
    assert server.issued == issued
    large = bytes(8 << 20)
    registry.put(
        Descriptor.of(LAYER_TAR, large), Upload(open=lambda: cast(BinaryIO, io.BytesIO(large)), size=len(large))
    )
    assert server.issued == issued + 1


def test_what_was_pushed_is_mounted_the_next_time(
    server: MemoryRegistry, transport: FakeTransport, tmp_path: Path
) -> None:
    server.fault = lambda request: reply(request, 404) if request.method == "HEAD" else None
    journal = Journal(tmp_path)
    for name in ("a", "b"):
        Registry(transport, Reference.parse(f"r.example.org/{name}"), journal=journal).put(BLOB, BODY)
    posts = [request.url for request in transport.requests if request.method == "POST"]
    assert ["from=a" in url for url in posts] == [False, True]


def test_what_is_learnt_is_known_by_the_next_process(transport: FakeTransport, tmp_path: Path) -> None:
    reference = Reference.parse("ghcr.io/a/b")
    Registry(transport, reference, journal=Journal(tmp_path)).learn(Facts(chunks=False, referrers=True))
    facts = Registry(transport, reference, journal=Journal(tmp_path)).facts
    assert facts == Facts(chunks=False, max_chunk=4 << 20, referrers=True)
    assert Registry(transport, reference).facts == Facts(max_chunk=4 << 20, referrers=False)
