"""`ocibuild index`: one name for the images of several platforms."""

from __future__ import annotations

import sys

import click

from builder.cli.deliver import deliver, delivery_options, goals, tell
from builder.cli.options import debug_option, settings_options
from builder.cli.said import annotations_of
from builder.cli.start import reaching
from builder.finding import find_image
from builder.multi import make_index
from builder.places import WHOLE
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.wiring import open_tools
from rootfs.errors import UsageError


@click.command(name="index")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@delivery_options
@click.option("--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Say this of the index.")
@settings_options
@debug_option
def command(
    images: tuple[str, ...],
    output: str | None,
    targets: tuple[str, ...],
    tag: str | None,
    annotations: tuple[str, ...],
    *,
    plain_http: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Make one index of the IMAGEs, each for a platform of its own; of an index, all in it are taken.

    Prints one line for each place: its name and the index's digest.
    """
    place, references = goals(output, tag, targets)
    if place is not None and place.form not in WHOLE:
        hint = "write oci:PATH[:TAG] or oci-archive:FILE[:TAG], or push it"
        raise UsageError(f"a {place.form} holds one platform, and no index", hint=hint)
    said = annotations_of(annotations)
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = [find_image(image, connect=reach) for image in images]
        descriptor = make_index(found, tools.store, annotations=said, reporter=tools.reporter)
        lines = deliver(descriptor, place, references, tools, reach)
    tell(lines, descriptor, place, as_json=as_json)
