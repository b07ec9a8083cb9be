"""TLS: who is trusted, and as whom a client connects; to a host with files of its own, by these too.

Law: knows no registry; whoever connects says which host has which files. Nothing here turns verification off. What
speaks TLS is imported when something is to be said in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rootfs.errors import HostError
from rootfs.url import origin

if TYPE_CHECKING:
    from ssl import SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: authorities to trust too, and a client's certificate with its key (both or neither)."""

    authorities: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None

    def context(self, bundle: Path | None = None) -> SSLContext:
        """A context that has them, and the authorities of `bundle` (a file or a directory; None: certifi's)."""
        from certifi import where  # noqa: PLC0415
        from urllib3.util.ssl_ import create_urllib3_context  # noqa: PLC0415

        context = create_urllib3_context()
        for path in (bundle or Path(where()), *self.authorities):
            with _reading(path):
                if path.is_dir():
                    context.load_verify_locations(capath=path)
                else:
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


class Contexts:
    """The TLS context for each host: one for all that have no files of their own; thread-safe.

    `files` says what a host (an IPv6 address in brackets) and port have, `bundle` is as in `TlsFiles.context`. Each is
    made once: to read the usual authorities takes longer than a handshake.
    """

    def __init__(self, files: Callable[[str, int], TlsFiles | None], *, bundle: Path | None = None) -> None:
        self._files = files
        self._bundle = bundle
        self._usual: SSLContext | None = None
        self._known: dict[tuple[str, str, int], SSLContext] = {}
        self._lock = threading.Lock()

    def at(self, url: str) -> SSLContext | None:
        """The context for a URL, None where TLS is not spoken; HostError when a file of its host cannot be used."""
        place = origin(url)
        if place[0] != "https":
            return None
        with self._lock:
            if place not in self._known:
                host = f"[{place[1]}]" if ":" in place[1] else place[1]
                own = self._files(host, place[2])
                self._known[place] = self._shared() if own is None else own.context(self._bundle)
            return self._known[place]

    def _shared(self) -> SSLContext:
        if self._usual is None:
            self._usual = TlsFiles().context(self._bundle)
        return self._usual


def no_files(_host: str, _port: int) -> TlsFiles | None:
    """No host has files of its own."""
    return None
