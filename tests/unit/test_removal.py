"""Removal of a tag alone where only manifests can be deleted: nothing is lost, whoever else is at it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builder.oci.descriptor import MANIFEST
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.removal import remove_name
from rootfs.digest import Digest
from rootfs.errors import TransferError, UsageError
from rootfs.ports import Request, Response
from tests.fakes.registry import MemoryRegistry
from tests.fakes.transport import FakeTransport, reply

IMAGE, THEIRS = b'{"schemaVersion":2,"of":"us"}', b'{"schemaVersion":2,"of":"them"}'


class Keeping(MemoryRegistry):
    """Deletes manifests, and no tags; `deletes` may be nothing, `keeps` lets a tag stand for what is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.deletes = True
        self.keeps = False
        self.put("v1", IMAGE)
        self.put("v2", IMAGE)
        self.location = "/v2/a/session/1"
        self.before: Callable[[Request], None] = lambda _: None

    def put(self, tag: str, data: bytes) -> None:
        for name in (tag, str(Digest.of(data))):
            self.manifests[name] = (MANIFEST, data)

    @property
    def tags(self) -> dict[str, bytes]:
        return {name: data for name, (_, data) in self.manifests.items() if ":" not in name}

    def __call__(self, request: Request) -> Response:
        self.before(request)
        name = request.url.rpartition("/manifests/")[2]
        if request.method != "DELETE":
            return super().__call__(request)
        if ":" not in name or not self.deletes:
            return self.error(request, 405, "UNSUPPORTED")
        if name not in self.manifests:
            return self.error(request, 404, "MANIFEST_UNKNOWN")
        gone = self.manifests[name][1]
        del self.manifests[name]
        if not self.keeps:
            self.manifests = {key: value for key, value in self.manifests.items() if value[1] != gone}
        return reply(request, 202)


@pytest.fixture
def server() -> Keeping:
    return Keeping()


@pytest.fixture
def registry(server: Keeping) -> Registry:
    return Registry(FakeTransport(server), Reference.parse("r.example.org/a"))


def remove(registry: Registry) -> list[str]:
    return remove_name(registry, "v1", referrers=False, force=False, untag=True)


def test_the_image_and_its_other_tags_stay(server: Keeping, registry: Registry) -> None:
    assert remove(registry) == ["v1"]
    assert server.tags == {"v2": IMAGE}
    assert str(Digest.of(IMAGE)) in server.manifests
    assert len(server.manifests) == 2


def test_it_is_done_only_when_asked_for(server: Keeping, registry: Registry) -> None:
    server.fault = lambda request: reply(request, 200, b'{"tags":["v1","v2"]}') if "/tags/" in request.url else None
    with pytest.raises(UsageError) as caught:
        remove_name(registry, "v1", referrers=False, force=False)
    assert "--untag the tag alone" in (caught.value.hint or "")
    assert set(server.tags) == {"v1", "v2"}


def test_who_deletes_nothing_is_not_left_with_an_empty_tag(server: Keeping, registry: Registry) -> None:
    server.deletes = False
    with pytest.raises(TransferError, match="deletes nothing"):
        remove(registry)
    assert server.tags == {"v1": IMAGE, "v2": IMAGE}


def test_a_tag_that_was_moved_before_stays(server: Keeping, registry: Registry) -> None:
    def move(request: Request) -> None:
        if request.method == "DELETE" and ":" in request.url.rpartition("/manifests/")[2]:
            server.put("v1", THEIRS)

    server.before = move
    with pytest.raises(TransferError, match="another one was at the tag"):
        remove(registry)
    assert server.tags["v1"] == THEIRS


def test_a_tag_that_is_moved_in_between_stays(server: Keeping, registry: Registry) -> None:
    seen: list[str] = []

    def move(request: Request) -> None:
        if request.method == "DELETE" and ":" in request.url.rpartition("/manifests/")[2]:
            seen.append(request.url)
            if len(seen) == 2:
                server.put("v1", THEIRS)

    server.before = move
    assert remove(registry) == ["v1"]
    assert server.tags == {"v1": THEIRS, "v2": IMAGE}


def test_a_put_that_fails_leaves_nothing(server: Keeping, registry: Registry) -> None:
    def refuse(request: Request) -> Response | None:
        is_tag = request.method == "PUT" and request.url.endswith("/manifests/v1")
        return server.error(request, 403, "DENIED") if is_tag else None

    server.fault = refuse
    with pytest.raises(TransferError) as caught:
        remove(registry)
    assert (caught.value.because or "").startswith("403")
    assert server.tags == {"v1": IMAGE, "v2": IMAGE}


def test_a_registry_that_keeps_the_tag_is_told_of(server: Keeping, registry: Registry) -> None:
    server.keeps = True
    with pytest.raises(TransferError, match="the registry keeps the tag"):
        remove(registry)
