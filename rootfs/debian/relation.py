"""Relation: what a package says of others (Debian policy 7.1; deb-control(5) for architecture qualifiers).

Law: pure; text to values, and whether one version satisfies one constraint. `Depends: a (>= 1) | b, c` is a tuple of
clauses, a clause a tuple of alternatives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rootfs.debian.version import Version
from rootfs.errors import IntegrityError

_RELATION = re.compile(
    # possessive quantifiers: a thousand blanks before what is no relation would be tried in every division
    r"\s*+(?P<name>[a-z0-9][a-z0-9+.-]*)(?::(?P<qualifier>[a-z0-9-]+))?"
    r"\s*+(?:\(\s*+(?P<operator><<|<=|=|>=|>>|<|>)\s*+(?P<version>[^\s)]+)\s*+\))?"
    r"\s*+(?:\[(?P<architectures>[^\]]*)\])?\s*+(?:<[^>]*>\s*+)*+\Z"
)
_OLD_OPERATORS = {"<": "<=", ">": ">="}  # policy 7.1: the old forms mean "or equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One alternative: a name, maybe an architecture qualifier (`any`, `native`, a name), maybe a version."""

    name: str
    qualifier: str | None = None
    operator: str | None = None
    version: Version | None = None

    @classmethod
    def parse(cls, text: str) -> Relation:
        """From `name[:qualifier] [(op version)]`; IntegrityError when it is anything else."""
        match = _RELATION.match(text)
        if not match:
            raise IntegrityError(f"not a package relation: {text!r}")
        operator = match["operator"]
        return cls(
            name=match["name"],
            qualifier=match["qualifier"],
            operator=_OLD_OPERATORS.get(operator, operator),
            version=Version.parse(match["version"]) if operator else None,
        )

    def accepts(self, version: Version) -> bool:
        """Whether a package of this version satisfies the constraint."""
        if self.version is None:
            return True
        wanted = self.version
        match self.operator:
            case "<<":
                return version < wanted
            case "<=":
                return version <= wanted
            case "=":
                return version == wanted
            case ">=":
                return version >= wanted
            case _:
                return version > wanted

    def __str__(self) -> str:
        name = f"{self.name}:{self.qualifier}" if self.qualifier else self.name
        return f"{name} ({self.operator} {self.version})" if self.version else name


Clause = tuple[Relation, ...]


@lru_cache(maxsize=65536)
def parse_relations(text: str) -> tuple[Clause, ...]:
    """A relationship field's value as clauses in order; empty for an empty field."""
    clauses = (clause for clause in text.replace("\n", " ").split(",") if clause.strip())
    return tuple(tuple(Relation.parse(alternative) for alternative in clause.split("|")) for clause in clauses)
