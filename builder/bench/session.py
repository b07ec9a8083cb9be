"""Session: what `ocibuild bench` does, from the names of images to a report.

Law: calls the modules in order and cleans up; decides which benchmarks are run, nothing about how.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from builder.bench.report import Report, make_report
from builder.bench.run import measure
from builder.bench.subject import open_subjects
from builder.bench.suite import Benchmark, choose, read_suite, split
from builder.bench.wheels import BENCHMARKS, WORKER, fetch_wheels, lay_out, pins
from builder.bench.worker import Worker
from builder.tools import Tools
from rootfs.errors import UsageError
from rootfs.files import host_error

_BUSY = 1.0
"""Load from which on something else must be running."""


def run_bench(
    images: Sequence[str], tools: Tools, *, cache: Path, names: Sequence[str], baseline: str | None, rounds: int
) -> Report:
    """Measure the benchmarks of these `names` (none: all) in images as the user calls them; wheels are kept in `cache`.

    UsageError for an image, a benchmark or a baseline that is not there.
    """
    subjects = open_subjects(images, tools)
    base = baseline or subjects[0].name
    if base not in [subject.name for subject in subjects]:
        known = ", ".join(subject.name for subject in subjects)
        raise UsageError(f"no image is called {base}", hint=f"they are called {known}")
    place = _new_directory(cache)
    try:
        worker = Worker(place=place, sandbox=tools.sandbox)
        about = {subject.name: worker.describe(subject) for subject in subjects}
        benchmarks, left_out = _prepare(names, tools, cache, place / "seen")
        if (load := os.getloadavg()[0]) > _BUSY:
            tools.reporter.note(f"this machine is busy (load {load:.1f}): the figures will be noisy")
        measured = measure(benchmarks, subjects, worker, tools.reporter, rounds=rounds)
        return make_report(measured, about, baseline=base, rounds=rounds, left_out=left_out)
    finally:
        tools.sandbox.remove(place)


def _new_directory(cache: Path) -> Path:
    """A directory of this run's own, with `seen/` in it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=cache, prefix="run-"))
        (place / "seen").mkdir()
    except OSError as error:
        raise host_error(error, cache) from error
    return place


def _prepare(
    names: Sequence[str], tools: Tools, cache: Path, seen: Path
) -> tuple[tuple[Benchmark, ...], dict[str, str]]:
    """The benchmarks to run, ready in `seen`, and why others cannot be."""
    wheels = fetch_wheels([BENCHMARKS, WORKER], cache, tools.reporter)
    suite = read_suite(wheels[BENCHMARKS])
    benchmarks, left_out = split(choose(suite, names) if names else suite, pins())
    needs = sorted({need for benchmark in benchmarks for need in benchmark.needs})
    wheels |= fetch_wheels(needs, cache, tools.reporter)
    lay_out((benchmark.program for benchmark in benchmarks), wheels, seen)
    return benchmarks, left_out
