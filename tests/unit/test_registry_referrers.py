"""The fallback tag of referrers: merged, never overwritten, read back until our own entries stay in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.oci.descriptor import INDEX, MANIFEST, Descriptor
from builder.oci.layout import referrers_tag
from builder.registry.client import Registry
from builder.registry.referrers import enlist, entry, in_fallback, listed, subject_of
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Request, Response
from tests.fakes.registry import MemoryRegistry
from tests.fakes.transport import FakeTransport

SUBJECT = Digest.of(b"subject")
TAG = referrers_tag(SUBJECT)
OURS, THEIRS = (
    Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=3, artifact_type="text/plain")
    for data in (b"ours", b"theirs")
)


def put(server: MemoryRegistry, value: dict[str, Any], media_type: str = INDEX) -> None:
    server.manifests[TAG] = (media_type, canonical_json(value))


def index(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries), **more}


def now(server: MemoryRegistry) -> dict[str, Any]:
    value = json.loads(server.manifests[TAG][1])
    assert isinstance(value, dict)
    return value


def add(registry: Registry, *new: Descriptor) -> bool:
    return enlist(registry, SUBJECT, new, sleep=lambda _: None, jitter=lambda: 1.0)


def test_what_others_listed_stays_as_it_is(server: MemoryRegistry, registry: Registry) -> None:
    theirs = THEIRS.to_dict() | {"data": "e30=", "org.example": [1]}
    put(server, index(theirs, annotations={"a": "b"}))
    assert add(registry, OURS)
    assert now(server) == index(theirs, OURS.to_dict(), annotations={"a": "b"})
    assert in_fallback(registry, SUBJECT) == (THEIRS, OURS)


def test_what_is_listed_is_not_written_again(
    server: MemoryRegistry, registry: Registry, transport: FakeTransport
) -> None:
    assert add(registry, OURS, THEIRS)
    transport.requests.clear()
    assert not add(registry, THEIRS, OURS)
    assert [request.method for request in transport.requests] == ["GET"]


def test_a_lost_entry_is_written_again(server: MemoryRegistry, registry: Registry) -> None:
    lost: list[Request] = []

    def lose(request: Request) -> Response | None:
        """Another writer, who began before us, writes after us: twice."""
        if request.method == "PUT" and len(lost) < 2:
            lost.append(request)
            answer = MemoryRegistry.error(server, request, 201, "x")
            put(server, index(THEIRS.to_dict()))
            return answer
        return None

    server.fault = lose
    assert add(registry, OURS)
    assert {one["digest"] for one in now(server)["manifests"]} == {str(OURS.digest), str(THEIRS.digest)}
    assert len(lost) == 2


def test_a_list_that_changed_meanwhile_is_read_again(server: MemoryRegistry, registry: Registry) -> None:
    heads: list[Request] = []

    def change(request: Request) -> Response | None:
        if request.method == "HEAD":
            heads.append(request)
            if len(heads) == 1:
                put(server, index(THEIRS.to_dict()))
        return None

    server.fault = change
    add(registry, OURS)
    assert len(heads) == 2
    assert in_fallback(registry, SUBJECT) == (THEIRS, OURS)


def test_who_waits_for_ever_is_told_what_was_not_kept(server: MemoryRegistry, registry: Registry) -> None:
    server.fault = lambda request: server.error(request, 201, "x") if request.method == "PUT" else None
    with pytest.raises(TransferError, match="all the time") as caught:
        add(registry, OURS)
    assert str(OURS.digest) in (caught.value.because or "")


@pytest.mark.parametrize(
    ("media_type", "value"), [(MANIFEST, index()), (INDEX, {"schemaVersion": 2, "mediaType": INDEX})]
)
def test_a_tag_that_is_something_else_is_left_alone(
    server: MemoryRegistry, registry: Registry, media_type: str, value: dict[str, Any]
) -> None:
    put(server, value, media_type)
    before = dict(server.manifests)
    with pytest.raises(IntegrityError):
        add(registry, OURS)
    assert server.manifests == before


def test_listed_asks_the_api_once_where_there_is_none(
    server: MemoryRegistry, registry: Registry, transport: FakeTransport
) -> None:
    add(registry, OURS)
    transport.requests.clear()
    assert listed(registry, SUBJECT) == (OURS,)
    assert listed(registry, SUBJECT, "text/html") == ()
    assert [f"referrers/{SUBJECT}" in request.url for request in transport.requests] == [True, False, False]


def test_an_entry_says_what_its_manifest_says() -> None:
    plain = Descriptor(media_type=MANIFEST, digest=OURS.digest, size=3, annotations={"listed": "so"})
    value = {"config": {"mediaType": "text/x-config"}, "annotations": {"a": "b"}}
    assert entry(plain, canonical_json(value)).artifact_type == "text/x-config"
    assert entry(plain, canonical_json(value)).annotations == {"a": "b"}
    assert entry(plain, canonical_json(value | {"artifactType": "text/x-type"})).artifact_type == "text/x-type"
    assert subject_of(canonical_json(value)) is None
    assert subject_of(canonical_json(value | {"subject": OURS.to_dict()})) == OURS.digest
