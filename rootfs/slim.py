"""Slim: what a small image leaves out, as rules over paths, in dpkg's own terms (dpkg(1), --path-exclude).

Law: pure; a Tree in, a Tree out. The same filters go into dpkg's configuration, so that a later `apt-get install`
leaves out the same things; the files left are those that dpkg with these filters would have left (src/main/filters.c).
As with dpkg, its database goes on listing what was left out, and `dpkg --verify` calls it missing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from rootfs.errors import RecipeError
from rootfs.tree import FileEntry, Kind, Tree, file, parent

_DPKG = "var/lib/dpkg"
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
class Filter:
    """One line of dpkg's configuration: a glob over absolute paths in which `*` matches `/` too."""

    glob: str
    include: bool = False

    def __str__(self) -> str:
        return f"path-{'include' if self.include else 'exclude'}={self.glob}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something to leave out. `directories` are globs of those that stay, empty, since maintainer scripts expect them;
    `apt` is apt's configuration (apt.conf(5)) for what apt would leave behind.
    """

    name: str
    filters: tuple[Filter, ...] = ()
    directories: tuple[str, ...] = ()
    apt: str = ""


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


def _without(name: str, *globs: str, keep: Sequence[str] = (), directories: Sequence[str] = ()) -> Rule:
    filters = (*(Filter(glob=glob) for glob in globs), *(Filter(glob=glob, include=True) for glob in keep))
    return Rule(name=name, filters=filters, directories=tuple(directories))


# Licences ask that their text goes with the program: these stay whatever the other filters say.
_LEGAL = Filter(glob="/usr/share/doc/*/copyright", include=True)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            _without("docs", "/usr/share/doc/*", "/usr/share/doc-base/*", "/usr/share/gtk-doc/*"),
            # bugs.debian.org/863199: packages fail to install where a section's directory is missing
            _without("man", "/usr/share/man/*", directories=["/usr/share/man/man[1-9]"]),
            _without("info", "/usr/share/info/*"),
            _without("locale", "/usr/share/locale/*", keep=["/usr/share/locale/locale.alias"]),
            _without("lintian", "/usr/share/lintian/*", "/usr/share/linda/*"),
            _without("bug", "/usr/share/bug/*"),
            Rule(
                name="apt-cache",
                apt='APT::Keep-Downloaded-Packages "false";\n'
                'Acquire::GzipIndexes "true";\nAcquire::Languages "none";\n'
                'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
            ),
        )
    }
)
"""The rules that have a name."""


def named(text: str) -> Rule:
    """A rule by its name; `locale:de,pt_BR` keeps these languages. RecipeError for a name that is none."""
    name, colon, keep = text.partition(":")
    languages = [language.strip() for language in keep.split(",")] if colon else []
    if name not in RULES or (colon and name != "locale") or not all(map(_LANGUAGE.match, languages)):
        near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near and near[0] != name else f"known: {', '.join(RULES)}; locale:de,fr"
        raise RecipeError(f"no rule to slim by: {text}", hint=hint)
    rule = RULES[name]
    # no `de*`: it would keep `del` too
    kept = [f"/usr/share/locale/{language}{rest}" for language in languages for rest in ("", "/*", "_*", "@*")]
    return replace(rule, filters=(*rule.filters, *(Filter(glob=glob, include=True) for glob in kept)))


_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*\Z")


def paths(*, exclude: Iterable[str] = (), include: Iterable[str] = ()) -> Rule:
    """A rule of free globs, as dpkg's path-exclude and path-include; what `include` matches stays.

    RecipeError for a glob that dpkg's configuration cannot hold, or that matches no absolute path.
    """
    rule = _without("paths", *exclude, keep=tuple(include))
    for one in rule.filters:
        if not one.glob.startswith(("/", "*")) or one.glob != one.glob.strip() or not one.glob.isprintable():
            raise RecipeError(
                f"not a glob over paths: {one.glob!r}", hint='write an absolute one, such as "/usr/share/games/*"'
            )
    return rule


def slim(tree: Tree, rules: Sequence[Rule]) -> Slimmed:
    """Leave out what the rules say; of filters the last that matches decides, and copyright files always stay.

    A directory stays when something below it does. A hard link whose target goes becomes the file. What
    update-alternatives would not have made without what went goes too. dpkg's database stays as it is.
    """
    filters = [(rule.name, one) for rule in rules for one in rule.filters]
    if filters:
        filters.append(("", _LEGAL))
    removed = _removed(tree, filters)
    for path, rule in _stranded(tree, removed):
        removed[path] = rule
    _keep_directories(tree, removed, [glob for rule in rules for glob in rule.directories])
    saved = {rule.name: Saved() for rule in rules}
    for path, name in removed.items():
        before = saved[name]
        saved[name] = Saved(entries=before.entries + 1, size=before.size + tree[path].size)
    kept = _relinked(tree, removed)
    return Slimmed(tree=kept.with_entries(_configuration(kept, rules, [one for _, one in filters])), saved=saved)


def _removed(tree: Tree, filters: Sequence[tuple[str, Filter]]) -> dict[str, str]:
    """The path of every entry that goes -> the name of the rule that decided it."""
    patterns = [(name, one.include, _compiled(one.glob)) for name, one in filters]
    prefixes = tuple(_literal(one.glob) for _, one in filters if one.include)
    removed: dict[str, str] = {}
    for path, entry in tree.items():
        if path == _DPKG or path.startswith(_DPKG + "/"):
            continue
        decided = next(((n, keep) for n, keep, pattern in reversed(patterns) if pattern(f"/{path}")), ("", True))
        # dpkg cannot see what comes later: a directory, or a link that may be one, stays where an include may reach
        reached = entry.kind in (Kind.DIRECTORY, Kind.SYMLINK) and f"/{path}".startswith(prefixes)
        if not decided[1] and not reached:
            removed[path] = decided[0]
    return removed


def _literal(glob: str) -> str:
    """A glob up to its first wildcard, without the slash at the end."""
    return re.split(r"[*?\[\\]", glob, maxsplit=1)[0].rstrip("/")


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
            group = f"{_DPKG}/alternatives/{entry.path.rpartition('/')[2]}"
            if group in tree:  # the link was the master of its group, which could not have been registered
                yield group, removed[target]
    for entry in tree.values():
        if entry.kind is Kind.SYMLINK and entry.link in lost and entry.path not in removed:
            yield entry.path, lost[entry.link]


def _keep_directories(tree: Tree, removed: dict[str, str], globs: Iterable[str]) -> None:
    """Take back the removal of directories that hold something, or that a rule keeps."""
    wanted = [_compiled(glob) for glob in globs]
    for path in reversed(list(tree)):  # what a directory holds comes before it
        stays = path not in removed
        if not stays and tree[path].kind is Kind.DIRECTORY and any(pattern(f"/{path}") for pattern in wanted):
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
    return re.compile(first + middle + last, re.DOTALL).fullmatch


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
