"""How CPython is configured, trained and made: the commands of every stage, as data.

Law: pure data and functions; knows no files, no sandbox. Every flag that only serves our own build goes into
`CFLAGS_NODIST` or `LDFLAGS_NODIST` (2.7 knows neither: there it is on make's command line): `sysconfig`, and with it
every extension built later, never sees those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.python.lines import Line
from rootfs.errors import RecipeError

PREFIX = "/usr/local"
BUILD = "/build"

_VARIANTS = ("plain", "optimized", "optimized-lto")

_CONFIGURE = (
    f"{BUILD}/configure",
    f"--prefix={PREFIX}",
    "--enable-ipv6",
    "--with-computed-gotos",
    "--with-dbmliborder=gdbm:ndbm",
    "--with-system-expat",
    # Recorded by sysconfig: without it configure writes the compiler's absolute path.
    "CXX={cxx}",
)

# -g0 undoes the -g of OPT for our objects only; -O3 stays as upstream sets it.
_OBJECTS = ("-g0", "-fno-semantic-interposition")
_STRIPPED = ("-Wl,--strip-all",)
_BOUND = ("-Wl,-z,now",)
# What BOLT needs to move code: whole functions, and the relocations that a linker otherwise throws away.
_WHOLE = ("-fno-reorder-blocks-and-partition",)
_MOVABLE = "-Wl,-q"
_THIN = "-flto=thin"
_LLD = ("-fuse-ld=lld",)  # the linker that thin LTO is a part of

# Without it the clock gets into LTO objects and counters.
_SEED = "-frandom-seed=ocibuild"

# Counters that threads share are added to atomically, or the profile is corrupt now and then (gh-145801).
_GENERATE = {
    "gcc": (("-fprofile-generate", "-fprofile-update=atomic", _SEED), ("-fprofile-generate",)),
    "clang": (("-fprofile-instr-generate", "-fprofile-update=atomic"), ("-fprofile-instr-generate",)),
}
# Without a profile of its own a file is compiled as usual; one that does not fit is an error (-Wcoverage-mismatch).
# What follows keeps the interpreter's loop as it is written: each instruction ends in a jump of its own, and code that
# several share is not merged again (GCC's manual advises -fno-gcse for computed gotos), and calls into libraries go
# straight through a table that is filled at the start (-fno-plt, -z now): together about 3 % of everything.
_USE = {
    "gcc": ("-fprofile-use", "-fprofile-correction", "-Wno-missing-profile", "-fno-gcse", "-fno-crossjumping",
            "-fno-tree-tail-merge", "-fno-plt"),
    "clang": ("-fprofile-instr-use=/build/code.profclangd", "-Werror=profile-instr-out-of-date",
              "-Wno-profile-instr-unprofiled"),
}  # fmt: skip
# CPython's own --with-lto is serial (-flto-partition=none) and compiles all twice (fat objects): minutes for a link.
_LTO = {
    "gcc": ("-flto=auto", "-fuse-linker-plugin", "-fno-fat-lto-objects", "-flto-partition=balanced", _SEED),
    "clang": (_THIN,),
}  # fmt: skip

# Programs that only make other sources. They are compiled once, without optimising, before anything is trained: linking
# them again costs a minute each under LTO, and what they count while they run is no training. _testembed is a test.
_MADE_BEFORE = ("Programs/_freeze_module", "_bootstrap_python", "Programs/_testembed", "Programs/_freeze_importlib")

# Modules that need no library and that most programs use: part of a trained interpreter, as of Debian's, where calls
# between them and it cost nothing and a start opens fewer files. From 3.12 on, where Setup.stdlib says how.
_BUILTIN = (
    "_asyncio _bisect _contextvars _csv _datetime _heapq _interpchannels _interpqueues _interpreters _json _lsprof"
    " _multiprocessing _opcode _pickle _posixshmem _posixsubprocess _queue _random _socket _statistics _struct"
    " _zoneinfo array binascii cmath fcntl grp math mmap resource select syslog termios"
)

# What programs do all day, beside the tests of the training.
_WORKLOADS = Path(__file__).with_name("workloads.py")

# What configure would otherwise find out by trying on the running kernel. Nothing of the build machine may become a
# fact of the interpreter: nice() looks broken at niceness 19, semaphores without /dev/shm, getaddrinfo without IPv6.
_ANSWERS = {
    "ac_cv_broken_nice": "no",
    "ac_cv_broken_poll": "no",
    "ac_cv_broken_sem_getvalue": "no",
    "ac_cv_buggy_getaddrinfo": "no",
    "ac_cv_file__dev_ptc": "no",
    "ac_cv_file__dev_ptmx": "yes",
    "ac_cv_posix_semaphores_enabled": "yes",
}

_RESERVED = {
    "--prefix": "the image's layout is fixed",
    "--exec-prefix": "the image's layout is fixed",
    "--enable-shared": "say shared = true",
    "--disable-shared": "say shared = false",
    "--disable-gil": "say free_threaded = true",
    "--enable-experimental-jit": "say jit = true",
    "--enable-optimizations": "say variant = optimized",
    "--with-lto": "say variant = optimized-lto",
    "--with-ensurepip": "pip is an option of its own",
    "CC": "say compiler",
    "CFLAGS_NODIST": "these flags are part of the variant",
    "LDFLAGS_NODIST": "these flags are part of the variant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a recipe's `[python]` says about the compile itself; the names are its keys.

    `layout` is bolt or none: what auto comes to is settled before.
    """

    variant: str = "plain"
    configure: tuple[str, ...] = ()
    shared: bool = False
    free_threaded: bool = False
    jit: bool = False
    march: str = ""
    compiler: str = "gcc"
    training: str = "serial"
    train_without: tuple[str, ...] = ()
    layout: str = "none"

    @property
    def is_laid_out(self) -> bool:
        """Whether the interpreter is laid out after it was linked (`builder.python.layout`)."""
        return self.layout == "bolt"

    @property
    def is_trained(self) -> bool:
        """Whether the build is led by a profile."""
        return self.variant != "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The argument vectors of each stage, run in `BUILD`; those of make are without the number of jobs.

    `builtin` are names of modules that become part of the interpreter; it and `freeze`, `instrument`, `train` and
    `practice` are empty for a plain build.
    """

    builtin: tuple[str, ...] = ()
    configure: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    instrument: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    practice: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()
    install: tuple[str, ...] = ()


def commands(line: Line, options: Options) -> Commands:
    """Every command of a build of this version line.

    RecipeError for what this line cannot do, and for an extra argument that would undo the design.
    """
    _check(line, options)
    flags, links = _flags(line, options)
    trained = options.is_trained
    last, last_link = _last(options)
    movable = _MOVABLE if options.is_laid_out else ""
    generate, generate_link = _GENERATE[options.compiler]
    skip = tuple(word for name in _MADE_BEFORE for word in ("-o", name)) if trained else ("-o", "Programs/_testembed")

    def make(
        target: str, compile_flags: Sequence[str], link_flags: Sequence[str], program: str = ""
    ) -> tuple[str, ...]:
        final = _final(line, options, (*flags, *compile_flags), (*links, *link_flags), program)
        return ("make", *skip, target, *final)

    return Commands(
        builtin=tuple(_BUILTIN.split()) if trained and line.numbers >= (3, 12) else (),
        configure=_configure(line, options),
        freeze=_freeze(line, options) if trained else (),
        instrument=make("build_all", generate, generate_link) if trained else (),
        train=_train(line, options) if trained else (),
        practice=(*_counting(options), "-c", _WORKLOADS.read_text()) if trained and line.numbers >= (3, 8) else (),
        compile=make("build_all", last, last_link, movable),
        install=make("install", last, last_link, movable),
    )


def with_jobs(command: tuple[str, ...], jobs: int) -> tuple[str, ...]:
    """A make command with `jobs` processes at once."""
    return (command[0], f"-j{jobs}", *command[1:])


def _check(line: Line, options: Options) -> None:
    version = line.numbers
    if options.variant not in _VARIANTS:
        raise RecipeError(f"unknown variant: {options.variant}", hint=f"known: {', '.join(_VARIANTS)}")
    since = {"free_threaded": (3, 13), "jit": (3, 14)}
    for name, first in since.items():
        if getattr(options, name) and version < first:
            raise RecipeError(f"CPython {line.name} has no {name}", hint=f"it came with {first[0]}.{first[1]}")
    if options.jit and options.free_threaded and version < (3, 15):
        raise RecipeError(f"CPython {line.name} has no JIT without the GIL", hint="jit or free_threaded, not both")
    if options.compiler == "clang" and version < (3, 9):
        raise RecipeError(f"CPython {line.name} is built with gcc only here", hint='compiler = "gcc"')
    for argument in options.configure:
        reason = _RESERVED.get(argument.partition("=")[0])
        if reason:
            raise RecipeError(f"configure argument {argument} is not the recipe's to give", because=reason)


def _is_fixed(line: Line, options: Options) -> bool:
    """Whether the interpreter lies at a fixed address (not PIE), as Debian's does: calls and data need no detour.

    One that is a shared library cannot; a plain one is as its authors build it; before 3.12 a module's object
    (Modules/_math.o) is compiled with our flags last, which would undo its -fPIC.
    """
    return options.is_trained and options.compiler == "gcc" and not options.shared and line.numbers >= (3, 12)


def _flags(line: Line, options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compiler and linker flags of every stage that makes objects; those of modules end in -fPIC, which wins."""
    march = (f"-march={options.march}",) if options.march else ()
    fixed = ("-fno-pie",) if _is_fixed(line, options) else ()
    rpath = (f"-Wl,-rpath,{PREFIX}/lib",) if options.shared else ()
    return (*_OBJECTS, *fixed, *march), rpath


