"""Scripts: which of the packages' maintainer scripts have which effects.

Law: look-ups in the table; nothing is guessed. A script that is not in the table, and holds more than debhelper's known
sections, stops the build and is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rootfs.architecture import Architecture
from rootfs.configure.alternatives import register
from rootfs.configure.root import Handler
from rootfs.configure.script import TRIPLET, Script
from rootfs.configure.table import TABLE, Effect, MergedUsr, Nothing
from rootfs.debian.deb import Unpacked
from rootfs.debian.dpkg import Diversion
from rootfs.debian.package import Package
from rootfs.errors import BuildError

_KINDS = ("preinst", "postinst")
_SHOWN_LINES = 40
_SHOWN_WIDTH = 160


class UnknownScriptError(BuildError):
    """A maintainer script that no handler stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """All that the scripts of a set of packages do: the handlers to run, in order, the diversions, merged-/usr."""

    handlers: tuple[tuple[Handler, Script], ...]
    diversions: tuple[Diversion, ...]
    merged_usr: bool = False


def effects_of(packages: Iterable[Unpacked]) -> Effects:
    """Look up every preinst and postinst; BuildError, with the script, when one is unknown."""
    looked_up = [(script, _effects(script)) for script in _scripts(packages)]
    unknown = [script for script, effects in looked_up if effects is None]
    if unknown:
        raise _stop(unknown)
    found = [(effect, script) for script, effects in looked_up for effect in effects or ()]
    return Effects(
        handlers=tuple((e, script) for e, script in found if not isinstance(e, Diversion | MergedUsr | Nothing)),
        diversions=tuple(_spelled(e, script) for e, script in found if isinstance(e, Diversion)),
        merged_usr=any(isinstance(e, MergedUsr) for e, _ in found),
    )


def _scripts(packages: Iterable[Unpacked]) -> Iterator[Script]:
    """The scripts in the order of the table, the packages it does not name after it, by name."""
    rank = {name: index for index, name in enumerate(TABLE)}
    for one in sorted(packages, key=lambda one: (rank.get(one.package.name, len(rank)), one.package.name)):
        for kind in _KINDS:
            if kind in one.control:
                yield Script(
                    package=one.package.name,
                    kind=kind,
                    text=one.control[kind].decode("utf-8", "surrogateescape"),
                    version=one.package.fields["Version"],
                    triplet=_triplet(one.package),
                )


def _triplet(package: Package) -> str:
    return "" if package.architecture == "all" else Architecture.parse(package.architecture).triplet


def _effects(script: Script) -> tuple[Effect, ...] | None:
    sections: tuple[Effect, ...] = (register,) if script.registers_alternatives else ()
    if script.does_nothing:
        return sections
    digest = script.digest.hex
    for row in TABLE.get(script.package, ()):
        if row.kind == script.kind and row.sha256 == digest:
            return tuple(dict.fromkeys((*row.effects, *sections)))
    return None


def _spelled(diversion: Diversion, script: Script) -> Diversion:
    """With the architecture's triplet in its paths."""
    path, to = (text.replace(TRIPLET, script.triplet) for text in (diversion.path, diversion.to))
    return replace(diversion, path=path, to=to)


def _stop(unknown: Sequence[Script]) -> UnknownScriptError:
    script, *others = unknown
    lines = script.handwritten.splitlines()
    shown = [line[:_SHOWN_WIDTH] for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(f"... and {len(lines) - _SHOWN_LINES} more lines")
    if others:
        shown.append("also unknown: " + ", ".join(f"{other.package}/{other.kind}" for other in others))
    changed = any(row.kind == script.kind for row in TABLE.get(script.package, ()))
    cause = "this version of it is not known" if changed else "ocibuild does not know this script, and runs none"
    return UnknownScriptError(
        f"the {script.kind} of {script.package} has no handler",
        at=f"{script.package}/{script.kind}, {script.digest} without debhelper's sections",
        because="\n    ".join([f"{cause}:", *shown]),
        hint=f'let dpkg run it (--configure run; [base] maintainer_scripts = "run"), or leave {script.package} out',
    )
