"""A Debian mirror on loopback: the real one's files, kept on disk, and damaged on request.

It stands between the code and the archive, so that what a broken or hostile mirror does can be tried on real data.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

Damage = Callable[[bytes], bytes]


@dataclass(slots=True)
class Mirror:
    """`url` is its base; `requests` the paths asked for; `damage` maps a path's ending to what is done to its bytes.

    `short` maps a path's ending to the bytes after which the connection is cut.
    """

    url: str = ""
    requests: list[str] = field(default_factory=list)
    damage: dict[str, Damage] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)

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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            mirror.requests.append(self.path)
            archive, _, path = self.path.lstrip("/").partition("/")
            kept = cache / sha256(self.path.encode()).hexdigest()
            try:
                data = kept.read_bytes() if kept.exists() else _fetch(f"{upstream[archive]}/{path}", kept)
            except (HTTPError, KeyError):
                self.send_error(404)
                return
            data = next((hurt(data) for end, hurt in mirror.damage.items() if self.path.endswith(end)), data)
            cut = next((size for end, size in mirror.short.items() if self.path.endswith(end)), None)
            start, _, _ = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            begin = int(start)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            self.wfile.write(data[begin : len(data) if cut is None else begin + cut])
            self.close_connection = cut is not None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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


def _fetch(url: str, kept: Path) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        data: bytes = response.read()
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    return data
