"""Bodies that break off, and connections over TLS."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rootfs.ports import Request
from rootfs.transport import HttpTransport
from tests.peers.misbehaving import (
    BODY,
    Answer,
    Clock,
    Handler,
    Server,
    dropped,
    failure,
    get,
    half_chunked,
    page,
    ranged,
    serving,
    transport,
    until_closed,
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def http(clock: Clock) -> Iterator[HttpTransport]:
    with transport(clock) as real:
        yield real


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', ""])
def test_a_broken_body_is_resumed(server: Server, http: HttpTransport, etag: str) -> None:
    headers: dict[str, Any] = {"ETag": etag} if etag else {}
    server.answers = {"/": [page(BODY, sent=300_000, **headers), dropped, ranged(BODY, **headers)]}
    assert get(http, f"{server.url}/") == BODY
    resumed = server.seen[-1][2]
    assert int(resumed["range"].removeprefix("bytes=").removesuffix("-")) > 0
    assert resumed.get("if-range") == ('"v1"' if etag == '"v1"' else None)


def test_a_body_is_resumed_by_its_date(server: Server, http: HttpTransport) -> None:
    date = formatdate(0, usegmt=True)
    server.answers = {
        "/": [page(BODY, sent=300_000, Last_Modified=date), ranged(BODY, Last_Modified=date)],
    }
    assert get(http, f"{server.url}/") == BODY
    assert server.seen[-1][2]["if-range"] == date


def test_a_body_resumed_without_ranges_is_skipped_over(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(BODY, sent=300_000), page(BODY, sent=100_000), page(BODY)]}
    assert get(http, f"{server.url}/") == BODY


@pytest.mark.parametrize(
    "second",
    [
        page(BODY[::-1], ETag='"v2"'),
        ranged(BODY, ETag='"v2"'),
        page(BODY + b"longer"),
        ranged(BODY + b"longer"),
        page(BODY, 206, Content_Range=f"bytes 5-{len(BODY) - 1}/{len(BODY)}"),
        page(BODY, 206),
        page(b"", 416),
    ],
)
def test_a_body_that_changed_is_an_error(server: Server, http: HttpTransport, second: Answer) -> None:
    server.answers = {"/": [page(BODY, sent=300_000, ETag='"v1"'), second]}
    error = failure(http, Request(method="GET", url=f"{server.url}/"))
    assert error.message == "file changed while it was fetched"
    assert error.retryable


def test_a_body_that_is_gone_is_an_error(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(BODY, sent=300_000), page(b"", 404)]}
    error = failure(http, Request(method="GET", url=f"{server.url}/"))
    assert "body broke off after" in error.message
    assert error.because == "then came 404"


def test_resumptions_and_tries_share_a_budget(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"", 503), page(BODY, sent=1000)]}
    error = failure(http, Request(method="GET", url=f"{server.url}/", attempts=4))
    assert len(server.seen) == 4
    assert "body broke off after" in error.message
    assert error.retryable


def test_a_body_of_unknown_length_is_resumed(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [half_chunked, ranged(BODY)]}
    assert get(http, f"{server.url}/") == BODY


def test_a_stalled_body_is_resumed(server: Server, clock: Clock) -> None:
    stalled = threading.Event()

    def stall(handler: Handler) -> None:
        page(BODY, sent=1000)(handler)
        handler.wfile.flush()
        stalled.wait(10)

    server.answers = {"/": [stall, ranged(BODY)]}
    with transport(clock, timeouts=(2.0, 0.2)) as http:
        assert get(http, f"{server.url}/") == BODY
    stalled.set()
    assert server.seen[-1][2]["range"] == "bytes=1000-"


def test_a_second_body_that_ends_too_soon_is_an_error(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [half_chunked, until_closed(BODY[:10])]}
    error = failure(http, Request(method="GET", url=f"{server.url}/"))
    assert error.message == "file changed while it was fetched"


@pytest.fixture
def certificate(peer: Callable[[str], str], tmp_path: Path) -> Path:
    """A certificate of 127.0.0.1 that nobody but its owner trusts, with its key."""
    path = tmp_path / "own.pem"
    argv = [peer("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-keyout", str(path), "-out", str(path) + ".crt", "-days", "2"]
    argv += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(argv, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(server: Server, certificate: Path) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return server.url.replace("http:", "https:")


def test_an_untrusted_certificate_is_never_retried(tls: str, http: HttpTransport, clock: Clock) -> None:
    error = failure(http, Request(method="GET", url=f"{tls}/"))
    assert "certificate is not trusted" in (error.because or "")
    assert "ca_bundle" in (error.hint or "")
    assert clock.naps == []
    assert not error.retryable


def test_a_certificate_that_the_bundle_trusts(tls: str, server: Server, clock: Clock, certificate: Path) -> None:
    server.answers = {"/": [page(BODY, sent=1000), ranged(BODY)]}
    with transport(clock, verify=certificate) as http:
        assert get(http, f"{tls}/") == BODY


class Tunnels(BaseHTTPRequestHandler):
    """A proxy that lets TLS through and notes who asked."""

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, self.headers["Proxy-Authorization"]))  # type: ignore[attr-defined]
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as far:
            self.send_response(200)
            self.end_headers()
            thread = threading.Thread(target=pass_on, args=(far, self.connection))
            thread.start()
            pass_on(self.connection, far)
            thread.join()

    def log_message(self, *_: object) -> None:
        """Silence."""


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def tunnels() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tunnels) as proxy:
        proxy.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_tls_through_a_proxy_with_an_account(
    tls: str, server: Server, clock: Clock, certificate: Path, tunnels: ThreadingHTTPServer
) -> None:
    server.answers = {"/": [page(BODY, sent=1000), ranged(BODY)]}
    proxies = {"https": f"http://me:hush@127.0.0.1:{tunnels.server_port}"}
    with transport(clock, verify=certificate, proxies=proxies) as http:
        assert get(http, f"{tls}/") == BODY
    with transport(clock, proxies=proxies) as http:
        error = failure(http, Request(method="GET", url=f"{tls}/"))
    assert "certificate is not trusted" in (error.because or "")
    asked = (tls.removeprefix("https://"), "Basic bWU6aHVzaA==")
    assert tunnels.asked == [asked] * 3  # type: ignore[attr-defined]


def test_redirects_do_not_leave_https(tls: str, server: Server, clock: Clock, certificate: Path) -> None:
    server.answers = {"/": [page(b"", 302, Location=f"{server.url}/plain")]}
    with transport(clock, verify=certificate) as http:
        assert "away from https" in failure(http, Request(method="GET", url=f"{tls}/")).message
    assert server.paths() == ["GET /"]


def test_a_range_is_resumed_within_itself(server: Server, http: HttpTransport) -> None:
    part = BODY[1000:601_000]

    def rest(handler: Handler) -> None:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        told = f"bytes {first}-{last}/{len(BODY)}"
        page(BODY[first : last + 1], 206, sent=250_000, Content_Range=told, ETag='"v1"')(handler)

    server.answers = {"/": [rest]}
    request = Request(method="GET", url=f"{server.url}/", headers={"Range": "bytes=1000-600999"})
    with http.send(request) as response:
        assert response.status == 206
        assert response.read() == part
    assert len(server.seen) == 3
    assert all(headers["range"].endswith("-600999") for _, _, headers, _ in server.seen)


@pytest.mark.parametrize("second", [page(BODY), page(BODY, 206, Content_Range=f"bytes 0-9/{len(BODY)}")])
def test_a_range_that_changed_is_an_error(server: Server, http: HttpTransport, second: Answer) -> None:
    told = f"bytes 1000-600999/{len(BODY)}"
    server.answers = {"/": [page(BODY[1000:601_000], 206, sent=1000, Content_Range=told), second]}
    request = Request(method="GET", url=f"{server.url}/", headers={"Range": "bytes=1000-600999"})
    assert failure(http, request).message == "file changed while it was fetched"


def test_a_body_cut_at_every_decile_comes_whole(server: Server, http: HttpTransport) -> None:
    def tenth(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        rest = BODY[start:]
        told = {"Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        page(rest, 206 if start else 200, sent=len(BODY) // 10, **told)(handler)

    server.answers = {"/": [tenth]}
    assert get(http, f"{server.url}/") == BODY
    assert len(server.seen) == 10
