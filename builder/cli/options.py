"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error was raised.")
_SETTINGS = (
    click.option("--store", metavar="DIR", help="Directory of everything fetched and made."),
    click.option("--mirror", metavar="URL", help="Debian mirror to fetch from."),
    click.option("--security-mirror", metavar="URL", help="Mirror of Debian's security archive."),
    click.option("--pypi", metavar="URL", help="Package index, where pip of a given version is looked for."),
    click.option("--proxy", metavar="URL", help="HTTP and HTTPS proxy."),
    click.option("--ca-bundle", metavar="FILE", help="PEM certificates to trust instead of the usual ones."),
    click.option("--trusted-realms", metavar="HOSTS", help="Token servers that may be told a registry's password."),
    click.option("--jobs", "-j", metavar="N", help="How many things to do at once."),
)
_RECIPE = (
    click.argument("recipe"),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe."),
    click.option("--lock", "lock_path", metavar="FILE", type=click.Path(path_type=Path), help="The lock's place."),
    debug_option,
)


def settings_options(function: _Function) -> _Function:
    """The options behind the settings of the same names."""
    for option in reversed(_SETTINGS):
        function = option(function)
    return function


def recipe_options(function: _Function) -> _Function:
    """The recipe, its overrides and its lock."""
    for option in reversed(_RECIPE):
        function = option(function)
    return function
