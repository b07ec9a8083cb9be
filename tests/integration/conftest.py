"""The one image that the end-to-end tests look at: an ordinary user's `make image`, with one compile for all of them.

It is interrupted once on the way, so that what every test looks at is also a build that went on after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootfs.store import DiskStore
from tests.conftest import OrdinaryUser
from tests.peers.mirror import Mirror, serve
from tests.peers.olareg import olareg
from tests.peers.planted import Planted
from tests.peers.registry import PASSWORD, USER, registry

RECIPE = "recipes/wee.toml"
ACCOUNT_FILES = ("auth.json", "config.json")

Report = pytest.TestReport


@dataclass(frozen=True)
class Image:
    """What `make image` gave: the clone it ran in, the user, the line it printed, what it said on the way."""

    clone: Path
    user: OrdinaryUser
    line: str
    log: str
    mirrors: dict[str, str]

    @property
    def layout(self) -> Path:
        return self.clone / "dist" / "wee"

    @property
    def digest(self) -> str:
        return self.line.rpartition("@")[2]

    @property
    def store(self) -> DiskStore:
        return DiskStore(self.user.home / ".cache/ocibuild")

    @property
    def reference(self) -> str:
        return f"oci:{self.layout}:3.14.7-wee"

    def ocibuild(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run the clone's own tool as its user."""
        return self.user.run([self.clone / ".venv/bin/ocibuild", *argv], cwd=self.clone, **self.mirrors)


@pytest.fixture(scope="session")
def ordinary_python(ordinary_user: OrdinaryUser, ordinary_clone: Path) -> Path:
    """The interpreter of the clone's own virtual environment, for what an ordinary user does without the command."""
    made = ordinary_user.run(["make", "venv"], cwd=ordinary_clone)
    assert made.returncode == 0, made.stderr
    return ordinary_clone / ".venv/bin/python"


@pytest.fixture(scope="session")
def image(ordinary_user: OrdinaryUser, ordinary_clone: Path, debian_mirror: str, debian_security_mirror: str) -> Image:
    mirrors = {"OCIBUILD_MIRROR": debian_mirror, "OCIBUILD_SECURITY_MIRROR": debian_security_mirror}
    made = ordinary_user.run(["make", "venv"], cwd=ordinary_clone)
    assert made.returncode == 0, made.stderr
    _interrupt(ordinary_user, ordinary_clone, mirrors)
    done = ordinary_user.run(["make", "image", f"RECIPE={RECIPE}"], cwd=ordinary_clone, **mirrors)
    assert done.returncode == 0, done.stderr
    line = done.stdout.rstrip("\n")
    return Image(clone=ordinary_clone, user=ordinary_user, line=line, log=done.stderr, mirrors=mirrors)


def _interrupt(user: OrdinaryUser, clone: Path, mirrors: dict[str, str]) -> None:
    """Start the build, press Ctrl-C in the middle of make, and see that nothing half done or running is left."""
    process = user.start([clone / ".venv/bin/ocibuild", "recipe", RECIPE], cwd=clone, **mirrors)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("compile: make:"):
            break
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 130, errors
    assert output == ""
    assert errors.rstrip().endswith("run the same command to go on")
    assert not [line for word in ("configure", "make", "cc1") for line in _processes_of(user, word)]
    assert not (clone / "dist").exists()
    assert list((user.home / ".cache/ocibuild/tmp").iterdir()) == []


def _processes_of(user: OrdinaryUser, word: str) -> list[str]:
    lines = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.stat().st_uid == user.uid and word in (place / "cmdline").read_text():
                lines.append((place / "cmdline").read_text())
        except OSError:
            continue
    return lines


@pytest.fixture(scope="session")
def served(
    debian_mirror: str, debian_security_mirror: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mirror]:
    """The real archive behind a mirror on loopback, whose answers a test may damage (and clears before it begins)."""
    upstream = {"debian": debian_mirror, "debian-security": debian_security_mirror}
    with serve(upstream, tmp_path_factory.mktemp("mirror")) as mirror:
        yield mirror


@pytest.fixture(scope="module")
def plain(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """docker-registry, which has no referrers API."""
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def modern(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """olareg, which has it, sets several tags at once and deletes tags."""
    with olareg(peer("olareg"), tmp_path_factory.mktemp("olareg")) as host:
        yield host


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """A test whose module knows the registries' password leaves it in no file but those that keep accounts."""
    yield
    if getattr(request.module, "PASSWORD", None) == PASSWORD:
        planted = _everything_planted()
        kept = [path for name in ACCOUNT_FILES for path in tmp_path.rglob(name)]
        assert planted.in_files(tmp_path, kept) == []


@pytest.fixture(autouse=True, scope="session")
def no_log_tells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor is it in a log of any registry or proxy of the whole run, also of those that serve many tests."""
    yield
    planted = _everything_planted()
    logs = (path for path in tmp_path_factory.getbasetemp().rglob("log") if path.is_file())
    assert [path for path in logs if planted.in_data(path.read_bytes())] == []


def _everything_planted() -> Planted:
    planted = Planted()
    planted.account(USER, PASSWORD)
    return planted


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Report, Report]:
    """Neither do they print it, nor a token: whether they pass or fail, whose output somebody will read."""
    report = yield
    planted = _everything_planted()
    if what := planted.in_data("".join(text for _, text in report.sections).encode()):
        report.sections.append(("leak", f"{item.nodeid}: a {what} is in the captured output"))
        if report.passed:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: a {what} is in the captured output"
    return report
