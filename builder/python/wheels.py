"""Wheels for the acceptance of an image: really published ones, fetched on the host for the image's interpreter.

Law: asks pip, with the user's own configuration of it, and keeps what it got. No network, no pip or no wheel for this
interpreter is an answer, not an error: the checks that want wheels then say that they were not tried.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rootfs.files import host_error

_PATIENCE = 300  # seconds
# pip takes environment markers (enum34; python_version < "3") from the interpreter it runs on, so 2.7's are all named.
_PYTHON2 = ("numpy==1.16.6", "cryptography==3.3.2", "cffi==1.15.1", "enum34", "ipaddress", "pycparser==2.21", "six")
_BUILD = {(2, 7): ("setuptools==44.1.1", "wheel==0.37.1"), (3, 8): ("setuptools", "wheel")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An interpreter as pip's tags name it: (3, 14), `cp314t`, `x86_64`, and the minor version of its glibc 2.x."""

    version: tuple[int, int]
    abi: str
    machine: str
    glibc: int

    @property
    def name(self) -> str:
        """Names the directory of its wheels."""
        return f"{self.abi}-glibc2.{self.glibc}-{self.machine}"

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platform tags, newest first (PEP 600 and what came before it)."""
        names = [f"manylinux_2_{minor}" for minor in range(self.glibc, 4, -1)]
        return tuple(f"{name}_{self.machine}" for name in (*names, "manylinux2014", "manylinux2010", "manylinux1"))

    @property
    def requirements(self) -> tuple[str, ...]:
        """What to fetch: NumPy, cryptography, and what building from source wants."""
        wanted = _PYTHON2 if self.version < (3,) else ("numpy", "cryptography")
        build = next((needs for last, needs in _BUILD.items() if self.version <= last), ("setuptools",))
        return (*wanted, *build)


def fetch_wheels(target: Target, cache: Path) -> tuple[Path | None, str]:
    """The directory below `cache` with the wheels for an interpreter, fetched when it is not there; or why not."""
    place = cache / target.name
    if place.is_dir():
        with suppress(OSError):
            place.touch()  # of use still: `ocibuild cache prune`
        return place, ""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".tmp-") as made:
            work = Path(made) / "wheels"
            refusal = _download(target, work)
            if refusal:
                return None, refusal
            work.chmod(0o755)
            if not place.is_dir():  # another run may have been faster
                shutil.move(work, place)
    except OSError as error:
        raise host_error(error, cache) from error
    return place, ""


def _download(target: Target, directory: Path) -> str:
    """Have pip fetch all wheels; what it says when it cannot."""
    tags: Sequence[str] = [f"--platform={platform}" for platform in target.platforms]
    version = ".".join(str(number) for number in target.version)
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries=1"]
    argv += ["--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *tags]
    argv += [f"--abi={abi}" for abi in (target.abi, "abi3", "none")]
    try:
        done = subprocess.run(
            [*argv, f"--dest={directory}", *target.requirements],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"pip did not fetch the wheels within {_PATIENCE} s"
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return f"pip could not fetch the wheels: {said[-1] if said else done.returncode}"
