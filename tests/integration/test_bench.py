"""`ocibuild bench` with real images, real benchmarks and the real pip, as an ordinary user."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.integration.conftest import Image

pytestmark = [pytest.mark.compile, pytest.mark.archive]


@pytest.fixture(scope="module")
def broken(image: Image) -> Path:
    """A root directory whose Python lacks what one of two benchmarks imports."""
    image.ocibuild("bench", str(image.layout), "--benchmarks", "none-such")  # extracts the image
    roots = (image.store.root / "work/roots").iterdir()
    root = next(path for path in roots if (path / "usr/local/bin/python3").exists())
    copy = image.user.home / "broken"
    image.user.run(["cp", "-al", str(root), str(copy)])
    for path in (copy / "usr/local/lib").glob("python3*/sqlite3"):
        shutil.rmtree(path)
    return copy


def test_an_image_beside_itself_and_beside_one_that_cannot(image: Image, broken: Path) -> None:
    place = image.user.home
    done = image.ocibuild(
        *("bench", f"one={image.layout}", f"two={image.layout}", f"broken=dir:{broken}#/usr/local/bin/python3"),
        *("--benchmarks", "pidigits,sqlite_synth", "--rounds", "1", "--baseline", "one"),
        *("--json", str(place / "b.json"), "--svg", str(place / "b.svg")),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[2:4]] == ["pidigits", "sqlite_synth"]
    assert "- sqlite_synth in broken: ModuleNotFoundError: No module named 'sqlite3'\n" in done.stdout
    value = json.loads((place / "b.json").read_text())
    assert set(value["benchmarks"][1]["seconds"]) == {"one", "two"}
    assert 0.3 < value["geometric_mean"]["two"]["value"] < 3  # nothing is timed here
    root = ET.fromstring((place / "b.svg").read_text())
    assert len([bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("height") == "10"]) == 3
    assert not list((image.store.root / "bench").glob("run-*"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--benchmarks", "pidigit"], "did you mean pidigits"),
        (["--baseline", "other", "--benchmarks", "pidigits"], "they are called wee"),
    ],
)
def test_what_is_not_there_exits_2(argv: list[str], said: str, image: Image) -> None:
    done: subprocess.CompletedProcess[str] = image.ocibuild("bench", str(image.layout), *argv)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_root_without_python_exits_1(image: Image) -> None:
    root = image.user.home / "empty"
    image.user.run(["mkdir", "-p", *(str(root / name) for name in ("proc", "dev", "tmp"))])
    done = image.ocibuild("bench", f"dir:{root}")
    assert done.returncode == 1
    assert "python3" in done.stderr
