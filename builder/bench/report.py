"""Report: what was measured, for people (a Markdown table) and for programs (JSON).

Law: says what `stats` computed; pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from builder.bench.run import Measured
from builder.bench.stats import Cell, Mean, Ratio, Row, make_row, mean_by_program, mean_of_all, with_interval

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of `ocibuild bench`. `about` says what each image is; `left_out` why a benchmark was not tried at all.

    `mean` is the geometric mean of all results, `program_mean` that in which each program weighs as one, by image.
    """

    measured: Measured
    about: Mapping[str, str]
    baseline: str
    rounds: int
    rows: tuple[Row, ...]
    mean: Mapping[str, Ratio]
    program_mean: Mapping[str, Ratio]
    left_out: Mapping[str, str]


def make_report(
    measured: Measured, about: Mapping[str, str], *, baseline: str, rounds: int, left_out: Mapping[str, str]
) -> Report:
    """Compute everything that is said about the images in `about`."""
    programs = {task.name: task.benchmark.program for task in measured.tasks}
    others = [image for image in about if image != baseline]
    return Report(
        measured=measured,
        about=about,
        baseline=baseline,
        rounds=rounds,
        rows=tuple(make_row(name, programs[name], cells, baseline) for name, cells in measured.seconds.items()),
        mean=_means(measured.seconds, programs, baseline, others, mean_of_all),
        program_mean=_means(measured.seconds, programs, baseline, others, mean_by_program),
        left_out=left_out,
    )


def _means(
    seconds: Mapping[str, Mapping[str, Cell]],
    programs: Mapping[str, str],
    baseline: str,
    images: Sequence[str],
    mean: Mean,
) -> dict[str, Ratio]:
    """The mean of every image that has a result in common with the baseline."""
    found = {}
    for image in images:
        both = [(name, cells) for name, cells in seconds.items() if baseline in cells and image in cells]
        if both:
            pairs = [(programs[name], cells[baseline], cells[image]) for name, cells in both]
            found[image] = with_interval(pairs, mean)
    return found


def to_markdown(report: Report) -> str:
    """The table, what its figures mean, and what is not in it."""
    images = [report.baseline, *(image for image in report.about if image != report.baseline)]
    lines = [_line(["benchmark", *images]), _line(["---", *("--:" for _ in images)])]
    lines += (_line([row.name, *(_cell(row, image) for image in images)]) for row in report.rows)
    for title, means in (("geometric mean", report.mean), ("geometric mean of programs", report.program_mean)):
        if means:
            lines.append(_line([f"**{title}**", "1", *(_mean(means.get(image)) for image in images[1:])]))
    lines += ["", *_notes(report, images)]
    missing = [*(f"{name}: {because}" for name, because in report.left_out.items()), *_failures(report)]
    if missing:
        lines += ["", "Not measured:", "", *(f"- {line}" for line in missing)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, image: str) -> str:
    if image not in row.seconds:
        return "failed"
    ratio = row.ratios.get(image)
    return duration(row.seconds[image]) + (f", {ratio.value:.2f}" if ratio else "")


def _mean(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    interval = f" ({ratio.low:.3f} to {ratio.high:.3f})" if ratio.low < ratio.high else ""
    return f"**{ratio.value:.3f}**{interval}"


def _notes(report: Report, images: Sequence[str]) -> Iterator[str]:
    rounds = f"{report.rounds} round{'s' if report.rounds > 1 else ''}"
    if not report.measured.complete:
        rounds = f"at most {rounds}"
        yield f"Interrupted: {len(report.rows)} of {len(report.measured.tasks)} results."
    if len(images) > 1:
        yield f"Times are medians of {rounds}; the figure after them says how many times as fast as {report.baseline}"
        yield "that is. In brackets the 95% interval of the mean, by bootstrap over the rounds."
    else:
        yield f"Times are medians of {rounds}."
    yield ""
    yield from (f"- {image}: {report.about[image]}" for image in images)


def _failures(report: Report) -> Iterator[str]:
    """One line for each benchmark and reason, with the images it holds for."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for failure in report.measured.failures:
        grouped.setdefault((failure.name, failure.because), []).append(failure.image)
    for (name, because), images in grouped.items():
        where = "" if len(images) == len(report.about) else f" in {', '.join(images)}"
        yield f"{name}{where}: {because}"


def duration(seconds: float) -> str:
    """Three digits and a unit: `61.2 ms`."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), _UNITS[-1])
    value = seconds / size
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def to_dict(report: Report) -> dict[str, Any]:
    """Everything, down to each value, as JSON has it (docs/reference/bench.md)."""
    loops = {task.name: task.loops for task in report.measured.tasks}
    return {
        "images": dict(report.about),
        "baseline": report.baseline,
        "rounds": report.rounds,
        "complete": report.measured.complete,
        "geometric_mean": {image: asdict(ratio) for image, ratio in report.mean.items()},
        "geometric_mean_of_programs": {image: asdict(ratio) for image, ratio in report.program_mean.items()},
        "benchmarks": [
            {**asdict(row), "loops": loops[row.name], "values": report.measured.seconds[row.name]}
            for row in report.rows
        ],
        "left_out": dict(report.left_out),
        "failures": [asdict(failure) for failure in report.measured.failures],
    }
