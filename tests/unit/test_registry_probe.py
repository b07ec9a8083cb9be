"""The probe: what it tries, what that shows, and that it leaves nothing behind."""

from __future__ import annotations

import pytest

from builder.oci.descriptor import EMPTY, Descriptor
from builder.registry import probe as module
from builder.registry.client import Registry
from builder.registry.quirks import Facts
from builder.registry.reference import Reference
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from tests.fakes.sessions import Sessions
from tests.fakes.transport import FakeTransport, reply


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNKS", (100, 1600))


def answering(server: Sessions, *, api: int = 200, referrers: int = 404, body: bytes = b"") -> Registry:
    def more(request: Request) -> Response | None:
        if request.url.endswith("/v2/"):
            return reply(request, api, headers={"Docker-Distribution-Api-Version": "registry/2.0"})
        return reply(request, referrers, body) if "/referrers/" in request.url else None

    server.fault = more
    return Registry(FakeTransport(server), Reference.parse("r.example.org/a"))


@pytest.mark.parametrize(
    ("server", "facts"),
    [
        (Sessions(), Facts(chunks=True, referrers=False)),
        (Sessions(patch_status=201, drops_from=2), Facts(chunks=False, referrers=False)),
        (Sessions(patch_limit=400), Facts(chunks=True, max_chunk=100, referrers=False)),
        (Sessions(first_patch=404), Facts(chunks=False, referrers=False)),
        (Sessions(mounts={"a"}, anonymous_status=201), Facts(chunks=True, mount=True, anonymous_mount=True)),
        (Sessions(mount_status=405, anonymous_status=400), Facts(chunks=True, mount=False, anonymous_mount=False)),
    ],
    ids=["plain", "drops", "limit", "no chunks", "mounts", "no mounts"],
)
def test_what_is_found(server: Sessions, facts: Facts) -> None:
    registry = answering(server)
    assert [finding.tried for finding in registry.probe(write=True)] == ["api", "referrers", "chunks", "mounts"]
    assert registry.facts == facts.over(Facts(referrers=False))
    assert not server.sessions
    assert list(server.blobs) == [str(Descriptor.of(EMPTY, b"{}").digest)]


def test_read_only() -> None:
    server = Sessions()
    registry = answering(server, referrers=200)
    assert [finding.tried for finding in registry.probe(write=False)] == ["api", "referrers"]
    assert registry.facts == Facts(referrers=True)
    assert not server.blobs


def test_a_repository_that_is_not_there_says_nothing_of_referrers() -> None:
    registry = answering(Sessions(), body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
    registry.probe(write=False)
    assert registry.facts == Facts()


def test_no_registry_is_an_error() -> None:
    with pytest.raises(TransferError, match="the API"):
        answering(Sessions(), api=404).probe(write=False)


def test_what_is_not_allowed_is_said() -> None:
    server = Sessions()
    registry = answering(server)
    inner = server.fault
    server.fault = lambda request: reply(request, 403) if request.method == "POST" else inner(request)
    findings = {finding.tried: finding.found for finding in registry.probe(write=True)}
    assert "403" in findings["chunks"]
    assert "403" in findings["mounts"]
    assert registry.facts.chunks is None
