"""`ocibuild rootfs`: a Debian rootfs by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from builder.app import open_tools
from builder.cli.options import debug_option, settings_options
from builder.progress import make_reporter
from builder.recipe import SYSTEMD, Base, Variant
from builder.settings import read_settings, source_date_epoch
from builder.standalone import Target, make_rootfs, write_rootfs
from rootfs.architecture import Architecture

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _words(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """`--include a,b --include c` -> (a, b, c)."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def _list(name: str, text: str) -> Callable[[_Function], _Function]:
    return click.option(name, multiple=True, metavar="NAME,...", callback=_words, help=text)


@click.command(name="rootfs")
@click.argument("suite")
@settings_options
@debug_option
@click.option(
    "--variant", type=click.Choice(["custom", "essential", "apt", "minbase"]), default="minbase", show_default=True
)
@_list("--include", "Packages wanted beside the variant's.")
@_list("--exclude", "Packages that must not be chosen, beside systemd's daemons.")
@_list("--components", "Components of the archive (main).")
@click.option("--allow-systemd", is_flag=True, help="Let systemd's daemons be chosen.")
@click.option("--no-security", is_flag=True, help="Leave the security archive out.")
@click.option("--arch", metavar="ARCH", help="Debian's name of the architecture (this machine's).")
@click.option(
    "--lock", "lock_path", metavar="FILE", type=click.Path(path_type=Path), help="Use this lock, or write it."
)
@click.option("--output", "-o", required=True, metavar="TARGET", help="DIR, FILE.tar[.gz|.zst], or oci:PATH[:TAG].")
def command(
    suite: str,
    variant: Variant,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    components: tuple[str, ...],
    arch: str | None,
    lock_path: Path | None,
    output: str,
    *,
    allow_systemd: bool,
    no_security: bool,
    **flags: str | None,
) -> None:
    """Assemble the Debian SUITE without running anything, and write it to TARGET.

    Prints one line: the target and its digest (a directory has none).
    """
    target = Target.parse(output)
    base = Base(
        suite=suite,
        components=components or ("main",),
        security=not no_security,
        variant=variant,
        packages=include,
        deny=(*(() if allow_systemd else SYSTEMD), *exclude),
    )
    architecture = Architecture.parse(arch) if arch else Architecture.host()
    with open_tools(read_settings(flags), make_reporter(sys.stderr)) as tools:
        rootfs = make_rootfs(base, architecture, tools, lock=lock_path, epoch=source_date_epoch())
        digest = write_rootfs(rootfs, base, target, tools)
    click.echo(f"{target.path}@{digest}" if digest else target.path)
