"""How CPython is configured and made, and the Debian packages that takes.

Law: pure data and functions; knows no files, no sandbox. Every flag that only serves our own build goes into
`CFLAGS_NODIST` or `LDFLAGS_NODIST`: `sysconfig`, and with it every extension built later, never sees those.
"""

from __future__ import annotations

from rootfs.errors import RecipeError

PREFIX = "/usr/local"
BUILD = "/build"

TOOLCHAIN_PACKAGES = (
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
    "pkgconf",
    "uuid-dev",
    "zlib1g-dev",
)
"""What a trixie root needs beside its Essential packages to compile CPython. No Tcl/Tk, on purpose."""

LIBRARY_PACKAGES = (
    "libbz2-1.0",
    "libc6",
    "libexpat1",
    "libffi8",
    "libgdbm-compat4t64",
    "libgdbm6t64",
    "liblzma5",
    "libncursesw6",
    "libreadline8t64",
    "libsqlite3-0",
    "libssl3t64",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
    "zlib1g",
)
"""The trixie packages of every library that the interpreter and its modules name as NEEDED (ELF)."""

DATA_PACKAGES = ("ca-certificates", "netbase", "tzdata")
"""What `ssl`, `socket.getservbyname` and `zoneinfo` read at run time."""

RUNTIME_PACKAGES = (*LIBRARY_PACKAGES, *DATA_PACKAGES)

_VARIANTS = ("plain", "optimized", "optimized-lto")

_CONFIGURE = (
    f"{BUILD}/configure",
    f"--prefix={PREFIX}",
    # libpython stays inside the interpreter: no PLT between them, and nothing to find at start.
    "--disable-shared",
    "--without-static-libpython",
    "--without-ensurepip",
    "--disable-test-modules",
    "--enable-ipv6",
    "--enable-loadable-sqlite-extensions",
    "--with-computed-gotos",
    "--with-dbmliborder=gdbm:ndbm",
    "--with-pkg-config=yes",
    "--with-system-expat",
    # Upstream's own copy of libmpdec, whatever the toolchain holds.
    "--without-system-libmpdec",
    # Recorded by sysconfig: without it configure writes the compiler's absolute path.
    "CXX=g++",
    # -g0 undoes the -g of OPT for our objects only; -O3 stays as upstream sets it.
    "CFLAGS_NODIST=-g0 -fno-semantic-interposition",
    "LDFLAGS_NODIST=-Wl,--strip-all",
)

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
    "--enable-shared": "libpython lies inside the interpreter",
    "--enable-optimizations": "say variant = optimized",
    "--with-lto": "say variant = optimized-lto",
    "--with-ensurepip": "pip is an option of its own",
    "CFLAGS_NODIST": "these flags are part of the variant",
    "LDFLAGS_NODIST": "these flags are part of the variant",
}


def configure_command(variant: str, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The configure command of a variant, run in `BUILD`; `extra` are the recipe's own arguments, put last.

    RecipeError for a variant that cannot be built yet, and for an extra argument that would undo the design.
    """
    if variant not in _VARIANTS:
        raise RecipeError(f"unknown variant: {variant}", hint=f"known: {', '.join(_VARIANTS)}")
    if variant != "plain":
        raise RecipeError(f"variant {variant} cannot be built yet", hint="use variant = plain")
    for argument in extra:
        reason = _RESERVED.get(argument.partition("=")[0])
        if reason:
            raise RecipeError(f"configure argument {argument} is not the recipe's to give", because=reason)
    return (*_CONFIGURE, *extra)


def make_command(jobs: int) -> tuple[str, ...]:
    """`make` with `jobs` processes at once."""
    return ("make", f"-j{jobs}")


def install_command() -> tuple[str, ...]:
    """`make install` into `PREFIX`."""
    return ("make", "install")


def environment(epoch: int) -> dict[str, str]:
    """The complete environment of every command of a build; `epoch` (seconds) is the date compiled into CPython."""
    return {
        "HOME": "/tmp",  # noqa: S108 (a tmpfs of the sandbox's own)
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": str(epoch),
        "TZ": "UTC",
        **_ANSWERS,
    }
