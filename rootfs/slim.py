"""Slim: what a small image leaves out, as rules over paths, in dpkg's own terms (dpkg(1), --path-exclude).

Law: pure; a Tree in, a Tree out; the rules with a name are in `rootfs.slimrules`. The same filters go into dpkg's
configuration, so that a later `apt-get install` leaves out the same things; the files left are those that dpkg with
these filters would have left (src/main/filters.c). As with dpkg, its database goes on listing what was left out, and
`dpkg --verify` calls it missing; without dpkg the lists of checksums lose it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from rootfs.debian.dpkg import ADMIN, STATUS_FILES
from rootfs.slimrules import Filter, Rule
from rootfs.tree import FileEntry, Kind, Tree, file, parent

_DPKG_CONFIG = "etc/dpkg/dpkg.cfg.d/ocibuild-slim"
_APT_CONFIG = "etc/apt/apt.conf.d/ocibuild-slim"
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
    "space": " \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a rule left out: entries of the Tree, and bytes of file content."""

    entries: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slimmed:
    """The Tree without what the rules leave out, and what each rule saved, by its name, in the order of the rules."""

    tree: Tree
    saved: Mapping[str, Saved]


# Licences ask that their text goes with the program: these stay whatever the other filters say.
_LEGAL = Filter(glob="/usr/share/doc/*/copyright", include=True)


def slim(tree: Tree, rules: Sequence[Rule]) -> Slimmed:
    """Leave out what the rules say; of filters the last that matches decides, and copyright files always stay.

    A directory stays when something below it does. A hard link whose target goes becomes the file. What
    update-alternatives would not have made without what went goes too. dpkg's database stays as it is; the lists that
    only scanners read lose what went.
    """
    filters = [(rule.name, one) for rule in rules for one in rule.filters]
    if filters:
        filters.append(("", _LEGAL))
    removed = _removed(tree, filters)
    for path, rule in _stranded(tree, removed):
        removed[path] = rule
    _keep_directories(tree, removed, [glob for rule in rules for glob in rule.directories])
    sizes: dict[str, list[int]] = {rule.name: [] for rule in rules}
    for path, name in removed.items():
        sizes[name].append(tree[path].size)
    saved = {name: Saved(entries=len(each), size=sum(each)) for name, each in sizes.items()}
    kept = _listed(_relinked(tree, removed), tree)
    return Slimmed(tree=kept.with_entries(_configuration(kept, rules, [one for _, one in filters])), saved=saved)


def _removed(tree: Tree, filters: Sequence[tuple[str, Filter]]) -> dict[str, str]:
    """The path of every entry that goes -> the name of the rule that decided it."""
    decide = _deciding(filters)
    prefixes = tuple(_literal(one.glob) for _, one in filters if one.include)
    removed: dict[str, str] = {}
    for path, entry in tree.items():
        found = decide(f"/{path}")
        if found is None or path == ADMIN or path.startswith(ADMIN + "/"):
            continue
        name, decided = found
        # dpkg cannot see what comes later: a directory, or a link that may be one, stays where an include may reach
        reached = entry.kind in (Kind.DIRECTORY, Kind.SYMLINK) and f"/{path}".startswith(prefixes)
        if not decided.include and not reached:
            removed[path] = name
    return removed


def _deciding(filters: Sequence[tuple[str, Filter]]) -> Callable[[str], tuple[str, Filter] | None]:
    """The last of the filters that matches an absolute path. Only those are tried whose directory it lies below: none,
    for most.
    """
    ordered = list(reversed(filters))  # the last that matches decides: the first alternative that does
    numbers: dict[str, list[int]] = {}
    for number, (_, one) in enumerate(ordered):
        numbers.setdefault(parent(_beginning(one.glob)), []).append(number)

    concerned = {"": tuple(numbers.get("", ()))}  # by directory: those that are for it or for one above

    def chosen_for(place: str) -> tuple[int, ...]:
        below: list[str] = []
        while place not in concerned:
            below.append(place)
            place = parent(place)
        for name in reversed(below):
            concerned[name] = tuple(sorted((*concerned[parent(name)], *numbers.get(name, ()))))
        return concerned[below[0] if below else place]

    @cache
    def compiled(chosen: tuple[int, ...]) -> Callable[[str], re.Match[str] | None]:
        return re.compile("|".join(f"({_expression(ordered[n][1].glob)})" for n in chosen), re.DOTALL).fullmatch

    def decide(path: str) -> tuple[str, Filter] | None:
        chosen = chosen_for(parent(path))
        found = compiled(chosen)(path) if chosen else None
        return found and ordered[chosen[(found.lastindex or 0) - 1]]

    return decide


def _beginning(glob: str) -> str:
    """A glob up to its first wildcard."""
    return re.split(r"[*?\[\\]", glob, maxsplit=1)[0]


def _literal(glob: str) -> str:
    """A glob up to its first wildcard, without the slash at the end."""
    return _beginning(glob).rstrip("/")


