"""Checks of a CPython: what one is, the modules every build must have, and the program that runs checks in a root.

Law: values and text only; whoever has a sandbox or a container runs the program with the interpreter under test. The
program and every check run on 2.7 as on the newest 3.x, and need no more of the standard library than `os`.
What is asked of a finished image lies in `builder.python.acceptance`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "FAILED", "not tried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Statements that must not raise; `raise NotTried(reason)` when they cannot tell.

    `wants` is the Debian package that a build needs for it, `library` what the running interpreter needs. It holds
    from CPython `since` on and before `until`, where `only` (a fact of an image: pip, gcc, ...) is given, and unless
    one of `modules`, or a package that holds it, was left out on purpose. It is ended after `seconds`.
    """

    name: str
    code: str
    wants: str = ""
    library: str = ""
    since: tuple[int, int] = (2, 7)
    until: tuple[int, int] = (4, 0)
    only: str = ""
    modules: tuple[str, ...] = ()
    seconds: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a check: `detail` is the error, or why it was not tried."""

    check: Check
    status: Status
    detail: str = ""

    def __str__(self) -> str:
        wants = f"; wants {self.check.library}" if self.status == "FAILED" and self.check.library else ""
        return f"{self.status} {self.check.name}{': ' if self.detail else ''}{self.detail}{wants}"


def _module(name: str, code: str, package: str = "", library: str = "", since: tuple[int, int] = (2, 7)) -> Check:
    """A check of one module of the standard library."""
    return Check(name=name, code=code, wants=package, library=library, since=since, modules=(name,))


_PY3 = (3, 3)
_DBM = """
import os, sys, tempfile
if sys.version_info < (3,):
    import {two} as database
else:
    import dbm.{three} as database
path = os.path.join(tempfile.mkdtemp(), "file")
opened = database.open(path, "c")
opened[b"key"] = b"value"
assert opened[b"key"] == b"value"
opened.close()
"""
_UUID = """
import uuid
if hasattr(uuid, "_load_system_functions"):
    uuid._load_system_functions()
assert getattr(uuid, "_generate_time_safe", None) or uuid._uuid_generate_time, "no uuid_generate_time_safe()"
assert uuid.uuid1().version == 1
"""

_MODULES = (
    _module("bz2", "import bz2; assert bz2.decompress(bz2.compress(b'x')) == b'x'", "libbz2-dev", "libbz2"),
    _module("compression.zstd", "import compression.zstd as z; z.compress(b'x')", "libzstd-dev", "libzstd", (3, 14)),
    _module("ctypes", "import ctypes", "libffi-dev", "libffi"),
    _module("curses", "import curses", "libncurses-dev", "libncursesw"),
    _module("curses.panel", "import curses.panel", "libncurses-dev", "libpanelw"),
    _module("dbm.gnu", _DBM.format(three="gnu", two="gdbm"), "libgdbm-dev", "libgdbm"),
    _module("dbm.ndbm", _DBM.format(three="ndbm", two="dbm"), "libgdbm-compat-dev", "libgdbm_compat"),
    _module("decimal", "import _decimal", since=_PY3),
    _module("hashlib", "import _hashlib", "libssl-dev", "libcrypto"),
    _module("lzma", "import lzma", "liblzma-dev", "liblzma", _PY3),
    _module("multiprocessing", "import _multiprocessing; _multiprocessing.SemLock"),
    _module("pyexpat", "import pyexpat", "libexpat1-dev", "libexpat"),
    _module(
        "readline",
        "import readline; assert 'libedit' not in (readline.__doc__ or '')",
        "libreadline-dev",
        "libreadline",
    ),
    _module("socket", "import socket; assert socket.has_ipv6"),
    _module(
        "sqlite3",
        # 2.7 is always built without extensions of SQLite.
        "import sqlite3, sys; sys.version_info < (3, 2) or sqlite3.connect(':memory:').enable_load_extension(True)",
        "libsqlite3-dev",
        "libsqlite3",
    ),
    _module("ssl", "import _ssl, ssl", "libssl-dev", "libssl"),
    _module("uuid", _UUID, "uuid-dev", "libuuid"),
    _module("zlib", "import zlib; assert zlib.decompress(zlib.compress(b'x')) == b'x'", "zlib1g-dev", "libz"),
    _module("zoneinfo", "import _zoneinfo", since=(3, 9)),
)

# A check runs in a process of its own (a crash is a failure like another), with its output in a file that is shown
# when it fails. The alarm ends it when it hangs, the process group what it leaves running.
_PROGRAM = """
import os, signal, sys

