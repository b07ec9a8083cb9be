"""Benchmarks in turns: who runs when, with what, and what becomes of those that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.bench.run import Failure, Measured, Task, measure
from builder.bench.subject import Named, open_subjects
from builder.bench.suite import Benchmark
from builder.bench.worker import Subject, Worker
from builder.tools import Tools
from rootfs.errors import BuildError, UsageError
from rootfs.ports import Command, Request, Response
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import Played, ScriptedSandbox
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport

ONE = Benchmark(name="one", program="bm_one", options=("--size", "9"), needs=("django",))
TWO = Benchmark(name="two", program="bm_two")
RESULTS = {"bm_one": ["one"], "bm_two": ["two_a", "two_b"]}
Play = Callable[[Command], Played]


def subject(name: str) -> Subject:
    return Subject(name=name, root=Path("/roots") / name, python="python3", environment={"PATH": "/bin"})


def option(command: Command, name: str) -> str:
    return next((word.partition("=")[2] for word in command.argv if word.startswith(f"--{name}=")), "")


def program(command: Command) -> str:
    return next(word.split("/")[-2] for word in command.argv if word.endswith("run_benchmark.py"))


def pyperf(command: Command) -> Played:
    """What pyperf's worker writes: 4 loops of 0.05 s when it calibrates, else as many values as were wanted."""
    names = RESULTS[program(command)]
    task, values = option(command, "worker-task"), int(option(command, "values"))
    runs = {
        name: {"metadata": {"loops": 4, "inner_loops": 1}, "warmups": [[4, 0.05]]}
        | ({"values": [0.05] * values} if task else {})
        for name in ([names[int(task)]] if task else names)
    }
    benchmarks = [{"metadata": {"name": name}, "runs": [run]} for name, run in runs.items()]
    shared = benchmarks[0].pop("metadata") if len(benchmarks) == 1 else {}  # pyperf lifts what all have in common
    out = command.binds[0].source / "out.json"
    out.write_text(json.dumps({"version": "1.0", "metadata": shared, "benchmarks": benchmarks}))
    return Played()


def run(tmp_path: Path, play: Play, *names: str, rounds: int = 2) -> tuple[Measured, list[Command]]:
    (tmp_path / "seen").mkdir()
    sandbox = ScriptedSandbox(play)
    worker = Worker(place=tmp_path, sandbox=sandbox)
    images = [subject(name) for name in names]
    return measure([ONE, TWO], images, worker, ListReporter(), rounds=rounds), sandbox.commands


def test_images_take_turns_in_another_order_each_time(tmp_path: Path) -> None:
    measured, commands = run(tmp_path, pyperf, "a", "b", "c")
    assert [task.name for task in measured.tasks] == ["one", "two_a", "two_b"]
    turns = [command.root.name for command in commands if option(command, "worker-task")]
    assert "".join(turns) == "abcbcacabbcacababc"
    assert all(cells == {i: [(0.05,) * 3] * 2 for i in "abc"} for cells in measured.seconds.values())
    assert measured.failures == ()


def test_loops_are_found_once_and_the_hash_seed_is_the_rounds(tmp_path: Path) -> None:
    _, commands = run(tmp_path, pyperf, "a", "b")
    calibrating = [command for command in commands if "--calibrate-loops" in command.argv]
    assert [command.root.name for command in calibrating] == ["a", "a"]
    measuring = commands[len(calibrating) :]
    assert {option(command, "loops") for command in measuring} == {"4"}
    assert [command.environment["PYTHONHASHSEED"] for command in measuring] == ["1"] * 6 + ["2"] * 6


def test_a_program_gets_its_options_and_sees_its_libraries(tmp_path: Path) -> None:
    _, commands = run(tmp_path, pyperf, "a")
    first = commands[0]
    assert first.argv[:4] == ("python3", "-I", "-S", "-c")
    assert first.argv[6:9] == ("--size", "9", "--worker")
    assert first.environment["PYTHONPATH"].split(":")[:2] == ["/tmp/bench/wheels/pyperf", "/tmp/bench/wheels/django"]
    assert first.environment["PATH"] == "/bin"


def test_one_that_fails_in_one_image_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    def play(command: Command) -> Played:
        if command.root.name == "b" and option(command, "worker-task") == "1":
            return Played(output="Traceback:\n  ...\nImportError: no\n\n", exit=1)
        return pyperf(command)

    measured, commands = run(tmp_path, play, "a", "b")
    assert measured.failures == (Failure(name="two_b", image="b", because="ImportError: no"),)
    assert {name: set(cells) for name, cells in measured.seconds.items()} == {
        "one": {"a", "b"},
        "two_a": {"a", "b"},
        "two_b": {"a"},
    }
    assert sum(option(c, "worker-task") == "1" and c.root.name == "b" for c in commands) == 1


def test_one_that_fails_later_loses_what_it_had(tmp_path: Path) -> None:
    def play(command: Command) -> Played:
        late = command.environment["PYTHONHASHSEED"] == "2" and program(command) == "bm_one"
        return Played(exit=142) if late else pyperf(command)

    measured, _ = run(tmp_path, play, "a")
    assert measured.seconds["one"] == {}
    assert measured.failures == (Failure(name="one", image="a", because="no result in 600 s"),)


