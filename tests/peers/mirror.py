"""A Debian mirror on loopback: the real one's files, kept on disk, and damaged on request.

It stands between the code and the archive, so that what a broken or hostile mirror does can be tried on real data.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

Damage = Callable[[bytes], bytes]


@dataclass(slots=True)
class Mirror:
    """`url` is its base; `requests` the paths asked for; `damage` maps a path's ending to what is done to its bytes.

    `short` maps a path's ending to the bytes after which the connection is cut; `missing` holds endings that get 404.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    damage: dict[str, Damage] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)

    def mirrors(self) -> Mapping[str, str]:
        """As `rootfs.archive` takes them."""
        return {"debian": f"{self.url}/debian", "debian-security": f"{self.url}/debian-security"}


def flip(position: int) -> Damage:
    """Change one bit of one byte; a negative position counts from the end."""

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[position] ^= 1
        return bytes(changed)

    return damage


@contextmanager
def serve(upstream: Mapping[str, str], cache: Path) -> Iterator[Mirror]:
    """A mirror of these archives (base URL by name); files are fetched once and kept in `cache`."""
    mirror = Mirror()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, mirror, upstream, cache))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, from an offset when a Range asks for one, with what the mirror does to the file."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # as servers do; else a small body waits 40 ms for the client's delayed ACK

    def __init__(self, mirror: Mirror, upstream: Mapping[str, str], cache: Path, *args: Any) -> None:
        self.mirror, self.upstream, self.cache = mirror, upstream, cache
        super().__init__(*args)

    def do_GET(self) -> None:
        self.mirror.requests.append(self.path)
        try:
            data = self._read()
        except (HTTPError, KeyError):
            self.send_error(404)
            return
        data = next((hurt(data) for end, hurt in self.mirror.damage.items() if self.path.endswith(end)), data)
        cut = next((size for end, size in self.mirror.short.items() if self.path.endswith(end)), len(data))
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : begin + cut])
        self.close_connection = cut < len(data)

    def _read(self) -> bytes:
        """The archive's own bytes, fetched once; KeyError when they shall be missing."""
        if self.path.endswith(tuple(self.mirror.missing)):
            raise KeyError(self.path)
        kept = self.cache / sha256(self.path.encode()).hexdigest()
        archive, _, path = self.path.lstrip("/").partition("/")
        return kept.read_bytes() if kept.exists() else _fetch(f"{self.upstream[archive]}/{path}", kept)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def _fetch(url: str, kept: Path) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        data: bytes = response.read()
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    return data