def _stranded(tree: Tree, removed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What update-alternatives would not have made for want of what was removed, with the rule that removed that:
    the links in and to /etc/alternatives, and the group of a master link.
    """
    lost: dict[str, str] = {}
    for entry in tree.below("etc/alternatives"):
        target = tree.resolve(entry.link) if entry.kind is Kind.SYMLINK else ""
        if target in removed:
            lost[f"/{entry.path}"] = removed[target]
            yield entry.path, removed[target]
            group = f"{ADMIN}/alternatives/{entry.path.rpartition('/')[2]}"
            if group in tree:  # the link was the master of its group, which could not have been registered
                yield group, removed[target]
    for entry in tree.values():
        if entry.kind is Kind.SYMLINK and entry.link in lost and entry.path not in removed:
            yield entry.path, lost[entry.link]


def _keep_directories(tree: Tree, removed: dict[str, str], globs: Iterable[str]) -> None:
    """Take back the removal of directories that hold something, or that a rule keeps."""
    wanted = [_compiled(glob) for glob in globs]
    for path, entry in reversed(list(tree.items())):  # what a directory holds comes before it
        stays = path not in removed
        if not stays and entry.kind is Kind.DIRECTORY and any(pattern(f"/{path}") for pattern in wanted):
            del removed[path]
            stays = True
        if stays:
            removed.pop(parent(path), None)


def _relinked(tree: Tree, removed: Mapping[str, str]) -> Tree:
    """The tree without the removed entries; of hard links to a removed file the first is the file now."""
    heirs: dict[str, str] = {}
    kept: list[FileEntry] = []
    for path, entry in tree.items():
        if path in removed:
            continue
        if entry.kind is not Kind.HARDLINK or entry.link not in removed:
            kept.append(entry)
        elif entry.link in heirs:
            kept.append(replace(entry, link=heirs[entry.link]))
        else:
            heirs[entry.link] = path
            kept.append(replace(tree[entry.link], path=path))
    return Tree(kept)


def _listed(kept: Tree, whole: Tree) -> Tree:
    """The tree whose lists of checksums without a dpkg (`rootfs.debian.dpkg`) name only what is there."""
    lists = [entry for entry in kept.below(STATUS_FILES) if entry.path.endswith(".md5sums")]
    return kept.with_entries(
        replace(entry, content=b"".join(_present(entry.content, kept, whole)))
        for entry in lists
        if isinstance(entry.content, bytes)
    )


def _present(sums: bytes, kept: Tree, whole: Tree) -> Iterator[bytes]:
    """The lines of what was not left out."""
    for line in sums.splitlines(keepends=True):
        path = whole.resolve(line.partition(b"  ")[2].decode("utf-8", "surrogateescape").rstrip("\n"))
        if path in kept or path not in whole:
            yield line


def _configuration(tree: Tree, rules: Sequence[Rule], filters: Sequence[Filter]) -> Iterator[FileEntry]:
    """The files that make dpkg and apt go on as the rules say, where there is a dpkg or an apt."""
    apt = "".join(rule.apt for rule in rules)
    epoch = max((entry.mtime for entry in tree.values()), default=0)
    if filters and parent(_DPKG_CONFIG) in tree:
        lines = "".join(f"{one}\n" for one in filters)
        yield replace(file(_DPKG_CONFIG, lines.encode("utf-8", "surrogateescape")), mtime=epoch)
    if apt and parent(_APT_CONFIG) in tree:
        yield replace(file(_APT_CONFIG, apt.encode()), mtime=epoch)


_ATOM = re.compile(
    r"(?P<star>\*+)|(?P<any>\?)|\\(?P<escaped>.)"
    r"|\[(?P<not>[!^]?)(?P<set>\]?(?:\[:\w+:\]|\\.|[^\]\\])*)\]|(?P<literal>.)",
    re.DOTALL,
)
_MEMBER = re.compile(r"\[:(?P<group>\w+):\]|\\?(?P<low>.)(?:-\\?(?P<high>[^\]]))?", re.DOTALL)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> Callable[[str], object]:
    """fnmatch(3) without flags, in the C locale, as a function of a path."""
    return re.compile(_expression(glob), re.DOTALL).fullmatch


def _expression(glob: str) -> str:
    """The same as a regular expression."""
    parts = [""]
    for atom in _ATOM.finditer(glob):
        if atom["star"]:
            parts.append("")
        else:
            parts[-1] += _atom(atom)
    first, *rest = parts
    # atomic groups: between two stars the first match is as good as any, so nothing is tried twice
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    last = f".*{rest[-1]}" if rest else ""
    return first + middle + last


def _atom(atom: re.Match[str]) -> str:
    if atom["any"]:
        return "."
    if atom["set"]:
        members = "".join(map(_range, _MEMBER.finditer(atom["set"])))
        return f"[{'^' if atom['not'] else ''}{members}]" if members else "." if atom["not"] else "(?!)"
    return re.escape(atom["escaped"] or atom["literal"] or atom[0])


def _range(member: re.Match[str]) -> str:
    if member["group"]:
        return _CLASSES.get(member["group"], "")
    low, high = member["low"], member["high"] or member["low"]
    return f"{re.escape(low)}-{re.escape(high)}" if low <= high else ""
