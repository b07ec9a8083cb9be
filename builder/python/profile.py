"""What a profile fits: the source, commands, compiler and headers it was trained with, and nothing else.

Law: pure. GCC looks counters up by function and control flow: a profile of other sources, flags or headers would be
refused function by function (-Wcoverage-mismatch), or worse, fit by chance. So it is refused whole, and what changed is
said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict

from builder.lock import Lock, LockedPackage, LockedProfile
from builder.python.flags import Commands
from rootfs.digest import Digest

# Packages whose programs decide what is compiled; headers are those of every -dev package.
_COMPILER = re.compile(r"(gcc|g\+\+|cpp|clang|llvm)(-\d+)?(-[a-z0-9-]*linux-gnu)?\Z")


def profile_for(digest: Digest, said: Commands, lock: Lock) -> LockedProfile:
    """A profile trained by these commands with what the lock names."""
    trained = {name: words for name, words in asdict(said).items() if name not in ("compile", "install")}
    packages = lock.packages("toolchain")
    return LockedProfile(
        digest=str(digest),
        source=lock.python.sha256,
        commands=str(Digest.of_value({name: list(words) for name, words in trained.items()})),
        compiler=_named(package for package in packages if _COMPILER.match(package.name)),
        headers=_named(package for package in packages if _has_headers(package.name)),
    )


def _has_headers(name: str) -> bool:
    """Whether a package's headers shape what is compiled; the kernel's are constants, and new with every update."""
    return name.endswith("-dev") and name != "linux-libc-dev"


def misfits(profile: LockedProfile, wanted: LockedProfile) -> list[str]:
    """What differs between what a profile was trained for and what is wanted, one line each; empty when it fits."""
    lines = []
    if profile.source != wanted.source:
        lines.append(f"CPython's source is {wanted.source}, trained was {profile.source}")
    if profile.commands != wanted.commands:
        lines.append("the commands that configure, compile or train differ")
    for had, wants in ((profile.compiler, wanted.compiler), (profile.headers, wanted.headers)):
        lines += [f"{name} was there" for name in had if name not in wants]
        lines += [f"{name} is there now" for name in wants if name not in had]
    return lines


def _named(packages: Iterable[LockedPackage]) -> tuple[str, ...]:
    return tuple(f"{package.name} {package.version}" for package in packages)
