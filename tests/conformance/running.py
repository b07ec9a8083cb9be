"""One scenario with one client: a registry is set up, the client is run, and the check says what came of it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.checks import OTHER, REPOSITORY, Outcome
from tests.conformance.clients import ROOT, Client, environment
from tests.conformance.samples import TAG, Sample, make
from tests.conformance.scenario import Scenario
from tests.peers.certificates import Authority, authority
from tests.peers.planted import Planted
from tests.peers.quirky import ELSEWHERE, Quirks, Quirky
from tests.peers.quirkyserver import Tunnel, served
from tests.peers.registry import PASSWORD, USER

PATIENCE = 90.0
"""Seconds a client has for one command."""
BESIDE = "base/image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`passed` is None where the scenario does not apply; `why` says why it failed or does not apply."""

    passed: bool | None
    why: str = ""
    seconds: float = 0.0
    output: str = field(default="", repr=False)


class Bench:
    """A place with certificates and samples, which are made once."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._authority: Authority = authority(place / "pem", ELSEWHERE)
        self._samples: dict[str, Sample] = {}

    def run(self, scenario: Scenario, client: Client) -> Verdict:
        """Every run of a scenario; the first that does not pass is the verdict."""
        task = "push" if scenario.task == "attach" else scenario.task
        if task not in client.tasks:
            return Verdict(passed=None, why=f"it does not {task}")
        began = time.monotonic()
        verdicts = [self._once(scenario, quirks, client) for quirks in scenario.quirks]
        failed = [verdict for verdict in verdicts if verdict.passed is False]
        applied = [verdict for verdict in verdicts if verdict.passed is not None]
        seconds = time.monotonic() - began
        if failed:
            share = f"{len(failed)} of {len(verdicts)} runs: " if len(verdicts) > 1 else ""
            return Verdict(passed=False, why=share + failed[0].why, seconds=seconds, output=failed[0].output)
        return Verdict(passed=True, seconds=seconds) if applied else verdicts[0]

    def sample(self, kind: str) -> Sample:
        """The layout of a kind; it is made when it is first wanted."""
        if kind not in self._samples:
            self._samples[kind] = make(kind, self._place / "samples" / kind)
        return self._samples[kind]

    def _once(self, scenario: Scenario, quirks: Quirks, client: Client) -> Verdict:
        sample = self.sample(scenario.sample)
        registry = Quirky(quirks)
        registry.size = len(sample.blobs[sample.biggest])
        _set(scenario, sample, registry)
        attached = self.sample("attached") if scenario.task == "attach" else None
        with _home(self._place) as home, served(registry, self._authority) as tunnel:
            target = home / "pulled"
            host = registry.address["registry"].partition("://")[2]
            if scenario.login:
                _account(home, host)
            values = {"host": host, "tag": TAG, "reference": f"{host}/{REPOSITORY}:{TAG}"}
            values |= {"repository": f"{host}/{REPOSITORY}", "other": f"{host}/{OTHER}:{TAG}"}
            task = "push" if scenario.task == "attach" else scenario.task
            values["layout"] = str(target if task == "pull" else sample.layout)
            told = environment(home, **self._network(tunnel))
            status, output = _call(client.argv(task, values, tls=quirks.tls), told, home)
            if attached is not None and status == 0:
                values |= {"layout": str(attached.layout), "reference": f"{host}/{REPOSITORY}:note"}
                status, more = _call(client.argv(task, values, tls=quirks.tls), told, home)
                output += more
            outcome = Outcome(
                task=task,
                status=status,
                output=output,
                registry=registry,
                sample=sample,
                target=target,
                attached=attached,
            )
            why = scenario.check(outcome) or (_leak(outcome, home) if scenario.login else "")
        if quirks.faults and not any(registry.befallen):
            return Verdict(passed=None, why="it never asks what the registry would answer so", output=output)
        return Verdict(passed=not why, why=why, output=output)

    def _network(self, tunnel: Tunnel) -> dict[str, str]:
        """Whom to trust, and the way to other hosts."""
        certificate = str(self._authority.certificate)
        proxy = {"HTTPS_PROXY": tunnel.url, "NO_PROXY": "localhost,127.0.0.1"}
        return {"SSL_CERT_FILE": certificate, "OCIBUILD_CA_BUNDLE": certificate, **proxy}


def _set(scenario: Scenario, sample: Sample, registry: Quirky) -> None:
    """What the registry has before."""
    if scenario.task in ("pull", "copy"):
        sample.load(registry, REPOSITORY)
    places = [REPOSITORY] * scenario.held + [BESIDE] * scenario.beside
    registry.blobs |= {(place, digest): data for place in places for digest, data in sample.blobs.items()}
    for tag in scenario.tags:
        media_type, data = next(iter(sample.manifests.values()))
        registry.put(REPOSITORY, media_type, data, tag)


def _account(home: Path, host: str) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def _leak(outcome: Outcome, home: Path) -> str:
    """Where the password or a token is that was the client's alone."""
    planted = Planted()
    planted.account(USER, PASSWORD)
    for token in outcome.registry.granted:
        planted.add("token", token)
    if planted.in_data(outcome.output.encode()):
        return "a secret is in the output"
    if [one for one in outcome.registry.seen if planted.in_data(one.line.encode())]:
        return "a secret is in a URL"
    places = planted.in_files(home, [home / ".docker/config.json"])
    return places[0] if places else ""


def _call(argv: list[str], told: dict[str, str], home: Path) -> tuple[int | None, str]:
    """Its exit status, None when it did not end in time, and all it printed."""
    with (home / "output").open("w+b") as stream:
        process = subprocess.Popen(argv, env=told, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            status: int | None = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
    return status, (home / "output").read_text(errors="replace")


@contextmanager
def _home(place: Path) -> Iterator[Path]:
    """A user's empty home."""
    home = Path(tempfile.mkdtemp(prefix="home-", dir=place))
    for name in ("run", ".docker"):
        (home / name).mkdir()
    (home / ".docker/config.json").write_text("{}")
    try:
        yield home
    finally:
        shutil.rmtree(home)
