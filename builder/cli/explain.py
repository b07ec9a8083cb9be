"""`ocibuild explain`: who pulls a package into a rootfs."""

from __future__ import annotations

import sys
import time

import click

from builder.cli.base import architecture_of, base_of, base_options
from builder.cli.options import debug_option, settings_options
from builder.progress import make_reporter
from builder.resolve import explain
from builder.settings import read_settings
from builder.wiring import open_tools


@click.command(name="explain")
@click.argument("package")
@click.option("--suite", default="trixie", show_default=True)
@base_options
@settings_options
@debug_option
@click.option("--arch", metavar="ARCH", help="Debian's name of the architecture (this machine's).")
def command(package: str, suite: str, arch: str | None, **words: object) -> None:
    """Say who pulls PACKAGE into the rootfs that the other options describe, by which relations."""
    base, architecture = base_of(suite, words), architecture_of(arch)
    with open_tools(read_settings(words), make_reporter(sys.stderr)) as tools:
        click.echo(explain(package, base, architecture, tools, now=int(time.time())))