@pytest.mark.parametrize(
    ("after", "rounds"),
    [
        (3, {"one": 1}),
        (7, {"one": 1, "two_a": 1, "two_b": 1}),
        (8, {"one": 2, "two_a": 1, "two_b": 1}),
    ],
)
def test_ctrl_c_keeps_the_rounds_that_all_images_had(after: int, rounds: dict[str, int], tmp_path: Path) -> None:
    measuring = 0

    def play(command: Command) -> Played:
        nonlocal measuring
        measuring += bool(option(command, "worker-task"))
        if measuring > after:
            raise KeyboardInterrupt
        return pyperf(command)

    measured, _ = run(tmp_path, play, "a", "b")
    assert not measured.complete
    kept = {name: {len(cell) for cell in cells.values()} for name, cells in measured.seconds.items()}
    assert kept == {name: {number} for name, number in rounds.items()}
    assert [task.name for task in measured.tasks] == ["one", "two_a", "two_b"]


def test_ctrl_c_before_anything_was_measured_is_no_result(tmp_path: Path) -> None:
    def play(command: Command) -> Played:
        if option(command, "worker-task"):
            raise KeyboardInterrupt
        return pyperf(command)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, play, "a", "b")


def test_where_the_first_image_cannot_the_next_one_calibrates(tmp_path: Path) -> None:
    def play(command: Command) -> Played:
        return Played(exit=3) if command.root.name == "a" and program(command) == "bm_one" else pyperf(command)

    measured, _ = run(tmp_path, play, "a", "b")
    assert measured.failures == (Failure(name="one", image="a", because="exit status 3"),)
    assert set(measured.seconds["one"]) == {"b"}
    assert set(measured.seconds["two_a"]) == {"a", "b"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"benchmarks": [{"runs": [{}]}]}', '{"benchmarks": [{"runs": 3}]}'])
def test_a_result_that_is_none_is_a_failure(text: str, tmp_path: Path) -> None:
    def play(command: Command) -> Played:
        (command.binds[0].source / "out.json").write_text(text)
        return Played()

    measured, _ = run(tmp_path, play, "a")
    assert measured.tasks == ()
    assert [failure.name for failure in measured.failures] == ["one", "two"]


@pytest.mark.parametrize(("seconds", "values", "warmups"), [(0.1, 3, 1), (0.5, 2, 1), (1.3, 1, 1), (9.0, 1, 0)])
def test_long_values_are_fewer(seconds: float, values: int, warmups: int) -> None:
    task = Task(name="x", benchmark=ONE, number=0, loops=1, seconds=seconds)
    assert (task.values, task.warmups) == (values, warmups)


def describe(tmp_path: Path, output: str) -> str:
    return Worker(place=tmp_path, sandbox=ScriptedSandbox(lambda _: Played(output=output))).describe(subject("a"))


def test_an_image_is_described_by_its_python(tmp_path: Path) -> None:
    assert describe(tmp_path, 'noise\n[[3, 13], "3.13.5", "GCC 14.2.0"]\n') == "Python 3.13.5, GCC 14.2.0"


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        describe(tmp_path, '[[2, 7], "2.7.18", "GCC 10"]\n')
    assert (caught.value.message, caught.value.at) == ("cannot measure Python 2.7.18", "a")


@pytest.mark.parametrize("output", ["", "hello\n"])
def test_what_is_no_python_is_refused(output: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        describe(tmp_path, output)


@pytest.mark.parametrize(
    ("text", "name", "image", "python"),
    [
        ("dist/wee", "wee", "dist/wee", "python3"),
        ("wee:3.14", "wee:3.14", "wee:3.14", "python3"),
        ("new=dist/wee", "new", "dist/wee", "python3"),
        ("dir:/roots/debian/#/usr/bin/python3.13", "debian", "dir:/roots/debian/", "/usr/bin/python3.13"),
        ("a=dir:b=c", "a", "dir:b=c", "python3"),
    ],
)
def test_words_for_an_image(text: str, name: str, image: str, python: str) -> None:
    assert Named.parse(text) == Named(name=name, image=image, python=python)


@pytest.mark.parametrize("text", ["", "#python3", "x#"])
def test_words_that_are_no_image(text: str) -> None:
    with pytest.raises(UsageError):
        Named.parse(text)


def refuse(request: Request) -> Response:
    raise AssertionError(f"{request.url}: nothing may be fetched")


def tools(tmp_path: Path) -> Tools:
    return Tools(
        store=MemoryStore(), transport=FakeTransport(refuse), sandbox=ScriptedSandbox(), reporter=ListReporter(),
        mirrors={}, work=tmp_path, jobs=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["dir:/nowhere"], "no such directory"),
        (["no-such-image"], "no-such-image"),
        (["dir:/tmp", "tmp=dir:/"], "two images are called tmp"),
    ],
)
def test_an_image_that_is_not_there_is_refused(texts: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_subjects(texts, tools(tmp_path))
    assert said in caught.value.message


def test_a_directory_is_an_image(tmp_path: Path) -> None:
    (found,) = open_subjects([f"x=dir:{tmp_path}#/opt/python"], tools(tmp_path))
    assert (found.name, found.root, found.python) == ("x", tmp_path, "/opt/python")
    assert "/usr/local/bin" in found.environment["PATH"]
