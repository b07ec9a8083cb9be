"""The checks of a CPython, run here with the interpreter at hand."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
import sysconfig

import pytest

from builder.python.acceptance import MAY_BE_ABSENT, NOT_IMPORTED, check_values, image_checks
from builder.python.verify import Check, Result, failures, module_checks, program, read_result, select
from builder.python.wheels import Target

FACTS = ("free-threaded", "gcc", "jit", "ldconfig", "pip", "pyc", "shared", "venv")
VERSIONS = ((2, 7, 18), (3, 5, 10), (3, 9, 25), (3, 11, 2), (3, 13, 5), (3, 14, 7), (3, 15, 0))


def _run(checks: tuple[Check, ...], values: dict[str, object] | None = None) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program(checks, values)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


def test_the_program_names_what_failed_and_goes_on() -> None:
    good = Check(name="json", code="import json")
    absent = Check(name="absent", code="import no_such_module", wants="libabsent-dev", library="libabsent")
    exits = Check(name="it's odd", code="raise SystemExit('left: early')")
    checks = (absent, exits, good)
    status, output = _run(checks)
    assert status == 1
    assert failures(checks, ["make: noise", *output]) == (
        (absent, "ModuleNotFoundError: No module named 'no_such_module'"),
        (exits, "SystemExit: left: early"),
    )
    assert str(read_result(output[0], checks)) == (
        "FAILED absent: ModuleNotFoundError: No module named 'no_such_module'; wants libabsent"
    )
    assert output[-1] == "ok json"


def test_checks_do_not_see_each_other() -> None:
    first = Check(name="first", code="import builtins; builtins.y = x = 1")
    second, third = Check(name="second", code="x"), Check(name="third", code="y")
    checks = (first, second, third)
    status, output = _run(checks)
    assert (status, [check for check, _ in failures(checks, output)]) == (1, [second, third])


def test_a_crash_a_hang_and_a_silent_end_are_failures_and_what_they_printed_is_shown() -> None:
    checks = (
        Check(name="crash", code="import ctypes; print('before', flush=True); ctypes.string_at(0)"),
        Check(name="hang", code="import time; time.sleep(60)", seconds=1),
        Check(name="end", code="import os; os._exit(3)"),
        Check(name="good", code="print('noise')"),
    )
    status, output = _run(checks)
    assert status == 1
    assert [str(result) for line in output if (result := read_result(line, checks))] == [
        "FAILED crash: killed by signal 11",
        "FAILED hang: no end after 1 s",
        "FAILED end: ended without an answer",
        "ok good",
    ]
    assert "| before" in output
    assert "| noise" not in output


def test_what_cannot_tell_is_not_passed() -> None:
    checks = (Check(name="wheel", code="raise NotTried(why)"),)
    status, output = _run(checks, {"why": "no network\nhere"})
    assert status == 0
    assert read_result(output[0], checks) == Result(check=checks[0], status="not tried", detail="no network here")


def test_lines_that_are_no_result() -> None:
    checks = (Check(name="ssl", code=""),)
    for line in ("", "okay ssl", "ok", "ok sslx", "FAILED ssl and more", "| ok ssl", "ok json"):
        assert read_result(line, checks) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_is_well_formed(version: tuple[int, ...]) -> None:
    checks = image_checks(version, facts=FACTS)
    names = [check.name for check in checks]
    assert len(set(names)) == len(names) > 30
    for check in checks:
        compile(check.code, check.name, "exec")
        assert ": " not in check.name
        assert check.code.isascii()
        assert check.only in ("", *FACTS)
        assert all(re.fullmatch(r"[a-z0-9]+(\.[a-z0-9]+)*", module) for module in check.modules)
    assert len(program(checks, check_values(version))) < 128 << 10  # one argument of execve(2)
    for patterns in (NOT_IMPORTED, MAY_BE_ABSENT):
        assert list(patterns) == sorted(patterns)
        assert all(patterns.values())


def test_the_globals_of_the_checks_are_all_given() -> None:
    values = {*check_values((3, 14)), "NotTried"}
    for version in VERSIONS:
        for check in image_checks(version, facts=FACTS):
            assert not _unbound(check.code) - values, check.name


def _unbound(code: str) -> set[str]:
    """The names that a program reads and nowhere binds."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    bound |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {node.id for node in names} - bound - set(dir(builtins))


def test_what_python_2_cannot_read_is_not_sent_to_it() -> None:
    """No interpreter of 2.7 is at hand: the words that would be syntax errors there."""
    checks = image_checks((2, 7, 18), facts=FACTS)
    for check in (*checks, Check(name="program", code=program(()))):
        for word in (
            " async ",
            "await ",
            " f'",
            ' f"',
            "nonlocal ",
            "print(*",
            ":=",
            "yield from",
            "raise from",
            "b'''",
        ):
            assert word not in check.code, check.name