def _last(options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Compiler and linker flags of the last stage alone."""
    use = _USE[options.compiler] if options.is_trained else ()
    lto = _LTO[options.compiler] if options.variant == "optimized-lto" else ()
    lld = _LLD if lto and options.compiler == "clang" else ()
    whole, stripped = (_WHOLE, ()) if options.is_laid_out else ((), _STRIPPED)
    return (*use, *whole, *lto), (*lto, *stripped, *(_BOUND if options.is_trained else ()), *lld)


def _final(
    line: Line, options: Options, flags: Sequence[str], links: Sequence[str], program: str = ""
) -> tuple[str, ...]:
    """Make's variables; `program` is a flag for linking programs alone.

    2.7 takes whole CFLAGS, which its setup.py reads from the environment that make exports.
    """
    linking = " ".join(filter(None, ("LINKCC=gcc -no-pie", program)))
    linker: tuple[str, ...] = (linking,) if _is_fixed(line, options) else ()
    if _THIN in links:
        linker = ("AR=llvm-ar",)  # which can read, and list, what thin LTO makes of objects
    if line.has_nodist:
        return (f"CFLAGS_NODIST={' '.join(flags)}", f"LDFLAGS_NODIST={' '.join(links)}", *linker)
    whole = ("-fno-strict-aliasing", "-DNDEBUG", "-fwrapv", "-O3", "-Wall", *flags)
    return (f"CFLAGS={' '.join(whole)}", f"LDFLAGS={' '.join(links)}", *linker)


def _freeze(line: Line, options: Options) -> tuple[str, ...]:
    """Make the frozen modules with objects of no other use, in the shortest time."""
    flags, links = _flags(line, options)
    return ("make", *line.frozen, *_final(line, options, (*flags, "-O0", "-w"), links)) if line.frozen else ()


def _configure(line: Line, options: Options) -> tuple[str, ...]:
    clang = options.compiler == "clang"
    chosen = [word.format(cxx="clang++" if clang else "g++") for word in _CONFIGURE]
    chosen += line.configure
    # Without --enable-shared libpython stays inside the interpreter: no PLT between them, nothing to find at start.
    chosen.append("--enable-shared" if options.shared else "--disable-shared")
    if options.free_threaded:
        chosen.append("--disable-gil")
    if options.jit:
        chosen.append("--enable-experimental-jit=yes")
    if clang:
        chosen.append("CC=clang")
        chosen += ["--with-tail-call-interp"] if line.knows("--with-tail-call-interp") else []
    return (*chosen, *options.configure)


def _train(line: Line, options: Options) -> tuple[str, ...]:
    # 2.7 takes every word after the first test for a test.
    workers = ("-j0",) if options.training == "parallel" else ()
    module, *words = line.training.command(options.train_without)[1:]
    return (*_counting(options), "-m", module, *workers, *words)


def _counting(options: Options) -> tuple[str, ...]:
    """The interpreter that counts, at addresses that are the same every time (personality(2), ADDR_NO_RANDOMIZE)."""
    # The library that counts is in no place where it would be looked for.
    library = (f"LD_LIBRARY_PATH={BUILD}",) if options.shared else ()
    # One file for each program and library (%m), to which its runs add up: by a plain name they overwrite each other.
    counts = (f"LLVM_PROFILE_FILE={BUILD}/code-%m.profclangr",) if options.compiler == "clang" else ()
    variables = (*library, *counts)
    return ("setarch", "-R", *(("env", *variables) if variables else ()), "./python")


def environment(epoch: int, *, llvm: str = "") -> dict[str, str]:
    """The complete environment of every command of a build; `epoch` (seconds) is the date compiled into CPython.

    `llvm` is the version whose programs are called by their plain names: sysconfig must say clang, not clang-19.
    """
    return {
        "HOME": "/tmp",  # noqa: S108 (a tmpfs of the sandbox's own)
        "LC_ALL": "C.UTF-8",
        "PATH": f"/usr/lib/llvm-{llvm}/bin:/usr/bin:/bin" if llvm else "/usr/bin:/bin",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(epoch),
        "TZ": "UTC",
        **_ANSWERS,
    }
