"""The suite as pyperformance's wheel says it, and the wheels it needs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile

import pytest

from builder.bench.suite import PROGRAMS, Benchmark, choose, read_suite, split
from builder.bench.wheels import fetch_wheels, lay_out, pins
from rootfs.errors import TransferError, UsageError
from tests.fakes.reporter import ListReporter

FILES = {
    "MANIFEST": "[benchmarks]\n\nname\tmetafile\nnbody\t<local>\nslow\t<local:nbody>\n#gone\t<local>\nweb\t<local>\n"
    "[group default]\nnbody\n",
    "bm_nbody/pyproject.toml": '[project]\nname = "nbody"\n[tool.pyperformance]\nname = "nbody"\n',
    "bm_nbody/bm_slow.toml": '[tool.pyperformance]\nextra_opts = ["--slow", "1"]\n',
    "bm_nbody/run_benchmark.py": "",
    "bm_web/pyproject.toml": '[project]\nname = "web"\n',
    "bm_web/requirements.txt": "Django==3.2.4\n# a comment\ngreenlet==3\nzope.x[all]==1 \n",
}


def wheel(path: Path, files: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def performance(tmp_path: Path) -> Path:
    return wheel(tmp_path / "pyperformance-1-py3-none-any.whl", {PROGRAMS + name: FILES[name] for name in FILES})


def test_the_wheel_says_what_there_is(performance: Path) -> None:
    assert read_suite(performance) == (
        Benchmark(name="nbody", program="bm_nbody"),
        Benchmark(name="slow", program="bm_nbody", options=("--slow", "1")),
        Benchmark(name="web", program="bm_web", needs=("django", "zope-x", "setuptools")),
    )


def test_names_are_chosen_in_the_suites_order(performance: Path) -> None:
    suite = read_suite(performance)
    assert [benchmark.name for benchmark in choose(suite, ["web", "nbody"])] == ["nbody", "web"]


@pytest.mark.parametrize(("name", "hint"), [("nbdy", "did you mean nbody?"), ("zzz", "there are nbody, slow, web")])
def test_a_name_that_is_none_is_refused_with_what_comes_near(name: str, hint: str, performance: Path) -> None:
    with pytest.raises(UsageError) as caught:
        choose(read_suite(performance), ["web", name])
    assert caught.value.message == f"no such benchmark: {name}"
    assert caught.value.hint == hint


def test_what_needs_a_wheel_that_we_do_not_have_is_left_out_by_name(performance: Path) -> None:
    can, reasons = split(read_suite(performance), {"django", "setuptools"})
    assert [benchmark.name for benchmark in can] == ["nbody", "slow"]
    assert list(reasons) == ["web"]
    assert "zope-x" in reasons["web"]


def test_every_line_of_wheels_txt_is_a_pin_or_a_comment() -> None:
    text = (Path(__file__).parents[2] / "builder/bench/wheels.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert sorted(pins().values()) == sorted(lines)
    assert {"pyperf", "pyperformance"} <= pins().keys()


def test_a_damaged_wheel_is_fetched_anew_and_pip_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    (tmp_path / "six-1.16.0-py2.py3-none-any.whl").write_bytes(b"not what it was")
    with pytest.raises(TransferError) as caught:
        fetch_wheels(["six"], tmp_path, ListReporter())
    assert "six" in (caught.value.because or "")
    assert [path.name for path in tmp_path.iterdir()] == ["six-1.16.0-py2.py3-none-any.whl"]


def test_a_wheel_that_is_there_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    monkeypatch.setattr("builder.bench.wheels.pins", lambda: {"a-b": f"a-b==1 --hash=sha256:{digest}"})
    path = tmp_path / "A_b-1-py3-none-any.whl"
    path.write_bytes(b"x")
    assert fetch_wheels(["a-b"], tmp_path, ListReporter()) == {"a-b": path}


def test_a_run_gets_the_programs_it_wants_and_no_extension_modules(performance: Path, tmp_path: Path) -> None:
    wheels = {
        "pyperformance": performance,
        "fast": wheel(tmp_path / "fast-1.whl", {"fast/__init__.py": "", "fast/_speed.cpython-39.so": ""}),
        "setuptools": wheel(tmp_path / "setuptools-1.whl", {"setuptools/_distutils/version.py": "x = 1\n"}),
    }
    seen = tmp_path / "seen"
    lay_out(["bm_nbody"], wheels, seen)
    files = sorted(path.relative_to(seen).as_posix() for path in seen.rglob("*") if path.is_file())
    assert files == [
        f"programs/{PROGRAMS}bm_nbody/bm_slow.toml",
        f"programs/{PROGRAMS}bm_nbody/pyproject.toml",
        f"programs/{PROGRAMS}bm_nbody/run_benchmark.py",
        "wheels/fast/fast/__init__.py",
        "wheels/setuptools/setuptools/_distutils/version.py",
    ]
    assert (seen / "wheels/setuptools/distutils/version.py").read_text() == "x = 1\n"
