"""The registry of go-containerregistry's tests: all in memory, no referrers API, no resuming of an upload.

To one request in a hundred it answers with a Warning header.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.daemon import daemon, free_port


@contextmanager
def ggcr_registry(program: str, place: Path) -> Iterator[str]:
    """`localhost:PORT` of an empty registry, whose log is `place`/log."""
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    with daemon([program, "-port", str(port)], port, place / "log"):
        yield f"localhost:{port}"
