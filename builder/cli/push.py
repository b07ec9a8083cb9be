"""`ocibuild push`: an image, and all that is attached to it, into registries."""

from __future__ import annotations

import sys
from typing import Any

import click

from builder.cli.options import debug_option, platforms_option, settings_options
from builder.cli.sending import send_found, sending_options
from builder.cli.start import reaching
from builder.finding import find_image
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.sources import part_of
from builder.wiring import open_tools


@click.command(name="push")
@click.argument("image")
@click.argument("references", metavar="REFERENCE...", nargs=-1, required=True)
@sending_options
@platforms_option("Push these images of an index; else all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the receipts, or plans, as a JSON list.")
@settings_options
@debug_option
def command(
    image: str,
    references: tuple[str, ...],
    platforms: tuple[str, ...],
    *,
    plain_http: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Push IMAGE to every REFERENCE, host/repository[:tag], with all that is attached to it.

    IMAGE is a layout PATH[:TAG], an archive of one or of `docker save`, or a recipe's name whose layout is in dist/.
    Without any tag the name in the layout is taken. Tags move when all is there and was read back.

    Prints one line for each repository: its name and the image's digest.
    """
    goals = [Reference.parse(text) for text in references]
    names = ("tags", "no_referrers", "planned", "check", "receipt")
    options = {name: words.pop(name) for name in names}
    settings = read_settings(words)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = part_of(find_image(image, connect=reach), platforms, tools.reporter)
        send_found(found, goals, tools, reach, as_json=as_json, **options)
