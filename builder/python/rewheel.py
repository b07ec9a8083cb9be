"""The wheel of pip that virtual environments are made with, put together again from the pip that is installed.

Law: this file is part of the image (lib/python3.*/ensurepip/_rewheel.py), not of ocibuild: it imports nothing of ours
and runs on any CPython from 3.13 on. With it an image holds pip once, as Fedora's did with `rewheel` (3.4 to 3.8). What
installing pip has made (scripts, .pyc files, what says how it came here) is in no wheel.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, PackagePath, distributions
from pathlib import Path

_SITE = Path(__file__).parents[1] / "site-packages"
_MADE = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


@contextmanager
def pip_wheel() -> Iterator[Path]:
    """The path of the wheel, while the block lasts; FileNotFoundError when no pip is installed."""
    pip = _installed()
    with tempfile.TemporaryDirectory() as directory:
        wheel = Path(directory, f"pip-{pip.version}-py3-none-any.whl")
        _write(pip, wheel)
        yield wheel


def pip_version() -> str:
    """The version of that pip; FileNotFoundError when there is none."""
    return _installed().version


def _installed() -> Distribution:
    for pip in distributions(name="pip", path=[str(_SITE)]):
        if pip.files:
            return pip
    raise FileNotFoundError(f"no pip in {_SITE} to put into a virtual environment; `venv --without-pip` needs none")


def _write(pip: Distribution, wheel: Path) -> None:
    """The files and, as the last, their RECORD (PyPA's binary distribution format)."""
    lines = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in filter(_is_shipped, pip.files or ()):
            content = path.read_binary()
            archive.writestr(zipfile.ZipInfo(str(path)), content)
            digest = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            lines.append(f"{path},sha256={digest},{len(content)}\n")
        record = f"pip-{pip.version}.dist-info/RECORD"
        archive.writestr(zipfile.ZipInfo(record), "".join([*lines, f"{record},,\n"]))


def _is_shipped(path: PackagePath) -> bool:
    made = path.parent.name.endswith(".dist-info") and path.name in _MADE
    return not made and ".." not in path.parts and path.suffix != ".pyc"
