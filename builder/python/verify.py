"""Checks of a CPython: what must import and work, as data, and the program that runs them inside a root.

Law: values and text only; whoever has a sandbox or a container runs the program with the interpreter under test.
The same module checks accept a fresh compile and a finished image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A statement that must not raise. `wants` is the Debian package whose absence makes it fail, if there is one."""

    name: str
    code: str
    wants: str = ""
    since: tuple[int, int] = (3, 13)


_MODULES = (
    Check(name="bz2", code="import bz2", wants="libbz2-dev"),
    Check(name="compression.zstd", code="import compression.zstd", wants="libzstd-dev", since=(3, 14)),
    Check(name="ctypes", code="import ctypes", wants="libffi-dev"),
    Check(name="curses", code="import curses, curses.panel", wants="libncurses-dev"),
    Check(name="dbm.gnu", code="import dbm.gnu", wants="libgdbm-dev"),
    Check(name="dbm.ndbm", code="import dbm.ndbm", wants="libgdbm-compat-dev"),
    Check(name="decimal", code="import _decimal"),
    Check(name="hashlib", code="import _hashlib", wants="libssl-dev"),
    Check(name="lzma", code="import lzma", wants="liblzma-dev"),
    Check(name="multiprocessing", code="import _multiprocessing, _posixshmem; _multiprocessing.SemLock"),
    Check(name="pyexpat", code="import pyexpat", wants="libexpat1-dev"),
    Check(name="readline", code="import readline; assert 'libedit' not in readline.__doc__", wants="libreadline-dev"),
    Check(name="socket", code="import socket; assert socket.has_ipv6"),
    Check(
        name="sqlite3",
        code="import sqlite3; sqlite3.connect(':memory:').enable_load_extension(True)",
        wants="libsqlite3-dev",
    ),
    Check(name="ssl", code="import ssl", wants="libssl-dev"),
    Check(name="uuid", code="import _uuid; assert _uuid.has_uuid_generate_time_safe", wants="uuid-dev"),
    Check(name="zlib", code="import zlib", wants="zlib1g-dev"),
    Check(name="zoneinfo", code="import _zoneinfo"),
)

_SYSCONFIG = """
import sysconfig
values = sysconfig.get_config_vars()
assert (values["CC"], values["CXX"], values["LDCXXSHARED"]) == ("gcc", "g++", "g++ -shared"), values["LDCXXSHARED"]
assert "-O3" in values["PY_CFLAGS"] and "-g0" not in values["PY_CFLAGS"], values["PY_CFLAGS"]
"""

_CALLBACK = """
import ctypes
order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 3)(3, 1, 2)
ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), order(lambda a, b: a[0] - b[0]))
assert list(numbers) == [1, 2, 3]
"""

_VENV = """
import pathlib, subprocess, sys, tempfile
with tempfile.TemporaryDirectory() as where:
    subprocess.run([sys.executable, "-m", "venv", where], check=True, capture_output=True)
    subprocess.run([pathlib.Path(where, "bin", "pip"), "--version"], check=True, capture_output=True)
"""

_IMAGE = (
    Check(name="sysconfig", code=_SYSCONFIG),
    Check(name="ctypes callback", code=_CALLBACK),
    Check(name="certificates", code="import ssl; assert ssl.create_default_context().get_ca_certs()"),
    Check(name="time zones", code="import zoneinfo; zoneinfo.ZoneInfo('Europe/Paris')"),
    Check(name="services", code="import socket; assert socket.getservbyname('https') == 443"),
    Check(name="UTF-8", code="import locale; assert locale.getpreferredencoding().lower() == 'utf-8'"),
    Check(name="semaphores", code="import multiprocessing; multiprocessing.Lock().acquire()"),
)
_PIP = (
    Check(name="pip", code="import pip"),
    Check(name="venv", code=_VENV),
)

_PROGRAM = """
import sys
failed = 0
for name, code in {checks!r}:
    try:
        exec(code, {{}})
    except BaseException as error:
        failed = 1
        print(f"failed {{name}}: {{type(error).__name__}}: {{error}}", flush=True)
sys.exit(failed)
"""


def module_checks(version: tuple[int, ...]) -> tuple[Check, ...]:
    """The modules that a build of this version must have."""
    return tuple(check for check in _MODULES if version >= check.since)


def image_checks(version: tuple[int, ...], *, pip: bool) -> tuple[Check, ...]:
    """What must hold in a finished image, with or without pip."""
    return (*module_checks(version), *_IMAGE, *(_PIP if pip else ()))


def program(checks: Iterable[Check]) -> str:
    """Python source for `python3 -c`: prints a line for each check that failed, exits 1 when one did."""
    return _PROGRAM.format(checks=[(check.name, check.code) for check in checks])


def failures(checks: Iterable[Check], output: Iterable[str]) -> tuple[tuple[Check, str], ...]:
    """Each failed check with the error it met, read from the program's output."""
    by_name = {check.name: check for check in checks}
    found = []
    for line in output:
        name, _, error = line.removeprefix("failed ").partition(": ")
        if line.startswith("failed ") and name in by_name:
            found.append((by_name[name], error))
    return tuple(found)
