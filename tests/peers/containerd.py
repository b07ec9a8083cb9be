"""A real containerd of the test's own, as root: nothing of it lies outside one directory with a short path.

It has the native snapshotter, which needs no overlay, and no CRI. `ctr run` is not for the tests: its shim keeps
sockets under /run whatever the daemon is told.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.daemon import daemon, free_port

_UNWANTED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.runtime.v1.linux",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.overlayfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
_REFUSED = ("operation not permitted", "permission denied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """One that runs. What is in a namespace of it, another one does not have, unpacked layers among it."""

    ctr: str
    address: Path

    def run(self, namespace: str, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """`ctr ...`; where containerd may not mount, which unpacking takes, the test is skipped."""
        words = [self.ctr, "--address", self.address, "--namespace", namespace, *argv]
        environment = {"PATH": os.environ["PATH"], "CONTAINERD_SNAPSHOTTER": "native"}
        done = subprocess.run(
            list(map(str, words)), env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode and "mount" in done.stderr and any(word in done.stderr for word in _REFUSED):
            pytest.skip(f"containerd cannot mount on this machine: {done.stderr.strip()[-200:]}")
        return done

    def images(self, namespace: str) -> dict[str, str]:
        """name -> digest, as `ctr images ls` has them."""
        listed = self.run(namespace, "images", "ls")
        assert listed.returncode == 0, listed.stderr
        rows = [line.split() for line in listed.stdout.splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    def unpacked(self, namespace: str) -> Path:
        """The files of the one image that was unpacked in a namespace: where its uppermost snapshot lies."""
        listed = self.run(namespace, "snapshots", "ls")
        rows = [line.split() for line in listed.stdout.splitlines()[1:]]
        lower = {row[1] for row in rows if len(row) == 3}
        (top,) = (row[0] for row in rows if row[0] not in lower)
        viewed = self.run(namespace, "snapshots", "view", "--mounts", "view", top)
        assert viewed.returncode == 0, viewed.stderr
        (mount,) = json.loads(viewed.stdout)
        return Path(mount["Source"])


@contextmanager
def containerd(program: str, ctr: str) -> Iterator[Containerd]:
    """One that listens on a socket of its own, until the end of the `with`; skips who is not root."""
    if os.geteuid() != 0:
        pytest.skip("containerd unpacks only as root")
    place = Path(tempfile.mkdtemp(prefix="containerd-"))  # a socket's path is 107 bytes long at most
    try:
        port = free_port()
        config = place / "config.toml"
        config.write_text(_config(place, port))
        with daemon([program, "--config", config], port, place / "log", path="/v1/metrics"):
            yield Containerd(ctr=ctr, address=place / "socket")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _config(place: Path, port: int) -> str:
    """Of the TOML, texts and lists are written as in JSON. That it answers over HTTP is what `metrics` is for."""

    def text(name: str) -> str:
        return json.dumps(str(place / name))

    return (
        f"version = 2\nroot = {text('root')}\nstate = {text('state')}\ntemp = {text('temp')}\n"
        f"disabled_plugins = {json.dumps(_UNWANTED)}\n"
        f"[grpc]\naddress = {text('socket')}\n"
        f'[metrics]\naddress = "127.0.0.1:{port}"\n'
    )
