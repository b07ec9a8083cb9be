"""HttpTransport against a server that misbehaves on purpose; the fake passes what both promise."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from rootfs.errors import HostError, TransferError
from rootfs.hosts import BUDGET, MAX_WAIT
from rootfs.ports import Request, Transport, Upload
from rootfs.transport import MAX_REDIRECTS, HttpTransport
from tests.fakes.transport import pages
from tests.peers.misbehaving import (
    BODY,
    Clock,
    Handler,
    Server,
    closed_port,
    dropped,
    failure,
    get,
    page,
    ranged,
    reset,
    serving,
    transport,
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


@pytest.fixture(params=["real", "fake"])
def both(request: pytest.FixtureRequest, server: Server, http: HttpTransport) -> tuple[Transport, str]:
    """What every Transport promises, real or not: a web of one page."""
    server.answers = {"/page": [page(BODY, X_Odd="yes")], "/gone": [page(b"no such page", 404)]}
    if request.param == "real":
        return http, server.url
    return pages({f"{server.url}/page": BODY, "http://unknown.invalid/": TransferError("GET failed")}), server.url


def test_a_page(both: tuple[Transport, str]) -> None:
    http, url = both
    with http.send(Request(method="GET", url=f"{url}/page")) as response:
        assert (response.status, response.url) == (200, f"{url}/page")
        assert response.headers["content-length"] == str(len(BODY))
        assert b"".join(response.chunks) == BODY


def test_head_has_no_body(both: tuple[Transport, str]) -> None:
    http, url = both
    with http.send(Request(method="HEAD", url=f"{url}/page")) as response:
        assert response.headers["content-length"] == str(len(BODY))
        assert response.read() == b""


def test_a_missing_page_is_an_answer(both: tuple[Transport, str]) -> None:
    http, url = both
    with http.send(Request(method="GET", url=f"{url}/gone")) as response:
        assert (response.status, response.read()) == (404, b"no such page")


def test_no_answer_is_an_error(both: tuple[Transport, str]) -> None:
    http, _ = both
    assert failure(http, Request(method="GET", url="http://unknown.invalid/", attempts=1)).message == "GET failed"


def test_bytes_are_the_bytes(server: Server, http: HttpTransport) -> None:
    server.answers = {"/x.gz": [page(b"\x1f\x8b not really gzip", Content_Encoding="gzip")]}
    assert get(http, f"{server.url}/x.gz") == b"\x1f\x8b not really gzip"
    assert server.seen[0][2]["accept-encoding"] == "identity"


def test_no_cookies_are_kept(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"x", Set_Cookie="a=b")]}
    get(http, f"{server.url}/")
    get(http, f"{server.url}/")
    assert "cookie" not in server.seen[1][2]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_get_survives_a_storm(server: Server, http: HttpTransport, clock: Clock, status: int) -> None:
    server.answers = {"/": [page(b"", status), dropped, reset, page(b"x", status), page(BODY)]}
    assert get(http, f"{server.url}/") == BODY
    assert clock.naps == [1.0, 2.0, 4.0, 8.0]


def test_jitter_shortens_the_waits(server: Server, clock: Clock) -> None:
    server.answers = {"/": [page(b"", 503), page(b"", 503), page(BODY)]}
    with transport(clock, jitter=lambda: 0.25) as http:
        assert get(http, f"{server.url}/") == BODY
    assert clock.naps == [0.25, 0.5]


def test_the_last_answer_is_given_when_tries_run_out(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"busy", 503)]}
    with http.send(Request(method="GET", url=f"{server.url}/", attempts=3)) as response:
        assert (response.status, response.read()) == (503, b"busy")
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 416, 501])
def test_other_statuses_are_not_retried(server: Server, http: HttpTransport, clock: Clock, status: int) -> None:
    server.answers = {"/": [page(b"", status)]}
    with http.send(Request(method="GET", url=f"{server.url}/")) as response:
        assert response.status == status
    assert clock.naps == []


def test_retry_after_is_a_floor(server: Server, http: HttpTransport, clock: Clock) -> None:
    date = formatdate(clock.now + 50, usegmt=True)
    waits = ["20", date, "0", "soon", "-3"]
    server.answers = {"/": [*(page(b"", 429, Retry_After=wait) for wait in waits), page(BODY)]}
    assert get(http, f"{server.url}/", attempts=6) == BODY
    assert clock.naps == [20.0, 30.0, 4.0, 8.0, 16.0]


def test_a_retry_after_beyond_patience_ends_the_tries(server: Server, http: HttpTransport, clock: Clock) -> None:
    server.answers = {"/": [page(b"", 429, Retry_After=str(int(MAX_WAIT) + 1))]}
    with http.send(Request(method="GET", url=f"{server.url}/")) as response:
        assert response.status == 429
    assert clock.naps == []


def test_redirects_are_followed(server: Server, http: HttpTransport) -> None:
    server.answers = {"/a": [page(b"", 302, Location="b?x=1")], "/b?x=1": [page(BODY)]}
    with http.send(Request(method="GET", url=f"{server.url}/a", headers={"authorization": "Basic x"})) as response:
        assert (response.url, response.read()) == (f"{server.url}/b?x=1", BODY)
    assert server.seen[1][2]["authorization"] == "Basic x"


def test_another_origin_gets_no_authorization(server: Server, http: HttpTransport) -> None:
    other = server.url.replace("127.0.0.1", "localhost")
    server.answers = {
        "/a": [page(b"", 307, Location=f"{other}/b")],
        "/b": [page(b"", 307, Location=f"{server.url}/c")],
        "/c": [page(BODY)],
    }
    assert get(http, f"{server.url}/a", headers={"Authorization": "Basic x"}) == BODY
    assert ["authorization" in headers for _, _, headers, _ in server.seen] == [True, False, False]


def test_endless_redirects_end(server: Server, http: HttpTransport) -> None:
    server.answers = {"/a": [page(b"", 301, Location="/a")]}
    assert "redirected too often" in failure(http, Request(method="GET", url=f"{server.url}/a")).message
    assert len(server.seen) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("location", ["ftp://x.invalid/", "file:///etc/passwd", "http://[::1/"])
def test_redirects_lead_to_http_only(server: Server, http: HttpTransport, location: str) -> None:
    server.answers = {"/a": [page(b"", 302, Location=location)]}
    failure(http, Request(method="GET", url=f"{server.url}/a"))
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_other_methods_are_not_redirected(server: Server, http: HttpTransport, method: str) -> None:
    server.answers = {"/a": [page(b"", 307, Location="/b")]}
    with http.send(Request(method=method, url=f"{server.url}/a", body=b"x")) as response:
        assert (response.status, response.headers["location"]) == (307, "/b")


@pytest.mark.parametrize("status", [429, 503])
def test_what_was_not_carried_out_is_sent_again(server: Server, http: HttpTransport, status: int) -> None:
    opened: list[BinaryIO] = []

    def reopen() -> BinaryIO:
        opened.append(io.BytesIO(BODY + b"not part of it"))
        return opened[-1]

    server.answers = {"/": [page(b"", status), page(b"", 201)]}
    request = Request(method="PUT", url=f"{server.url}/", body=Upload(open=reopen, size=len(BODY)))
    with http.send(request) as response:
        assert response.status == 201
    assert [body for *_, body in server.seen] == [BODY, BODY]
    assert all(stream.closed for stream in opened)
    assert len(opened) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_may_have_been_carried_out_is_not_sent_again(server: Server, http: HttpTransport, method: str) -> None:
    server.answers = {"/": [dropped], "/broken": [page(b"", 500)]}
    error = failure(http, Request(method=method, url=f"{server.url}/", body=b"x"))
    assert error.retryable
    with http.send(Request(method=method, url=f"{server.url}/broken")) as response:
        assert response.status == 500
    assert server.paths() == [f"{method} /", f"{method} /broken"]


def test_an_empty_upload_has_a_length(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"", 201)]}
    with http.send(Request(method="PUT", url=f"{server.url}/", body=Upload(open=io.BytesIO, size=0))):
        pass
    assert server.seen[0][2]["content-length"] == "0"
    assert "transfer-encoding" not in server.seen[0][2]


def test_a_body_shorter_than_announced_is_an_error(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"", 201)]}
    body = Upload(open=lambda: cast(BinaryIO, io.BytesIO(b"short")), size=9)
    assert "4 bytes shorter" in failure(http, Request(method="PUT", url=f"{server.url}/", body=body)).message


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_thrice(http: HttpTransport, clock: Clock, method: str) -> None:
    error = failure(http, Request(method=method, url=f"http://127.0.0.1:{closed_port()}/", attempts=9))
    assert error.because == "connection refused"
    assert len(clock.naps) == 2


@pytest.mark.parametrize(
    ("number", "because", "waits"),
    [
        (socket.EAI_NONAME, "the host's name is not known", 0),
        (socket.EAI_AGAIN, "the name server does not answer", 4),
    ],
)
def test_names(
    monkeypatch: pytest.MonkeyPatch, http: HttpTransport, clock: Clock, number: int, because: str, waits: int
) -> None:
    def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "said the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    error = failure(http, Request(method="GET", url="https://registry.example.org/"))
    assert error.because == because
    assert error.retryable == bool(waits)
    assert len(clock.naps) == waits


def test_a_failure_is_not_taken_for_the_one_being_handled(http: HttpTransport, clock: Clock) -> None:
    """The next mirror is asked while the first one's failure is handled: causes must not mix."""
    try:
        raise socket.gaierror(socket.EAI_NONAME, "an earlier failure")
    except OSError:
        error = failure(http, Request(method="GET", url=f"http://127.0.0.1:{closed_port()}/"))
    assert error.because == "connection refused"


