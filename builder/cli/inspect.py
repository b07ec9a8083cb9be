"""`ocibuild inspect`: what an image is and what it costs."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import debug_option, settings_options
from builder.cli.start import reaching
from builder.images import open_image
from builder.inspect import inspect_image
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.wiring import open_tools


@click.command(name="inspect")
@click.argument("image")
@settings_options
@debug_option
@click.option("--sizes", is_flag=True, help="Add what each package, each part of CPython and each rule costs.")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(image: str, *, sizes: bool, plain_http: bool, as_json: bool, **flags: str | None) -> None:
    """Show what IMAGE is: what runs in it, its layers, and with --sizes where its bytes go.

    IMAGE is a layout PATH[:TAG], a recipe's name whose layout is in dist/, or host/repository:tag.
    """
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = inspect_image(open_image(image, tools, connect=reach), tools.store, sizes=sizes)
    click.echo(json.dumps(found.to_value()) if as_json else found.render().rstrip("\n"))
