"""`ocibuild lock`: resolve anew, and write the lock."""

from __future__ import annotations

from pathlib import Path

import click

from builder.app import write_lock
from builder.cli.options import recipe_options, settings_options
from builder.cli.start import begin
from builder.settings import source_date_epoch
from builder.wiring import open_tools


@click.command(name="lock")
@recipe_options
@settings_options
def command(recipe: str, overrides: tuple[str, ...], lock_path: Path | None, **flags: str | None) -> None:
    """Resolve RECIPE against the archive as it stands now and write its lock; prints the lock's path."""
    found, settings, reporter = begin(recipe, overrides, lock_path, flags)
    with open_tools(settings, reporter) as tools:
        write_lock(found, tools, epoch=source_date_epoch())
    click.echo(found.lock_path)
