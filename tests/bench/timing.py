"""Time several commands side by side: in turns, so that what disturbs the machine disturbs them all; medians count."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One command; `before` (untimed) puts its place in order for each run."""

    name: str
    argv: Sequence[str]
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Wall seconds of each run, and the largest resident size (bytes) of any."""

    seconds: tuple[float, ...]
    peak: int

    @property
    def median(self) -> float:
        """Of the wall seconds."""
        return statistics.median(self.seconds)


def compare(contenders: Sequence[Contender], *, rounds: int) -> dict[str, Measured]:
    """Run each contender once a round; a command that fails ends the comparison."""
    runs: dict[str, list[tuple[float, int]]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            contender.before()
            runs[contender.name].append(timed(contender.argv))
    return {
        name: Measured(seconds=tuple(s for s, _ in listed), peak=max(peak for _, peak in listed))
        for name, listed in runs.items()
    }


def timed(argv: Sequence[str]) -> tuple[float, int]:
    """Wall seconds and the largest resident size (bytes) of a command; one that fails ends the comparison."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{argv} exited {process.returncode}: {said.read()[-2000:].decode(errors='replace')}")
    return seconds, usage.ru_maxrss * 1024


def table(results: Mapping[str, Measured], *, base: str) -> str:
    """A Markdown table; `base` is the contender the ratios are to."""
    reference = results[base].median
    rows = [
        f"| {name} | {measured.median:.3f} | {min(measured.seconds):.3f} to {max(measured.seconds):.3f} "
        f"| {reference / measured.median:.1f} | {measured.peak / 1e6:.0f} |"
        for name, measured in results.items()
    ]
    head = f"| | median, s | range, s | times faster than {base} | peak, MB |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


def machine() -> str:
    """What a figure was measured on."""
    with open("/proc/cpuinfo") as stream:  # noqa: PTH123 (a virtual file)
        model = next((line.partition(":")[2].strip() for line in stream if line.startswith("model name")), "?")
    return (
        f"{len(os.sched_getaffinity(0))} cores, {model}, Linux {platform.release().partition('-')[0]}, Python "
        + (sys.version.partition(" ")[0])
    )
