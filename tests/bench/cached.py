"""What a build costs when its steps are in the store: `python -m tests.bench.cached [RECIPE] [ROUNDS] [STORE]`.

To be under 0.5 s: the whole command with every step there, and the image assembled from cached sections. To be under
0.3 s: the base layer from cached fragments. The first is a process, with its start; the others run in this one. The
store must have built the recipe before; it stays as it is: what is deleted are copies of its links.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from builder.app import find_recipe, read_lock
from builder.execute import execute
from builder.plan import Step, make_plan
from builder.progress import LineReporter
from builder.settings import read_settings
from builder.tools import Tools
from builder.wiring import open_tools
from tests.bench.timing import Contender, compare, machine

TOOL = str(Path(sys.executable).with_name("ocibuild"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Medians of wall and of CPU seconds (user and system), and the fastest wall."""

    wall: float
    cpu: float
    best: float


def main(recipe: str, rounds: int, store: str | None) -> None:
    """Measure and print."""
    gc.set_threshold(100_000)  # as the command does
    settings = read_settings({"store": store})
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        scratch = _scratch(Path(settings.store.value), place)
        lock = place / "lock.toml"
        found = find_recipe(recipe, lock=lock)
        with open_tools(read_settings({"store": str(scratch)}), LineReporter(StringIO())) as tools:
            plan = make_plan(found.recipe, read_lock(found, tools, locked=False, epoch=None))
            execute(plan, tools)
            argv = [TOOL, "recipe", recipe, "--lock", str(lock), "--output", str(place / "dist")]
            argv += ["--store", str(scratch)]
            command = compare([Contender(name="command", argv=argv)], rounds=rounds + 1)["command"]
            rows = {
                "nothing deleted, in this process": _measured(lambda: execute(plan, tools), plan, (), scratch, rounds),
                "image and layers from sections": _measured(
                    lambda: execute(plan, tools), plan, ("image", "layer", "layers"), scratch, rounds
                ),
                "base layer from fragments": _measured(
                    lambda: _base(plan, tools), plan, ("rootfs", "slim", "layer"), scratch, rounds
                ),
            }
        print(machine(), f"load {os.getloadavg()[0]:.1f} at the end", sep=", ")
        print(f"\n{recipe}, {rounds} rounds\n\n| | median, s | fastest, s | CPU, s |\n|---|---|---|---|")
        print(f"| the command, nothing deleted | {command.median:.3f} | {min(command.seconds):.3f} | |")
        for name, spent in rows.items():
            print(f"| {name} | {spent.wall:.3f} | {spent.best:.3f} | {spent.cpu:.3f} |")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _scratch(store: Path, place: Path) -> Path:
    """A store with the same blobs and links of its own; on the file system of the blobs, so that it can add some."""
    scratch = place / "store"
    scratch.mkdir()
    shutil.copytree(store / "links", scratch / "links")
    shutil.copytree(store / "blobs", scratch / "blobs", copy_function=_link_or_copy)
    return scratch


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _base(plan: Step, tools: Tools) -> None:
    """Have the lowest layer made."""
    lowest = next(step for step in plan.inputs if len(step.inputs) == 1)
    execute(lowest, tools)


def _measured(run: Callable[[], object], plan: Step, kinds: Iterable[str], store: Path, rounds: int) -> Spent:
    """Run, each time after the links of these kinds were deleted; one more run comes first, that is not counted."""
    gone = [store / "links" / step.key.hex for step in plan.walk() if step.kind in frozenset(kinds)]
    walls, cpus = [], []
    for _ in range(rounds + 1):
        for path in gone:
            path.unlink(missing_ok=True)
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Spent(wall=statistics.median(walls[1:]), cpu=statistics.median(cpus[1:]), best=min(walls[1:]))


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "wee",
        int(sys.argv[2]) if len(sys.argv) > 2 else 7,
        sys.argv[3] if len(sys.argv) > 3 else None,
    )
