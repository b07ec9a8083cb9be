"""Proxied: one try of one request through a proxy, by the adapter of `requests`: accounts, tunnels, SOCKS.

Law: as `rootfs.connections`, which imports it where there is a proxy. The adapter's Session, whose redirects, `.netrc`
and cookies are `rootfs.transport`'s affair, is not used.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from ssl import SSLContext
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse
from urllib3 import exceptions as wire

from rootfs.body import Sized


class Proxied:
    """Connections through proxies (URLs by scheme); thread-safe. `bundle` holds the authorities (None: certifi's)."""

    def __init__(
        self, proxies: Mapping[str, str], *, bundle: Path | None, timeouts: tuple[float, float], pool_size: int
    ) -> None:
        self._proxies = dict(proxies)
        self._verify = str(bundle) if bundle else True
        self._timeouts = timeouts
        self._pool_size = pool_size
        self._adapters: dict[SSLContext | None, _Adapter] = {}
        self._lock = threading.Lock()

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Sized | None, context: SSLContext | None
    ) -> BaseHTTPResponse:
        """The answer to one request; urllib3's HTTPError when there is none."""
        try:
            prepared = requests.Request(method, url, headers=headers, data=body).prepare()
            answer = self._adapter(context).send(
                prepared, stream=True, timeout=self._timeouts, verify=self._verify, proxies=self._proxies
            )
        except requests.RequestException as error:
            raise wire.HTTPError(error) from error
        raw: BaseHTTPResponse = answer.raw
        return raw

    def close(self) -> None:
        """Close the idle connections."""
        for adapter in self._adapters.values():
            adapter.close()

    def _adapter(self, context: SSLContext | None) -> _Adapter:
        with self._lock:
            if context not in self._adapters:
                self._adapters[context] = _Adapter(context, pool_size=self._pool_size)
            return self._adapters[context]


class _Adapter(HTTPAdapter):
    """With a TLS context of our own for the host behind the proxy."""

    def __init__(self, context: SSLContext | None, *, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=pool_size)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Called for every request."""
        more: dict[str, Any] = {"ssl_context": self._context} if self._context else {}
        return super().proxy_manager_for(*args, **{**options, **more})
