"""Which scheme a registry is spoken to in, though it is in trouble at the moment."""

from __future__ import annotations

import pytest

from builder.registry.base import speaks_plain_http
from builder.registry.reference import Reference
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from rootfs.transport import HttpTransport
from tests.fakes.transport import FakeTransport, reply
from tests.peers.misbehaving import dropped, page, serving

HERE = Reference(host="localhost:5000", repository="a")


@pytest.mark.parametrize(
    ("status", "spoken"),
    [(200, True), (401, True), (403, True), (429, True), (500, True), (503, True), (400, False), (404, False)],
)
def test_trouble_is_an_answer(status: int, spoken: bool) -> None:
    def answer(request: Request) -> Response:
        assert request.url == "http://localhost:5000/v2/"
        return reply(request, status)

    assert speaks_plain_http(FakeTransport(answer), HERE) is spoken


def test_a_registry_that_begins_with_429_is_not_taken_for_one_of_https() -> None:
    with serving() as server, HttpTransport(sleep=lambda seconds: None) as transport:
        server.answers["/v2/"] = [page(status=429), page(status=200)]
        reference = Reference(host=f"127.0.0.1:{server.server_port}", repository="a")
        assert speaks_plain_http(transport, reference)
        assert len(server.seen) == 1


def test_a_connection_that_breaks_is_no_sign_of_https() -> None:
    asked: list[str] = []

    def answer(request: Request) -> Response:
        asked.append(request.url)
        if len(asked) < 3:
            raise TransferError("GET failed", because="the other side closed the connection", retryable=True)
        return reply(request, 200)

    assert speaks_plain_http(FakeTransport(answer), HERE)
    assert asked == [f"{scheme}://localhost:5000/v2/" for scheme in ("http", "https", "http")]


def test_a_server_of_https_that_hangs_up_on_http_speaks_https() -> None:
    def answer(request: Request) -> Response:
        if request.url.startswith("http:"):
            raise TransferError("GET failed", because="the other side closed the connection", retryable=True)
        return reply(request, 401)

    assert not speaks_plain_http(FakeTransport(answer), HERE)


def test_a_real_connection_that_breaks() -> None:
    with serving() as server, HttpTransport(sleep=lambda seconds: None) as transport:
        server.answers["/v2/"] = [dropped, page(status=200)]
        reference = Reference(host=f"127.0.0.1:{server.server_port}", repository="a")
        assert speaks_plain_http(transport, reference)
