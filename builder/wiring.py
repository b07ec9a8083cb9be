"""Wiring: the real ports, put together as the settings say.

Law: the one place where the four real ports are made; knows no verb.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from builder.registry.certs import certificates
from builder.settings import COMMON_PROXIES, Settings, certs_directories
from builder.tools import Tools
from rootfs.ports import Reporter
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.store import DiskStore, in_use
from rootfs.transport import HttpTransport

_LOOPBACK = ("localhost", "127.0.0.0/8", "::1")


def open_transport(settings: Settings) -> HttpTransport:
    """The real transport, as the settings say; close it, or use it in a `with`."""
    proxy = settings.proxy.value
    return HttpTransport(
        verify=Path(settings.ca_bundle.value) if settings.ca_bundle.value else None,
        proxies={"http": proxy, "https": proxy} if proxy else None,
        no_proxy=around_proxy(settings),
        tls=partial(certificates, directories=certs_directories()),
    )


def around_proxy(settings: Settings) -> tuple[str, ...]:
    """Hosts that are reached without the proxy; the loopback, too, when the proxy is meant for every program."""
    return (*(_LOOPBACK if settings.proxy.origin in COMMON_PROXIES else ()), *settings.no_proxy.listed)


@contextmanager
def open_tools(settings: Settings, reporter: Reporter) -> Iterator[Tools]:
    """The real ports, as the settings say."""
    store = Path(settings.store.value)

    def waiting() -> None:
        reporter.note(f"`ocibuild cache prune --all` is at work in {store}: waiting for it")

    with open_transport(settings) as transport, in_use(store, waiting):
        yield Tools(
            store=DiskStore(store),
            transport=transport,
            sandbox=NamespaceSandbox(),
            reporter=reporter,
            mirrors=settings.mirrors,
            work=store / "work",
            jobs=int(settings.jobs.value),
        )
