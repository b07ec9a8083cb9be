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

referrers_option = click.option(
    "--no-referrers", is_flag=True, help="Leave behind what is attached: signatures, SBOMs, provenance."
)
plain_http_option = click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
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


def _platforms(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """`--platform linux/amd64,arm64 --platform linux/amd64` -> (linux/amd64, linux/arm64)."""
    words = [word.strip() for value in values for word in value.split(",")]
    return tuple(dict.fromkeys(map(platform_of, words)))


def _platform(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    wanted = _platforms(context, option, values)
    if len(wanted) > 1:
        hint = f"`ocibuild {context.info_name}` takes one; push, pull, copy, mutate and check take several"
        raise UsageError("several platforms where one is meant", because=", ".join(wanted), hint=hint)
    return wanted[0] if wanted else None


def platform_of(text: str) -> str:
    """`os/architecture[/variant]`, of which the OS may be left out; UsageError for anything else."""
    parts = text.split("/") if "/" in text else ["linux", text]
    if not all(parts) or len(parts) > 3:
        raise UsageError(f"not a platform: {text!r}", hint="write linux/amd64, linux/arm64/v8 or amd64")
    return "/".join(parts)


def platform_option(text: str) -> Callable[[_Function], _Function]:
    """`--platform`, which may be given once."""
    return click.option("--platform", multiple=True, metavar="OS/ARCH[/VARIANT]", callback=_platform, help=text)


def platforms_option(text: str) -> Callable[[_Function], _Function]:
    """`--platform`, which may be given several times, or as a list."""
    metavar = "OS/ARCH[/VARIANT],..."
    return click.option("--platform", "platforms", multiple=True, metavar=metavar, callback=_platforms, help=text)


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