def test_plain_http_where_tls_was_asked_for(server: Server, http: HttpTransport, clock: Clock) -> None:
    server.answers = {}
    error = failure(http, Request(method="GET", url=f"{server.url.replace('http:', 'https:')}/"))
    assert "TLS failed" in (error.because or "")
    assert "plain http" in (error.hint or "")
    assert clock.naps == []


@pytest.mark.parametrize("url", ["ftp://x.invalid/", "nonsense", "http://", "http://[::1/", "http://x:99999/"])
def test_what_is_no_url(http: HttpTransport, url: str) -> None:
    assert "not an http or https URL" in failure(http, Request(method="GET", url=url)).message


def test_a_bad_header_is_no_traceback_and_shows_no_secret(http: HttpTransport) -> None:
    request = Request(method="GET", url="http://127.0.0.1:9/", headers={"Authorization": "Bearer hush\r\nX: y"})
    assert "hush" not in failure(http, request).render()


def test_messages_hold_no_control_characters(server: Server, http: HttpTransport) -> None:
    def scream(handler: Handler) -> None:
        handler.wfile.write(b"\x1b[31mred\x07\r\n\r\n")
        handler.close_connection = True

    server.answers = {"/": [scream]}
    assert failure(http, Request(method="GET", url=f"{server.url}/")).because == "[31mred"


