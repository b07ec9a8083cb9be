"""Alternatives: what update-alternatives(1) does for `--install`, in automatic mode.

Law: reads the admin files in /var/lib/dpkg/alternatives that earlier calls wrote, as the program does; so the result is
the same whatever order the packages come in, but for equal priorities, where the lesser path wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rootfs.configure.root import Handler, Root
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, file, symlink

_ADMIN = "var/lib/dpkg/alternatives"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One candidate: its path, its priority, and its slaves' paths by slave name."""

    path: str
    priority: int
    slaves: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A link group: the generic name, its link, the slaves' links by name, the choices by path. Paths are absolute."""

    name: str
    link: str
    slaves: dict[str, str]
    choices: dict[str, Choice]

    @classmethod
    def parse_command(cls, words: Sequence[str]) -> Group | None:
        """From the arguments of update-alternatives; None when it installs nothing."""
        if "--install" not in words:
            return None
        at = words.index("--install")
        try:
            link, name, path, priority = words[at + 1 : at + 5]
            rest = words[at + 5 :]
            triples = [rest[i + 1 : i + 4] for i, word in enumerate(rest) if word == "--slave"]
            slaves = {slave: place for place, slave, _ in triples}
            choice = Choice(path=path, priority=int(priority), slaves={slave: target for _, slave, target in triples})
        except ValueError as error:
            raise BuildError("cannot read a call of update-alternatives", because=" ".join(words)) from error
        return cls(name=name, link=link, slaves=slaves, choices={path: choice})

    @classmethod
    def parse(cls, name: str, data: bytes) -> Group:
        """From an admin file."""
        lines = data.decode().split("\n")
        link, rest = lines[1], lines[2:]
        end = rest.index("")
        slaves = dict(zip(rest[0:end:2], rest[1:end:2], strict=True))
        choices = {}
        rest, width = rest[end + 1 :], 2 + len(slaves)
        while rest and rest[0]:
            targets = dict(zip(slaves, rest[2:width], strict=True))
            choices[rest[0]] = Choice(path=rest[0], priority=int(rest[1]), slaves=targets)
            rest = rest[width:]
        return cls(name=name, link=link, slaves=slaves, choices=choices)

    def to_bytes(self) -> bytes:
        """The admin file: mode, link, slaves, an empty line, then the choices; slaves and choices sorted."""
        slaves = sorted(self.slaves)
        lines = ["auto", self.link]
        for slave in slaves:
            lines += [slave, self.slaves[slave]]
        lines.append("")
        for _, choice in sorted(self.choices.items()):
            lines += [choice.path, str(choice.priority), *(choice.slaves.get(slave, "") for slave in slaves)]
        return "\n".join([*lines, "", ""]).encode()

    def with_choices(self, other: Group) -> Group:
        """This group with another's slaves and choices added."""
        return Group(
            name=self.name,
            link=other.link,
            slaves={**self.slaves, **other.slaves},
            choices={**self.choices, **other.choices},
        )

    @property
    def best(self) -> Choice:
        """The choice of automatic mode."""
        return min(self.choices.values(), key=lambda choice: (-choice.priority, choice.path))


def register(root: Root, script: Script) -> Iterable[FileEntry]:
    """Every `update-alternatives --install` of the script."""
    return _install(root, script.commands("update-alternatives"))


def install(arguments: str) -> Handler:
    """One call of `update-alternatives`, for scripts that put its arguments together at run time."""
    return lambda root, _script: _install(root, [arguments.split()])


def _install(root: Root, commands: Iterable[Sequence[str]]) -> Iterator[FileEntry]:
    groups: dict[str, Group] = {}
    for words in commands:
        group = Group.parse_command(words)
        if group is None:
            continue
        admin = f"{_ADMIN}/{group.name}"
        if admin in root.tree:
            group = Group.parse(group.name, root.read(admin)).with_choices(group)
        groups[group.name] = group
    for group in groups.values():
        yield file(f"{_ADMIN}/{group.name}", group.to_bytes())
        yield from _links(root, group)


def _links(root: Root, group: Group) -> Iterator[FileEntry]:
    best = group.best
    wanted = [(group.name, group.link, best.path)]
    wanted += [(name, group.slaves[name], path) for name, path in best.slaves.items()]
    for name, link, path in wanted:
        if root.follow(path.lstrip("/")) is None:
            continue  # as update-alternatives: a slave whose file is not there is left out
        yield symlink(f"etc/alternatives/{name}", path)
        there = root.tree.get(root.tree.resolve(link.lstrip("/")))
        if there is None or there.kind is Kind.SYMLINK:
            yield symlink(link.lstrip("/"), f"/etc/alternatives/{name}")
