"""Options that several verbs share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rootfs.errors import RecipeError, UsageError
from rootfs.files import STDOUT

if TYPE_CHECKING:
    from builder.target import Place

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


def takes_stdout(place: Place | None) -> bool:
    """Whether an archive goes to stdout, so that all else goes to stderr; UsageError when that is a terminal."""
    if place is None or place.path != STDOUT:
        return False
    if sys.stdout.isatty():
        hint = "send it on, as in `... | docker load`, or to a file: >image.tar"
        raise UsageError("an archive is not printed on a terminal", hint=hint)
    return True


@contextmanager
def from_the_command_line() -> Iterator[None]:
    """What a recipe may not say is a UsageError here, where the command line says it."""
    try:
        yield
    except RecipeError as error:
        raise UsageError(error.message, at=error.at, because=error.because, hint=error.hint) from error
