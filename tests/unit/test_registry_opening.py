"""An upload that is opened while the registry is still asked for the blob, and what a push prepares."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry import client as module
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.opening import Opening
from builder.registry.reference import Reference
from builder.registry.upload import Action
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload
from tests.fakes.registry import MemoryRegistry
from tests.fakes.sessions import Sessions, broken
from tests.fakes.transport import FakeTransport, reply

DATA = bytes(range(256)) * 40
BLOB = Descriptor.of(LAYER_TAR, DATA)
BODY = Upload(open=lambda: cast(BinaryIO, io.BytesIO(DATA)), size=len(DATA))
HOST = "https://r.example.org"


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AHEAD", len(DATA))


@dataclass
class Preparing(FakeTransport):
    """A FakeTransport that keeps which connections were wanted."""

    answer: Callable[[Request], Response]
    prepared: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.answer)

    def prepare(self, url: str, count: int) -> None:
        self.prepared.append((url, count))


def reach(server: Callable[[Request], Response], journal: Path | None = None) -> tuple[Registry, Preparing]:
    transport = Preparing(server)
    kept = Journal(journal) if journal else None
    return Registry(transport, Reference.parse("r.example.org/a"), journal=kept), transport


def methods(requests: Sequence[Request]) -> list[str]:
    return sorted(request.method for request in requests)


def test_a_new_blob_is_looked_for_while_its_upload_is_opened() -> None:
    server, together = Sessions(), threading.Barrier(2, timeout=10)
    registry, transport = reach(server)

    def wait(request: Request) -> Response | None:
        if request.method in ("HEAD", "POST"):
            together.wait()
        return None

    server.fault = wait
    assert registry.upload(BLOB, BODY, is_new=True).action is Action.UPLOADED
    assert methods(transport.requests) == ["HEAD", "POST", "PUT"]
    assert server.blobs[str(BLOB.digest)] == DATA


def test_the_session_of_a_blob_that_is_there_is_given_back() -> None:
    server = Sessions(blobs={str(BLOB.digest): DATA})
    registry, transport = reach(server)
    assert registry.upload(BLOB, BODY, is_new=True).action is Action.EXISTS
    assert methods(transport.requests) == ["DELETE", "HEAD", "POST"]
    assert (server.cancelled, server.sessions) == (["s1"], {})


def test_a_mount_that_was_asked_for_ahead() -> None:
    server = Sessions(anonymous_status=201)
    registry, transport = reach(server)
    assert registry.upload(BLOB, BODY, is_new=True).action in (Action.MOUNTED, Action.EXISTS)  # HEAD may come second
    assert methods(transport.requests) == ["HEAD", "POST"]


def test_a_mount_that_was_refused_ahead() -> None:
    server = Sessions(anonymous_status=404)
    registry, transport = reach(server)
    assert registry.upload(BLOB, BODY, is_new=True).action is Action.UPLOADED
    assert methods(transport.requests) == ["HEAD", "POST", "POST", "PUT"]


@pytest.mark.parametrize("there", [True, False])
def test_an_opening_that_broke(there: bool) -> None:
    server = Sessions(blobs={str(BLOB.digest): DATA} if there else {})
    registry, transport = reach(server)
    failed: list[Request] = []

    def fail_once(request: Request) -> Response | None:
        if request.method == "POST" and not failed:
            failed.append(request)
            raise broken()
        return None

    server.fault = fail_once
    assert registry.upload(BLOB, BODY, is_new=True).action is (Action.EXISTS if there else Action.UPLOADED)
    assert methods(transport.requests).count("POST") == (1 if there else 2)


def test_what_may_be_there_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blobs, those that were seen in the repository, and those whose upload is to be resumed."""
    server = Sessions(blobs={str(BLOB.digest): DATA})
    registry, transport = reach(server, tmp_path)
    registry.upload(BLOB, BODY)
    registry.upload(BLOB, BODY, is_new=True)
    assert methods(transport.requests) == ["HEAD", "HEAD"]
    monkeypatch.setattr(module, "_AHEAD", len(DATA) + 1)
    other, transport = reach(server)
    other.upload(BLOB, BODY, is_new=True)
    assert methods(transport.requests) == ["HEAD"]


def test_a_small_upload_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNALED", len(DATA))
    server = Sessions(cuts=[5000])
    registry, _ = reach(server, tmp_path)

    def die(request: Request) -> Response | None:
        if request.method == "GET":
            raise KeyboardInterrupt
        return None

    server.fault = die
    with pytest.raises(KeyboardInterrupt):
        registry.upload(BLOB, BODY)
    server.fault = lambda _: None
    registry, transport = reach(server, tmp_path)
    assert registry.upload(BLOB, BODY, is_new=True).resumed == 5000
    assert methods(transport.requests) == ["GET", "HEAD", "PUT"]
    assert server.received == len(DATA)


def test_an_opening_is_taken_once() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Response:
        seen.append(request)
        return reply(request, 200)

    wanted = Request(method="POST", url=f"{HOST}/v2/a/blobs/uploads/")
    with Opening(answer, wanted) as ahead:
        for request in (wanted, wanted, Request(method="GET", url=wanted.url)):
            assert ahead.send(request).status == 200
    assert methods(seen) == ["GET", "POST", "POST"]


def test_one_token_for_all_of_a_push() -> None:
    server = MemoryRegistry()
    server.realm = f"{HOST}/token"
    registry, _ = reach(server)
    registry.will_push([BLOB])
    assert not registry.exists(BLOB)
    registry.upload(BLOB, BODY)
    assert (server.issued, server.scope) == (1, "repository:a:pull,push")


def test_who_may_only_read_is_told_what_is_there() -> None:
    """A token server that refuses what is too much, where others grant less."""
    server = MemoryRegistry()
    server.realm = f"{HOST}/token"
    server.blobs[str(BLOB.digest)] = DATA

    def refuse(request: Request) -> Response | None:
        return reply(request, 403) if "push" in request.url else None

    server.fault = refuse
    registry, transport = reach(server)
    registry.will_push([BLOB])
    assert registry.exists(BLOB)
    assert registry.exists(BLOB)
    assert [request.url.partition("?")[0] for request in transport.requests].count(server.realm) == 2
    with pytest.raises(TransferError, match="a token"):
        registry.upload(BLOB, BODY)


@pytest.mark.parametrize(("blobs", "count"), [([], 0), ([BLOB], 2), ([BLOB] * 9, 6)])
def test_connections_are_made_early(blobs: list[Descriptor], count: int) -> None:
    registry, transport = reach(MemoryRegistry())
    registry.will_push(blobs)
    assert transport.prepared == [(f"{HOST}/v2/a", count)]
    assert registry.will_pull() is registry
    assert transport.prepared[1:] == [(f"{HOST}/v2/a", 5)]


def test_no_connections_are_made_for_what_was_pushed_before(tmp_path: Path) -> None:
    registry, transport = reach(MemoryRegistry(), tmp_path)
    registry.upload(BLOB, BODY)
    registry.will_push([BLOB])
    assert transport.prepared == []
