"""Differences: a comparison of two images as text for people: the summary first, then what was asked for.

Law: pure; shows what `builder.look.compare` found. Sizes are bytes; nothing of an image reaches the terminal unescaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from builder.look.compare import Comparison, FileChange, VersionChange
from builder.look.tables import shown, table
from rootfs.tree import FileEntry

Section = Literal["packages", "files", "config", "layers"]

SECTIONS: tuple[Section, ...] = ("packages", "files", "config", "layers")
_SHORT = 20  # rows of a table that nobody asked for
_MARKS = {"added": "A", "removed": "D", "changed": "M"}
_SORTS = (*_MARKS, "same version with other bytes")


def differs(found: Comparison, sections: Iterable[Section] = SECTIONS) -> bool:
    """Whether there is anything to tell in these sections."""
    told: Mapping[Section, bool] = {
        "packages": bool(found.packages or found.pythons or found.distributions),
        "files": bool(found.files),
        "config": bool(found.config),
        "layers": any(row.where != "both" for row in found.layers),
    }
    return any(told[section] for section in sections)


def render(found: Comparison, sections: Sequence[Section]) -> str:
    """The summary and, without sections, packages and config in short; else these sections in full."""
    if found.before.descriptor.digest == found.after.descriptor.digest:
        return f"the same image: {found.after.descriptor.digest}\n"
    text = _summary(found)
    for section in sections or ("packages", "config"):
        text += _SECTIONS[section](found, None if sections else _SHORT)
    return text


def _summary(found: Comparison) -> str:
    lines = [("before", shown(str(found.before))), ("after", shown(str(found.after)))]
    kinds = (("packages", found.packages), ("CPython", found.pythons), ("pip", found.distributions))
    lines += [(name, _count(_sort(one) for one in rows)) for name, rows in kinds if rows]
    grown = sum(one.growth for one in found.files)
    lines.append(("files", f"{_count(one.sort for one in found.files)}; {grown:+,} bytes"))
    if found.retimed:
        lines.append(("", f"{found.retimed:,} differ in nothing but their time"))
    lines.append(("config", _count("changed" for _ in found.config)))
    shared = [row for row in found.layers if row.where == "both"]
    size = sum(row.descriptor.size for row in shared)
    lines.append(("layers", f"{len(shared)} shared ({size:,} bytes), {_others(found)}"))
    lines.append(("to fetch", f"{found.fetched:,} bytes, when the image before is there"))
    return "".join(f"{name:<10}{text}\n" for name, text in lines)


def _others(found: Comparison) -> str:
    only = Counter(row.where for row in found.layers)
    return f"{only['before']} only before, {only['after']} only after"


def _count(sorts: Iterable[str]) -> str:
    counted = Counter(sorts)
    return ", ".join(f"{counted[sort]:,} {sort}" for sort in _SORTS if counted[sort]) or "the same"


def _sort(one: VersionChange) -> str:
    if one.before == one.after:
        return _SORTS[-1]
    return "added" if one.before is None else "removed" if one.after is None else "changed"


def _packages(found: Comparison, most: int | None) -> str:
    text = ""
    for title, rows in (("CPython", found.pythons), ("pip", found.distributions)):
        if rows:
            lines = [(shown(one.name), _version(one.before), _version(one.after)) for one in rows]
            text += f"\n== {title}\n{_cut(('name', 'before', 'after'), lines, most)}"
    if found.packages:
        text += f"\n== Debian packages\n{_cut(*_package_rows(found), most)}"
    return text


def _package_rows(found: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Those with another version first, then those whose bytes alone differ; within each, the largest change first."""
    rows = sorted(found.packages, key=lambda one: (one.before == one.after, -abs(_growth(one)), one.name))
    lines: list[tuple[str, ...]] = [
        (shown(one.name), _version(one.before), _version(one.after), f"{_growth(one):+,}") for one in rows
    ]
    return ("package", "before", "after", "bytes"), lines


def _growth(one: VersionChange) -> int:
    return (one.size_after or 0) - (one.size_before or 0)


def _version(text: str | None) -> str:
    return "-" if text is None else shown(text)


def _files(found: Comparison, most: int | None) -> str:
    rows = [(f"{_MARKS[one.sort]} {shown(one.path)}", f"{one.growth:+,}", _told(one)) for one in found.files]
    return f"\n== Files\n{_cut(('file', 'bytes', 'what'), rows, most)}" if rows else ""


def _told(change: FileChange) -> str:
    """What differs, mode and owner with their values; of what is on one side only, its kind."""
    before, after = change.before, change.after
    if before is None or after is None:
        one = before or after
        return one.kind.value if one else ""
    values: Mapping[str, Callable[[FileEntry], Any]] = {
        "kind": lambda entry: entry.kind.value,
        "mode": lambda entry: f"{entry.mode:04o}",
        "owner": lambda entry: f"{entry.uid}:{entry.gid}",
        "link": lambda entry: entry.link or "-",
        "mtime": lambda entry: entry.mtime,
    }
    return shown(
        ", ".join(
            f"{name} {values[name](before)} -> {values[name](after)}" if name in values else name
            for name in change.aspects
        )
    )


def _config(found: Comparison, most: int | None) -> str:
    rows = [(shown(one.name), _value(one.before), _value(one.after)) for one in found.config]
    return f"\n== Config\n{_cut(('member', 'before', 'after'), rows, most)}" if rows else ""


def _value(value: Any) -> str:
    return "-" if value is None else shown(value if isinstance(value, str) else " ".join(map(str, value)))


def _layers(found: Comparison, most: int | None) -> str:
    rows = [
        (row.where, f"{row.descriptor.size:,}", str(row.diff_id), "same files" if row.same_files else "")
        for row in found.layers
    ]
    return f"\n== Layers\n{_cut(('in', 'bytes', 'diff id', ''), rows, most, left=(0, 2, 3))}"


def _cut(
    header: tuple[str, ...], rows: Sequence[tuple[str, ...]], most: int | None, *, left: tuple[int, ...] = (0, 1, 2)
) -> str:
    cut = rows if most is None else rows[:most]
    more = len(rows) - len(cut)
    return table(header, cut, left=left) + (f"and {more:,} more: name the section to see all\n" if more else "")


_SECTIONS: Mapping[Section, Callable[[Comparison, int | None], str]] = MappingProxyType(
    {"packages": _packages, "files": _files, "config": _config, "layers": _layers}
)
