"""Statistics of bench, against answers known beforehand."""

from __future__ import annotations

import math

import pytest

from builder.bench.stats import (
    Cell,
    Ratio,
    geometric_mean,
    make_row,
    mean_by_program,
    mean_of_all,
    seconds_of,
    with_interval,
)


@pytest.mark.parametrize(("ratios", "mean"), [([2.0, 0.5], 1.0), ([1, 10, 100], 10.0), ([1.5], 1.5), ([2, 8], 4.0)])
def test_geometric_mean(ratios: list[float], mean: float) -> None:
    assert geometric_mean(ratios) == pytest.approx(mean)


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no ratios"):
        geometric_mean([])


def test_a_program_with_many_results_weighs_as_one_by_program_only() -> None:
    rows = [("a", 4.0), ("a", 4.0), ("a", 4.0), ("b", 1.0)]
    assert mean_by_program(rows) == pytest.approx(2.0)
    assert mean_of_all(rows) == pytest.approx(4 ** (3 / 4))


def test_a_cell_is_the_median_of_its_rounds_medians() -> None:
    assert seconds_of([[1, 2, 90], [3, 3, 3], [50, 60, 70]]) == 3
    assert seconds_of([[5.0]]) == 5


def test_a_row_compares_round_with_round() -> None:
    row = make_row("x", "p", {"base": [[2.0], [4.0], [8.0]], "other": [[1.0], [4.0], [2.0]]}, "base")
    assert row.seconds == {"base": 4.0, "other": 2.0}
    assert row.ratios == {"other": Ratio(value=2.0, low=1.0, high=4.0)}


def test_without_the_baseline_a_row_has_times_only() -> None:
    row = make_row("x", "p", {"other": [[1.0]]}, "base")
    assert (row.seconds, row.ratios) == ({"other": 1.0}, {})


def pairs(noise: float, rounds: int = 3) -> list[tuple[str, Cell, Cell]]:
    """Forty benchmarks in which the image is 1.25 times as fast, disturbed by up to `noise` in turn."""
    return [
        (
            f"p{n}",
            [[1.0 + noise * math.sin(7 * n + r)] for r in range(rounds)],
            [[0.8 * (1.0 + noise * math.cos(5 * n + 3 * r))] for r in range(rounds)],
        )
        for n in range(40)
    ]


def test_without_noise_the_interval_is_the_mean() -> None:
    found = with_interval(pairs(0), mean_of_all)
    assert (found.low, found.value, found.high) == pytest.approx((1.25, 1.25, 1.25))


def test_the_interval_holds_the_truth_and_grows_with_the_noise() -> None:
    little, much = with_interval(pairs(0.02), mean_of_all), with_interval(pairs(0.2), mean_of_all)
    assert little.low < 1.25 < little.high
    assert much.low < 1.25 < much.high
    assert 3 * (little.high - little.low) < much.high - much.low < 0.5


def test_the_same_figures_give_the_same_interval() -> None:
    assert with_interval(pairs(0.1), mean_by_program) == with_interval(pairs(0.1), mean_by_program)


def test_one_round_has_no_interval() -> None:
    found = with_interval(pairs(0.1, rounds=1), mean_of_all)
    assert found.low == found.value == found.high


def test_who_is_compared_with_whom_changes_the_sign_only() -> None:
    there = with_interval(pairs(0.1), mean_of_all)
    back = with_interval([(name, cell, base) for name, base, cell in pairs(0.1)], mean_of_all)
    assert back.value == pytest.approx(1 / there.value)
    assert back.low == pytest.approx(1 / there.high, rel=1e-3)