def test_each_version_has_its_checks() -> None:
    new, old, python2 = ({check.name for check in image_checks(v, facts=FACTS)} for v in ((3, 14), (3, 13), (2, 7)))
    assert new - old == {"compression.zstd", "zstd threads", "build-details.json"}
    assert {"UCS4"} == python2 - new
    assert {"lzma", "venv", "no module is missing", "asyncio", "zoneinfo"} <= old - python2


def test_facts_and_what_was_left_out_decide() -> None:
    everything = {check.name for check in image_checks((3, 14), facts=FACTS)}
    nothing = {check.name for check in image_checks((3, 14), facts=())}
    assert {"pip", "venv", "C extension", "shared libpython", "no GIL", "JIT", "find_library"} <= everything - nothing
    without = {check.name for check in image_checks((3, 14), facts=FACTS, without=("ssl",))}
    assert everything - without == {"ssl", "certificates", "TLS handshake"}
    for gone in ("compression", "compression.zstd"):
        without = {check.name for check in image_checks((3, 14), facts=FACTS, without=(gone,))}
        assert everything - without == {"compression.zstd", "zstd threads"}
    assert {"ssl"} == {c.name for c in module_checks((3, 14))} - {c.name for c in module_checks((3, 14), ("ssl",))}
    assert select([Check(name="x", code="", until=(3, 0))], (3, 0)) == ()


@pytest.mark.parametrize(("without", "missed"), [(("pack.gone",), "_lost"), ((), "_gone, _gone_too, _lost")])
def test_what_went_with_a_module_is_not_missed(
    without: tuple[str, ...], missed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (complete,) = [check for check in image_checks((3, 14)) if check.name == "no module is missing"]
    monkeypatch.setattr(sys, "stdlib_module_names", ("os", "_gone", "_gone_too", "_lost"))
    with pytest.raises(AssertionError) as caught:
        exec(complete.code, {"may_be_absent": (), "without": without})
    assert str(caught.value) == missed


def test_every_module_check_names_what_it_wants() -> None:
    for check in module_checks((3, 14)):
        assert bool(check.wants) == bool(check.library), check.name
    assert {c.library for c in module_checks((3, 14)) if c.name == "ssl"} == {"libssl"}


def test_the_wheels_of_an_interpreter() -> None:
    new = Target(version=(3, 14), abi="cp314t", machine="x86_64", glibc=41)
    assert new.name == "cp314t-glibc2.41-x86_64"
    assert new.platforms[0] == "manylinux_2_41_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"} <= set(new.platforms)
    assert new.requirements == ("numpy", "cryptography", "setuptools")
    old = Target(version=(2, 7), abi="cp27mu", machine="x86_64", glibc=31)
    assert {"numpy==1.16.6", "cryptography==3.3.2", "enum34", "wheel==0.37.1"} <= set(old.requirements)


GOOD = {
    "CC": "gcc",
    "CXX": "g++",
    "LDCXXSHARED": "g++ -shared",
    "OPT": "-DNDEBUG -O3",
    "CFLAGS_NODIST": "-g0 -flto",
    "PGO_PROF_USE_FLAG": "-fprofile-use",
    "abs_srcdir": "/build",
}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, ""),
        ({"CC": "clang -pthread", "CXX": "clang++ -pthread", "LDCXXSHARED": "clang++ -pthread -shared"}, ""),
        ({"CXX": "gcc", "LDCXXSHARED": "gcc -shared"}, "CXX is gcc; LDCXXSHARED is gcc -shared"),
        ({"CC": "/usr/bin/cc"}, "CC is /usr/bin/cc"),
        ({"LDSHARED": "gcc -shared -flto=auto"}, "LDSHARED has -flto"),
        ({"CFLAGS": "-O3 -fprofile-use"}, "CFLAGS has -fprofile-use"),
        ({"INCLUDEPY": "/build/Include"}, "INCLUDEPY has /build/Include"),
        ({"CPPFLAGS": "-I/build -I."}, "CPPFLAGS has /build"),
        ({"OPT": "-O2"}, "no -O3"),
    ],
)
def test_what_extensions_would_be_built_with(
    values: dict[str, str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(check.code for check in image_checks((3, 14)) if check.name == "sysconfig")
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    monkeypatch.setattr(sysconfig, "get_config_vars", lambda: GOOD | values)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: dict.fromkeys(names, "/"))
    if fault:
        with pytest.raises(AssertionError, match=re.escape(fault)):
            exec(code, {})
    else:
        exec(code, {})
