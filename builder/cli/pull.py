"""`ocibuild pull`: an image out of a registry, with all that is attached to it."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import (
    debug_option,
    plain_http_option,
    platforms_option,
    referrers_option,
    settings_options,
    takes_stdout,
)
from builder.cli.start import reaching
from builder.finding import find_image
from builder.places import WHOLE, write_place
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.sources import part_of
from builder.target import Place
from builder.transit import fetch_in
from builder.wiring import open_tools
from rootfs.errors import UsageError


@click.command(name="pull")
@click.argument("reference")
@click.argument("place")
@referrers_option
@plain_http_option
@platforms_option("Take these images out of an index; else all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@settings_options
@debug_option
def command(
    reference: str,
    place: str,
    *,
    no_referrers: bool,
    plain_http: bool,
    platforms: tuple[str, ...],
    as_json: bool,
    **flags: str | None,
) -> None:
    """Fetch the image REFERENCE, host/repository:tag or @digest, to PLACE.

    PLACE is oci:PATH[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG], FILE.tar[.gz|.zst], bundle:DIR or
    dir:DIR. A blob of 4 MiB or more that breaks off goes on
    where it was, also after the process was killed.

    Prints one line: PLACE and the image's digest (of a FILE.tar, the file's own).
    """
    goal = Place.parse(place, elsewhere="`ocibuild copy` to it")
    aside = takes_stdout(goal)
    wanted = Reference.parse(reference)
    if wanted.tag is None and wanted.digest is None:
        raise UsageError("name a tag or a digest", at=reference, hint=f"`ocibuild tags {wanted.name}` lists the tags")
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = find_image(str(wanted), connect=lambda named: reach(named).will_pull())
        found = part_of(found, platforms, tools.reporter, one=goal.form not in WHOLE)
        what, attached = fetch_in(found, tools, referrers=not no_referrers)
        digest = write_place(goal, tools.store, what.root, reporter=tools.reporter, attached=attached)
    held = attached if goal.form in WHOLE else ()
    value = {"target": str(goal), "digest": str(digest), "attached": [str(one.digest) for one in held]}
    click.echo(json.dumps(value) if as_json else f"{goal}@{digest}", err=aside)
