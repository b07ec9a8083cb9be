"""Registries and clients that end in the middle, disks that are full, and two who push to one tag."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.conformance.clients import ROOT, environment
from tests.conformance.samples import Sample, make
from tests.integration.test_registry_resume import CHUNK, SLACK, stage
from tests.peers.daemon import daemon, free_port
from tests.peers.gate import gate
from tests.peers.olareg import olareg
from tests.peers.registry import registry
from tests.peers.zot import zot

pytestmark = pytest.mark.peer

KINDS = {"docker-registry": registry, "olareg": olareg, "zot": zot}
MIB = 1 << 20


@pytest.fixture(scope="module", params=KINDS)
def host(
    request: pytest.FixtureRequest, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with KINDS[request.param](peer(request.param), tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make("big", tmp_path_factory.mktemp("samples") / "big")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make("small", tmp_path_factory.mktemp("samples") / "small")


def start(home: Path, *argv: str | Path) -> subprocess.Popen[str]:
    """The command, as somebody with this home; stdout and stderr are one pipe."""
    home.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "builder", *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, cwd=ROOT, env=environment(home), text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def run(home: Path, *argv: str | Path, status: int = 0) -> str:
    process = start(home, *argv)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    return output


def test_two_pushers_of_one_tag(host: str, small: Sample, big: Sample, tmp_path: Path) -> None:
    """Each ends well, or says that somebody else was at it; the tag is one of both, and both images are there."""
    for number in range(3):
        name = f"{host}/race/app{number}"
        pushers = [
            start(tmp_path / str(which), "push", f"{sample.layout}:v1", f"{name}:v1")
            for which, sample in enumerate((small, big))
        ]
        for pusher in pushers:
            output, _ = pusher.communicate(timeout=120)
            assert pusher.returncode == 0 or "the registry holds something else than what was pushed" in output
        line = run(tmp_path / "0", "pull", f"{name}:v1", f"oci:{tmp_path}/pulled{number}:v1").splitlines()[-1]
        assert line.rpartition("@")[2] in {small.digest, big.digest}
        for sample in (small, big):
            run(tmp_path / "0", "pull", f"{name}@{sample.digest}", f"oci:{tmp_path}/all{number}:{sample.digest[7:]}")


@contextmanager
def at_port(kind: str, program: str, place: Path, port: int) -> Iterator[None]:
    """A registry that comes back at the same port, with what it had."""
    (place / "blobs").mkdir(parents=True, exist_ok=True)
    argv = [program, "serve", "--addr", "127.0.0.1", "--port", str(port), "--dir", str(place / "blobs")]
    argv += ["--gc-frequency=-1s"]
    if kind == "docker-registry":  # without a secret of its own: the state of an upload it began before is not its own
        storage = {"filesystem": {"rootdirectory": str(place / "blobs")}}
        config = {"version": "0.1", "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
        (place / "config.json").write_text(json.dumps(config))
        argv = [program, "serve", str(place / "config.json")]
    with daemon(argv, port, place / "log", scrub="REGISTRY_"):
        yield


@pytest.mark.parametrize("kind", ["olareg", "docker-registry"])
def test_a_registry_that_is_restarted_in_the_middle(
    kind: str, peer: Callable[[str], str], big: Sample, tmp_path: Path
) -> None:
    """Its sessions are gone, which the push survives."""
    program, port, place = peer(kind), free_port(), tmp_path / kind
    name = f"localhost:{port}/team/app:v1"
    with gate(f"localhost:{port}") as way:
        way.holds = lambda piece, sent: sent > 20 * MIB
        with at_port(kind, program, place, port):
            process = start(tmp_path / "home", "push", f"{big.layout}:v1", name.replace(f"localhost:{port}", way.host))
            assert way.held.wait(60)
        way.holds = lambda piece, sent: False
        way.held.clear()
        with at_port(kind, program, place, port):
            way.cut()
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
            run(tmp_path / "home", "pull", name, f"oci:{tmp_path}/pulled:v1")


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 8 MiB."""
    place = tmp_path / "little"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True, check=False)
    if os.geteuid() != 0 or mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("what", ["store", "layout"])
def test_a_full_disk_on_the_pulling_side(what: str, host: str, big: Sample, little_disk: Path, tmp_path: Path) -> None:
    """It is said, nothing half is left, and with room it goes on."""
    name = f"{host}/full/app:v1"
    home = tmp_path / "home"
    run(home, "push", f"{big.layout}:v1", name)
    store = little_disk / "store" if what == "store" else tmp_path / "other"
    layout = tmp_path / "pulled" if what == "store" else little_disk / "pulled"
    output = run(home, "pull", "--store", store, name, f"oci:{layout}:v1", status=7)
    assert "No space left on device" in output
    assert not (layout / "index.json").exists() or big.digest not in (layout / "index.json").read_text()
    for path in (little_disk / what / "blobs").rglob("*"):
        assert path.is_dir() or path.stat().st_size in {len(data) for data in big.blobs.values()} | {
            len(data) for _, data in big.manifests.values()
        }
    subprocess.run(["mount", "-o", "remount,size=256m", little_disk], check=True)
    run(home, "pull", "--store", store, name, f"oci:{layout}:v1")
    assert (layout / "blobs" / big.biggest.replace(":", "/")).read_bytes() == big.blobs[big.biggest]


def test_ten_kills(host: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """At random moments (a hundred: test_registry_resume, marker sweep); a rerun sends what is missing and no more."""
    random = Random(66)
    lost = 2 * CHUNK if request.node.callspec.params["host"] == "zot" else 0  # its Range does not count what came first
    for number in range(2):
        blob = stage(tmp_path / str(number), (40 + number) * MIB)
        with gate(host) as way:
            for _ in range(5):
                process = blob.start("push", way.host)
                time.sleep(random.uniform(0.1, 0.7))
                process.send_signal(signal.SIGKILL)
                process.communicate()
            time.sleep(0.3)  # the registry notices
            way.sent = 0
            action, resumed, _ = blob.run("push", way.host)
            assert action in ("uploaded", "exists")
            assert way.sent < (blob.blob.size - resumed if action == "uploaded" else 0) + lost + SLACK
            way.sent = 0
            assert blob.run("push", way.host)[0] == "exists"  # and then there is nothing to send
            assert way.sent < 64 << 10
        blob.read_from(host)
