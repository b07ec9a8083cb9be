"""What bench says: the table, the JSON, the plot."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from builder.bench.plot import to_svg
from builder.bench.report import Report, duration, make_report, to_dict, to_markdown
from builder.bench.run import Failure, Measured, Task
from builder.bench.suite import Benchmark
from builder.cli import run

SVG = "{http://www.w3.org/2000/svg}"
SECONDS = {
    "go": {"old": [[0.2], [0.2]], "new": [[0.1], [0.1]], "<other>": [[0.4], [0.4]]},
    "fft": {"old": [[1.0], [1.0]], "new": [[2.0], [2.0]], "<other>": [[4.0], [4.0]]},
    "lu": {"old": [[3.0], [3.0]], "new": [[1.5], [1.5]]},
}


def report(seconds: dict[str, dict[str, list[list[float]]]], *images: str) -> Report:
    tasks = tuple(
        Task(name=name, benchmark=Benchmark(name=name, program=program), number=0, loops=1, seconds=0.1)
        for name, program in (("go", "bm_go"), ("fft", "bm_scimark"), ("lu", "bm_scimark"))
    )
    failures = (
        Failure(name="lu", image="<other>", because="ImportError: x"),
        *(Failure(name="sql", image=image, because="no sqlite3") for image in images),
    )
    measured = Measured(tasks=tasks, seconds=seconds, failures=failures)
    about = {image: f"Python of {image}" for image in images}
    return make_report(measured, about, baseline="old", rounds=2, left_out={"dask": "compiled"})


def test_the_table_has_every_benchmark_and_the_means() -> None:
    text = to_markdown(report(SECONDS, "old", "new", "<other>"))
    assert text.splitlines()[:7] == [
        "| benchmark | old | new | <other> |",
        "| --- | --: | --: | --: |",
        "| go | 200 ms | 100 ms, 2.00 | 400 ms, 0.50 |",
        "| fft | 1.00 s | 2.00 s, 0.50 | 4.00 s, 0.25 |",
        "| lu | 3.00 s | 1.50 s, 2.00 | failed |",
        "| **geometric mean** | 1 | **1.260** | **0.354** |",
        "| **geometric mean of programs** | 1 | **1.414** | **0.354** |",
    ]


def test_a_mean_has_its_interval() -> None:
    noisy = {"go": {"old": [[2.0], [2.0], [2.0]], "new": [[1.0], [2.0], [4.0]]}}
    assert "| **geometric mean** | 1 | **1.000** (0.500 to 2.000) |" in to_markdown(report(noisy, "old", "new"))


def test_below_the_table_is_what_it_lacks_and_why() -> None:
    text = to_markdown(report(SECONDS, "old", "new", "<other>"))
    assert text.endswith("Not measured:\n\n- dask: compiled\n- lu in <other>: ImportError: x\n- sql: no sqlite3\n")
    assert "- new: Python of new\n" in text


def test_one_image_has_times_only() -> None:
    text = to_markdown(report({"go": {"old": [[0.2], [0.2]]}}, "old"))
    assert text.splitlines()[2] == "| go | 200 ms |"
    assert "mean" not in text
    assert "times as fast" not in text


def test_what_ctrl_c_ended_says_so() -> None:
    whole = report({"go": SECONDS["go"]}, "old", "new")
    cut = replace(whole, measured=replace(whole.measured, complete=False))
    assert "Interrupted: 1 of 3 results.\nTimes are medians of at most 2 rounds;" in to_markdown(cut)
    assert "Interrupted" not in to_markdown(whole)
    assert [to_dict(one)["complete"] for one in (whole, cut)] == [True, False]


def test_json_holds_every_value() -> None:
    value = json.loads(json.dumps(to_dict(report(SECONDS, "old", "new", "<other>"))))
    assert value["geometric_mean"]["new"]["value"] == pytest.approx(4 ** (1 / 6))
    assert value["benchmarks"][0]["values"] == SECONDS["go"]
    assert value["benchmarks"][0]["ratios"]["new"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert value["failures"][0] == {"name": "lu", "image": "<other>", "because": "ImportError: x"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.50 s"), (1.0, "1.00 s"), (0.0612, "61.2 ms"), (0.25, "250 ms"), (1.5e-5, "15.0 µs"), (3e-10, "0.30 ns")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_plot_is_well_formed_and_the_same_every_time() -> None:
    one, other = (report(SECONDS, "old", "new", "<other>") for _ in range(2))
    text = to_svg(one.rows, one.mean, one.baseline)
    assert text == to_svg(other.rows, other.mean, other.baseline)
    root = ET.fromstring(text)
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("height") == "10"]
    assert len(bars) == 5
    labels = [label.text or "" for label in root.iter(f"{SVG}text")]
    assert labels[1:4] == ["go", "lu", "fft"]
    assert any(label.startswith("<other>: 0.354") for label in labels)


def test_a_bar_twice_as_fast_is_as_long_as_one_half_as_fast() -> None:
    one = report(SECONDS, "old", "new")
    root = ET.fromstring(to_svg(one.rows, one.mean, one.baseline))
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("height") == "10"]
    widths = [float(bar.get("width", "0")) for bar in bars]
    assert widths[0] == pytest.approx(widths[2], abs=0.2)
    assert float(bars[0].get("x", "0")) == pytest.approx(float(bars[2].get("x", "0")) + widths[2], abs=0.2)


@pytest.mark.parametrize(
    "argv",
    [[], ["dir:/nowhere"], ["dir:/", "--svg", "x.svg"], ["dir:/", "--rounds", "0"], ["no-such-image"]],
)
def test_a_wrong_command_line_exits_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *argv]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
