"""A real docker-registry on a free port of the loopback, for as long as a `with` lasts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.peers.daemon import daemon, free_port

USER, PASSWORD = "porter", "open sesame"
# The bcrypt hash of PASSWORD, of the lowest cost there is.
HTPASSWD = "porter:$2b$04$ocibuildtestsocibuildeu0Cz3l6tgLzZvUtSjr/X06ebuJOVsQW\n"


@contextmanager
def registry(
    program: str,
    place: Path,
    *,
    basic_auth: bool = False,
    tls: Mapping[str, object] | None = None,
    auth: Mapping[str, object] | None = None,
    deletes: bool = True,
) -> Iterator[str]:
    """`localhost:PORT` of a registry that keeps its blobs below `place`; with `basic_auth`, USER and PASSWORD.

    `tls` and `auth` are the sections of its configuration; `deletes` is whether it deletes manifests.

    `program` is the path of docker-registry (the fixture `peer` finds it).
    """
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = place / "config.json"  # YAML, of which JSON is a part
    value = _config(place, port, basic_auth)
    value |= {"auth": auth} if auth else {}
    if not deletes:
        value["storage"] = {"filesystem": {"rootdirectory": str(place / "blobs")}}
    if tls:
        value["http"] = {"addr": f"127.0.0.1:{port}", "tls": tls}
    config.write_text(json.dumps(value))
    # docker-registry takes REGISTRY_* for settings, REGISTRY_AUTH_FILE among them
    with daemon([program, "serve", config], port, place / "log", scrub="REGISTRY_"):
        yield f"localhost:{port}"


def _config(place: Path, port: int, basic_auth: bool) -> dict[str, object]:
    config: dict[str, object] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(place / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if basic_auth:
        (place / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(place / "htpasswd")}}
    return config
