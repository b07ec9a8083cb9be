"""Suites: what a recipe's `[base]` says of archives, as the values `rootfs` reads them by.

Law: pure, but for reading a repository's key file once, when the recipe is read: from then on the key is in the recipe,
and so in its digest.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from pysequoia import ArmorKind, armor

from builder.recipe import Base, Repository
from rootfs.keyring import read_certificates
from rootfs.suite import Suite, parse_repository, standard_suites

_ARMOR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"


def suites_of(base: Base) -> tuple[Suite, ...]:
    """Every suite of a base, in the order in which equal versions are preferred."""
    debian = standard_suites(
        base.suite,
        base.components,
        security=base.security,
        updates=base.updates,
        backports=base.backports,
        snapshot=base.snapshot,
    )
    return (*debian, *(_suite(repository) for repository in base.repository))


def with_keys(base: Base, directory: Path) -> Base:
    """The base with every repository's key in it; files are relative to `directory`. RecipeError when one is none."""
    loaded = tuple(one if one.key.startswith(_ARMOR) else _loaded(one, directory) for one in base.repository)
    return msgspec.structs.replace(base, repository=loaded)


def repository(text: str, directory: Path) -> Repository:
    """From the words of a command line, `URL SUITE COMPONENT... key=FILE`."""
    suite = parse_repository(text, base=directory)
    return Repository(url=suite.archive, suite=suite.name, components=suite.components, key=_armored(suite.keys))


def _loaded(one: Repository, directory: Path) -> Repository:
    return repository(f"{one.url} {one.suite} {' '.join(one.components)} key={one.key}", directory)


def _suite(one: Repository) -> Suite:
    return Suite(archive=one.url, name=one.suite, components=one.components, keys=one.key.encode())


def _armored(keys: bytes) -> str:
    """All certificates of a key file in one armored block."""
    return armor(b"".join(bytes(certificate) for certificate in read_certificates(keys)), ArmorKind.PublicKey)
