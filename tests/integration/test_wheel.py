"""The wheel: an install of it, away from the repository, finds all that is not code (recipes, keys) and can resolve."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.archive


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds what the wheel holds."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(place), str(ROOT)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"the build backend cannot be had: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


def test_nothing_else_is_shipped_at_the_top(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"builder", "rootfs"}


def test_it_holds_the_shipped_profiles(installed: Path) -> None:
    profiles = {path.name for path in (ROOT / "recipes/profiles").iterdir()}
    assert {path.name for path in (installed / "builder/_recipes/profiles").iterdir()} == profiles


def test_it_resolves_a_shipped_recipe_with_the_shipped_keys(
    installed: Path, tmp_path: Path, debian_mirror: str, debian_security_mirror: str
) -> None:
    mirrors = ["--mirror", debian_mirror, "--security-mirror", debian_security_mirror]
    program = f"import sys; sys.path.insert(0, {str(installed)!r}); from builder.cli import main; main()"
    command = [sys.executable, "-P", "-c", program, "lock", "wee", "--store", str(tmp_path / "store"), *mirrors]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wee.lock.toml\n"
    assert "trixie-security" in (tmp_path / "wee.lock.toml").read_text()
