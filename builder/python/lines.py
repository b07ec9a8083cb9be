"""What holds for a whole line of CPython (2.7, 3.14): suites, configure options, training, and what goes wrong.

Law: data and look-ups; no I/O, nothing of single releases (`versions`), no package names (`packages`). Facts are read
from the sources that can be had here (2.7.18, 3.9.2, 3.11.2, 3.13 to 3.15); of the other lines from their documents.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rootfs.errors import RecipeError

_Numbers = tuple[int, int]
_Span = tuple[_Numbers, _Numbers]
_FIRST, _END = (2, 7), (4, 0)

# Configure options that came or went: the first line that has one, and the first that has it no more.
_OPTIONS: Mapping[str, _Span] = {
    "bolt": ((3, 12), _END),
    "builtin-hashlib-hashes": ((3, 9), _END),
    "c-locale-coercion": ((3, 7), _END),
    "dtrace": ((3, 6), _END),
    "experimental-jit": ((3, 13), _END),
    "fpectl": (_FIRST, (3, 7)),
    "gil": ((3, 13), _END),
    "hash-algorithm": ((3, 4), _END),
    "loadable-sqlite-extensions": ((3, 2), _END),
    "mimalloc": ((3, 13), _END),
    "missing-stdlib-config": ((3, 15), _END),
    "openssl-rpath": ((3, 10), _END),
    "pkg-config": ((3, 11), _END),
    "platlibdir": ((3, 9), _END),
    "readline": ((3, 10), _END),
    "safety": ((3, 14), _END),
    "slower-safety": ((3, 14), _END),
    "ssl-default-suites": ((3, 7), _END),
    "static-libpython": ((3, 10), _END),
    "static-libpython-for-interpreter": ((3, 15), _END),
    "strict-overflow": ((3, 12), _END),
    "system-ffi": (_FIRST, (3, 7)),  # later ones use the system's alone
    "system-libmpdec": ((3, 3), _END),
    "tail-call-interp": ((3, 14), _END),
    "test-modules": ((3, 10), _END),
    "threads": (_FIRST, (3, 7)),
    "unicode": (_FIRST, (3, 3)),
    "wheel-pkg-dir": ((3, 10), _END),
}

# Modules that came or went; every other one is in all lines.
_MODULES: Mapping[str, _Span] = {
    "Tkinter": (_FIRST, (3, 0)),
    "_decimal": ((3, 3), _END),
    "_posixshmem": ((3, 8), _END),
    "_uuid": ((3, 7), _END),
    "_zoneinfo": ((3, 9), _END),
    "anydbm": (_FIRST, (3, 0)),
    "asyncio": ((3, 4), _END),
    "asyncore": (_FIRST, (3, 12)),
    "bsddb": (_FIRST, (3, 0)),
    "compression.zstd": ((3, 14), _END),
    "crypt": (_FIRST, (3, 13)),
    "dbm.gnu": ((3, 0), _END),
    "dbm.ndbm": ((3, 0), _END),
    "distutils": (_FIRST, (3, 12)),
    "gdbm": (_FIRST, (3, 0)),
    "imp": (_FIRST, (3, 12)),
    "lib2to3": (_FIRST, (3, 13)),
    "lzma": ((3, 3), _END),
    "nis": (_FIRST, (3, 13)),
    "ossaudiodev": (_FIRST, (3, 13)),
    "spwd": (_FIRST, (3, 13)),
    "tkinter": ((3, 0), _END),
    "venv": ((3, 3), _END),
    "zoneinfo": ((3, 9), _END),
}

# What `regrtest --pgo` runs from 3.8 on (Lib/test/libregrtest/pgo.py), named one by one: `-x` beside `--pgo` would run
# all tests but the excluded ones, and lines before 3.8 run all there is, for hours. Without test_embed, which wants a
# program of its own to be built.
_TESTS = (
    *("array", "base64", "binascii", "binop", "bisect", "bytes", "bz2", "cmath", "codecs", "collections", "complex"),
    *("dataclasses", "datetime", "decimal", "difflib", "float", "fstring", "functools", "generators", "hashlib"),
    *("heapq", "int", "itertools", "json", "long", "lzma", "math", "memoryview", "operator", "ordered_dict", "patma"),
    *("pickle", "pprint", "re", "set", "sqlite", "sqlite3", "statistics", "str", "struct", "tabnanny", "time"),
    *("unicode", "xml_etree", "xml_etree_c"),
)
_TESTS_OF_2 = ("class", "compile", "cpickle", "csv", "dict", "io", "iter", "slice", "str", "traceback")
_TEST_SPANS: Mapping[str, _Span] = {
    "bz2": ((3, 0), _END),  # 2.7's runs bunzip2, which no toolchain has
    "dataclasses": ((3, 7), _END),
    "fstring": ((3, 6), _END),
    "lzma": ((3, 3), _END),
    "patma": ((3, 11), _END),
    "sqlite": (_FIRST, (3, 11)),
    "sqlite3": ((3, 11), _END),
    "statistics": ((3, 4), _END),
    "str": ((3, 13), _END),
    "tabnanny": ((3, 7), _END),
    "unicode": (_FIRST, (3, 13)),
    "xml_etree": ((3, 0), _END),  # 2.7's fails with an expat that has security fixes
    "xml_etree_c": ((3, 0), _END),
}
_ARGUMENTS = (
    "--without-ensurepip",
    "--without-static-libpython",
    "--disable-test-modules",
    "--enable-loadable-sqlite-extensions",
    "--with-pkg-config=yes",
    # Upstream's own copy of libmpdec, whatever the toolchain holds.
    "--without-system-libmpdec",
    # Debian's libffi: the copies in old sources are of another time.
    "--with-system-ffi",
    # Wide, as everyone's manylinux wheels are (cp27mu).
    "--enable-unicode=ucs4",
)
_OPTION = re.compile(r"^--(enable|disable|with|without)-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The work that profiles an instrumented interpreter: regrtest with `--pgo` and every test named.

    `seed` makes the order and the random numbers the same every time; it is empty from 3.13 on, where regrtest takes
    SOURCE_DATE_EPOCH.
    """

    arguments: tuple[str, ...]
    seed: tuple[str, ...]
    tests: tuple[str, ...]

    def command(self, without: Collection[str] = ()) -> tuple[str, ...]:
        """The interpreter's arguments, less the tests in `without`; RecipeError for one that the training has not."""
        for name in without:
            if name not in self.tests:
                near = difflib.get_close_matches(name, self.tests, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(self.tests)}"
                raise RecipeError(f"{name} is not a test of the training", hint=hint)
        return (*self.arguments, *self.seed, *(name for name in self.tests if name not in without))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of CPython.

    `suites` are the Debian suites it may be built on, the default one first; `openssl` the versions it was written for;
    `built` whether Debian's pool has a source of it, so that it is built and tested here. `jit_llvm` is the LLVM that
    its JIT is made with (3.14+), `pip` the version to install when the recipe names none (empty: the bundled one),
    `troubles` what is known to go wrong, for people.
    """

    name: str
    suites: tuple[str, ...]
    openssl: str
    built: bool
    jit_llvm: str = ""
    pip: str = ""
    troubles: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, int]:
        """(3, 14)."""
        major, _, minor = self.name.partition(".")
        return int(major), int(minor)

    @property
    def suite(self) -> str:
        """The suite it is built on when the recipe names none."""
        return self.suites[0]

    @property
    def configure(self) -> tuple[str, ...]:
        """The arguments of configure that this line knows, or wants, and others do not."""
        return tuple(argument for argument in _ARGUMENTS if self.knows(argument))

    @property
    def frozen(self) -> tuple[str, ...]:
        """Make's targets for which an unfinished interpreter is built first, that writes C (frozen modules)."""
        if self.numbers < (3, 11):
            return ()  # the source comes with what was written
        deep = ("Python/deepfreeze/deepfreeze.o",) if self.numbers < (3, 13) else ()
        return ("Python/frozen.o", "Modules/getpath.o", *deep)

    @property
    def has_nodist(self) -> bool:
        """Whether its Makefile knows CFLAGS_NODIST and LDFLAGS_NODIST; without, whole CFLAGS on make's command line."""
        return self.numbers >= (3, 5)

    @property
    def has_setuptools(self) -> bool:
        """Whether ensurepip bundles setuptools beside pip; distutils is of no use to pip without it."""
        return self.numbers < (3, 12)

    @property
    def training(self) -> Training:
        """What profiles it."""
        tests = [name for name in _TESTS if self._within(_TEST_SPANS, name)]
        if self.numbers < (3, 0):
            tests = sorted([*tests, *_TESTS_OF_2])
        # 2.7 does with --pgo what it does without, and names no test that fails.
        quiet = ("--pgo",) if self.numbers >= (3, 0) else ()
        return Training(
            arguments=("-m", "test.regrtest" if self.numbers < (3, 8) else "test", *quiet),
            seed=_seed(self.numbers),
            tests=tuple(f"test_{name}" for name in tests),
        )

    def knows(self, option: str) -> bool:
        """Whether its configure has an option, as in `--without-static-libpython`; yes for what all lines have."""
        return self._within(_OPTIONS, _OPTION.sub("", option.partition("=")[0]))

    def has(self, module: str) -> bool:
        """Whether its standard library has a module; yes for what all lines have."""
        return self._within(_MODULES, module)

    def _within(self, spans: Mapping[str, _Span], name: str) -> bool:
        since, until = spans.get(name, (_FIRST, _END))
        return since <= self.numbers < until


