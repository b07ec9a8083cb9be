"""Anatomy: which part of which CPython a file of an image is: interpreter, modules, extensions, headers, pip, ...

Law: pure; paths in, parts out. Knows the layouts of `make install` and of Debian's packages, whoever built the image.
A module counts with its .pyc; a package as one part with all that is below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rootfs.tree import Kind, Tree

PartKind = Literal["interpreter", "module", "extension", "installed", "headers", "wheel", "other"]

_LIBRARY = re.compile(r"(?P<prefix>(?:.*/)?)lib(?:64)?/(?P<name>python(?P<line>\d+\.\d+)t?)/os\.py")
_MODULE_ENDINGS = (".py", ".pyc", ".pyo")
_SITES = ("site-packages", "dist-packages")

# Paths below the prefix, for a CPython of LINE; a group of the expression is the part's name.
_OUTSIDE: tuple[tuple[str, PartKind, str], ...] = (
    (r"bin/python[^/]*-config", "headers", "headers"),
    (r"bin/python(?:MAJOR)?(?:LINE[a-z]*)?", "interpreter", "interpreter"),
    (r"lib(?:64)?/(?:[^/]+/)?libpython(?:LINE|MAJOR\.so)[^/]*", "interpreter", "interpreter"),
    (r"include/(?:[^/]+/)?pythonLINE.*", "headers", "headers"),
    (r"lib(?:64)?/(?:[^/]+/)?pkgconfig/python-?(?:LINE|MAJOR)[^/]*\.pc", "headers", "headers"),
    (r"bin/(pip)[\d.]*", "installed", ""),
    (r"bin/(?:2to3|idle|pydoc|pygettext|smtpd)[^/]*", "other", "programs"),
    (r"share/man/man1/python[^/]*", "other", "manual page"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """A CPython in a Tree. `prefix` ends with a slash (`usr/local/`), or is empty; `library` does not; `line` is 3.14.

    `name` is that of its library: python3.14, or python3.14t of a free-threaded build.
    """

    prefix: str
    library: str
    name: str
    line: str

    def __str__(self) -> str:
        return f"{self.name} below /{self.prefix.rstrip('/')}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Part:
    """What is counted together: a kind, and a name within it."""

    kind: PartKind
    name: str


def pythons(tree: Tree) -> tuple[Python, ...]:
    """Every CPython whose library is there, in the order of their paths."""
    found = ((_LIBRARY.fullmatch(path), path) for path in tree if path.endswith("/os.py"))
    return tuple(
        Python(prefix=match["prefix"], library=path.removesuffix("/os.py"), name=match["name"], line=match["line"])
        for match, path in found
        if match
    )


def parts(tree: Tree, known: Iterable[Python]) -> dict[str, tuple[Python, Part]]:
    """path -> the CPython and its part, for every entry that is one and no directory; the first that claims it has it.

    Of programs without a version in their name that is the first CPython of the prefix.
    """
    claims: dict[str, tuple[Python, Part]] = {}
    for python in known:
        outside = _outside(python)
        for path, entry in tree.items():
            if entry.kind is not Kind.DIRECTORY and path.startswith(python.prefix) and path not in claims:
                part = _part(python, path, outside)
                if part is not None:
                    claims[path] = (python, part)
    return claims


def _outside(python: Python) -> Mapping[re.Pattern[str], Part]:
    major = python.line.partition(".")[0]
    return {
        re.compile(text.replace("LINE", re.escape(python.line)).replace("MAJOR", major)): Part(kind=kind, name=name)
        for text, kind, name in _OUTSIDE
    }


def _part(python: Python, path: str, outside: Mapping[re.Pattern[str], Part]) -> Part | None:
    if path.startswith(python.library + "/"):
        return _in_library(path.removeprefix(python.library + "/"))
    relative = path.removeprefix(python.prefix)
    top, _, rest = relative.partition("/dist-packages/")
    if rest and top == f"lib/python{python.line.partition('.')[0]}":  # Debian's, for all versions
        return Part(kind="installed", name=_distribution(rest))
    for pattern, part in outside.items():
        if match := pattern.fullmatch(relative):
            return part if part.name else Part(kind=part.kind, name=match[1])
    return None


def _in_library(relative: str) -> Part:
    """The part that a path below lib/python3.14 is of."""
    top, slash, rest = relative.partition("/")
    if relative.startswith("ensurepip/_bundled/"):
        return Part(kind="wheel", name="ensurepip/_bundled")
    if top == "lib-dynload" and slash:
        return Part(kind="extension", name=rest.partition(".")[0])
    if top in _SITES and slash:
        return Part(kind="installed", name=_distribution(rest))
    if top == "__pycache__" and slash:
        return Part(kind="module", name=rest.partition(".")[0])
    if slash and not top.startswith("config-") and top != "config":
        return Part(kind="module", name=top)
    return Part(kind="module", name=top.rpartition(".")[0]) if top.endswith(_MODULE_ENDINGS) else _other(top)


def _other(name: str) -> Part:
    return Part(kind="other", name=name)


def _distribution(relative: str) -> str:
    """What was installed, by a path below site-packages: pip, for pip/... and for pip-26.1.dist-info/..."""
    top, _, rest = relative.partition("/")
    if top == "__pycache__":
        top = f"{rest.partition('.')[0]}.py"
    if top.endswith((".dist-info", ".egg-info")):
        return top.rpartition(".")[0].partition("-")[0]
    return top.rpartition(".")[0] if top.endswith(_MODULE_ENDINGS) else top
