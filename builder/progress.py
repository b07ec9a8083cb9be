"""Progress: the Reporter for a terminal (tqdm bars) and the one for everything else (plain lines).

Law: writes to the stream it is given (stderr), decides nothing. Standard output belongs to the result alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TextIO

from rootfs.ports import Reporter

if TYPE_CHECKING:
    from tqdm import tqdm


def make_reporter(stream: TextIO) -> Reporter:
    """Bars when the stream is a terminal, lines when it is not."""
    return BarReporter(stream) if stream.isatty() else LineReporter(stream)


class BarReporter:
    """One tqdm bar for each task under way."""

    def __init__(self, stream: TextIO) -> None:
        from tqdm import tqdm  # noqa: PLC0415 (a tenth of what a short run takes, and only terminals need it)

        self._tqdm = tqdm
        self._stream = stream
        self._lock = threading.Lock()
        self._bars: dict[str, tqdm[NoReturn]] = {}

    def begin(self, task: str, total: int | None = None, unit: str = "B") -> None:
        """Open a bar."""
        in_bytes = unit == "B"
        with self._lock:
            self._bars[task] = self._tqdm(
                desc=task,
                total=total,
                unit=unit,
                unit_scale=in_bytes,
                unit_divisor=1024,
                file=self._stream,
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self, task: str, amount: int) -> None:
        """Move a bar on."""
        with self._lock:
            if task in self._bars:
                self._bars[task].update(amount)

    def finish(self, task: str, result: str = "done") -> None:
        """Put a line in the bar's place."""
        with self._lock:
            bar = self._bars.pop(task, None)
            seconds = bar.format_dict["elapsed"] if bar is not None else 0.0
            if bar is not None:
                bar.close()
            self._tqdm.write(f"{task}: {result} ({seconds:.1f} s)", file=self._stream)

    def note(self, text: str) -> None:
        """A line above the bars."""
        with self._lock:
            self._tqdm.write(text, file=self._stream)


class LineReporter:
    """A line when a task begins and ends, and one now and then while it runs."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic, interval: float = 15.0) -> None:
        self._stream = stream
        self._clock = clock
        self._interval = interval
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}

    def begin(self, task: str, total: int | None = None, unit: str = "B") -> None:
        """Say that a task begins, and how much there is to do."""
        with self._lock:
            now = self._clock()
            self._tasks[task] = _Task(total=total, unit=unit, started=now, said=now)
            self._say(f"{task}: {_amount(total, unit)}" if total is not None else f"{task}: begins")

    def advance(self, task: str, amount: int) -> None:
        """Count; say so when the last line is old."""
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state.done += amount
            now = self._clock()
            if now - state.said >= self._interval:
                state.said = now
                of = f" of {_amount(state.total, state.unit)}" if state.total is not None else ""
                self._say(f"{task}: {_amount(state.done, state.unit)}{of}, {now - state.started:.0f} s")

    def finish(self, task: str, result: str = "done") -> None:
        """Say how a task ended and how long it took."""
        with self._lock:
            state = self._tasks.pop(task, None)
            seconds = self._clock() - state.started if state else 0.0
            self._say(f"{task}: {result} ({seconds:.1f} s)")

    def note(self, text: str) -> None:
        """A line of its own."""
        with self._lock:
            self._say(text)

    def _say(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class _Task:
    """Where a task stands."""

    def __init__(self, *, total: int | None, unit: str, started: float, said: float) -> None:
        self.total = total
        self.unit = unit
        self.started = started
        self.said = said
        self.done = 0


def _amount(number: int | None, unit: str) -> str:
    if unit != "B":
        return f"{number} {unit}"
    return f"{(number or 0) / 1e6:.1f} MB"
