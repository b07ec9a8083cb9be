"""The Transport over HTTP: the one retry loop of the project (RFC 9110).

Law: knows requests, responses and connections, never what the bytes mean; reads no environment (proxies and the CA
bundle are arguments) and keeps no cookies. One HttpTransport serves any number of threads.

What is tried again, up to `Request.attempts`, the resumptions of a body included (a resumption that brought the body on
by a sixteenth, or by a MiB, does not count):

- GET and HEAD: broken and timed-out connections, and the statuses 429, 500, 502, 503 and 504;
- POST, PATCH and PUT: only what certainly was not carried out, namely a connection that was never made, or an answer
  429 or 503; anything else is the caller's to begin anew (`TransferError.retryable` says whether that may help);
- never: what cannot get better (an unknown name, an untrusted certificate, a bad URL).

The waits grow exponentially, with jitter; Retry-After is a floor. A Retry-After longer than MAX_WAIT ends the tries.
An answer 429 or 503 holds back every request to its host for that long; how many retries a host is worth, and how many
requests it gets at a time, `rootfs.hosts` says.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Self

from urllib3 import HTTPHeaderDict
from urllib3 import exceptions as wire

from rootfs.body import CHUNK, opened
from rootfs.connections import Answer, Connections
from rootfs.errors import HostError, TransferError
from rootfs.hosts import MAX_WAIT, PARALLEL, Host, Hosts, by_chance
from rootfs.ports import Request, Response, Upload
from rootfs.tls import TlsFiles, no_files
from rootfs.url import join, origin, redact, split, without_user

MAX_REDIRECTS = 5
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_ALL = 1 << 30
_PROGRESS = 1 << 20
_PROGRESSES = 16

_REPEATABLE = frozenset({"GET", "HEAD"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({429, 500, 502, 503, 504})
_NOT_CARRIED_OUT = frozenset({429, 503})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)\Z")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


class HttpTransport:
    """`rootfs.ports.Transport` over HTTP/1.1 and TLS; thread-safe; close it, or use it in a `with`.

    `verify` is a CA bundle (None: certifi's); `proxies` maps `http` and `https` to a proxy's URL, and `no_proxy` lists
    host names (their subdomains too), `host:port`, addresses, networks or `*`. Timeouts are seconds; the second one is
    between bytes. `pool_size` is how many idle connections to one host are kept, `parallel` how many requests one host
    gets at a time.
    """

    def __init__(
        self,
        *,
        verify: Path | None = None,
        proxies: Mapping[str, str] | None = None,
        no_proxy: Sequence[str] = (),
        timeouts: tuple[float, float] = (5.0, 60.0),
        pool_size: int = 8,
        tls: Callable[[str, int], TlsFiles | None] = no_files,
        parallel: int = PARALLEL,
        user_agent: str = "ocibuild",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = by_chance,
    ) -> None:
        if verify is not None and not verify.exists():
            raise HostError(
                "the CA bundle is not there", at=str(verify), hint="give the path of a file of PEM certificates"
            )
        self._connections = Connections(
            bundle=verify,
            files=tls,
            proxies=proxies or {},
            no_proxy=no_proxy,
            timeouts=timeouts,
            pool_size=pool_size,
        )
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._hosts = Hosts(lambda: Host(clock=clock, sleep=sleep, jitter=jitter, parallel=parallel))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._connections.close()

    @property
    def retries(self) -> int:
        """How often a request was tried again, or a body resumed."""
        return self._hosts.retries

    def prepare(self, url: str, count: int) -> None:
        """Begin with so many connections to a host; nobody waits for them, and no failure is told."""
        self._connections.prepare(url, count)

    def send(self, request: Request) -> Response:
        """The last answer, whatever its status; TransferError when none could be had."""
        split(request.url)
        host = self._hosts.at(origin(request.url))
        attempts = _Attempts(request.attempts, host, sleep=self._sleep, jitter=self._jitter)
        answer = self._answer(request, request.headers, attempts)
        body = _Body(
            request, answer, attempts, lambda extra: self._answer(request, {**request.headers, **extra}, attempts)
        )
        return Response(
            status=answer.status,
            url=without_user(answer.url),
            headers=dict(answer.headers.itermerged()),
            chunks=body.chunks(),
            close=body.close,
        )

    def _answer(self, request: Request, headers: Mapping[str, str], attempts: _Attempts) -> Answer:
        """The retry loop."""
        repeatable = request.method in _REPEATABLE
        while True:
            try:
                answer = self._follow(request, headers)
            except (wire.HTTPError, http.client.HTTPException) as error:
                failure = _diagnose(error)
                if (repeatable or not failure.connected) and attempts.another(at_most=failure.tries):
                    continue
                raise failure.error(request) from error
            status = answer.status
            host = self._hosts.at(origin(answer.url))
            if status not in _PASSING:
                host.prosper()
                return answer
            if not repeatable and status not in _NOT_CARRIED_OUT:
                host.pause(attempts.backoff())
                return answer
            floor = _retry_after(answer.headers.get("Retry-After"), self._clock())
            if not attempts.another(floor=floor, pausing=host if status in _NOT_CARRIED_OUT else None):
                return answer
            answer.discard()

    def _follow(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """One try: the request, and for GET and HEAD where its redirects lead."""
        url = request.url
        sent = HTTPHeaderDict(self._headers)
        sent.update(headers)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(request, url, sent)
            location = answer.headers.get("Location")
            if request.method not in _REPEATABLE or answer.status not in _REDIRECTS or not location:
                return answer
            answer.discard()
            url = _redirected(url, location, request, sent)
        raise TransferError(
            f"{request.method} was redirected too often", at=redact(request.url), because=f"last to {redact(url)}"
        )

    def _once(self, request: Request, url: str, headers: Mapping[str, str]) -> Answer:
        slot = self._hosts.at(origin(url)).slot(upload=isinstance(request.body, Upload))
        with slot, opened(request.body) as body:
            return self._connections.send(request.method, url, headers, body)


class _Attempts:
    """The tries one request may make, and the waits between them."""

    def __init__(self, limit: int, host: Host, *, sleep: Callable[[float], None], jitter: Callable[[], float]) -> None:
        self._made = 1
        self._limit = limit
        self._host = host
        self._sleep = sleep
        self._jitter = jitter

    def another(self, *, floor: float = 0.0, at_most: int = _ALL, pausing: Host | None = None) -> bool:
        """Wait for the next try, `floor` seconds at least; False at once when there is none left.

        The host `pausing` gets no other request meanwhile.
        """
        if floor > MAX_WAIT:
            return False
        wait = max(floor, self.backoff())
        if pausing:
            pausing.pause(wait)
        if self._made >= min(self._limit, at_most) or not self._host.spend():
            return False
        self._sleep(wait)
        self._made += 1
        return True

    def backoff(self) -> float:
        """Seconds to wait before the next try."""
        return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**self._made) * self._jitter()

    def renew(self) -> None:
        """Something was achieved: count anew."""
        self._made = 1
        self._host.prosper()


class _Body:
    """A response's body, resumed where it breaks off (RFC 9110, section 14 and If-Range)."""

    def __init__(
        self,
        request: Request,
        answer: Answer,
        attempts: _Attempts,
        again: Callable[[Mapping[str, str]], Answer],
    ) -> None:
        self._request = request
        self._answer = answer
        self._attempts = attempts
        self._again = again
        self._identity = _identity(answer)
        asked = HTTPHeaderDict(request.headers).get("Range")
        part = _RANGE.match(asked or "bytes=0-")
        self._ranged = asked is not None
        wanted = 206 if self._ranged else 200
        self._resumable = request.method == "GET" and part is not None and answer.status == wanted
        self._first, self._last = (int(part[1]), part[2]) if part else (0, "")
        length = answer.headers.get("Content-Length", "")
        self._step = min(_PROGRESS, 1 + int(length) // _PROGRESSES) if length.isdigit() else _PROGRESS

    def chunks(self) -> Iterator[bytes]:
        """The body's bytes as they are on the wire (a Content-Encoding is not undone)."""
        offset = skip = renewed = 0
        while True:
            broken: Exception | None = None
            try:
                # read1 gives what has come: a read of a whole chunk would lose it when the connection breaks
                while chunk := self._answer.raw.read1(CHUNK, decode_content=False):
                    fresh = chunk[skip:]
                    skip = max(0, skip - len(chunk))
                    offset += len(fresh)
                    if fresh:
                        yield fresh
            except (wire.HTTPError, http.client.HTTPException, OSError) as error:
                broken = error
            if broken is None:
                self.close()
                if skip:
                    raise self._changed(offset)
                return
            if offset - renewed >= self._step:
                self._attempts.renew()
                renewed = offset
            skip = self._resume(offset, broken)

    def close(self) -> None:
        self._answer.discard()

    def _resume(self, offset: int, broken: Exception) -> int:
        """Ask for the rest of the body; how many bytes of the new answer are not new."""
        self._answer.close()
        failure = _diagnose(broken)
        if not self._resumable or not self._attempts.another(at_most=failure.tries):
            raise failure.error(self._request, f"body broke off after {offset} bytes") from broken
        start = self._first + offset
        headers = {"Range": f"bytes={start}-{self._last}"} if start or self._last else {}
        etag = self._identity["etag"]
        validator = self._identity["modified"] if etag.startswith("W/") else etag or self._identity["modified"]
        if offset and validator:
            headers["If-Range"] = validator
        self._answer = self._again(headers)
        got = _identity(self._answer)
        names = ("etag", "modified", "size")
        changed = any(got[name] != self._identity[name] for name in names if self._identity[name] and got[name])
        status = self._answer.status
        whole = status == 200 and self._ranged
        if changed or whole or status == 416 or (status == 206 and got["start"] != str(start)):
            self._answer.close()
            raise self._changed(offset)
        if status not in (200, 206):
            self._answer.close()
            raise TransferError(
                f"body broke off after {offset} bytes",
                at=redact(self._request.url),
                because=f"then came {status}",
                retryable=status in _PASSING,
            )
        return offset if status == 200 else 0

    def _changed(self, offset: int) -> TransferError:
        return TransferError(
            "file changed while it was fetched",
            at=redact(self._request.url),
            because=f"its body broke off after {offset} bytes, and the rest belongs to another version",
            retryable=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why a try failed; `tries` is how many are worth making, `connected` whether anything may have been sent."""

    because: str
    hint: str | None
    tries: int
    connected: bool

    def error(self, request: Request, what: str = "") -> TransferError:
        return TransferError(
            what or f"{request.method} failed",
            at=redact(request.url),
            because=self.because,
            hint=self.hint,
            retryable=self.tries > 1,
        )


_CLIENT = "put one that it takes, and its key, in certs.d/HOST:PORT as client.cert and client.key"
_CLIENT_ALERT = re.compile(r"ALERT_(BAD_CERTIFICATE|CERTIFICATE_REQUIRED|CERTIFICATE_UNKNOWN|UNKNOWN_CA)\Z")
_PLAIN = "if the server speaks plain http on this port, ask for that (http://, or --plain-http for a registry)"
_CAUSES: tuple[tuple[type[BaseException], str, str | None, int], ...] = (
    (
        ssl.SSLCertVerificationError,
        "the server's certificate is not trusted: {0.verify_message}",
        "if a private CA signed it, put its certificate in certs.d/HOST:PORT, or name it in the setting `ca_bundle`",
        1,
    ),
    (ssl.SSLEOFError, "the TLS connection was broken off", None, _ALL),
    (ssl.SSLZeroReturnError, "the TLS connection was broken off", None, _ALL),
    (ssl.SSLError, "TLS failed: {0}", _PLAIN, 1),
    (wire.SSLError, "TLS failed: {0}", _PLAIN, 1),
    (ConnectionRefusedError, "connection refused", "is the server running, on this port?", 3),
    (wire.ConnectTimeoutError, "no connection in the time allowed", "is a proxy needed to get there?", _ALL),
    (wire.ReadTimeoutError, "nothing came in the time allowed", None, _ALL),
    (TimeoutError, "nothing came in the time allowed", None, _ALL),
    (ConnectionResetError, "the other side reset the connection", None, _ALL),
    (http.client.RemoteDisconnected, "the other side closed the connection without an answer", None, _ALL),
    (http.client.IncompleteRead, "the other side closed the connection", None, _ALL),
    # The library's own text may quote a header, and so a secret.
    (ValueError, "the URL, or a header, is not valid ({0.__class__.__name__})", None, 1),
)


def _diagnose(error: Exception) -> _Failure:
    """The cause behind what the libraries wrapped around it."""
    causes = _causes(error)
    connected = not any(isinstance(cause, (wire.NewConnectionError, wire.ConnectTimeoutError)) for cause in causes)
    because, hint, tries = _known(causes)
    if any(isinstance(cause, wire.ProxyError) for cause in causes):
        because, hint = f"by the proxy: {because}", "check the proxy in the settings"
    # Some of it is the other side's text.
    shown = "".join(character for character in because if character.isprintable())[:300]
    return _Failure(because=shown, hint=hint, tries=tries, connected=connected)


def _known(causes: Sequence[BaseException]) -> tuple[str, str | None, int]:
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_AGAIN:
                return "the name server does not answer", "is there a network? is a proxy needed?", _ALL
            return "the host's name is not known", "check its spelling; is a proxy needed to get there?", 1
        if isinstance(cause, ssl.SSLError) and _CLIENT_ALERT.search(cause.reason or ""):
            return f"the server asks for a client's certificate: {cause.reason}", _CLIENT, 1
        if refused := _TUNNEL.match(str(cause)):
            return str(cause), None, _ALL if int(refused[1]) in _PASSING else 1
    for kind, because, hint, tries in _CAUSES:
        for cause in causes:
            if isinstance(cause, kind):
                return because.format(cause), hint, tries
    return str(causes[-1]) or type(causes[-1]).__name__, None, _ALL


def _causes(error: BaseException) -> list[BaseException]:
    """The error and all it was made of, outermost first; `__context__` may be the caller's own, so it is not used."""
    found = [error]
    for current in found:
        links = (current.__cause__, getattr(current, "reason", None), *current.args)
        found += [link for link in links if isinstance(link, BaseException) and link not in found]
    return found


def _identity(answer: Answer) -> dict[str, str]:
    """What tells one version of a resource from another, and where a partial answer starts; empty when not told."""
    headers = answer.headers
    start, size = "", headers.get("Content-Length", "")
    if answer.status != 200:
        ranged = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
        start, size = (ranged[1], ranged[2].strip("*")) if ranged else ("", "")
    return {"etag": headers.get("ETag", ""), "modified": headers.get("Last-Modified", ""), "size": size, "start": start}


def _redirected(url: str, location: str, request: Request, headers: HTTPHeaderDict) -> str:
    """Where a redirect leads; another origin does not get the Authorization header."""
    target = join(url, location)
    old, new = origin(url), origin(target)
    if old[0] == "https" and new[0] == "http":
        raise TransferError(
            "a redirect leads away from https",
            at=redact(request.url),
            because=f"to {redact(target)}",
            hint="what came over it could have been changed on the way; ask the server's operator",
        )
    if old != new:
        headers.pop("Authorization", None)
    return target


def _retry_after(value: str | None, now: float) -> float:
    """Seconds to wait, from a number or a date (RFC 9110, section 10.2.3); 0 when it is neither."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
