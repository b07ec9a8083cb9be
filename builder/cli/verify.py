"""`ocibuild verify`: the acceptance of an image, run inside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from builder.cli.options import debug_option, settings_options
from builder.cli.start import reaching
from builder.images import open_image
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.verify import verify_image
from builder.wiring import open_tools


@click.command(name="verify")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@settings_options
@debug_option
@click.option("--wheels", is_flag=True, help="Fetch published wheels (NumPy, cryptography) and install them, too.")
@click.option("--without", multiple=True, metavar="MODULE", help="A module that was left out on purpose.")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each image instead of a line.")
def command(
    images: tuple[str, ...],
    *,
    wheels: bool,
    without: tuple[str, ...],
    plain_http: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Check that what an image promises works inside it: modules, TLS, locale, pip, wheels, compilers.

    IMAGE is a layout PATH[:TAG], a recipe's name whose layout is in dist/, or host/repository:tag. Prints one line for
    each image; exit status 1 when a check failed.
    """
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        cache = Path(settings.store.value) / "wheels"
        opened = [open_image(name, tools, connect=reach) for name in images]
        reports = [verify_image(one, tools, wheels=cache if wheels else None, without=without) for one in opened]
    for report in reports:
        click.echo(json.dumps(report.to_value()) if as_json else report.summary)
    for report in reports:
        report.require()
