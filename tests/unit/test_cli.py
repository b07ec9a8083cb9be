"""The command line: exit statuses, where output goes, and what a verb costs before it starts."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder.cli import _explain, run
from builder.progress import BarReporter, LineReporter, make_reporter
from builder.version import VERSION

HEAVY = ("requests", "msgspec", "pysequoia", "tqdm", "deflate", "urllib3", "builder.app", "rootfs.store")


def test_version_is_printed_without_loading_what_it_does_not_need() -> None:
    code = "import sys; from builder.cli import run; s = run(['--version']); print(*sys.modules); sys.exit(s)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, _, modules = done.stdout.partition("\n")
    assert version == f"ocibuild {VERSION}"
    assert not set(modules.split()) & set(HEAVY)


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["recipe"], ["recipe", "a", "b"], ["--nonsense"], ["recipe", "wee", "--jobs", "0"], []]
)
def test_a_wrong_command_line_exits_2_and_says_so_on_stderr(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err


def test_an_unknown_recipe_exits_3_and_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lock", "nonsense"]) == 3
    assert "wee" in capsys.readouterr().err


def test_a_typo_in_a_recipe_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.toml"
    path.write_text("[pyhton]\n")
    assert run(["recipe", str(path)]) == 3
    assert capsys.readouterr().err == f"error: unknown key `pyhton`\n  at {path}\n  hint: did you mean `python`?\n"


def test_a_lock_that_is_missing_exits_3_when_it_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recipe", "wee", "--locked", "--lock", str(tmp_path / "x.lock.toml")]) == 3
    assert "ocibuild lock" in capsys.readouterr().err


def test_what_a_version_cannot_do_exits_3_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "x.lock.toml"
    said = ("--set", "python.version=3.11", "--set", "python.free_threaded=true")
    argv = ["recipe", "wee", *said, "--lock", str(lock), "--mirror", "http://127.0.0.1:9/x"]
    assert run(argv) == 3
    assert "CPython 3.11 has no free_threaded" in capsys.readouterr().err
    assert not lock.exists()


def test_an_unreachable_mirror_exits_6_and_leaves_no_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "x.lock.toml"
    argv = ["lock", "wee", "--lock", str(lock), "--mirror", "http://127.0.0.1:9/debian", "--store", str(tmp_path / "s")]
    assert run(argv) == 6
    assert "http://127.0.0.1:9/debian/dists/trixie/InRelease" in capsys.readouterr().err
    assert not lock.exists()


def test_settings_are_printed_with_their_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["settings", "--jobs", "7"]) == 0
    assert "jobs = 7  [--jobs]" in capsys.readouterr().out.splitlines()


def test_our_own_bug_exits_70_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builder.settings.read_settings", None)
    monkeypatch.setattr("builder.cli.settings.read_settings", None, raising=False)
    assert run(["settings"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_lines_tell_of_a_task_from_begin_to_end() -> None:
    now = [0.0]
    stream = io.StringIO()
    reporter = LineReporter(stream, clock=lambda: now[0], interval=10)
    reporter.begin("fetch", total=2_000_000)
    for now[0] in (5.0, 11.0, 12.0):
        reporter.advance("fetch", 500_000)
    reporter.finish("fetch", "3 fetched")
    reporter.advance("fetch", 1)
    reporter.note("a note")
    assert stream.getvalue().splitlines() == [
        "fetch: 2.0 MB",
        "fetch: 1.0 MB of 2.0 MB, 11 s",
        "fetch: 3 fetched (12.0 s)",
        "a note",
    ]


def test_bars_leave_one_line_a_task() -> None:
    stream = io.StringIO()
    reporter = BarReporter(stream)
    reporter.begin("fetch", total=10)
    reporter.advance("fetch", 5)
    reporter.finish("fetch")
    reporter.note("a note")
    assert "fetch: done (" in stream.getvalue()
    assert stream.getvalue().endswith("a note\n")


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(make_reporter(io.StringIO()), LineReporter)


def _program(*argv: str, stdout: int, code: str = "pass") -> subprocess.Popen[str]:
    line = f"{code}\nimport sys; from builder.cli import main; sys.argv[1:] = {argv!r}; main()"
    return subprocess.Popen([sys.executable, "-c", line], stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_goes_away_is_exit_status_141() -> None:
    read, write = os.pipe()
    os.close(read)
    with _program("settings", stdout=write) as process:
        os.close(write)
        assert process.communicate()[1] == ""
    assert process.returncode == 141


def test_closed_streams_are_no_bug() -> None:
    with _program("settings", stdout=subprocess.PIPE, code="import os, sys; sys.stdout = sys.stderr = None") as process:
        process.communicate()
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_exits_7_and_says_stdout() -> None:
    with Path("/dev/full").open("wb") as full, _program("settings", stdout=full.fileno()) as process:
        error = process.communicate()[1]
    assert process.returncode == 7
    assert "cannot write to stdout" in error


def test_a_file_that_cannot_be_read_is_not_said_to_be_written() -> None:
    text, status = _explain(PermissionError(13, "Permission denied", "/srv/a.tar"))
    assert status == 7
    assert "cannot open /srv/a.tar" in text


STUCK = """
import signal
import threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from concurrent.futures import ThreadPoolExecutor
from builder import cli
cli._GRACE = 0.2
def run(argv):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (print("stuck", flush=True), threading.Event().wait(120))).result()
cli.run = run
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_does_not_end_is_not_waited_for_after_ctrl_c(number: signal.Signals) -> None:
    """Such as a server that says nothing: the time allowed for that, and the tries, come to minutes."""
    with _program(stdout=subprocess.PIPE, code=STUCK) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stuck\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command to go on" in error
