"""Worker: one process of one benchmark in one image, with pyperf's worker in it.

Law: knows the sandbox, pyperf's command line and its JSON; not turns, not statistics. All processes share one CPU and
one set of files, which any root shows at /tmp/bench (its /tmp is the sandbox's own); there is no network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.bench.suite import PROGRAMS, Benchmark
from builder.bench.wheels import WORKER
from rootfs.errors import BuildError, UsageError
from rootfs.ports import Bind, Command, Sandbox

_SEEN = "/tmp/bench"  # noqa: S108 - the sandbox's, not the host's
_LONGEST = 600
"""Seconds after which a process is taken for one that hangs."""
_OLDEST = [3, 9]
_PROBE = (
    "import json, platform, sys;"
    "print(json.dumps([list(sys.version_info[:2]), platform.python_version(), platform.python_compiler()]))"
)
# The alarm and the CPU outlive the exec, and so the process that is measured is an ordinary one.
_BEGIN = (
    "import os, signal, sys;"
    f"signal.alarm({_LONGEST});"
    "os.sched_setaffinity(0, {max(os.sched_getaffinity(0))});"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_ALARM = 128 + 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An image to measure: its root directory, its interpreter (a path, or a name in PATH) and its environment."""

    name: str
    root: Path
    python: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One of a program's results. `first` and `values` are seconds of one loop: thrown away, and measured.

    A value was taken over `loops`, of `inner` repetitions each.
    """

    name: str
    loops: int
    inner: int
    first: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """`place` holds `seen/` as `wheels.lay_out` made it, where programs may write, and gets the log."""

    place: Path
    sandbox: Sandbox

    def describe(self, subject: Subject) -> str:
        """The image's Python version and compiler; UsageError for a version that pyperf has no worker for."""
        lines = self._run(subject, (subject.python, "-I", "-c", _PROBE), {})
        try:
            version, text, compiler = json.loads(lines[-1])
        except (ValueError, IndexError) as error:
            raise BuildError(f"{subject.python} is no Python", at=subject.name, because="\n".join(lines)) from error
        if version < _OLDEST:
            raise UsageError(f"cannot measure Python {text}", at=subject.name, because="pyperf wants 3.9 or later")
        return f"Python {text}, {compiler}"

    def run(self, subject: Subject, benchmark: Benchmark, options: Sequence[str], *, seed: int) -> list[Result]:
        """Run pyperf's worker with these options of its own; BuildError whose `because` is the last line it said."""
        output = self.place / "seen" / "out.json"
        output.unlink(missing_ok=True)
        program = f"{_SEEN}/programs/{PROGRAMS}{benchmark.program}"
        paths = [f"{_SEEN}/wheels/{name}" for name in (WORKER, *benchmark.needs)]
        argv = (
            *(subject.python, "-I", "-S", "-c", _BEGIN),
            *(f"{program}/run_benchmark.py", *benchmark.options),
            *("--worker", f"--output={_SEEN}/out.json", *options),
        )
        # vendor/src: what 2to3 would have pip install from 3.13 on
        environment = {"PYTHONPATH": ":".join([*paths, f"{program}/vendor/src"]), "PYTHONHASHSEED": str(seed)}
        self._run(subject, argv, environment)
        try:
            return list(_results(json.loads(output.read_bytes())))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{benchmark.name} gave no result", because=repr(error)) from error

    def _run(self, subject: Subject, argv: tuple[str, ...], environment: Mapping[str, str]) -> list[str]:
        """Run a program of the image; the lines of its output."""
        lines: list[str] = []
        outcome = self.sandbox.run(
            Command(
                root=subject.root,
                argv=argv,
                environment={**subject.environment, "HOME": "/tmp", "LANG": "C.UTF-8", **environment},  # noqa: S108
                binds=(Bind(source=self.place / "seen", target=_SEEN, writable=True),),
                log=self.place / "log",
                on_line=lines.append,
            )
        )
        if outcome.exit == _ALARM:
            raise BuildError(f"{argv[0]} hangs in {subject.name}", because=f"no result in {_LONGEST} s")
        if outcome.exit:
            said = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {outcome.exit}")
            raise BuildError(f"{argv[0]} failed in {subject.name}", because=said)
        return lines


def _results(suite: Mapping[str, Any]) -> Iterator[Result]:
    """pyperf's JSON (its documentation: JSON format). What all runs share stands in the outer `metadata`."""
    for benchmark in suite["benchmarks"]:
        (run,) = benchmark["runs"]
        known = {**suite.get("metadata", {}), **benchmark.get("metadata", {}), **run.get("metadata", {})}
        yield Result(
            name=str(known["name"]),
            loops=int(known.get("loops", 1)),
            inner=int(known.get("inner_loops", 1)),
            first=tuple(float(value) for _, value in run.get("warmups", ())),
            values=tuple(float(value) for value in run.get("values", ())),
        )
