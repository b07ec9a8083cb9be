"""`ocibuild settings`: what is in force, and why."""

from __future__ import annotations

import click

from builder.cli.options import settings_options
from builder.settings import read_settings
from rootfs.url import redact


@click.command(name="settings")
@settings_options
def command(**flags: str | None) -> None:
    """Print every setting: its name, its value, and where the value comes from."""
    for name, setting in read_settings(flags).items():
        shown = redact(setting.value) if "://" in setting.value else setting.value
        click.echo(f"{name} = {shown or '(none)'}  [{setting.origin}]")
