"""What the command line costs when there is little or nothing to do: `python -m tests.bench.startup [RECIPE]`.

Processor time (user and system) counts: of runs this short the rest is the machine's.
With a RECIPE whose results are in the store, also that, with its lock, when nothing is left to be done.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.registry import docker_registry
from tests.bench.timing import Contender, machine

ROUNDS = 21
TOOL = str(Path(sys.executable).with_name("ocibuild"))


def main(recipe: str | None) -> None:
    """Everything, in turns."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        with docker_registry(place / "registry") as server:
            contenders = [
                Contender(name="python -c pass", argv=[sys.executable, "-c", "pass"]),
                Contender(name="ocibuild --version", argv=[TOOL, "--version"]),
                Contender(name="ocibuild settings", argv=[TOOL, "settings"]),
                *moving(place, f"{server.host}/bench/small"),
                *([building(place, recipe)] if recipe else []),
            ]
            print(machine())
            print(table(contenders))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def moving(place: Path, repository: str) -> list[Contender]:
    """Verbs on a small image that is in a layout and in the registry."""
    with tarfile.open(place / "files.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    layout, store = f"oci:{place / 'layout'}:x", ("--store", str(place / "store"))
    push = [TOOL, "push", layout, f"{repository}:x", "--plain-http", "--no-referrers", *store]
    for argv in ([TOOL, "pack", str(place / "files.tar"), "--output", layout, *store], push):
        subprocess.run(argv, check=True, capture_output=True)
    pulled = (place / "pulled", place / "new-store")
    to = [f"oci:{pulled[0]}:x", "--plain-http", "--no-referrers", "--store", str(pulled[1])]
    return [
        Contender(name="ocibuild push, all there", argv=push),
        Contender(name="ocibuild pull, small", argv=[TOOL, "pull", f"{repository}:x", *to], before=_without(*pulled)),
        Contender(name="ocibuild tags", argv=[TOOL, "tags", repository, "--plain-http", *store]),
        Contender(name="ocibuild inspect, a layout", argv=[TOOL, "inspect", layout, *store]),
    ]


def building(place: Path, recipe: str) -> Contender:
    """A recipe of which everything is in the user's own store."""
    argv = [TOOL, "recipe", recipe, "--output", str(place / "dist"), "--lock", str(place / "x.lock.toml")]
    subprocess.run(argv, check=True, capture_output=True)
    return Contender(name=f"ocibuild recipe {recipe}, all there", argv=argv)


def table(contenders: Sequence[Contender]) -> str:
    """Markdown: medians, in milliseconds."""
    runs: dict[str, list[tuple[float, float]]] = {one.name: [] for one in contenders}
    for _ in range(ROUNDS):
        for one in contenders:
            one.before()
            runs[one.name].append(spent(one.argv))
    rows = [
        f"| {name} | {statistics.median(cpu for cpu, _ in each) * 1e3:.0f} | {min(each)[0] * 1e3:.0f} "
        f"| {statistics.median(wall for _, wall in each) * 1e3:.0f} |"
        for name, each in runs.items()
    ]
    return "\n".join(["| | processor, ms | at least | wall, ms |\n|---|---|---|---|", *rows])


def spent(argv: Sequence[str]) -> tuple[float, float]:
    """Seconds of the processor, and of the wall's clock; a command that fails ends the comparison."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv} exited {process.returncode}")
    return usage.ru_utime + usage.ru_stime, wall


def _without(*places: Path) -> Callable[[], None]:
    def remove() -> None:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)

    return remove


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
