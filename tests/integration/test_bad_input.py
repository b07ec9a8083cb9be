"""What goes wrong for users, as they would meet it: exit status, message, and a store left fit for the next run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cli import run
from tests.conftest import ROOT, OrdinaryUser
from tests.peers.mirror import Mirror, flip

pytestmark = pytest.mark.archive


class Bench:
    """A recipe, its lock's place, a store, and the command line pointed at a mirror that can be damaged."""

    def __init__(self, place: Path, mirror: Mirror) -> None:
        self.mirror = mirror
        self.lock = place / "wee.lock.toml"
        self.store = place / "store"
        shutil.copy(ROOT / "recipes/wee.toml", place / "wee.toml")
        self.where = [
            *("--store", str(self.store), "--mirror", f"{mirror.url}/debian"),
            *("--security-mirror", f"{mirror.url}/debian-security", "--lock", str(self.lock)),
        ]
        self.recipe = str(place / "wee.toml")
        self.output = ["--output", str(place / "dist")]

    def run(self, verb: str, *argv: str) -> int:
        return run([verb, self.recipe, *self.where, *argv])


@pytest.fixture
def bench(served: Mirror, tmp_path: Path) -> Bench:
    served.damage.clear()
    served.short.clear()
    return Bench(tmp_path, served)


@pytest.mark.parametrize(
    ("ending", "message"),
    [("/dists/trixie/InRelease", "signature"), ("/dists/trixie-security/InRelease", "signature")],
)
def test_a_wrong_signature_exits_5_and_a_rerun_goes_on(
    ending: str, message: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.mirror.damage[ending] = flip(1000)
    assert bench.run("lock") == 5
    errors = capsys.readouterr().err
    assert message in errors
    assert ending in errors
    assert "hint:" in errors
    assert not bench.lock.exists()
    bench.mirror.damage.clear()
    assert bench.run("lock") == 0
    assert bench.lock.exists()


def test_an_index_that_differs_exits_5(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.mirror.damage["InRelease"] = lambda data: data
    bench.mirror.damage[""] = flip(100)
    assert bench.run("lock") == 5
    assert "digest differs" in capsys.readouterr().err
    assert not bench.lock.exists()


def test_a_deb_that_differs_exits_5_with_its_url_and_the_rest_stays(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("lock") == 0
    bench.mirror.damage["_amd64.deb"] = flip(-1)
    assert bench.run("recipe", *bench.output, "--locked") == 5
    errors = capsys.readouterr().err
    assert "_amd64.deb" in errors
    assert "expected sha256:" in errors
    assert list((bench.store / "tmp").iterdir()) == []
    assert not (bench.store.parent / "dist").exists()


def test_a_lock_edited_by_hand_cannot_smuggle_in_another_deb(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock") == 0
    text = bench.lock.read_text()
    first = text.index('sha256 = "', text.index("[[package]]")) + len('sha256 = "')
    bench.lock.write_text(text[:first] + "0" * 64 + text[first + 64 :])
    assert bench.run("recipe", *bench.output, "--locked") == 5
    assert "expected sha256:0000" in capsys.readouterr().err


def test_a_stale_lock_is_an_error_when_locked_and_made_anew_when_not(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("lock") == 0
    assert bench.run("recipe", *bench.output, "--locked", "--set", "image.cmd=['sh']") == 3
    assert "another recipe" in capsys.readouterr().err


def test_a_package_that_does_not_exist_exits_4_with_the_chain(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.packages=['apt', 'no-such-package']") == 4
    assert "no-such-package: no such package" in capsys.readouterr().err


def test_a_denied_package_exits_4(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.packages=['libpam-systemd']") == 4
    assert "denied by the recipe" in capsys.readouterr().err


def test_a_component_the_suite_does_not_have_exits_4(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.components=['main', 'universe']") == 4
    assert "components: main" in capsys.readouterr().err


def test_a_suite_that_cpython_is_not_built_on_exits_3(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.suite=bookworm") == 3
    assert 'suite = "trixie"' in capsys.readouterr().err
    assert not bench.lock.exists()


def test_a_version_nobody_knows_exits_3(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "python.version=3.14.99") == 3
    assert "3.14.7" in capsys.readouterr().err


def test_a_store_that_cannot_be_written_exits_7(
    ordinary_user: OrdinaryUser, ordinary_clone: Path, served: Mirror
) -> None:
    """As an ordinary user: root may write anywhere."""
    made = ordinary_user.run(["make", "venv"], cwd=ordinary_clone)
    assert made.returncode == 0, made.stderr
    closed = ordinary_user.home / "closed"
    closed.mkdir(mode=0o555)
    tool = ordinary_clone / ".venv/bin/ocibuild"
    where = ["--mirror", f"{served.url}/debian", "--security-mirror", f"{served.url}/debian-security"]
    done = ordinary_user.run([tool, "lock", "wee", "--store", closed / "store", *where], cwd=ordinary_clone)
    assert done.returncode == 7, done.stderr
    assert "Permission denied" in done.stderr
    assert "--store" in done.stderr


def test_a_full_disk_exits_7_and_with_room_the_same_store_goes_on(bench: Bench, peer: Callable[[str], str]) -> None:
    """The store lies on a file system of 4 MB, smaller than one index; then on one that is large enough."""
    bench.store.mkdir()
    tool = f"{sys.executable} -m builder lock {bench.recipe} {' '.join(bench.where)}"
    script = (
        f"mount -t tmpfs -o size=4m tmpfs {bench.store} || exit 77; {tool}; status=$?;"
        f"ls {bench.store}/tmp; mount -o remount,size=200m {bench.store} || exit 77; {tool} || exit 78; exit $status"
    )
    command = [peer("unshare"), "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"no file systems of one's own here: {done.stderr}")
    assert done.returncode == 7, done.stderr
    assert "No space left on device" in done.stderr
    assert "free some space" in done.stderr
    assert done.stdout == f"{bench.lock}\n"  # nothing in tmp, and the second run's line
