"""Connections: one try of one request, over a connection that is kept for the next.

Law: knows connections, TLS and proxies; tries nothing again, follows no redirect, keeps no cookies. What comes, and
what goes wrong, is urllib3's. What lies behind a proxy is the affair of `rootfs.proxied`, imported when there is one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, unquote

from urllib3 import (
    BaseHTTPResponse,
    HTTPConnectionPool,
    HTTPHeaderDict,
    HTTPSConnectionPool,
    PoolManager,
    Timeout,
    make_headers,
)
from urllib3 import exceptions as wire

from rootfs.body import PlainPool, Sized
from rootfs.tls import Contexts, TlsFiles
from rootfs.url import bypasses, origin, split

if TYPE_CHECKING:
    from rootfs.proxied import Proxied

_HOSTS = 16
_DRAINED = 1 << 16


class Answer:
    """What came: a status, the headers (in any case), the URL that was asked, and the body, to be read from `raw`."""

    def __init__(self, raw: Any, *, method: str, url: str) -> None:
        self.status: int = raw.status
        self.headers: HTTPHeaderDict = raw.headers
        self.url = url
        self.raw = raw
        self._method = method

    def discard(self) -> None:
        """Give the connection back when what is left to read is little, else close it."""
        length = self.headers.get("Content-Length", "")
        if self._method == "HEAD" or (length.isdigit() and int(length) <= _DRAINED):
            self.raw.drain_conn()
        self.close()

    def close(self) -> None:
        """Close the connection, unless all was read."""
        self.raw.close()
        self.raw.release_conn()


class Connections:
    """Connections to hosts, and through proxies; thread-safe.

    `bundle` and `files` are as in `rootfs.tls.Contexts`; the others as in `rootfs.transport.HttpTransport`.
    """

    def __init__(
        self,
        *,
        bundle: Path | None,
        files: Callable[[str, int], TlsFiles | None],
        proxies: Mapping[str, str],
        no_proxy: Sequence[str],
        timeouts: tuple[float, float],
        pool_size: int,
    ) -> None:
        self._bundle = bundle
        self._contexts = Contexts(files, bundle=bundle)
        self._proxies = dict(proxies)
        self._no_proxy = tuple(no_proxy)
        self._timeouts = timeouts
        self._pool_size = pool_size
        self._direct = PoolManager(num_pools=_HOSTS, maxsize=pool_size)
        self._direct.pool_classes_by_scheme = {"http": PlainPool, "https": HTTPSConnectionPool}
        self._proxied: Proxied | None = None
        self._lock = threading.Lock()

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | Sized | None) -> Answer:
        """The answer to one request; urllib3's HTTPError when there is none, HostError for a file of the host's."""
        if self._is_proxied(url):
            raw = self._proxy().send(method, url, headers, body, self._contexts.at(url))
        else:
            raw = self._straight(method, url, headers, body)
        return Answer(raw, method=method, url=url)

    def prepare(self, url: str, count: int) -> None:
        """Begin with so many connections to a host, unless a proxy is between; who sends will see what fails."""
        if self._is_proxied(url):
            return
        pool = self._pool(url)
        # urllib3 makes connections when something is sent, and has no other door
        for connection in [pool._get_conn() for _ in range(count)]:  # noqa: SLF001
            connection.timeout = self._timeouts[0]
            threading.Thread(target=_connect, args=(pool, connection), daemon=True).start()

    def close(self) -> None:
        """Close the idle connections."""
        self._direct.clear()
        if self._proxied is not None:
            self._proxied.close()

    def _is_proxied(self, url: str) -> bool:
        return bool(self._proxies) and not any(bypasses(pattern, url) for pattern in self._no_proxy)

    def _pool(self, url: str) -> HTTPConnectionPool:
        scheme, host, port = origin(url)
        context = self._contexts.at(url)
        tls = None if context is None else {"ssl_context": context}
        return self._direct.connection_from_host(host, port, scheme, pool_kwargs=tls)

    def _proxy(self) -> Proxied:
        from rootfs.proxied import Proxied  # noqa: PLC0415 (`requests` is dear to import)

        with self._lock:
            if self._proxied is None:
                self._proxied = Proxied(
                    self._proxies, bundle=self._bundle, timeouts=self._timeouts, pool_size=self._pool_size
                )
            return self._proxied

    def _straight(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Sized | None
    ) -> BaseHTTPResponse:
        parts = split(url)
        try:
            return self._pool(url).urlopen(
                method,
                f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}",
                body=cast(Any, body),  # which is sent piece by piece: see Sized
                headers=_complete(headers, body, parts),
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=self._timeouts[0], read=self._timeouts[1]),
            )
        except ValueError as error:  # what http.client says of a header
            raise wire.HTTPError(error) from error


def _connect(pool: HTTPConnectionPool, connection: Any) -> None:
    """Connect, and give it to the pool; one on which TLS failed must not be taken for one that is ready."""
    try:
        if connection.is_closed:
            connection.connect()
    except BaseException as error:
        connection.close()
        if not isinstance(error, (wire.HTTPError, OSError)):
            raise
    finally:
        pool._put_conn(connection)  # noqa: SLF001


def _complete(headers: Mapping[str, str], body: bytes | Sized | None, parts: SplitResult) -> HTTPHeaderDict:
    """The headers, with the length of a stream, and the account that stands in the URL."""
    complete = HTTPHeaderDict(headers)
    if isinstance(body, Sized):
        complete["Content-Length"] = str(len(body))
    if parts.username and parts.password:
        account = f"{unquote(parts.username)}:{unquote(parts.password)}"
        complete["Authorization"] = make_headers(basic_auth=account)["authorization"]
    return complete
