"""Fetching CPython's source from one of two places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from builder.python.source import fetch_source
from builder.python.versions import find
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Request, Response
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, pages

BODY = b"the source of CPython"
RELEASE = replace(find("3.14.7"), source=Digest.of(BODY), size=len(BODY))
MIRROR = "https://mirror.example/debian"
POOL = f"{MIRROR}/{RELEASE.pool}"
UNREACHABLE = TransferError("cannot reach www.python.org", because="no route to host")


def _fetch(transport: FakeTransport, mirror: str = MIRROR) -> tuple[MemoryStore, ListReporter]:
    store, reporter = MemoryStore(), ListReporter()
    assert fetch_source(RELEASE, transport, store, mirror, reporter) == RELEASE.source
    assert store.blobs == {RELEASE.source: BODY}
    return store, reporter


def test_upstream_is_asked_first_and_once() -> None:
    transport = pages({RELEASE.upstream: BODY, POOL: BODY})
    _, reporter = _fetch(transport)
    assert [(request.url, request.attempts) for request in transport.requests] == [(RELEASE.upstream, 1)]
    task = "fetch Python-3.14.7.tar.xz"
    assert reporter.events == [
        ("begin", task, len(BODY), "B"),
        ("advance", task, len(BODY)),
        ("finish", task, "done"),
    ]


@pytest.mark.parametrize("mirror", [MIRROR, MIRROR + "/"])
def test_debian_is_asked_when_upstream_cannot_be_reached(mirror: str) -> None:
    transport = pages({RELEASE.upstream: UNREACHABLE, POOL: BODY})
    _, reporter = _fetch(transport, mirror)
    assert [request.url for request in transport.requests] == [RELEASE.upstream, POOL]
    assert transport.requests[1].attempts > 1
    assert ("note", f"{RELEASE.upstream}: cannot reach www.python.org (no route to host)") in reporter.events


@pytest.mark.parametrize("wrong", [b"the source of CPythoN", BODY + b"!", BODY[:-1]])
def test_wrong_bytes_from_upstream_are_reported_and_passed_over(wrong: bytes) -> None:
    _, reporter = _fetch(pages({RELEASE.upstream: wrong, POOL: BODY}))
    notes = [str(event[1]) for event in reporter.events if event[0] == "note"]
    assert len(notes) == 1
    assert "differs (expected " in notes[0]
    assert ("finish", "fetch Python-3.14.7.tar.xz", "failed") in reporter.events


def test_a_body_that_breaks_off_is_passed_over() -> None:
    def broken() -> Iterator[bytes]:
        yield BODY[:4]
        raise TransferError("the connection broke")

    def answer(request: Request) -> Response:
        chunks = broken() if request.url == RELEASE.upstream else iter([BODY])
        return Response(status=200, url=request.url, headers={}, chunks=chunks)

    _fetch(FakeTransport(answer))


def test_what_is_in_the_store_is_not_fetched() -> None:
    store, transport = MemoryStore(), pages({})
    store.put([BODY])
    assert fetch_source(RELEASE, transport, store, MIRROR, ListReporter()) == RELEASE.source
    assert transport.requests == []


def test_when_no_source_answers_the_error_lists_what_each_said() -> None:
    with pytest.raises(TransferError, match="no source of CPython") as caught:
        fetch_source(RELEASE, pages({RELEASE.upstream: UNREACHABLE}), MemoryStore(), MIRROR, ListReporter())
    because = caught.value.because or ""
    assert f"{RELEASE.upstream}: cannot reach www.python.org (no route to host)" in because
    assert f"{POOL}: answered 404" in because


def test_when_the_only_bytes_to_be_had_are_wrong_it_is_an_integrity_error() -> None:
    store = MemoryStore()
    with pytest.raises(IntegrityError, match="no source of CPython"):
        fetch_source(RELEASE, pages({POOL: b"x" * len(BODY)}), store, MIRROR, ListReporter())
    assert store.blobs == {}


def test_a_release_that_debian_has_not_is_asked_of_upstream_with_every_try() -> None:
    release = replace(find("3.12.14"), source=Digest.of(BODY))
    store, transport = MemoryStore(), pages({release.upstream: BODY})
    assert fetch_source(release, transport, store, MIRROR, ListReporter()) == release.source
    assert transport.requests[0].attempts > 1
    with pytest.raises(TransferError) as caught:
        fetch_source(release, pages({}), MemoryStore(), MIRROR, ListReporter())
    assert "python.org must be within reach" in (caught.value.hint or "")
