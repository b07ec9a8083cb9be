"""Which Debian packages CPython is compiled with and runs on, by suite.

Law: data and look-ups; no I/O. Names are those of the suite's own index (libraries were renamed by Debian's 64-bit
time_t transition, from trixie on: t64).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builder.python.lines import Line, line_of
from rootfs.errors import RecipeError

_TOOLCHAIN = (
    "gcc",
    "g++",
    "libc6-dev",
    "libbz2-dev",
    "libexpat1-dev",
    "libffi-dev",
    "libgdbm-compat-dev",
    "libgdbm-dev",
    "liblzma-dev",
    "libncurses-dev",
    "libreadline-dev",
    "libsqlite3-dev",
    "libssl-dev",
    "libzstd-dev",
    "make",
    "uuid-dev",
    "zlib1g-dev",
)
"""What a root needs beside its Essential packages to compile CPython. No Tcl/Tk, on purpose."""

_LIBRARIES = (
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "liblzma5",
    "libncursesw6",
    "libsqlite3-0",
    "libtinfo6",
    "libuuid1",
    "zlib1g",
)
_T64 = ("libffi8", "libgdbm-compat4t64", "libgdbm6t64", "libreadline8t64", "libssl3t64")
_RENAMED: Mapping[str, tuple[str, ...]] = {
    "bullseye": ("libffi7", "libgdbm-compat4", "libgdbm6", "libreadline8", "libssl1.1"),
    "bookworm": ("libffi8", "libgdbm-compat4", "libgdbm6", "libreadline8", "libssl3"),
    "trixie": _T64,
    "forky": _T64,
    "sid": _T64,
}
_DATA = ("ca-certificates", "netbase", "tzdata")

_PKG_CONFIG: Mapping[str, str] = {"bullseye": "pkg-config"}

# The LLVMs of each suite, the one that clang builds take first (19 is the first with tail calls that pay off).
_LLVM: Mapping[str, tuple[str, ...]] = {
    "bullseye": ("16", "13", "11"),
    "bookworm": ("19", "16", "15", "14"),
    "trixie": ("19", "18", "17"),
    "forky": ("21", "22"),
    "sid": ("21", "19", "22"),
}

BOLT: Mapping[str, str] = {"trixie": "19"}
"""The suites whose package of BOLT was tried, each with its LLVM."""

# On amd64 the library that counts comes with its 32-bit twin.
_FOREIGN = ("lib32stdc++6", "libc6-i386")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuitePackages:
    """Package names of one suite.

    `toolchain`: what a root needs beside its Essential packages to compile CPython; `libraries`: those of every library
    that the interpreter and its modules name as NEEDED (ELF); `data`: what `ssl`, `socket.getservbyname` and `zoneinfo`
    read. `llvm` is the version of clang that a recipe gets when it asks for clang; `foreign` are libraries of another
    architecture that a package of the toolchain depends on, and nothing in it runs.
    """

    toolchain: tuple[str, ...]
    libraries: tuple[str, ...]
    data: tuple[str, ...]
    llvm: str
    foreign: tuple[str, ...] = ()

    @property
    def runtime(self) -> tuple[str, ...]:
        """What an image needs to run CPython."""
        return (*self.libraries, *self.data)


def packages_for(
    suite: str,
    line: Line | None = None,
    *,
    tkinter: bool = False,
    clang: bool = False,
    jit: bool = False,
    bolt: bool = False,
) -> SuitePackages:
    """The packages of a suite for a line (None: the newest), with what the options add to them.

    RecipeError for a suite without a table, and for a JIT whose LLVM the suite has not; `bolt` is for suites in BOLT.
    """
    if suite not in _RENAMED:
        raise RecipeError(f"no table of packages for the suite {suite}", hint=f"suites with one: {', '.join(_RENAMED)}")
    line = line or line_of("3.14")
    toolchain, libraries = [*_TOOLCHAIN, _PKG_CONFIG.get(suite, "pkgconf")], [*_LIBRARIES, *_RENAMED[suite]]
    if line.has("compression.zstd"):
        libraries.append("libzstd1")
    if line.has("crypt"):
        libraries.append("libcrypt1")
    if line.has("bsddb"):
        toolchain.append("libdb-dev")
        libraries.append("libdb5.3" if suite in ("bullseye", "bookworm") else "libdb5.3t64")
    if tkinter:
        toolchain.append("tk-dev")
        libraries += ["libtcl8.6", "libtk8.6"]
    if clang:
        # The last of them is the library that counts.
        toolchain += (*_llvm_packages(_LLVM[suite][0]), f"libclang-rt-{_LLVM[suite][0]}-dev")
    if jit:
        # The stencils are written by a program in Python 3.11 or later, which every suite with such an LLVM has.
        toolchain += (*_llvm_packages(_jit_llvm(suite, line)), "python3")
    if bolt:
        toolchain.append(f"bolt-{BOLT[suite]}")
    return SuitePackages(
        toolchain=tuple(dict.fromkeys(toolchain)),
        libraries=tuple(sorted(libraries)),
        data=_DATA,
        llvm=_LLVM[suite][0],
        foreign=_FOREIGN if clang else (),
    )


def _llvm_packages(version: str) -> tuple[str, ...]:
    return f"clang-{version}", f"lld-{version}", f"llvm-{version}"


def _jit_llvm(suite: str, line: Line) -> str:
    if not line.jit_llvm:
        raise RecipeError(f"CPython {line.name} is built without a JIT", hint="3.14 and later have one")
    if line.jit_llvm not in _LLVM[suite]:
        having = [name for name in line.suites if line.jit_llvm in _LLVM[name]]
        raise RecipeError(
            f"the JIT of CPython {line.name} cannot be made on {suite}",
            because=f"it is made with LLVM {line.jit_llvm}; {suite} has {', '.join(_LLVM[suite])}",
            hint=f'[base] suite = "{having[0]}"' if having else None,
        )
    return line.jit_llvm