def test_messages_hide_what_is_secret(http: HttpTransport) -> None:
    url = f"http://me:hush@127.0.0.1:{closed_port()}/x?token=hush&digest=sha256:00"
    shown = failure(http, Request(method="GET", url=url, attempts=1)).render()
    assert "hush" not in shown
    assert "digest=sha256:00" in shown


def test_the_user_in_a_url_stays_out_of_the_response(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"x")]}
    with http.send(Request(method="GET", url=server.url.replace("//", "//me:hush@") + "/")) as response:
        assert response.url == f"{server.url}/"
    assert server.seen[0][2]["authorization"] == "Basic bWU6aHVzaA=="


def test_a_header_that_comes_twice_is_one_list(server: Server, http: HttpTransport) -> None:
    def twice(handler: Handler) -> None:
        handler.send_response(401)
        for value in ("Basic", "Bearer realm=x", "0"):
            handler.send_header("Content-Length" if value == "0" else "WWW-Authenticate", value)
        handler.end_headers()

    server.answers = {"/": [twice]}
    with http.send(Request(method="GET", url=f"{server.url}/")) as response:
        assert response.headers["www-authenticate"] == "Basic, Bearer realm=x"


def test_headers_of_the_request_replace_the_usual_ones(server: Server, http: HttpTransport) -> None:
    server.answers = {"/a?b=%7E%20c": [page(b"x")]}
    with http.send(Request(method="GET", url=f"{server.url}/a?b=%7e c", headers={"accept": "text/x"})):
        pass
    _, path, headers, _ = server.seen[0]
    assert path == "/a?b=%7E%20c"
    assert (headers["accept"], headers["user-agent"]) == ("text/x", "ocibuild")


def test_proxies_are_used_unless_bypassed(server: Server, clock: Clock) -> None:
    server.answers = {"http://far.invalid/": [page(b"by proxy")], "/": [page(b"direct")]}
    with transport(clock, proxies={"http": server.url}, no_proxy=["127.0.0.0/8"]) as http:
        assert get(http, "http://far.invalid/") == b"by proxy"
        assert get(http, f"{server.url}/") == b"direct"


