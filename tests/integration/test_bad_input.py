"""What goes wrong for users, as they would meet it: exit status, message, and a store left fit for the next run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from builder.app import find_recipe
from builder.cli import run
from builder.lock import Lock, LockedProfile
from builder.plan import commands_of
from builder.python.profile import profile_for
from rootfs.digest import Digest
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
    assert ": denied" in capsys.readouterr().err


def test_a_component_the_suite_does_not_have_exits_4(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.components=['main', 'universe']") == 4
    assert "components: main" in capsys.readouterr().err


def test_a_suite_that_cpython_is_not_built_on_exits_3(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "base.suite=bullseye") == 3
    errors = capsys.readouterr().err
    assert "CPython 3.14 is not built on bullseye" in errors
    assert "[base] suite may be trixie" in errors
    assert not bench.lock.exists()


def test_a_version_nobody_knows_exits_3(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", "--set", "python.version=3.14.99") == 3
    assert "3.14.7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "message", "hint"),
    [
        (["version=3.11", "free_threaded=true"], "CPython 3.11 has no free_threaded", "it came with 3.13"),
        (["version=3.13", "jit=true"], "CPython 3.13 has no jit", "it came with 3.14"),
        (["jit=true", "free_threaded=true"], "no JIT without the GIL", "not both"),
        (["version=2.7", "compiler=clang"], "CPython 2.7 is built with gcc only", "gcc"),
        (["variant=fast"], "`python.variant` is not as it must be", "'fast'"),
        (["configure=['--with-lto']"], "--with-lto is not the recipe's to give", "variant = optimized-lto"),
        (["variant=optimized", "train_without=['test_jsn']"], "test_jsn is not a test", "did you mean test_json?"),
        (["without=['lib dynload']"], "python.without", "regex"),
    ],
)
def test_what_cannot_be_built_exits_3_before_anything_is_fetched(
    bench: Bench, capsys: pytest.CaptureFixture[str], python: list[str], message: str, hint: str
) -> None:
    overrides = [word for text in python for word in ("--set", f"python.{text}")]
    assert bench.run("lock", *overrides) == 3
    errors = capsys.readouterr().err
    assert message in errors
    assert hint in errors
    assert not bench.lock.exists()
    assert not bench.store.exists()


LED = ("--set", "python.variant=optimized-lto")


def pin(bench: Bench, **changes: object) -> LockedProfile:
    """Pin a profile that fits the lock but for these changes."""
    lock = Lock.parse(bench.lock.read_bytes(), at="lock")
    recipe = find_recipe(bench.recipe, overrides=LED[1:]).recipe
    profile = profile_for(Digest.of(b"counters"), commands_of(recipe, lock.python.version), lock)
    made = msgspec.structs.replace(profile, **changes)
    bench.lock.write_bytes(msgspec.structs.replace(lock, profile=made).to_bytes())
    return profile


def test_a_profile_that_does_not_fit_exits_3_and_says_what_changed(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("lock", *LED) == 0
    fits = pin(bench, compiler=("gcc-14 14.0-1",), source="0" * 64)
    assert bench.run("recipe", *bench.output, "--locked", *LED) == 3
    errors = capsys.readouterr().err
    assert "profile does not fit" in errors
    assert f"CPython's source is {fits.source}, trained was {'0' * 64}" in errors
    assert "gcc-14 14.0-1 was there" in errors
    assert f"{fits.compiler[0]} is there now" in errors
    assert "ocibuild profile train" in errors
    assert not list((bench.store / "work").glob("*"))


def test_a_profile_that_is_nowhere_exits_5_before_anything_is_compiled(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run("lock", *LED) == 0
    pin(bench)
    assert bench.run("recipe", *bench.output, "--locked", *LED) == 5
    errors = capsys.readouterr().err
    assert "profile is not here" in errors
    assert "ocibuild profile" in errors
    assert not list((bench.store / "work").glob("*"))


def test_a_lock_without_a_profile_is_not_enough_when_locked(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("lock", *LED) == 0
    assert bench.run("recipe", *bench.output, "--locked", *LED) == 3
    assert "names no profile" in capsys.readouterr().err


def test_a_wrong_hash_of_the_source_exits_3_and_nothing_is_compiled(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have been edited, or merged wrongly; nothing is made under the key that it gives."""
    assert bench.run("lock") == 0
    lock = Lock.parse(bench.lock.read_bytes(), at="lock")
    wrong = msgspec.structs.replace(lock.python, sha256="0" * 64)
    bench.lock.write_bytes(msgspec.structs.replace(lock, source=(wrong,)).to_bytes())
    assert bench.run("recipe", *bench.output, "--locked") == 3
    errors = capsys.readouterr().err
    assert f"expected sha256:{lock.python.sha256}" in errors
    assert "compile:" not in errors
    assert not (bench.store.parent / "dist").exists()


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
    assert "OCIBUILD_STORE" in done.stderr


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
