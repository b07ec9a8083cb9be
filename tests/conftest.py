"""Fixtures of the whole suite: a clean environment, Debian's archive, peers, one store of what was fetched, and a user.

Nothing here names a host: the archive is the one a user of this machine would get from the settings. What is absent
skips the tests that need it, and the skip says what to install.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.settings import Setting, read_settings

ROOT = Path(__file__).parents[1]
INSTALL = "tests/peers/install"
TEST_USER = "ocibuild-test"
ENVIRONMENT = dict(os.environ)
"""The environment the suite was started with, before `clean_environment` took out what could change a result."""
SCRUBBED = (
    "OCIBUILD_",
    "MAKE",
    "MFLAGS",
    "SOURCE_DATE_EPOCH",
    "PKG_PROXY",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "DOCKER_AUTH_CONFIG",
    "GITLAB_CI",
    "GITHUB_ACTIONS",
    "PYTHON",
)
PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")


@pytest.fixture(autouse=True, scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the caller reaches a test; the XDG directories are empty ones; loopback is never proxied."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            if name.startswith(SCRUBBED):
                patch.delenv(name)
        home = tmp_path_factory.mktemp("xdg")
        for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
        (home / "auth.json").write_text("{}")
        patch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
        for name in ("NO_PROXY", "no_proxy"):
            known = ENVIRONMENT.get(name)
            patch.setenv(name, ",".join(filter(None, (known, "localhost", "127.0.0.1", "::1"))))
        yield


@pytest.fixture(scope="session")
def peer() -> Callable[[str], str]:
    """`peer("skopeo")` is the path of that program; where it is not installed the test is skipped.

    Those that `tests/peers/build` builds are taken at its version or not at all.
    """
    built = _built()

    def find(name: str) -> str:
        path: str | Path | None = built.get(name)
        if path is None or not os.access(path, os.X_OK):
            places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
            path = None if name in built else shutil.which(name, path=places)
        if path is None:
            pytest.skip(f"{name} is not installed: run {INSTALL}")
        return str(path)

    return find


def _built() -> dict[str, Path]:
    """Where each program of programs.txt lies once it is built."""
    place = Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocibuild-peers/bin"
    rows = [line.split() for line in (ROOT / "tests/peers/programs.txt").read_text().splitlines()]
    return {row[0]: place / f"{row[0]}-{row[2]}" for row in rows if row and row[0] != "#"}


@pytest.fixture(scope="session")
def shared_store() -> Iterator[Path]:
    """A store directory for the session, beginning with every blob the suite ever fetched and no step's result.

    The blobs stay in $XDG_CACHE_HOME/ocibuild-tests from run to run (their names prove them); results do not.
    """
    cache = Path(ENVIRONMENT.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocibuild-tests"
    blobs = cache / "blobs"
    try:
        blobs.mkdir(parents=True, exist_ok=True)
        session = Path(tempfile.mkdtemp(prefix="session-", dir=cache))
    except OSError:
        session = Path(tempfile.mkdtemp(prefix="ocibuild-tests-"))
    else:
        (session / "blobs").symlink_to(blobs)
    yield session
    shutil.rmtree(session, ignore_errors=True)


@pytest.fixture(scope="session")
def debian_mirror() -> str:
    """URL of an archive that serves trixie, without a slash at the end."""
    return _reachable("mirror", "dists/trixie/InRelease")


@pytest.fixture(scope="session")
def debian_security_mirror() -> str:
    """URL of an archive that serves trixie-security, without a slash at the end."""
    return _reachable("security_mirror", "dists/trixie-security/InRelease")


def _reachable(name: str, probe: str) -> str:
    """The mirror a user of this machine would get, if it answers; only `probe` (a path below it) is asked for."""
    setting: Setting = getattr(read_settings({}, environment=ENVIRONMENT), name)
    uri = setting.value.rstrip("/")
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{uri}/{probe}", method="HEAD"), timeout=30):
            return uri
    except OSError as error:
        pytest.skip(
            f"Debian's archive does not answer ({name} from {setting.origin}: {error}): set OCIBUILD_{name.upper()}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdinaryUser:
    """Someone who is not root: `home` is a fresh directory of theirs, `python` an interpreter they can run."""

    name: str
    uid: int
    gid: int
    home: Path
    python: str

    def start(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a program as this user, in a session of its own, with stdout and stderr as text pipes."""
        base = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or "proxy" in key.lower()}
        base |= {"HOME": str(self.home), "USER": self.name, "LOGNAME": self.name, "LANG": "C.UTF-8"}
        base |= {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TMPDIR": str(self.home)}
        other = os.geteuid() != self.uid
        return subprocess.Popen(
            # who runs the suite in the background (nohup, some CI) has Ctrl-C ignored, and children inherit that
            ["env", "--default-signal=INT", *(str(word) for word in argv)],
            cwd=cwd or self.home,
            env=base | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=self.uid if other else None,
            group=self.gid if other else None,
            extra_groups=[] if other else None,
            start_new_session=True,
        )

    def run(
        self, argv: Sequence[str | Path], *, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user to its end, with nothing on stdin."""
        process = self.start(argv, cwd=cwd, **environment)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[OrdinaryUser]:
    """The user who runs the suite; when that is root, the user `tests/peers/install` made for it."""
    is_root = os.geteuid() == 0
    try:
        account = pwd.getpwnam(TEST_USER) if is_root else pwd.getpwuid(os.geteuid())
    except KeyError:
        pytest.skip(f"there is no user {TEST_USER}: run {INSTALL}")
    home = Path(tempfile.mkdtemp(prefix="ocibuild-", dir=account.pw_dir if is_root else None))
    os.chown(home, account.pw_uid, account.pw_gid)
    user = OrdinaryUser(name=account.pw_name, uid=account.pw_uid, gid=account.pw_gid, home=home, python=sys.executable)
    try:
        yield replace(user, python=_python_of(user)) if is_root else user
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _python_of(user: OrdinaryUser) -> str:
    """An interpreter this user can run: the one that runs the suite may lie in root's home."""
    for python in PYTHONS:
        check = f"{python} -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' && command -v {python}"
        answer = user.run(["sh", "-c", check])
        if answer.returncode == 0:
            return answer.stdout.strip()
    pytest.skip(f"{user.name} can run no Python of 3.11 or later: run {INSTALL}")


@pytest.fixture(scope="session")
def ordinary_clone(ordinary_user: OrdinaryUser, peer: Callable[[str], str]) -> Path:
    """What a clone would hold if all were committed now, in the ordinary user's home, with nothing built in it."""
    listing = subprocess.run(
        [peer("git"), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip(f"this is not a clone that git can read: {listing.stderr.strip()}")
    clone = ordinary_user.home / "clone"
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    for path in (clone, *clone.rglob("*")):
        os.chown(path, ordinary_user.uid, ordinary_user.gid)
    return clone