def test_the_environment_is_not_read(server: Server, http: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.answers = {"/": [page(b"direct")]}
    assert get(http, f"{server.url}/") == b"direct"


def test_a_proxy_that_refuses_the_tunnel(server: Server, clock: Clock) -> None:
    with transport(clock, proxies={"https": server.url}) as http:
        error = failure(http, Request(method="GET", url="https://far.invalid/"))
    assert "by the proxy" in (error.because or "")
    assert clock.naps == []


def test_a_missing_ca_bundle(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        HttpTransport(verify=tmp_path / "none.pem")


def test_connections_are_reused_also_after_unread_answers(server: Server, http: HttpTransport) -> None:
    ports: list[int] = []

    def note(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        page(b"small", 503 if len(ports) == 1 else 200)(handler)

    server.answers = {"/": [note]}
    for method in ("GET", "HEAD", "POST", "GET"):
        with http.send(Request(method=method, url=f"{server.url}/")):
            pass
    assert len(ports) == 5
    assert len(set(ports)) == 1


def test_connections_are_made_before_there_is_anything_to_send(server: Server, http: HttpTransport) -> None:
    ports: list[int] = []

    def note(handler: Handler) -> None:
        ports.append(handler.client_address[1])
        page(b"small")(handler)

    server.answers = {"/": [note]}
    pool = http._connections._pool(f"{server.url}/")
    http.prepare(f"{server.url}/", 3)
    for _ in range(200):
        made = [one for one in list(pool.pool.queue) if one is not None and not one.is_closed]
        if len(made) == 3:
            break
        time.sleep(0.01)
    known = {one.sock.getsockname()[1] for one in made}
    assert len(known) == 3
    for _ in range(5):
        assert get(http, f"{server.url}/") == b"small"
    assert set(ports) <= known


def test_a_connection_whose_tls_failed_is_not_taken_for_one_that_is_ready(server: Server, http: HttpTransport) -> None:
    url = server.url.replace("http:", "https:") + "/"
    pool = http._connections._pool(url)
    before = pool.pool.qsize()
    http.prepare(url, 2)
    for _ in range(200):
        if pool.pool.qsize() == before:
            break
        time.sleep(0.01)
    assert pool.pool.qsize() == before
    with pytest.raises(TransferError) as caught:
        http.send(Request(method="GET", url=url, headers={"Authorization": "Bearer secret"}, attempts=1))
    assert "--plain-http" in (caught.value.hint or "")
    assert server.seen == []


def test_what_cannot_be_prepared_is_nobody_s_error(clock: Clock) -> None:
    with transport(clock) as http:
        http.prepare(f"http://127.0.0.1:{closed_port()}/", 2)
    with transport(clock, proxies={"http": "http://127.0.0.1:1"}) as http:
        http.prepare("http://127.0.0.1:1/", 2)
        assert not http._connections._direct.pools.keys()  # what a proxy lies before is connected to when it is wanted


def test_threads_share_a_transport(server: Server, http: HttpTransport) -> None:
    bodies = {f"/{number}": BODY[number:] for number in range(24)}
    server.answers = {path: [page(b"", 503), page(body, sent=50_000), ranged(body)] for path, body in bodies.items()}
    with ThreadPoolExecutor(8) as pool:
        got = dict(zip(bodies, pool.map(lambda path: get(http, server.url + path), bodies), strict=True))
    assert got == bodies


@pytest.mark.parametrize("status", [429, 503])
def test_one_answer_holds_back_all_requests_to_the_host(server: Server, clock: Clock, status: int) -> None:
    server.answers = {"/busy": [page(b"", status, Retry_After="30")], "/other": [page(BODY)]}
    with transport(clock) as http:
        with http.send(Request(method="GET", url=f"{server.url}/busy", attempts=1)) as response:
            assert response.status == status
        assert get(http, f"{server.url}/other") == BODY
        assert clock.naps == [30.5]


def test_an_upload_that_a_server_failed_at_gives_it_a_rest(server: Server, http: HttpTransport, clock: Clock) -> None:
    server.answers = {"/a": [page(b"", 500)], "/b": [page(BODY)]}
    with http.send(Request(method="PATCH", url=f"{server.url}/a", body=b"x")) as response:
        assert response.status == 500
    assert get(http, f"{server.url}/b") == BODY
    assert clock.naps == [1.5]


def test_a_host_is_worth_so_many_retries(server: Server, http: HttpTransport) -> None:
    server.answers = {"/": [page(b"", 500)]}
    for _ in range(30):
        with http.send(Request(method="GET", url=f"{server.url}/")) as response:
            assert response.status == 500
    assert len(server.seen) == 30 + BUDGET
