"""The peers themselves: each starts, serves what another peer pushed, and does what a test will ask of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.ggcr import ggcr_registry
from tests.peers.olareg import olareg
from tests.peers.registry import PASSWORD, USER, registry
from tests.peers.tokens import GuardedRegistry, guarded_registry
from tests.peers.toxiproxy import Toxiproxy, toxiproxy
from tests.peers.zot import zot

pytestmark = pytest.mark.peer
Crane = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def crane(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Crane:
    program, config = peer("crane"), tmp_path_factory.mktemp("crane")

    def run(*argv: str | Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {"DOCKER_CONFIG": str(config), "PATH": "/usr/bin", "HOME": str(config)}
        done = subprocess.run(
            [program, *argv], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode != 0) is fails, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of 300 kB that a layer can be made of."""
    place = tmp_path_factory.mktemp("layer")
    (place / "noise").write_bytes(bytes(range(256)) * 1200)
    with tarfile.open(place / "layer.tar", "w") as archive:
        archive.add(place / "noise", "noise")
    return place / "layer.tar"


@pytest.fixture(scope="module", params=["docker-registry", "olareg", "ggcr-registry", "zot"])
def host(
    request: pytest.FixtureRequest, peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    start = {"docker-registry": registry, "olareg": olareg, "ggcr-registry": ggcr_registry, "zot": zot}[request.param]
    with start(peer(request.param), tmp_path_factory.mktemp("peer")) as host:
        yield host


def test_each_registry_takes_and_gives(host: str, crane: Crane, layer: Path, tmp_path: Path) -> None:
    crane("append", "--oci-empty-base", "--new_layer", layer, "--new_tag", f"{host}/team/x:v1")
    crane("validate", "--remote", f"{host}/team/x:v1")
    assert crane("ls", f"{host}/team/x").stdout == "v1\n"


def referrers(host: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/team/x/referrers/sha256:{'0' * 64}") as answer:
            return answer.status, answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_olareg_alone_has_the_referrers_api(peer: Callable[[str], str], tmp_path: Path, crane: Crane) -> None:
    """And can be told to have none."""
    with olareg(peer("olareg"), tmp_path / "with") as host:
        assert referrers(host) == (200, "application/vnd.oci.image.index.v1+json")
    with olareg(peer("olareg"), tmp_path / "without", referrers=False, warnings=["one", "two"]) as host:
        assert referrers(host)[0] == 405
        assert "two" in crane("ls", f"{host}/team/x").stderr
    with registry(peer("docker-registry"), tmp_path / "registry") as host:
        assert referrers(host)[0] == 404


def test_olareg_wants_a_token(peer: Callable[[str], str], tmp_path: Path, crane: Crane, layer: Path) -> None:
    with olareg(peer("olareg"), tmp_path, tokens=True) as host:
        push = ["append", "--oci-empty-base", "--new_layer", layer, "--new_tag", f"{host}/public/x:v1"]
        assert "UNAUTHORIZED" in crane(*push, fails=True).stderr.upper()
        crane("auth", "login", host, "--username", USER, "--password", PASSWORD)
        crane(*push)
        crane("auth", "logout", host)
        crane("digest", f"{host}/public/x:v1")


@pytest.fixture(scope="module")
def guarded(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRegistry]:
    place = tmp_path_factory.mktemp("guarded")
    with guarded_registry(peer("docker-registry"), peer("openssl"), place, lifetime=3) as guarded:
        yield guarded


def test_docker_registry_takes_our_tokens(guarded: GuardedRegistry, crane: Crane, layer: Path) -> None:
    push = ["append", "--oci-empty-base", "--new_layer", layer, "--new_tag", f"{guarded.host}/team/x:v1"]
    crane(*push, fails=True)
    crane("auth", "login", guarded.host, "--username", USER, "--password", PASSWORD)
    crane(*push)
    crane("auth", "logout", guarded.host)
    crane("digest", f"{guarded.host}/team/x:v1")  # anybody may pull
    assert {method for method, _, _ in guarded.tokens.seen} == {"GET"}


def test_docker_registry_refuses_a_token_that_is_old_or_for_something_else(guarded: GuardedRegistry) -> None:
    def status(token: str) -> int:
        request = urllib.request.Request(f"http://{guarded.host}/v2/x/blobs/uploads/", method="POST")
        request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    good = guarded.tokens.token(USER, ["repository:x:pull,push"])
    assert status(good) == 202
    assert status(guarded.tokens.token(USER, ["repository:y:pull,push"])) == 401
    assert status(guarded.tokens.token("", ["repository:x:pull,push"])) == 401
    time.sleep(guarded.tokens.lifetime + 1)
    assert status(good) == 401


def test_the_token_server_knows_refresh_tokens(guarded: GuardedRegistry) -> None:
    def ask(**form: str) -> tuple[int, dict[str, object]]:
        body = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in form.items()).encode()
        try:
            with urllib.request.urlopen(f"http://localhost:{guarded.tokens.server_port}/token", body) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    scope = {"service": "test", "scope": "repository:x:pull"}
    status, first = ask(grant_type="password", username=USER, password=PASSWORD, access_type="offline", **scope)
    assert (status, first["expires_in"]) == (200, 3)
    status, second = ask(grant_type="refresh_token", refresh_token=str(first["refresh_token"]), **scope)
    assert status == 200
    assert "access_token" in second
    assert "refresh_token" not in second
    guarded.tokens.revoked = True
    assert ask(grant_type="refresh_token", refresh_token=str(first["refresh_token"]), **scope)[0] == 401


@pytest.fixture(scope="module")
def proxy(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    with toxiproxy(peer("toxiproxy"), tmp_path_factory.mktemp("toxiproxy")) as proxy:
        yield proxy


def test_toxiproxy_spoils_a_link_and_heals_it(proxy: Toxiproxy, host: str, crane: Crane, layer: Path) -> None:
    link = proxy.link(host)
    crane("append", "--oci-empty-base", "--new_layer", layer, "--new_tag", f"{link.host}/toxic/x:v1")

    def blob() -> float:
        start = time.monotonic()
        crane("validate", "--remote", f"{link.host}/toxic/x:v1")
        return time.monotonic() - start

    healthy = blob()
    slow = link.add("latency", latency=400)
    assert blob() > healthy + 0.4
    link.remove(slow)
    link.add("limit_data", bytes=250)
    crane("validate", "--remote", f"{link.host}/toxic/x:v1", fails=True)
    link.heal()
    blob()
    link.down()
    crane("validate", "--remote", f"{link.host}/toxic/x:v1", fails=True)
    link.heal()
    blob()
