"""Suite: which benchmarks there are, and what each needs, as the wheel of pyperformance says itself.

Law: reads one wheel; fetches and runs nothing. A benchmark is an entry of pyperformance's MANIFEST: a program, with
options; one program run may give several results (scimark gives five).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from rootfs.errors import UsageError

PROGRAMS = "pyperformance/data-files/benchmarks/"
"""Where the programs lie in the wheel: one directory each."""
FAST = (
    "async_tree", "chaos", "deepcopy", "django_template", "go", "html5lib",
    "json_dumps", "nbody", "pickle", "python_startup", "regex_compile", "richards",
)  # fmt: skip
"""A dozen that stand for the rest: objects, calls, numbers, strings, C modules, asyncio, a library, start-up."""
_ALSO = {
    "django": ("setuptools",),  # for distutils, which left the standard library with 3.12
    "sympy": ("setuptools",),
    "xdsl": ("immutabledict", "ordered-set", "typing-extensions"),
}
"""What a requirement needs beside itself, where pyperformance leaves that to a resolver."""
_OPTIONAL = frozenset({"greenlet"})
"""Compiled, and not used by the benchmarks that ask for it."""
_LEFT_OUT = {
    "crypto_pyaes": "pyaes is published as source only",
    "dask": "distributed needs the compiled psutil and msgpack",
    "fastapi": "it needs the compiled pydantic-core",
    "sphinx": "sphinx brings some twenty libraries, which are not pinned",
}
"""Why a benchmark's needs are not in wheels.txt."""
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extra>\[.*\])?\s*==")


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """`program` is a directory below PROGRAMS, `options` its own arguments, `needs` distributions beside pyperf."""

    name: str
    program: str
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def read_suite(wheel: Path) -> tuple[Benchmark, ...]:
    """Every benchmark of pyperformance's wheel, in its order."""
    with ZipFile(wheel) as archive:
        present = frozenset(archive.namelist())

        def text(name: str) -> str:
            return archive.read(PROGRAMS + name).decode() if PROGRAMS + name in present else ""

        found = []
        for name, parent in _manifest(text("MANIFEST")):
            program = f"bm_{parent}"
            own = f"{program}/{'pyproject' if name == parent else f'bm_{name}'}.toml"
            options = tomllib.loads(text(own)).get("tool", {}).get("pyperformance", {}).get("extra_opts", ())
            needs = tuple(_requirements(text(f"{program}/requirements.txt")))
            found.append(
                Benchmark(
                    name=name,
                    program=program,
                    options=tuple(options),
                    needs=needs + tuple(part for need in needs for part in _ALSO.get(need, ())),
                )
            )
        return tuple(found)


def _manifest(text: str) -> Iterator[tuple[str, str]]:
    """(benchmark, the benchmark whose program it shares) for each row of `name<TAB><local[:parent]>`."""
    for line in text.splitlines():
        name, _, place = line.partition("\t")
        if place.startswith("<local") and not name.startswith("#"):
            yield name, place.strip("<>").partition(":")[2] or name


def _requirements(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match = _REQUIREMENT.match(line.strip())
        if match and (name := normalised(match["name"])) not in _OPTIONAL:
            yield name


def normalised(name: str) -> str:
    """A distribution's name as PyPI compares it (Python packaging: names and normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def choose(suite: Sequence[Benchmark], names: Sequence[str]) -> tuple[Benchmark, ...]:
    """The benchmarks of these names, in the suite's order; UsageError for a name that is none."""
    known = [benchmark.name for benchmark in suite]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"no such benchmark: {name}", hint=hint)
    return tuple(benchmark for benchmark in suite if benchmark.name in names)


def split(suite: Sequence[Benchmark], wheels: Collection[str]) -> tuple[tuple[Benchmark, ...], dict[str, str]]:
    """The benchmarks whose needs are among these wheels; for each of the others, by name, why it is left out."""
    can = tuple(benchmark for benchmark in suite if all(need in wheels for need in benchmark.needs))
    reasons = {
        benchmark.name: _LEFT_OUT.get(benchmark.name) or f"needs {', '.join(benchmark.needs)}"
        for benchmark in suite
        if benchmark not in can
    }
    return can, reasons
