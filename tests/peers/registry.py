"""A real docker-registry on a free port of the loopback, for as long as a `with` lasts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD = "porter", "open sesame"
# The bcrypt hash of PASSWORD, of the lowest cost there is.
_HTPASSWD = "porter:$2b$04$ocibuildtestsocibuildeu0Cz3l6tgLzZvUtSjr/X06ebuJOVsQW\n"
_PATIENCE = 20.0


@contextmanager
def registry(program: str, place: Path, *, basic_auth: bool = False) -> Iterator[str]:
    """`localhost:PORT` of a registry that keeps its blobs below `place`; with `basic_auth`, USER and PASSWORD.

    `program` is the path of docker-registry (the fixture `peer` finds it).
    """
    place.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = place / "config.json"  # YAML, of which JSON is a part
    config.write_text(json.dumps(_config(place, port, basic_auth)))
    with (place / "log").open("wb") as log:
        # docker-registry takes REGISTRY_* for settings, REGISTRY_AUTH_FILE among them
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        process = subprocess.Popen([program, "serve", str(config)], env=environment, stdout=log, stderr=log)
        try:
            _wait(process, port, place / "log")
            yield f"localhost:{port}"
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _config(place: Path, port: int, basic_auth: bool) -> dict[str, object]:
    config: dict[str, object] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(place / "blobs")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if basic_auth:
        (place / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(place / "htpasswd")}}
    return config


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until it answers; fail with its log when it ends before."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(int(_PATIENCE / 0.05)):
        try:
            with direct.open(f"http://127.0.0.1:{port}/v2/", timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    pytest.fail(f"docker-registry did not start:\n{log.read_text()}")
