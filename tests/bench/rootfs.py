"""Our rootfs beside mmdebstrap's, from one loopback mirror in one run: `python -m tests.bench.rootfs [ROUNDS]`.

As root: mmdebstrap's root mode is its fastest. The mirror keeps its files on disk after the first, untimed round.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from builder.python.flags import TOOLCHAIN_PACKAGES
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
            for title, contenders in (("minbase to a tar", minbase), ("toolchain to a directory", toolchain)):
                listed = contenders(mirror, place)
                compare(listed, rounds=1)  # fills the mirror's cache
                print(f"\n{title}, {rounds} rounds\n")
                print(table(compare(listed, rounds=rounds), base="mmdebstrap"))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def minbase(mirror: Mirror, place: Path) -> list[Contender]:
    return _contenders(mirror, place, "minbase", (), "out.tar")


def toolchain(mirror: Mirror, place: Path) -> list[Contender]:
    return _contenders(mirror, place, "essential", TOOLCHAIN_PACKAGES, "out")


def _contenders(mirror: Mirror, place: Path, variant: str, include: tuple[str, ...], output: str) -> list[Contender]:
    packages = [f"--include={','.join(include)}"] if include else []
    lines = [f"deb {mirror.url}/{archive} {suite} main" for archive, suite in SUITES]
    target = place / output
    peer = ["mmdebstrap", "--mode=root", f"--variant={variant}", *packages, "trixie", str(target), *lines]
    ours = [
        *(TOOL, "rootfs", "trixie", "--variant", variant, *packages, "--output", str(target)),
        *("--mirror", f"{mirror.url}/debian", "--security-mirror", f"{mirror.url}/debian-security"),
    ]

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)

    def empty() -> None:
        clean()
        shutil.rmtree(place / "cold", ignore_errors=True)

    return [
        Contender(name="mmdebstrap", argv=peer, before=clean),
        Contender(name="ocibuild, empty store", argv=[*ours, "--store", str(place / "cold")], before=empty),
        Contender(name="ocibuild, warm store", argv=[*ours, "--store", str(place / "warm")], before=clean),
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
