"""Pushes and pulls that are killed or cut: what a real registry has is not sent again, which a proxy counts."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from builder.cli import run
from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry.client import Registry
from builder.registry.journal import Journal
from builder.registry.reference import Reference
from builder.registry.upload import Action
from rootfs.digest import Digest
from rootfs.ports import Upload, read_blob
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.conftest import ROOT
from tests.peers.gate import Gate, gate
from tests.peers.olareg import olareg
from tests.peers.registry import registry
from tests.peers.toxiproxy import toxiproxy

pytestmark = pytest.mark.peer

MIB = 1 << 20
SIZE = 80 * MIB
CHUNK = 16 * MIB
SLACK = 256 << 10  # headers, and what was under way
BLOCK = hashlib.shake_256(b"no special content").digest(MIB)


@dataclass(frozen=True)
class Stage:
    """A store with one blob, and how to push it in a process of its own."""

    store: DiskStore
    blob: Descriptor

    def start(self, verb: str, host: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "tests.peers.pushing", verb, str(self.store.root), f"{host}/big"]
        argv += [str(self.blob.digest), str(self.blob.size)]
        return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def run(self, verb: str, host: str) -> tuple[str, int, int]:
        process = self.start(verb, host)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        action, resumed, memory = output.split()
        return action, int(resumed), int(memory)

    def read_from(self, host: str) -> None:
        """The registry has the blob, byte for byte."""
        with HttpTransport() as transport:
            here = Registry(transport, Reference.parse(f"{host}/big"), plain_http=True)
            assert sum(map(len, here.open(self.blob))) == self.blob.size


def stage(place: Path, size: int = SIZE) -> Stage:
    store = DiskStore(place / "store")
    stored = store.put(number.to_bytes(8, "big") + BLOCK[8:] for number in range(size // MIB))
    return Stage(store, Descriptor(media_type=LAYER_TAR, digest=stored.digest, size=stored.size))


@pytest.fixture
def big(tmp_path: Path) -> Stage:
    return stage(tmp_path)


@pytest.fixture
def distribution(peer: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path / "distribution") as host:
        yield host


@pytest.fixture
def conformant(peer: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    with olareg(peer("olareg"), tmp_path / "olareg") as host:
        yield host


def kill_at(big: Stage, way: Gate, verb: str = "push") -> int:
    """Start, and kill -9 when the proxy holds; how many bytes got through."""
    process = big.start(verb, way.host)
    assert way.held.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.3)  # the registry notices
    sent, way.sent, way.holds = way.sent, 0, lambda piece, sent: False
    way.held.clear()
    return sent


@pytest.mark.parametrize("chunks", [1, 3])
def test_kill_between_chunks(big: Stage, distribution: str, chunks: int) -> None:
    """distribution 2.8 resumes there: what was acknowledged is not sent again."""
    with gate(distribution) as way:
        way.holds = lambda piece, sent: piece.startswith((b"PATCH", b"PUT")) and sent >= chunks * CHUNK
        assert kill_at(big, way) < chunks * CHUNK + SLACK
        assert big.run("push", way.host)[:2] == ("uploaded", chunks * CHUNK)
        assert way.sent < SIZE - chunks * CHUNK + SLACK
    big.read_from(distribution)


def test_kill_within_a_chunk(big: Stage, conformant: str) -> None:
    """A registry that keeps what came of a PATCH, or at least all before it."""
    with gate(conformant) as way:
        way.holds = lambda piece, sent: sent > 2.5 * CHUNK
        kill_at(big, way)
        action, resumed, _ = big.run("push", way.host)
        assert action == "uploaded"
        assert resumed >= 2 * CHUNK
        assert way.sent < SIZE - 2 * CHUNK + SLACK
    big.read_from(conformant)


def test_kill_within_a_chunk_of_distribution(big: Stage, distribution: str) -> None:
    """2.8 throws the session away when its state is stale: all again, and nothing wrong."""
    with gate(distribution) as way:
        way.holds = lambda piece, sent: sent > 2.5 * CHUNK
        kill_at(big, way)
        assert big.run("push", way.host)[0] == "uploaded"
    big.read_from(distribution)


@pytest.mark.parametrize("kind", ["distribution", "conformant"])
def test_kills_at_any_moment(big: Stage, kind: str, request: pytest.FixtureRequest) -> None:
    host = request.getfixturevalue(kind)
    for delay in (0.25, 0.4, 0.55, 0.8):
        process = big.start("push", host)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert big.run("push", host)[0] in ("uploaded", "exists")
    big.read_from(host)
    with gate(host) as way:  # and then there is nothing to do
        assert big.run("push", way.host)[0] == "exists"


def test_memory_is_bounded(distribution: str, tmp_path: Path) -> None:
    large = stage(tmp_path, 512 * MIB)
    assert large.run("push", distribution)[2] < 80 << 10
    (tmp_path / "store/blobs/sha256" / large.blob.digest.hex).unlink()
    assert large.run("fetch", distribution)[2] < 80 << 10
    assert large.store.exists(large.blob.digest)


def test_a_killed_download_is_resumed(big: Stage, distribution: str) -> None:
    big.run("push", distribution)
    (big.store.root / "blobs/sha256" / big.blob.digest.hex).unlink()
    process = big.start("fetch", distribution)
    whole = big.store.root / f"tmp/part-sha256-{big.blob.digest.hex}.whole"
    while not whole.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = int(whole.read_text())
    asked: list[int] = []
    with HttpTransport() as transport:
        here = Registry(transport, Reference.parse(f"{distribution}/big"), plain_http=True)
        here.fetch(big.blob, big.store, advance=asked.append)
    assert asked[0] == kept > 0  # counted again, not fetched again
    assert sum(asked) == SIZE
    assert Digest.of(read_blob(big.store, big.blob.digest)) == big.blob.digest
    assert list((big.store.root / "tmp").iterdir()) == []


def test_a_registry_that_is_gone_for_a_moment(
    big: Stage, conformant: str, peer: Callable[[str], str], tmp_path: Path
) -> None:
    with toxiproxy(peer("toxiproxy"), tmp_path / "toxiproxy") as toxics, HttpTransport() as transport:
        link = toxics.link(conformant)
        link.add("bandwidth", upstream=True, rate=40_000)

        def outage() -> None:
            time.sleep(0.8)
            link.down()
            time.sleep(1.0)
            link.up()

        trouble = threading.Thread(target=outage)
        trouble.start()
        journal = Journal(tmp_path / "journal")
        here = Registry(transport, Reference.parse(f"{link.host}/big"), plain_http=True, journal=journal)
        body = Upload(open=lambda: big.store.open(big.blob.digest), size=SIZE)
        assert here.upload(big.blob, body).action is Action.UPLOADED
        trouble.join()
    big.read_from(conformant)


def test_every_connection_is_cut_early(conformant: str, peer: Callable[[str], str], tmp_path: Path) -> None:
    """Up and down, no connection carries more than a tenth of the blob."""
    small = stage(tmp_path, 40 * MIB)
    with (
        toxiproxy(peer("toxiproxy"), tmp_path / "toxiproxy") as toxics,
        HttpTransport(jitter=lambda: 0.02) as transport,
    ):
        link = toxics.link(conformant)
        here = Registry(transport, Reference.parse(f"{link.host}/big"), plain_http=True)
        up = link.add("limit_data", upstream=True, bytes=4 * MIB)
        body = Upload(open=lambda: small.store.open(small.blob.digest), size=small.blob.size)
        assert here.upload(small.blob, body).action is Action.UPLOADED
        link.remove(up)
        link.add("limit_data", bytes=4 * MIB)
        other = DiskStore(tmp_path / "other")
        here.fetch(small.blob, other)
        assert other.exists(small.blob.digest)


def test_a_blob_of_another_repository_is_mounted(big: Stage, distribution: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    body = Upload(open=lambda: big.store.open(big.blob.digest), size=SIZE)
    with gate(distribution) as way, HttpTransport() as transport:
        for repository, action in (("one", Action.UPLOADED), ("two", Action.MOUNTED)):
            target = Registry(transport, Reference.parse(f"{way.host}/{repository}"), plain_http=True, journal=journal)
            way.sent = 0
            assert target.upload(big.blob, body).action is action
        assert way.sent < SLACK


def test_probe(distribution: str, conformant: str) -> None:
    with HttpTransport() as transport:
        found = {}
        for host in (distribution, conformant):
            target = Registry(transport, Reference.parse(f"{host}/probe"), plain_http=True)
            assert [finding.tried for finding in target.probe(write=True)] == ["api", "referrers", "chunks", "mounts"]
            found[host] = target.facts
    assert (found[distribution].chunks, found[distribution].referrers, found[distribution].mount) == (True, False, True)
    assert (found[conformant].chunks, found[conformant].referrers, found[conformant].mount) == (True, True, True)


def test_the_probe_verb(distribution: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["registry", "probe", f"{distribution}/some/where", "--store", str(tmp_path), "--plain-http"]
    assert run([*argv, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["repository"] == "some/where"
    assert printed["facts"]["chunks"] == {"table": None, "known": None, "found": True}
    assert run([*argv, "--read-only"]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.startswith("chunks ")] == [["chunks", "-", "yes", "-"]]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["distribution", "conformant"])
def test_a_hundred_kills(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """At random moments; each rerun brings the rest, and the blob is whole in the end."""
    host = request.getfixturevalue(kind)
    random = Random(6)
    for number in range(10):
        big = stage(tmp_path / str(number), (40 + number) * MIB)
        for _ in range(10):
            process = big.start("push", host)
            time.sleep(random.uniform(0.1, 0.7))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert big.run("push", host)[0] in ("uploaded", "exists")
        big.read_from(host)
