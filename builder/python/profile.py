"""What a profile fits: the source, commands, compiler and headers it was trained with, and nothing else.

Law: pure. GCC looks counters up by function and control flow: a profile of other sources, flags or headers would be
refused function by function (-Wcoverage-mismatch), or worse, fit by chance. So it is refused whole, and what changed is
said. The counts by which an interpreter is laid out fit one interpreter: what compiled it counts, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict

from builder.lock import Lock, LockedPackage, LockedProfile
from builder.python.flags import Commands
from builder.python.layout import layout_commands
from builder.python.lines import line_of
from rootfs.digest import Digest

# Packages whose programs decide what is compiled; headers are those of every -dev package.
_OF_THE_LAST_STAGES = ("compile", "install")
_COMPILER = re.compile(r"(gcc|g\+\+|cpp|clang|llvm)(-\d+)?(-[a-z0-9-]*linux-gnu)?\Z")
_BOLT = re.compile(r"bolt-\d+\Z")
_NO_HEADERS = re.compile(r"(linux-libc|libbolt-\d+)-dev\Z")


def profile_for(digest: Digest, said: Commands, lock: Lock, *, layout: Digest | None = None) -> LockedProfile:
    """A profile trained by these commands with what the lock names; `layout` are counts of the same.

    `laid` is what counts would have to fit, and empty where the toolchain has no BOLT.
    """
    trained = {name: words for name, words in asdict(said).items() if name not in _OF_THE_LAST_STAGES}
    packages = lock.packages("toolchain")
    return LockedProfile(
        digest=str(digest),
        source=lock.python.sha256,
        commands=str(Digest.of_value({name: list(words) for name, words in trained.items()})),
        compiler=_named(package for package in packages if _COMPILER.match(package.name)),
        headers=_named(package for package in packages if _has_headers(package.name)),
        layout=str(layout) if layout else "",
        laid=_laid(said, lock),
    )


def _laid(said: Commands, lock: Lock) -> tuple[str, ...]:
    """What counts of an interpreter fit, beside the counters that led its compile."""
    bolt = _named(package for package in lock.packages("toolchain") if _BOLT.match(package.name))
    if not bolt:
        return ()
    layout = layout_commands(line_of(lock.python.version))
    parts = {"compile": said.compile, "equip": layout.equip, "gather": layout.gather}
    return (*bolt, *(f"{name} {Digest.of_value(list(words))}" for name, words in parts.items()))


def _has_headers(name: str) -> bool:
    """Whether a package's headers shape what is compiled.

    The kernel's are constants, and new with every update; BOLT's is a library for the program that counts.
    """
    return name.endswith("-dev") and not _NO_HEADERS.match(name)


def misfits(profile: LockedProfile, wanted: LockedProfile) -> list[str]:
    """What differs between what a profile was trained for and what is wanted, one line each; empty when it fits.

    Whether a layout is there does not matter, only what it fits, where one is wanted.
    """
    lines = []
    if profile.source != wanted.source:
        lines.append(f"CPython's source is {wanted.source}, trained was {profile.source}")
    if profile.commands != wanted.commands:
        lines.append("the commands that configure, compile or train differ")
    pairs = [(profile.compiler, wanted.compiler), (profile.headers, wanted.headers)]
    if profile.layout and wanted.laid:
        pairs.append((profile.laid, wanted.laid))
    for had, wants in pairs:
        lines += [f"{name} was there" for name in had if name not in wants]
        lines += [f"{name} is there now" for name in wants if name not in had]
    return lines


def fitting(profile: LockedProfile, wanted: LockedProfile) -> LockedProfile | None:
    """A profile without a layout that does not fit or is not wanted; None when its counters do not fit."""
    if wanted.laid and not misfits(profile, wanted):
        return profile
    return None if misfits(profile.counters, wanted) else profile.counters


def _named(packages: Iterable[LockedPackage]) -> tuple[str, ...]:
    return tuple(f"{package.name} {package.version}" for package in packages)
