"""Options that say what a rootfs is, shared by `rootfs` and `explain`: the keys of a recipe's `[base]` as flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import msgspec

from builder.cli.options import from_the_command_line
from builder.plan import rules_of, slim_parameters
from builder.recipe import SYSTEMD, Base, Scripts, Variant
from builder.suites import repository, suites_of
from rootfs.architecture import Architecture
from rootfs.debian.solve import check_wish
from rootfs.keyring import pinned_keys

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _words(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """`--include a,b --include c` -> (a, b, c)."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _list(name: str, text: str) -> Callable[[_Function], _Function]:
    return click.option(name, multiple=True, metavar="NAME,...", callback=_words, help=text)


_OPTIONS = (
    click.option("--variant", type=click.Choice(get_args(Variant)), default="minbase", show_default=True),
    _list("--include", "Packages wanted beside the variant's: NAME, NAME=VERSION, NAME/SUITE."),
    _list("--exclude", "Packages that must not be chosen, beside systemd's daemons."),
    click.option("--allow-systemd", is_flag=True, help="Let systemd's daemons be chosen."),
    _list("--components", "Components of the archive (main)."),
    click.option("--no-security", is_flag=True, help="Leave the security archive out."),
    click.option("--updates", is_flag=True, help="Add SUITE-updates."),
    click.option("--backports", is_flag=True, help="Add SUITE-backports."),
    click.option("--snapshot", metavar="TIME", default="", help="As Debian was then: 20260901T000000Z."),
    click.option("--repository", multiple=True, metavar="SPEC", help="Add `URL SUITE COMPONENT... key=FILE`."),
    _list("--slim", "Rules of what to leave out: docs, man, locale, ..."),
    click.option("--exclude-path", multiple=True, metavar="GLOB", help="Leave out what matches, as dpkg would."),
    click.option("--include-path", multiple=True, metavar="GLOB", help="Keep what matches all the same."),
    click.option("--configure", type=click.Choice(get_args(Scripts)), default="native", show_default=True),
)


def base_options(function: _Function) -> _Function:
    """The options behind `base_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def base_of(suite: str, words: Mapping[str, Any]) -> Base:
    """The base these options say; UsageError for a suite, a rule or a repository that is none."""
    with from_the_command_line():
        return _base_of(suite, words)


def architecture_of(arch: str | None) -> Architecture:
    """What `--arch` says, or this machine's; UsageError for one that is unknown."""
    with from_the_command_line():
        return Architecture.parse(arch) if arch else Architecture.host()


def _base_of(suite: str, words: Mapping[str, Any]) -> Base:
    base = msgspec.convert(
        {
            "suite": suite,
            "components": words["components"] or ("main",),
            "security": not words["no_security"],
            "updates": words["updates"],
            "backports": words["backports"],
            "snapshot": words["snapshot"],
            "repository": [msgspec.to_builtins(repository(text, Path())) for text in words["repository"]],
            "variant": words["variant"],
            "packages": words["include"],
            "deny": (*(() if words["allow_systemd"] else SYSTEMD), *words["exclude"]),
            "slim": words["slim"],
            "exclude_paths": words["exclude_path"],
            "include_paths": words["include_path"],
            "maintainer_scripts": words["configure"],
        },
        Base,
    )
    rules_of(slim_parameters(base))
    for text in base.packages:
        check_wish(text)
    for one in suites_of(base):
        if not one.keys:
            pinned_keys(one.name)
    return base
