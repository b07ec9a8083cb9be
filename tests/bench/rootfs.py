"""Our rootfs beside mmdebstrap's, from one loopback mirror in one run: `python -m tests.bench.rootfs [ROUNDS]`.

As root: mmdebstrap's root mode is its fastest. The mirror keeps its files on disk after the first, untimed round.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from builder.python.packages import packages_for
from builder.settings import read_settings
from tests.bench.timing import Contender, compare, machine, table
from tests.peers.mirror import Mirror, serve

TOOL = str(Path(sys.executable).with_name("ocibuild"))
SUITES = (("debian", "trixie"), ("debian-security", "trixie-security"))


def main(rounds: int) -> None:
    """Measure minbase to a tar, and the toolchain to a directory, cold and warm."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        with serve(read_settings({}).mirrors, place / "mirror") as mirror:
            print(machine())
            os.environ |= {
                "OCIBUILD_MIRROR": f"{mirror.url}/debian",
                "OCIBUILD_SECURITY_MIRROR": f"{mirror.url}/debian-security",
            }
            for title, contenders in (
                ("minbase to a tar", minbase),
                ("CPython's toolchain, ready to enter", toolchain),
            ):
                listed = contenders(mirror, place)
                compare(listed, rounds=1)  # fills the mirror's cache
                print(f"\n{title}, {rounds} rounds\n")
                print(table(compare(listed, rounds=rounds), base="mmdebstrap"))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def minbase(mirror: Mirror, place: Path) -> list[Contender]:
    """mmdebstrap's minbase as a tar file, and ours."""
    ours = [TOOL, "rootfs", "trixie", "--output", str(place / "out.tar"), "--store"]
    return _contenders(mirror, place / "out.tar", ["--variant=minbase"], ours)


def toolchain(mirror: Mirror, place: Path) -> list[Contender]:
    """mmdebstrap's directory with the same packages, and ours, entered once."""
    peer = ["--variant=essential", f"--include={','.join(packages_for('trixie').toolchain)}"]
    return _contenders(mirror, place / "out", peer, [sys.executable, "-m", "tests.bench.enter"])


def _contenders(mirror: Mirror, target: Path, peer: list[str], ours: list[str]) -> list[Contender]:
    """mmdebstrap; ours on an empty store; ours on one that has done it before. Our argv ends with the store."""
    lines = [f"deb {mirror.url}/{archive} {suite} main" for archive, suite in SUITES]
    cold, warm = (target.with_name(f"{target.name}.{store}") for store in ("cold", "warm"))

    def clean() -> None:
        _aside(target)

    def empty() -> None:
        _aside(target)
        _aside(cold)

    return [
        Contender(
            name="mmdebstrap", argv=["mmdebstrap", "--mode=root", *peer, "trixie", str(target), *lines], before=clean
        ),
        Contender(name="ocibuild, empty store", argv=[*ours, str(cold)], before=empty),
        Contender(name="ocibuild, warm store", argv=[*ours, str(warm)], before=clean),
    ]


def _aside(path: Path) -> None:
    """Out of the way, removed at the end: for minutes after many files were, ext4 without a journal makes new ones
    three times as slowly (it goes round their inodes)."""
    if path.exists():
        path.rename(path.with_name(f"{path.name}.{time.monotonic_ns()}"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
