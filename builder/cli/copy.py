"""`ocibuild copy`: an image from one form or place to another."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import click

from builder.cli.options import debug_option, settings_options
from builder.cli.start import reaching
from builder.finding import FoundImage, bring, find_image
from builder.multi import chosen
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.docker import Schema, converted
from builder.oci.dockerarchive import ImageName
from builder.oci.layout import IMAGE_NAME
from builder.oci.mediatypes import INDEXES
from builder.places import write_place
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.target import Place
from builder.tools import Tools
from builder.wiring import open_tools
from rootfs.errors import UsageError

_WHOLE = ("oci", "oci-archive")


@click.command(name="copy")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@settings_options
@debug_option
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Take this image out of an index.")
@click.option("--all", "whole", is_flag=True, help="Take all of an index, which DST must be able to hold.")
@click.option("--format", "schema", type=click.Choice(["oci", "docker"]), help="Change the documents' media types.")
@click.option("--name", metavar="NAME:TAG", default="", help="What Docker and containerd are to call the image.")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(
    source: str,
    target: str,
    platform: str | None,
    schema: Schema | None,
    name: str,
    *,
    whole: bool,
    plain_http: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Copy the image SRC to DST.

    SRC is a layout PATH[:TAG], an archive of one or of `docker save`, a recipe's name whose layout is in dist/, or
    host/repository:tag. DST is oci:PATH[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG],
    FILE.tar[.gz|.zst], bundle:DIR or dir:DIR.

    Prints one line: DST and the image's digest (of a FILE.tar, the file's own).
    """
    place = _place(target, name)
    if whole and (platform or place.form not in _WHOLE):
        raise UsageError(
            "--all and --platform" if platform else f"a {place.form} holds one platform", hint="choose one"
        )
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        found = find_image(source, connect=reaching(tools, settings, plain_http=plain_http))
        one = platform is not None or place.form not in _WHOLE
        descriptor = fetched(found, tools, one=one, platform=platform, schema=schema)
        digest = write_place(place, tools.store, descriptor, reporter=tools.reporter)
    click.echo(json.dumps({"target": str(place), "digest": str(digest)}) if as_json else f"{place}@{digest}")


def _place(target: str, name: str) -> Place:
    """The target, with the name it is to have there; a name that is none is refused before any work."""
    place = Place.parse(target)
    if place.name and name:
        raise UsageError("two names for one image", because=f"{place.name} and {name}")
    place = replace(place, name=place.name or name)
    if place.name:
        ImageName.parse(place.name)
    return place


def fetched(
    found: FoundImage, tools: Tools, *, one: bool, platform: str | None, schema: Schema | None = None
) -> Descriptor:
    """Have a found image in the store: all of an index, or the `one` of a platform, under that schema's media types."""
    descriptor = found.descriptor
    if (one and descriptor.media_type in INDEXES) or platform:
        leaf = chosen(found, platform).descriptor
        names = {key: value for key, value in descriptor.annotations.items() if key in (REF_NAME, IMAGE_NAME)}
        descriptor = replace(leaf, annotations={**leaf.annotations, **names})
    tools.reporter.begin(f"copy {found.name}")
    bring(replace(found, descriptor=descriptor), tools.store)
    tools.reporter.finish(f"copy {found.name}")
    return converted(descriptor, tools.store, schema) if schema else descriptor
