"""A real toxiproxy: links that are slow, thin or cut, in front of whatever listens on the loopback.

The toxics and their attributes are toxiproxy's own: latency, bandwidth, slow_close, timeout, reset_peer, slicer,
limit_data (https://github.com/Shopify/toxiproxy, "Toxics").
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.daemon import daemon, free_port


@dataclass(frozen=True, slots=True)
class Link:
    """A way to a server that can be spoiled while it is in use; `host` is where clients connect."""

    host: str
    name: str
    _api: str

    def add(self, kind: str, *, upstream: bool = False, toxicity: float = 1.0, **attributes: int) -> str:
        """Add a toxic, from the server to the client or, with `upstream`, the other way; its name, for `remove`.

        `toxicity` is the share of connections it befalls. latency: `latency`, `jitter` in ms; bandwidth: `rate` in
        kB/s; timeout, reset_peer: `timeout` in ms; slicer: `average_size`, `size_variation`, `delay` in microseconds;
        limit_data: `bytes`, after which the connection is closed.
        """
        stream = "upstream" if upstream else "downstream"
        toxic = {"type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        return str(_call(f"{self._api}/proxies/{self.name}/toxics", toxic)["name"])

    def remove(self, toxic: str) -> None:
        """Take a toxic away."""
        _call(f"{self._api}/proxies/{self.name}/toxics/{toxic}", method="DELETE")

    def heal(self) -> None:
        """Take all toxics away and be up."""
        for toxic in _call(f"{self._api}/proxies/{self.name}")["toxics"]:
            self.remove(toxic["name"])
        self.up()

    def down(self) -> None:
        """Refuse connections, and cut those there are."""
        _call(f"{self._api}/proxies/{self.name}", {"enabled": False})

    def up(self) -> None:
        """Take connections again."""
        _call(f"{self._api}/proxies/{self.name}", {"enabled": True})


@dataclass(frozen=True, slots=True)
class Toxiproxy:
    """A running toxiproxy."""

    _api: str

    def link(self, upstream: str) -> Link:
        """A new link to `host:port`, healthy at first."""
        upstream = upstream.replace("localhost", "127.0.0.1")
        port = free_port()
        proxy = {"name": f"link-{port}", "listen": f"127.0.0.1:{port}", "upstream": upstream, "enabled": True}
        _call(f"{self._api}/proxies", proxy)
        return Link(f"localhost:{port}", str(proxy["name"]), self._api)


@contextmanager
def toxiproxy(program: str, place: Path) -> Iterator[Toxiproxy]:
    """A toxiproxy without links, whose log is `place`/log."""
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with daemon([program, "-host", "127.0.0.1", "-port", str(port)], port, place / "log", path="/version"):
        yield Toxiproxy(f"http://127.0.0.1:{port}")


def _call(url: str, value: object = None, *, method: str | None = None) -> dict[str, Any]:
    body = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=20) as answer:
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"toxiproxy: {error.code} {error.read().decode()}") from None
