"""Statistics: from the seconds of many runs to ratios, geometric means and how far they can be trusted.

Law: arithmetic only; the random numbers of the bootstrap come from a fixed seed, so the same figures give the same
answer. A ratio says how many times as fast as the baseline an image is: above 1 it is faster.

A cell is what one image did in one benchmark: for each round, the values (seconds) of its one process. A round counts
by its median, a cell by the median of its rounds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Cell = Sequence[Sequence[float]]
_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`value` times as fast, and the bounds it was seen or is believed to lie in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A result of one benchmark program: median seconds, and ratios with the bounds of their rounds, by image.

    An image that could not run it is in neither; the baseline has no ratio.
    """

    name: str
    program: str
    seconds: Mapping[str, float]
    ratios: Mapping[str, Ratio]


def seconds_of(cell: Cell) -> float:
    """The median over rounds of each round's median."""
    return median(median(values) for values in cell)


def make_row(name: str, program: str, cells: Mapping[str, Cell], baseline: str) -> Row:
    """One row of the table. Without the baseline's cell there are no ratios."""
    base = cells.get(baseline)
    return Row(
        name=name,
        program=program,
        seconds={image: seconds_of(cell) for image, cell in cells.items()},
        ratios={} if base is None else {i: _ratio(base, cell) for i, cell in cells.items() if i != baseline},
    )


def _ratio(base: Cell, cell: Cell) -> Ratio:
    rounds = [median(before) / median(after) for before, after in zip(base, cell, strict=True)]
    return Ratio(value=seconds_of(base) / seconds_of(cell), low=min(rounds), high=max(rounds))


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp of the mean of the logarithms; ValueError for none."""
    if not ratios:
        raise ValueError("no ratios")
    return math.exp(math.fsum(math.log(ratio) for ratio in ratios) / len(ratios))


def mean_by_program(rows: Sequence[tuple[str, float]]) -> float:
    """The geometric mean of (program, ratio)s in which every program weighs as one, however many results it gives."""
    by_program: dict[str, list[float]] = {}
    for program, ratio in rows:
        by_program.setdefault(program, []).append(ratio)
    return geometric_mean([geometric_mean(ratios) for ratios in by_program.values()])


Mean = Callable[[Sequence[tuple[str, float]]], float]


def mean_of_all(rows: Sequence[tuple[str, float]]) -> float:
    """The geometric mean of (program, ratio)s in which every result weighs as one, as in `pyperf compare_to`."""
    return geometric_mean([ratio for _, ratio in rows])


def with_interval(pairs: Sequence[tuple[str, Cell, Cell]], mean: Mean) -> Ratio:
    """The mean of the ratios of (program, the baseline's cell, the image's), with its 95% interval.

    Percentile bootstrap over rounds: each benchmark's rounds are drawn anew with replacement, the same ones for both
    images, which shared the machine's mood. It says how far the mean can be trusted as a figure of these benchmarks,
    nothing of others; with few rounds it is somewhat too narrow, and with one it is the mean itself.
    """
    medians = [
        (program, [median(values) for values in base], [median(values) for values in cell])
        for program, base, cell in pairs
    ]
    value = mean([(program, median(base) / median(cell)) for program, base, cell in medians])
    generator = random.Random(0)  # noqa: S311 - no secret
    drawn = sorted(mean([_redraw(*one, generator) for one in medians]) for _ in range(_RESAMPLES))
    tail = round(_RESAMPLES * (1 - _CONFIDENCE) / 2)
    return Ratio(value=value, low=min(value, drawn[tail]), high=max(value, drawn[-1 - tail]))


def _redraw(program: str, base: Sequence[float], cell: Sequence[float], generator: random.Random) -> tuple[str, float]:
    rounds = generator.choices(range(len(base)), k=len(base))
    return program, median(base[r] for r in rounds) / median(cell[r] for r in rounds)
