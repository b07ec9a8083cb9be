"""CPython as the official image builds it, with our own compiler: `python -m tests.bench.official VERSION DIR`.

What docker-library's Dockerfile-linux.template does (2026-06): PGO, LTO, shared libpython, and Debian's build flags in
EXTRA_CFLAGS, whose -O2 comes last and wins; frame pointers on amd64. The toolchain is that of `wee`. DIR gets a root to
measure the interpreter in (`ocibuild bench dir:DIR`); seconds of wall and CPU go to stdout, one line a command.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from builder.app import find_recipe, read_lock
from builder.execute import execute
from builder.plan import make_plan
from builder.python.flags import Commands, environment
from builder.python.source import fetch_source
from builder.python.stages import configure
from builder.python.versions import find
from builder.python.workshop import Workshop
from builder.settings import read_settings
from builder.wiring import open_tools
from builder.work import extracted, result
from rootfs.suite import CANONICAL
from tests.fakes.reporter import ListReporter

_CONFIGURE = (
    "/build/configure --build=x86_64-linux-gnu --enable-loadable-sqlite-extensions --enable-optimizations"
    " --enable-option-checking=fatal --enable-shared --with-lto --with-ensurepip"
)
_EXTRA_CFLAGS = (
    "-g -O2 -Werror=implicit-function-declaration -ffile-prefix-map=/build=. -fstack-protector-strong"
    " -fstack-clash-protection -Wformat -Werror=format-security -fcf-protection"
    " -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer"
)
_LDFLAGS = "-Wl,-z,relro -Wl,--strip-all"


def _timed(name: str, workshop: Workshop, argv: tuple[str, ...]) -> None:
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    workshop.run(name, argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name}: {time.perf_counter() - began:.0f} s, {cpu:.0f} CPU-s", flush=True)


def main(version: str, target: Path) -> None:
    """Build and install; the root is the toolchain's, hard-linked, with the new /usr/local."""
    with open_tools(read_settings({}), ListReporter()) as tools:
        found = find_recipe("wee", lock=target.with_name(f"{target.name}.lock.toml"))
        lock = read_lock(found, tools, locked=False, epoch=None)
        (step,) = [s for s in make_plan(found.recipe, lock).walk() if s.title == "assemble the toolchain rootfs"]
        execute(step, tools)
        workshop = Workshop(
            toolchain=extracted(result(step, tools.store), tools, "the toolchain"),
            work=target.with_name(f"{target.name}.work"),
            environment=environment(lock.epoch),
            sandbox=tools.sandbox,
            reporter=tools.reporter,
        )
        mirror = tools.mirrors.get("debian", CANONICAL["debian"])
        source = fetch_source(find(version), tools.transport, tools.store, mirror, tools.reporter)
        words = Commands(
            configure=tuple(_CONFIGURE.split()), freeze=(), instrument=(), train=(), compile=(), install=()
        )
        began = time.perf_counter()
        configure(workshop, source, words, tools.jobs, tools.store)
        print(f"configure: {time.perf_counter() - began:.0f} s", flush=True)
        make = ("make", f"-j{tools.jobs}", f"EXTRA_CFLAGS={_EXTRA_CFLAGS}")
        _timed("make", workshop, (*make, f"LDFLAGS={_LDFLAGS}"))
        (workshop.build / "python").unlink()
        _timed("link again", workshop, (*make, f"LDFLAGS={_LDFLAGS} -Wl,-rpath='$$ORIGIN/../lib'", "python"))
        _timed("make install", workshop, (*make, f"LDFLAGS={_LDFLAGS}", "install"))
    subprocess.run(["cp", "-al", workshop.toolchain, target], check=True)
    shutil.rmtree(target / "usr/local")
    shutil.copytree(workshop.prefix, target / "usr/local", symlinks=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
