"""Wheels: the benchmarks and the libraries they need, fetched once by pip and proved by their digests.

Law: what may be fetched stands in wheels.txt, by digest; the cache holds wheels and nothing else, and no program of an
image ever sees it. pip is the host's own, with its own settings (index, proxy, certificates).
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import ZipFile

from builder.bench.suite import PROGRAMS, normalised
from rootfs.errors import HostError, TransferError
from rootfs.files import host_error
from rootfs.ports import Reporter

BENCHMARKS = "pyperformance"
WORKER = "pyperf"
_PINS = Path(__file__).with_name("wheels.txt")
_PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<hex>[0-9a-f]{64})\Z")
_PLATFORMS = ("any", "manylinux1_x86_64", "manylinux2010_x86_64")
_ABIS = ("none", "cp39", "abi3")
_EXTENSION_MODULE = ".so"


def pins() -> dict[str, str]:
    """The line of wheels.txt for each distribution, by its normalised name."""
    matches = (_PIN.match(line) for line in _PINS.read_text().splitlines())
    return {match["name"]: match[0] for match in matches if match}


def fetch_wheels(names: Iterable[str], cache: Path, reporter: Reporter) -> dict[str, Path]:
    """The wheel of each distribution in the directory `cache`, by name; TransferError when pip cannot fetch one.

    A file there whose digest is not in wheels.txt is as good as none.
    """
    lines = pins()
    wanted = {name: lines[name] for name in names}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        cache.touch()  # of use still: `ocibuild cache prune`
        found = _present(wanted, cache)
        missing = [line for name, line in wanted.items() if name not in found]
        if missing:
            task = f"fetch {len(missing)} wheels"
            reporter.begin(task)
            with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as place:
                _download(missing, Path(place))
                for path in Path(place).glob("*.whl"):
                    path.replace(cache / path.name)
            reporter.finish(task)
            found = _present(wanted, cache)
    except OSError as error:
        raise host_error(error, cache) from error
    return found


def _present(wanted: Mapping[str, str], cache: Path) -> dict[str, Path]:
    """The wheels that are there and hold the bytes they should."""
    found = {}
    for path in sorted(cache.glob("*.whl")):
        name = normalised(path.name.partition("-")[0])
        if name in wanted and wanted[name].endswith(hashlib.sha256(path.read_bytes()).hexdigest()):
            found[name] = path
    return found


def _download(lines: Iterable[str], place: Path) -> None:
    """Let pip fetch these pins. The tags say which files they name, not what they will run on."""
    requirements = place / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in lines))
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
    options += ["--python-version=3.9", "--implementation=cp", *(f"--abi={abi}" for abi in _ABIS)]
    options += [f"--platform={platform}" for platform in _PLATFORMS]
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "download"]
    done = subprocess.run(
        [*argv, *options, "--dest", str(place), "--requirement", str(requirements)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No module named pip" in done.stderr:
        raise HostError(
            "cannot fetch the benchmarks",
            because=f"{sys.executable} has no pip",
            hint=f"{sys.executable} -m ensurepip",
        )
    if done.returncode:
        raise TransferError(
            "pip could not fetch the benchmarks",
            because="\n".join(done.stderr.splitlines()[-10:]),
            hint="they come from the index that pip is set up for (pip config list)",
        )


def lay_out(programs: Iterable[str], wheels: Mapping[str, Path], target: Path) -> None:
    """Unpack what a run needs: `target`/programs/ and, for every other wheel, `target`/wheels/NAME/."""
    try:
        for program in sorted(set(programs)):
            _unpack(wheels[BENCHMARKS], target / "programs", below=f"{PROGRAMS}{program}/")
        for name, wheel in wheels.items():
            if name != BENCHMARKS:
                _unpack(wheel, target / "wheels" / name)
        if "setuptools" in wheels:  # what its .pth file does in a site-packages
            (target / "wheels/setuptools/distutils").symlink_to("setuptools/_distutils")
    except OSError as error:
        raise host_error(error, target) from error


def _unpack(wheel: Path, target: Path, *, below: str = "") -> None:
    """Write a wheel's files, or those below a directory of it, without extension modules.

    So every interpreter runs the same Python, whatever its version and processor: these libraries fall back to it.
    """
    with ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith(below) and not member.filename.endswith(_EXTENSION_MODULE):
                archive.extract(member, target)