class NotTried(Exception):
    pass

def text(error):
    try:
        return "%s: %s" % (type(error).__name__, error)
    except Exception:
        return type(error).__name__

def attempt(code, values):
    scope = dict(values, NotTried=NotTried, __name__="check")
    try:
        exec(compile(code, "<check>", "exec"), scope)
        return "ok", ""
    except NotTried as reason:
        return "not tried", str(reason)
    except BaseException as error:
        return "FAILED", text(error)

def child(code, seconds, values, writing, output):
    os.setsid()
    signal.alarm(seconds)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status, detail = attempt(code, values)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    line = status + "\\n" + " ".join(detail.split())[:2000]
    os.write(writing, line if isinstance(line, bytes) else line.encode("ascii", "backslashreplace"))

def run(code, seconds, values, output):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(code, seconds, values, writing, output)
        finally:
            os._exit(0)
    os.close(writing)
    status = os.waitpid(pid, 0)[1]
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        said = "no end after %d s" % seconds if number == signal.SIGALRM else "killed by signal %d" % number
        answer = ("FAILED", said)
    else:
        answer = os.read(reading, 65536).decode("ascii", "replace").split("\\n", 1)
    os.close(reading)
    return answer if len(answer) == 2 else ("FAILED", "ended without an answer")

def main(checks, values):
    path = "/tmp/ocibuild-checks-%d" % os.getpid()
    failed = 0
    for name, code, seconds in checks:
        output = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        status, detail = run(code, seconds, values, output)
        said = "%s %s%s%s" % (status, name, ": " if detail else "", detail)
        sys.stdout.write(said + "\\n")
        if status == "FAILED":
            failed = 1
            size = os.lseek(output, 0, 2)
            os.lseek(output, max(0, size - 4000), 0)
            for line in os.read(output, 4000).decode("ascii", "replace").splitlines()[-30:]:
                sys.stdout.write("| %s\\n" % line.encode("ascii", "replace").decode("ascii"))
        sys.stdout.flush()
        os.close(output)
    try:
        os.unlink(path)
    except OSError:
        pass
    sys.exit(failed)
"""


def module_checks(version: tuple[int, ...], without: Collection[str] = ()) -> tuple[Check, ...]:
    """The modules that a build of this version must have, but for those left `without`."""
    return select(_MODULES, version, without=without)


def select(
    checks: Iterable[Check], version: tuple[int, ...], *, facts: Collection[str] = (), without: Collection[str] = ()
) -> tuple[Check, ...]:
    """The checks that hold for an interpreter."""
    return tuple(
        check
        for check in checks
        if check.since <= version[:2] < check.until
        and (not check.only or check.only in facts)
        and not any(_is_left_out(name, without) for name in check.modules)
    )


def _is_left_out(name: str, without: Collection[str]) -> bool:
    """Whether a module went, by itself or with a package that holds it."""
    return any(name == gone or name.startswith(f"{gone}.") for gone in without)


def program(checks: Iterable[Check], values: Mapping[str, object] | None = None) -> str:
    """Python source for `python -c`: prints a line for each check, exits 1 when one failed.

    The checks see `values` (text, numbers, tuples of them) as their globals.
    """
    listed = [(check.name, check.code, check.seconds) for check in checks]
    return f"{_PROGRAM}\nmain({listed!r}, {dict(values or {})!r})\n"


def read_result(line: str, checks: Iterable[Check]) -> Result | None:
    """The result in a line of the program's output; None when the line holds none."""
    for check in checks:
        for status in ("ok", "FAILED", "not tried"):
            said = f"{status} {check.name}"
            if line == said or line.startswith(f"{said}: "):
                return Result(check=check, status=status, detail=line[len(said) + 2 :])
    return None


def failures(checks: Iterable[Check], output: Iterable[str]) -> tuple[tuple[Check, str], ...]:
    """Each failed check with the error it met, read from the program's output."""
    known = tuple(checks)
    found = (read_result(line, known) for line in output)
    return tuple((result.check, result.detail) for result in found if result and result.status == "FAILED")
