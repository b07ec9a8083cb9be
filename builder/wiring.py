"""Wiring: the real ports, put together as the settings say.

Law: the one place where the four real ports are made; knows no verb. What a port is made of is imported when the port
is first used: of what a short run takes that is the larger part, and most verbs use one port or two.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from builder.settings import COMMON_PROXIES, Settings, certs_directories
from builder.tools import Tools
from rootfs.ports import Command, Outcome, Reporter, Request, Response
from rootfs.store import DiskStore, in_use

if TYPE_CHECKING:
    from rootfs.transport import HttpTransport

_LOOPBACK = ("localhost", "127.0.0.0/8", "::1")


class LaterTransport:
    """The real Transport, as the settings say; close it, or use it in a `with`. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._real: HttpTransport | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._real is not None:
            self._real.close()

    @property
    def retries(self) -> int:
        """How often a request was tried again, or a body resumed."""
        return 0 if self._real is None else self._real.retries

    def send(self, request: Request) -> Response:
        """See `rootfs.ports.Transport`; HostError when the CA bundle of the settings is not there."""
        return self._made().send(request)

    def prepare(self, url: str, count: int) -> None:
        """See `builder.registry.client.Prepares`."""
        self._made().prepare(url, count)

    def _made(self) -> HttpTransport:
        with self._lock:
            if self._real is None:
                self._real = _transport(self._settings)
            return self._real


def _transport(settings: Settings) -> HttpTransport:
    from builder.registry.certs import certificates
    from rootfs.transport import HttpTransport

    proxy = settings.proxy.value
    return HttpTransport(
        verify=Path(settings.ca_bundle.value) if settings.ca_bundle.value else None,
        proxies={"http": proxy, "https": proxy} if proxy else None,
        no_proxy=around_proxy(settings),
        tls=partial(certificates, directories=certs_directories()),
    )


class LaterSandbox:
    """The real Sandbox."""

    def run(self, command: Command) -> Outcome:
        """See `rootfs.ports.Sandbox`."""
        from rootfs.sandbox.namespaces import NamespaceSandbox

        return NamespaceSandbox().run(command)

    def remove(self, directory: Path) -> None:
        """See `rootfs.ports.Sandbox`."""
        from rootfs.sandbox.namespaces import NamespaceSandbox

        NamespaceSandbox().remove(directory)


def around_proxy(settings: Settings) -> tuple[str, ...]:
    """Hosts that are reached without the proxy; the loopback, too, when the proxy is meant for every program."""
    return (*(_LOOPBACK if settings.proxy.origin in COMMON_PROXIES else ()), *settings.no_proxy.listed)


@contextmanager
def open_tools(settings: Settings, reporter: Reporter) -> Iterator[Tools]:
    """The real ports, as the settings say."""
    store = Path(settings.store.value)

    def waiting() -> None:
        reporter.note(f"`ocibuild cache prune --all` is at work in {store}: waiting for it")

    with LaterTransport(settings) as transport, in_use(store, waiting):
        yield Tools(
            store=DiskStore(store),
            transport=transport,
            sandbox=LaterSandbox(),
            reporter=reporter,
            mirrors=settings.mirrors,
            work=store / "work",
            jobs=int(settings.jobs.value),
        )
