"""The checks of a CPython, run here with the interpreter at hand."""

from __future__ import annotations

import subprocess
import sys

from builder.python.verify import Check, failures, image_checks, module_checks, program


def _run(checks: tuple[Check, ...]) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program(checks)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


def test_the_program_names_what_failed_and_goes_on() -> None:
    good = Check(name="json", code="import json")
    absent = Check(name="absent", code="import no_such_module", wants="libabsent-dev")
    exits = Check(name="it's odd", code="raise SystemExit('left: early')")
    checks = (absent, exits, good)
    status, output = _run(checks)
    assert status == 1
    assert failures(checks, ["make: noise", *output]) == (
        (absent, "ModuleNotFoundError: No module named 'no_such_module'"),
        (exits, "SystemExit: left: early"),
    )


def test_checks_do_not_see_each_other() -> None:
    first, second = Check(name="first", code="x = 1"), Check(name="second", code="x")
    status, output = _run((first, second))
    assert (status, [check for check, _ in failures((first, second), output)]) == (1, [second])


def test_all_good_says_nothing() -> None:
    assert _run((Check(name="json", code="import json"),)) == (0, [])


def test_every_check_compiles() -> None:
    checks = image_checks((3, 14, 7), pip=True)
    for check in checks:
        compile(check.code, check.name, "exec")
    assert len({check.name for check in checks}) == len(checks)


def test_zstd_is_wanted_from_3_14_on() -> None:
    assert "compression.zstd" in {check.name for check in module_checks((3, 14, 0))}
    assert "compression.zstd" not in {check.name for check in module_checks((3, 13, 15))}


def test_pip_is_checked_where_it_is() -> None:
    with_pip, without = (
        {check.name for check in image_checks((3, 14, 7), pip=True)},
        {check.name for check in image_checks((3, 14, 7), pip=False)},
    )
    assert with_pip - without == {"pip", "venv"}
