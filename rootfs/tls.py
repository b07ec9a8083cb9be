"""TLS to one host with files of its own: authorities beside the usual ones, and a client's certificate.

Law: knows no registry; whoever connects says which host has which files. Nothing here turns verification off.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

from rootfs.body import PlainAdapter
from rootfs.errors import HostError
from rootfs.url import origin


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: authorities to trust too, and a client's certificate with its key (both or neither)."""

    authorities: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context that has them; the usual authorities are added when it connects."""
        context = create_urllib3_context()
        for path in self.authorities:
            with _reading(path):
                context.load_verify_locations(cafile=path)
        if self.certificate is not None:
            with _reading(self.certificate):
                context.load_cert_chain(self.certificate, self.key, password="")  # else it would ask the terminal
        return context


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        because = error.strerror if isinstance(error, OSError) else str(error)
        hint = "it must be PEM, and the key without a passphrase"
        raise HostError("cannot use the certificate", at=str(path), because=because, hint=hint) from error


class TlsAdapter(HTTPAdapter):
    """The adapter of `requests` with a TLS context of our own, to the host itself and through a proxy."""

    def __init__(self, context: ssl.SSLContext, *, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Called by the base class's constructor."""
        super().init_poolmanager(*args, **{**options, "ssl_context": self._context})

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Called for every request through a proxy."""
        return super().proxy_manager_for(*args, **{**options, "ssl_context": self._context})


class Adapters:
    """The adapter for each host: one for all that have no files of their own; thread-safe.

    `files` says what a host (an IPv6 address in brackets) and port have.
    """

    def __init__(self, files: Callable[[str, int], TlsFiles | None], *, pool_size: int) -> None:
        self._files = files
        self._pool_size = pool_size
        self._usual = PlainAdapter(pool_connections=16, pool_maxsize=pool_size)
        self._own: dict[tuple[str, str, int], HTTPAdapter] = {}
        self._lock = threading.Lock()

    def at(self, url: str) -> HTTPAdapter:
        """The adapter that connects to a URL; HostError when a file of its host cannot be used."""
        place = origin(url)
        if place[0] != "https":
            return self._usual
        with self._lock:
            if place not in self._own:
                host = f"[{place[1]}]" if ":" in place[1] else place[1]
                files = self._files(host, place[2])
                own = self._usual if files is None else TlsAdapter(files.context(), pool_size=self._pool_size)
                self._own[place] = own
            return self._own[place]

    def close(self) -> None:
        """Close the idle connections."""
        for adapter in (self._usual, *self._own.values()):
            adapter.close()


def no_files(_host: str, _port: int) -> TlsFiles | None:
    """No host has files of its own."""
    return None
