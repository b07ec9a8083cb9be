"""A peer that serves: started on a free port of the loopback, waited for, and ended with the `with`."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_PATIENCE = 20.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def daemon(
    argv: Sequence[str | Path], port: int, log: Path, *, path: str = "/v2/", scrub: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The program as long as the `with` lasts, from the moment it answers on `port`; the test fails with its log.

    `path` is what is asked for until there is an answer, be it an error of HTTP. Variables whose names begin with
    `scrub` do not reach it.
    """
    environment = {name: value for name, value in os.environ.items() if not (scrub and name.startswith(scrub))}
    with log.open("ab") as stream:
        process = subprocess.Popen(list(map(str, argv)), env=environment, stdout=stream, stderr=stream, cwd=log.parent)
        try:
            _wait(process, f"http://127.0.0.1:{port}{path}", log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(int(_PATIENCE / 0.05)):
        try:
            with direct.open(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    pytest.fail(f"{Path(str(process.args[0])).name} did not start:\n{log.read_text()}")  # type: ignore[index]
