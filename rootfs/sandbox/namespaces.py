"""The Sandbox of Linux namespaces: starts `child`, follows it, and says why when the machine refuses.

Law: one child process a run, started with exec (never a fork of this, perhaps threaded, process); no namespace is
entered here. Implements `rootfs.ports.Sandbox`; the same command sees the same from root and from an ordinary user.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rootfs.errors import HostError
from rootfs.files import host_error
from rootfs.ports import Command, Outcome
from rootfs.sandbox.ids import find_range
from rootfs.sandbox.mounts import arrange, to_values
from rootfs.sandbox.probe import Failure, explain, read_facts

_CHILD = Path(__file__).with_name("child.py")
_LONGEST_LINE = 1 << 16


class NamespaceSandbox:
    """Runs each command as uid 0 of namespaces of its own: user, mount, pid, ipc, uts and net."""

    def run(self, command: Command) -> Outcome:
        """Run to the end; whatever interrupts it, also an exception of `on_line`, kills every process of the sandbox.

        HostError when the machine refuses, BuildError when the root does not hold the command or its working
        directory, ValueError for binds that make no sense.
        """
        orders = _orders(command)
        started = time.monotonic()
        with _host_errors(command.log):
            command.log.parent.mkdir(parents=True, exist_ok=True)
            log = command.log.open("wb", buffering=0)
        with log:
            status = _follow(orders, command.root, lambda process: _copy_output(process, command, log))
        return Outcome(
            exit=status if status >= 0 else 128 - status, log=command.log, seconds=time.monotonic() - started
        )

    def remove(self, directory: Path) -> None:
        """Remove as this user, and what this user may not, as root of a user namespace; HostError when neither may."""
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except PermissionError:
            orders: dict[str, object] = {"remove": os.fspath(directory.absolute()), "ids": find_range().to_value()}
            _follow(orders, directory, lambda process: process.communicate())
        except OSError as error:
            raise host_error(error, directory) from error


def _orders(command: Command) -> dict[str, object]:
    return {
        "root": os.fspath(command.root.absolute()),
        "writable": command.writable,
        "ids": find_range().to_value() if command.ids == "range" else None,
        "mounts": to_values(arrange(command.binds)),
        "argv": list(command.argv),
        "cwd": command.cwd,
        "environment": dict(command.environment),
    }


def _follow(orders: dict[str, object], root: Path, consume: Callable[[subprocess.Popen[bytes]], object]) -> int:
    """Run the child until it and its output, which `consume` reads, end: its exit status, or what it reported."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:
        try:
            with _host_errors(_CHILD):
                process = _start(orders, writing)
        finally:
            os.close(writing)
        with process:
            try:
                consume(process)
                status = process.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    # The whole group: a child killed alone leaves its process 1 a moment to live.
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()  # the output ends with the last process that held it
                raise
        report = stream.read()
    if report:
        stage, number, target = json.loads(report)
        raise explain(Failure(stage=stage, number=number, target=target), read_facts(), root=str(root))
    return status


@contextmanager
def _host_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError("cannot run a sandbox", at=str(place), because=error.strerror or str(error)) from error


def _start(orders: dict[str, object], report: int) -> subprocess.Popen[bytes]:
    # ASCII, with undecodable bytes of names as surrogate escapes.
    text = json.dumps({**orders, "parent": os.getpid()}).encode()
    with tempfile.TemporaryFile() as stream:  # not a pipe: nobody would read it if the child died early
        stream.write(text)
        stream.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.fspath(_CHILD), str(report)],
            stdin=stream,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},  # process 1 of the sandbox shows its own to the command
            cwd="/",
            pass_fds=(report,),
            start_new_session=True,
        )


def _copy_output(process: subprocess.Popen[bytes], command: Command, log: IO[bytes]) -> None:
    output = process.stdout
    assert output is not None
    for line in iter(lambda: output.readline(_LONGEST_LINE), b""):
        with _host_errors(command.log):
            log.write(line)
        if command.on_line is not None:
            command.on_line(line.decode("utf-8", "replace").rstrip("\r\n"))
