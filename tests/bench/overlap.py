"""What a push costs that overlaps the build: `python -m tests.bench.overlap [RECIPE] [ROUNDS] [STORE]`.

A docker-registry at the far end of `tests.bench.link`. `recipe --push` beside the same work in pieces: `recipe` and
`verify`, then `push` of the finished layout. Twice: with only the image's step and its verification left to do (the
layers are there), and with the layers to be made anew, of which nothing compressed is kept. To be shown: together it
takes as long as the longer one and a few round trips, so the push adds less than it takes by itself. Each once a round,
in turns; medians count. The store must have built the recipe before; it stays as it is: what is deleted are copies of
its links.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

from builder.app import find_recipe, read_lock
from builder.execute import execute
from builder.plan import make_plan
from builder.progress import LineReporter
from builder.settings import read_settings
from builder.wiring import open_tools
from tests.bench.cached import _scratch
from tests.bench.link import link
from tests.bench.registry import TOOL, Server, docker_registry
from tests.bench.timing import machine, timed

REDONE = {"image and verification": ("image",), "layers, image and verification": ("layer", "layers", "image")}


def main(recipe: str, rounds: int, store: str | None) -> None:
    """Measure and print."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        scratch, lock = _scratch(Path(read_settings({"store": store}).store.value), place), place / "lock.toml"
        with open_tools(read_settings({"store": str(scratch)}), LineReporter(StringIO())) as tools:
            found = find_recipe(recipe, lock=lock)
            plan = make_plan(found.recipe, read_lock(found, tools, locked=False, epoch=None))
            execute(plan, tools)
        common = ["--store", str(scratch)]
        build = [TOOL, "recipe", recipe, "--locked", "--lock", str(lock), "--output", str(place / "dist"), *common]
        layout = str(place / "dist" / found.recipe.name)
        with link() as line, docker_registry(place / "far", line) as server:
            print(f"{machine()}\n\n{recipe}, {rounds} rounds, {line}\n")
            print("| left to do | build, s | push, s | together, s | the push adds, s |\n|---|---|---|---|---|")
            for title, kinds in REDONE.items():
                kept = [step.key.hex for step in plan.walk() if step.kind not in kinds]
                runs = [_round(build, layout, common, server, scratch, kept) for _ in range(rounds + 1)][1:]
                built, pushed, both = (statistics.median(one) for one in zip(*runs, strict=True))
                cells = [f"{seconds:.2f}" for seconds in (built, pushed, both, both - built)]
                print(f"| {title} | {' | '.join(cells)} |", flush=True)
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _round(
    build: list[str], layout: str, common: list[str], server: Server, store: Path, kept: Iterable[str]
) -> tuple[float, float, float]:
    """Seconds of the build with its verification, of the push, and of both at once; each begins anew."""
    target = f"{server.host}/bench/{time.monotonic_ns()}:x"
    enter = list(server.enter)
    _reset(store, server, kept)
    built = timed([*enter, *build])[0] + timed([*enter, TOOL, "verify", layout, *common])[0]
    _reset(store, server, kept)
    pushed = timed([*enter, TOOL, "push", layout, target, "--plain-http", *common])[0]
    _reset(store, server, kept)
    both = timed([*enter, *build, "--push", f"{target}y", "--plain-http"])[0]
    return built, pushed, both


def _reset(store: Path, server: Server, kept: Iterable[str]) -> None:
    """The registry holds nothing, the store knows of the results that are kept alone, and no work is left over."""
    server.empty()
    keys = frozenset(kept)
    for path in (store / "links").iterdir():
        if path.name not in keys:
            path.unlink()
    shutil.rmtree(store / "registries", ignore_errors=True)
    shutil.rmtree(store / "work/roots", ignore_errors=True)
    os.sync()


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "wee",
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
        sys.argv[3] if len(sys.argv) > 3 else None,
    )
