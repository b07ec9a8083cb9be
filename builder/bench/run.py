"""Run: benchmarks in images, in turns, so that whatever else the machine does hits all images alike.

Law: decides who runs when, and how often; judges nothing (`stats` does). In each round every benchmark runs in every
image, one process each: the same number of loops everywhere, the same hash seed in a round, the images in another
order each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.bench.suite import Benchmark
from builder.bench.worker import Result, Subject, Worker
from rootfs.errors import BuildError
from rootfs.ports import Reporter

_VALUES = 3
_LONGEST_VALUES = 1.2
"""Seconds that the values of one process may take together, if it would be more than one value."""
_LONGEST_WARMUP = 2.0
"""Seconds from which on a value needs no other before it: what is done the first time is a small part of it."""
_OVERHEAD = 0.4
"""Seconds that a process takes beside what it measures, for the estimate."""

_Seconds = dict[str, dict[str, list[tuple[float, ...]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One result of a benchmark's program, the `number`th. A value is that of `loops`, which take some `seconds`."""

    name: str
    benchmark: Benchmark
    number: int
    loops: int
    seconds: float

    @property
    def values(self) -> int:
        """How many values one process measures: fewer of those that take long."""
        return max(1, min(_VALUES, int(_LONGEST_VALUES / self.seconds)))

    @property
    def warmups(self) -> int:
        """How many it throws away before."""
        return 1 if self.seconds < _LONGEST_WARMUP else 0

    @property
    def options(self) -> tuple[str, ...]:
        """What pyperf's worker is told."""
        return (
            f"--worker-task={self.number}",
            f"--loops={self.loops}",
            f"--values={self.values}",
            f"--warmups={self.warmups}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a benchmark, or one task of it, has no figure in an image."""

    name: str
    image: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was run; seconds of one loop by task, image, round and value; what failed.

    An image in which a task ever failed has no seconds of it. After Ctrl-C it is not `complete`: of each task there are
    the rounds that all its images had, and tasks without one are left out.
    """

    tasks: tuple[Task, ...]
    seconds: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    failures: tuple[Failure, ...]
    complete: bool = True


def measure(
    benchmarks: Sequence[Benchmark], subjects: Sequence[Subject], worker: Worker, reporter: Reporter, *, rounds: int
) -> Measured:
    """Run every benchmark in every image, `rounds` times. One that fails is a Failure, never the end of the others.

    KeyboardInterrupt only when nothing was measured before it.
    """
    tasks, failures = _calibrate(benchmarks, subjects, worker, reporter)
    failed = {(failure.name, failure.image): failure for failure in failures}
    seconds: _Seconds = {task.name: {} for task in tasks}
    reporter.note(_estimate(tasks, len(subjects), rounds))
    reporter.begin("measure", total=len(tasks) * len(subjects) * rounds, unit="runs")
    complete = False
    try:
        for turn in range(rounds):
            for place, task in enumerate(tasks):
                first = (turn + place) % len(subjects)
                for subject in (*subjects[first:], *subjects[:first]):
                    if not _names(task, subject) & failed.keys():
                        try:
                            (result,) = worker.run(subject, task.benchmark, task.options, seed=turn + 1)
                            seconds[task.name].setdefault(subject.name, []).append(result.values)
                        except BuildError as error:
                            failed[task.name, subject.name] = _failure(task.name, subject, error)
                            seconds[task.name].pop(subject.name, None)
                    reporter.advance("measure", 1)
        complete = True
    except KeyboardInterrupt:
        seconds = _even(seconds, tasks, [{s.name for s in subjects if not _names(t, s) & failed.keys()} for t in tasks])
        if not seconds:
            raise
    reporter.finish("measure", "done" if complete else "interrupted")
    return Measured(tasks=tuple(tasks), seconds=seconds, failures=tuple(failed.values()), complete=complete)


def _names(task: Task, subject: Subject) -> set[tuple[str, str]]:
    """Under which names a failure of the task in an image is known."""
    return {(task.name, subject.name), (task.benchmark.name, subject.name)}


def _even(seconds: _Seconds, tasks: Sequence[Task], images: Sequence[set[str]]) -> _Seconds:
    """Of each task the rounds that all of its images have, where there is one."""
    found: _Seconds = {}
    for task, able in zip(tasks, images, strict=True):
        cells = seconds[task.name]
        rounds = min((len(cells.get(image, ())) for image in able), default=0)
        if rounds:
            found[task.name] = {image: values[:rounds] for image, values in cells.items()}
    return found


def _calibrate(
    benchmarks: Sequence[Benchmark], subjects: Sequence[Subject], worker: Worker, reporter: Reporter
) -> tuple[list[Task], list[Failure]]:
    """The tasks of each benchmark and their loops, so many that a value takes 0.1 s in the first image that can."""
    tasks: list[Task] = []
    failures: list[Failure] = []
    reporter.begin("calibrate", total=len(benchmarks), unit="benchmarks")
    for benchmark in benchmarks:
        for subject in subjects:
            try:
                results = worker.run(
                    subject, benchmark, ("--calibrate-loops", "--min-time=0.1", "--warmups=1", "--values=1"), seed=1
                )
            except BuildError as error:
                failures.append(_failure(benchmark.name, subject, error))
            else:
                tasks += (_task(benchmark, number, result) for number, result in enumerate(results))
                break
        reporter.advance("calibrate", 1)
    reporter.finish("calibrate", f"{len(tasks)} results of {len(benchmarks)} benchmarks")
    return tasks, failures


def _task(benchmark: Benchmark, number: int, result: Result) -> Task:
    seconds = result.loops * result.inner * result.first[-1]
    return Task(name=result.name, benchmark=benchmark, number=number, loops=result.loops, seconds=seconds)


def _failure(name: str, subject: Subject, error: BuildError) -> Failure:
    return Failure(name=name, image=subject.name, because=error.because or error.message)


def _estimate(tasks: Sequence[Task], images: int, rounds: int) -> str:
    one = sum(_OVERHEAD + task.seconds * (task.warmups + task.values) for task in tasks)
    seconds = one * images * rounds
    time = f"{seconds / 60:.0f} minutes" if seconds > 120 else f"{seconds:.0f} s"
    return f"{len(tasks)} results, {images} images, {rounds} rounds: about {time}"
