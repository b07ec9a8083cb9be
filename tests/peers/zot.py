"""A real zot, in the last version whose module can be built from the path it was published under (2022).

It keeps image layouts, shares blobs between repositories, and loses an upload session whose connection breaks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers.daemon import daemon, free_port


@contextmanager
def zot(program: str, place: Path) -> Iterator[str]:
    """`localhost:PORT` of a registry that keeps its layouts below `place`/blobs."""
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = {
        "storage": {"rootDirectory": str(place / "blobs"), "gc": False, "dedupe": True},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "info"},
    }
    (place / "config.json").write_text(json.dumps(config))
    with daemon([program, "serve", place / "config.json"], port, place / "log"):
        yield f"localhost:{port}"
