"""Every fuzz target for a moment: damaged seeds always, and under atheris where it is installed."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from rootfs.errors import OcibuildError
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]


def damaged(seed: bytes, chance: random.Random) -> bytes:
    """The seed with a few bytes changed, taken out, put in or doubled."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        place, length = chance.randint(0, len(data)), chance.choice((1, 1, 2, 8, 60))
        piece = chance.choice((b"", chance.randbytes(length), bytes(data[place : place + length]) * 2, b"\0" * length))
        data[place : place + chance.choice((0, length))] = piece
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds_are_read_or_refused(name: str) -> None:
    chance = random.Random(name)
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)
        for _ in range(200):
            TARGETS[name].run(damaged(seed, chance))


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_reads_one_of_its_seeds_to_the_end(name: str) -> None:
    """Else it would find nothing but how the reader refuses."""
    for seed in TARGETS[name].seeds:
        try:
            return TARGETS[name].read(seed)
        except OcibuildError:
            continue
    pytest.fail("every seed is refused")


def test_an_error_of_another_family_is_found() -> None:
    with pytest.raises(ValueError, match="x"):
        Target(lambda data: int(data[:0] + b"x"), (b"",), 1).run(b"")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing_in_2000_runs(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install --group fuzz")
    argv = [
        sys.executable,
        "-m",
        f"tests.fuzz.{name}",
        "-atheris_runs=2000",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 2000 in" in done.stderr
