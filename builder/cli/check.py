"""`ocibuild check`: every invariant of an image at once."""

from __future__ import annotations

import json
from itertools import product

import click

from builder.cli.looking import looking, looking_options
from builder.cli.options import platforms_option
from builder.look.soundness import soundness


@click.command(name="check")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@looking_options
@platforms_option("Check these images of an index; else all in it.")
@click.option("--strict", is_flag=True, help="Fail on notes as on errors.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each image.")
def command(
    images: tuple[str, ...],
    *,
    platforms: tuple[str, ...],
    strict: bool,
    as_json: bool,
    plain_http: bool,
    **flags: str | None,
) -> None:
    """Check all that must hold of each IMAGE: bytes, documents, layers, paths; exit with 1 on an error.

    IMAGE is a layout PATH[:TAG] (without a tag, all in it), an archive, a recipe's name whose layout is in dist/, or
    host/repository:tag.
    """
    failed = False
    with looking(flags, plain_http=plain_http) as look:
        for image, platform in product(images, platforms or (None,)):
            found = soundness(image, connect=look.connect, platform=platform)
            click.echo(json.dumps(found.to_value()) if as_json else found.render().rstrip("\n"))
            failed |= found.fails(strict=strict)
    if failed:
        raise click.exceptions.Exit(1)
