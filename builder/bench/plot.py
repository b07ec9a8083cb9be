"""Plot: the ratios of a report as an SVG, one column an image, one bar a benchmark.

Law: pure; the same report gives the same text. A bar goes from 1 to the ratio on a logarithmic axis, so twice as fast
is as long as half as fast; the line across its end is the range of the rounds, the dashed line the geometric mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from builder.bench.stats import Ratio, Row

_LABELS, _COLUMN, _GAP, _ROW, _TOP, _BOTTOM = 220, 300, 24, 15, 64, 30
_TICKS = (0.1, 0.2, 0.25, 0.33, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 2.5, 3, 4, 5, 10)
_TICK_ROOM = 26
_FASTER, _SLOWER, _MEAN, _INK, _FAINT = "#4f9d69", "#d08a5b", "#1f3fa0", "#222222", "#d0d0d0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    """Where a ratio lies in a column that begins at `left`."""

    left: float
    low: float
    high: float

    def x(self, ratio: float) -> float:
        span = math.log(self.high) - math.log(self.low)
        return self.left + _COLUMN * (math.log(ratio) - math.log(self.low)) / span


def to_svg(rows: Sequence[Row], means: Mapping[str, Ratio], baseline: str) -> str:
    """The plot of every image that has a mean, its benchmarks sorted by the first one's ratios."""
    images = list(means)
    shown = sorted((row for row in rows if row.ratios), key=lambda row: _order(row, images))
    bounds = [bound for row in shown for ratio in row.ratios.values() for bound in (ratio.low, ratio.high, ratio.value)]
    low, high = min([*bounds, 0.9]) / 1.02, max([*bounds, 1.1]) * 1.02
    width = _LABELS + len(images) * (_COLUMN + _GAP)
    height = _TOP + len(shown) * _ROW + _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        '<g font-family="sans-serif" fill="#222222">',
        f"<title>{escape(', '.join(images))}: how many times as fast as {escape(baseline)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(8, 20, f"how many times as fast as {baseline}", size=13),
        *(_text(_LABELS - 8, _middle(n) + 4, row.name, anchor="end") for n, row in enumerate(shown)),
    ]
    for number, image in enumerate(images):
        axis = _Axis(left=_LABELS + number * (_COLUMN + _GAP), low=low, high=high)
        lines += _column(axis, image, means[image], shown)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _order(row: Row, images: Sequence[str]) -> tuple[float, str]:
    first = next(row.ratios[image] for image in images if image in row.ratios)
    return -first.value, row.name


def _column(axis: _Axis, image: str, mean: Ratio, rows: Sequence[Row]) -> Iterator[str]:
    bottom = _TOP + len(rows) * _ROW
    title = f"{image}: {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
    yield _text(axis.left + _COLUMN / 2, 40, title, anchor="middle", size=12)
    for tick in _spaced(axis):
        yield _rule(axis.x(tick), _TOP - 4, bottom, _INK if tick == 1 else _FAINT)
        yield _text(axis.x(tick), bottom + 14, f"{tick:g}", anchor="middle")
    for number, row in enumerate(rows):
        if image in row.ratios:
            yield from _bar(axis, row.name, row.ratios[image], _middle(number))
    yield _rule(axis.x(mean.value), _TOP - 8, bottom, _MEAN, dashed=True)


def _spaced(axis: _Axis) -> list[float]:
    """The ticks of the axis that have room: 1, and from there on outwards."""
    chosen: list[float] = []
    for tick in sorted((tick for tick in _TICKS if axis.low <= tick <= axis.high), key=lambda t: abs(math.log(t))):
        if all(abs(axis.x(tick) - axis.x(other)) >= _TICK_ROOM for other in chosen):
            chosen.append(tick)
    return sorted(chosen)


def _bar(axis: _Axis, name: str, ratio: Ratio, middle: float) -> Iterator[str]:
    start, end = sorted((axis.x(1), axis.x(ratio.value)))
    color = _FASTER if ratio.value >= 1 else _SLOWER
    yield (
        f'<rect x="{start:.1f}" y="{middle - 5:.1f}" width="{end - start:.1f}" height="10" fill="{color}">'
        f"<title>{escape(name)}: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})</title></rect>"
    )
    yield (
        f'<line x1="{axis.x(ratio.low):.1f}" x2="{axis.x(ratio.high):.1f}" y1="{middle:.1f}" y2="{middle:.1f}"'
        f' stroke="{_INK}"/>'
    )


def _middle(number: int) -> float:
    return _TOP + (number + 0.5) * _ROW


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _rule(x: float, top: float, bottom: float, color: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{color}"{dash}/>'