def _seed(numbers: _Numbers) -> tuple[str, ...]:
    if numbers >= (3, 13):
        return ()
    # 2.7 seeds only when it shuffles, too; from 3.x on a given seed implies that.
    return ("-r", "--randseed=1") if numbers < (3, 0) else ("--randseed=1",)


_NEW = ("trixie", "bookworm", "forky", "sid")
_OLD_GCC = "a compiler newer than its time: warnings, and bpo-27987 (alignment) from gcc 8 on"
_SILENT = "a failed training test goes unseen: its make ignores that"
_NIS = "nis is built where libnsl-dev lies (it comes with libc6-dev up to bookworm), and wants libnsl2 at run time"

LINES = (
    Line(name="3.15", suites=_NEW, openssl="1.1.1, 3.0 and later", built=True, jit_llvm="21"),
    Line(name="3.14", suites=_NEW, openssl="1.1.1, 3.0 and later", built=True, jit_llvm="19"),
    Line(
        name="3.13",
        suites=_NEW,
        openssl="1.1.1, 3.0 and later",
        built=True,
        troubles=(
            "before 3.13.13 a profile may be damaged (gh-145801): -fprofile-update=atomic has to be added",
            "before 3.13.8 PGO without the test modules fails: its training imports them",
        ),
    ),
    Line(
        name="3.12",
        suites=("bookworm", "trixie"),
        openssl="1.1.1, 3.0 and later",
        built=False,
        troubles=(_SILENT, _NIS),
    ),
    Line(
        name="3.11",
        suites=("bookworm", "bullseye", "trixie"),
        openssl="1.1.1, 3.0 and later",
        built=True,
        troubles=(_SILENT, _NIS),
    ),
    Line(
        name="3.10",
        suites=("bookworm", "bullseye", "trixie"),
        openssl="1.1.1, 3.0 and later",
        built=False,
        troubles=(_SILENT, _NIS),
    ),
    Line(
        name="3.9",
        suites=("bullseye", "bookworm"),
        openssl="1.0.2 to 1.1.1; 3.0 in its last releases",
        built=True,
        pip="24.3.1",
        troubles=(
            _SILENT,
            _NIS,
            "OpenSSL 3 wants -DOPENSSL_NO_SSL3",
            "the pip bundled with 3.9.2 knows no wheel of manylinux_2_28",
        ),
    ),
    Line(
        name="3.8",
        suites=("bullseye", "bookworm"),
        openssl="1.0.2 to 1.1.1",
        built=False,
        troubles=(_SILENT, _NIS, "OpenSSL 3 wants -DOPENSSL_NO_SSL3"),
    ),
    Line(
        name="3.7",
        suites=("bullseye", "bookworm"),
        openssl="1.0.2 to 1.1.1",
        built=False,
        troubles=(_SILENT, _NIS),
    ),
    Line(name="3.6", suites=("bullseye",), openssl="1.0.2 to 1.1.1", built=False, troubles=(_SILENT, _NIS, _OLD_GCC)),
    Line(
        name="3.5",
        suites=("bullseye",),
        openssl="1.0.2 to 1.1.1",
        built=False,
        troubles=(_SILENT, _NIS, _OLD_GCC, "math.sinpi collides with the C library's (bpo-36106)"),
    ),
    Line(
        name="2.7",
        suites=("bullseye",),
        openssl="0.9.8 to 1.1.1",
        built=True,
        pip="20.3.4",
        troubles=(
            _SILENT,
            _NIS,
            "manylinux wheels want --enable-unicode=ucs4 (cp27mu); configure's own choice is ucs2",
            "gcc 11 breaks on it",
            "--with-lto does nothing by itself: LTOFLAGS are used by the profile targets alone",
            "the bundled pip 19.2.3 installs no manylinux2014 wheel",
        ),
    ),
)
"""Newest first."""


def line_of(version: str) -> Line:
    """The line of a version (`3.14`, `3.14.7`, `3.15.0rc1`); RecipeError when there is none."""
    name = ".".join(version.split(".")[:2])
    for line in LINES:
        if line.name == name:
            return line
    near = difflib.get_close_matches(name, [line.name for line in LINES], n=1)
    raise RecipeError(
        f"no line of CPython is known for {version}",
        hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(line.name for line in LINES)}",
    )


def suite_for(version: str, wanted: str = "") -> str:
    """The suite to build a version on: the one wanted, else the line's own; RecipeError for one it is not built on."""
    line = line_of(version)
    if wanted and wanted not in line.suites:
        raise RecipeError(
            f"CPython {version} is not built on {wanted}",
            because=f"{line.name} wants OpenSSL {line.openssl}",
            hint=f"[base] suite may be {' or '.join(line.suites)}",
        )
    return wanted or line.suite
