"""`ocibuild logout`: forget an account at a registry."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import click

from builder.cli.login import at_file, authfile_option
from builder.cli.options import debug_option, settings_options
from builder.login import all_places, log_out
from builder.progress import make_reporter
from builder.registry.credentials import Place
from builder.settings import read_settings, registry_access
from rootfs.errors import UsageError


@click.command(name="logout")
@click.argument("registry", required=False)
@click.option("--all", "everything", is_flag=True, help="Forget every account.")
@authfile_option
@settings_options
@debug_option
def command(registry: str | None, *, everything: bool, authfile: Path | None, **flags: str | None) -> None:
    """Forget the account at REGISTRY, in every file of podman's and docker's, and in the helpers they name."""
    if everything == (registry is not None):
        raise UsageError("logout needs a registry, or --all", hint="ocibuild logout --help")
    access = at_file(registry_access(read_settings(flags)), authfile)
    note = cache(make_reporter(sys.stderr).note)  # of each file once
    places = all_places(access, note) if registry is None else [Place.parse(registry)]
    for place in places:
        had = log_out(place, access, note)
        told = ", ".join(str(path) for path in had)
        click.echo(f"{place}: logged out of {told}" if had else f"{place}: there was no account")
