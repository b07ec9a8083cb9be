"""`ocibuild copy`: an image from one form or place to another."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from builder.cli.options import debug_option, settings_options, takes_stdout
from builder.cli.sending import send_found, sending_options
from builder.cli.start import reaching
from builder.finding import FoundImage, bring, find_image, stored_image
from builder.multi import chosen
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.docker import Schema, converted
from builder.oci.dockerarchive import ImageName
from builder.oci.layout import IMAGE_NAME
from builder.oci.mediatypes import INDEXES
from builder.places import WHOLE, write_place
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.target import Place
from builder.tools import Tools
from builder.transit import bring_in, load
from builder.wiring import open_tools
from rootfs.digest import Digest
from rootfs.errors import UsageError


@click.command(name="copy")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@settings_options
@debug_option
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Take this image out of an index.")
@click.option("--all", "--all-platforms", "whole", is_flag=True, help="Take all of an index, which DST must hold.")
@click.option("--format", "schema", type=click.Choice(["oci", "docker"]), help="Change the documents' media types.")
@click.option("--name", metavar="NAME:TAG", default="", help="What Docker and containerd are to call the image.")
@sending_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; of a registry the receipts.")
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
    **words: Any,
) -> None:
    """Copy the image SRC to DST, with all that is attached to it.

    SRC is a layout PATH[:TAG], an archive of one or of `docker save`, a recipe's name whose layout is in dist/, or
    host/repository:tag. DST is oci:PATH[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG],
    FILE.tar[.gz|.zst], bundle:DIR, dir:DIR or host/repository[:tag].

    Prints one line: DST and the image's digest (of a FILE.tar, the file's own). What goes from one registry to another
    touches no disk.
    """
    options = {word: words.pop(word) for word in ("tags", "no_referrers", "planned", "check", "receipt")}
    reference = None if name else _registry(target)
    place = None if reference else _place(target, name)
    aside = takes_stdout(place)
    if whole and (platform or (place is not None and place.form not in WHOLE)):
        message = "--all and --platform" if platform or place is None else f"a {place.form} holds one platform"
        raise UsageError(message, hint="choose one")
    if place is not None and any(options[word] for word in ("tags", "planned", "check", "receipt")):
        raise UsageError("--tag, --plan, --check and --receipt are for registries", at=target)
    settings = read_settings(words)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = find_image(source, connect=reach)
        if schema is not None:
            one = platform is not None or (place is not None and place.form not in WHOLE)
            found, platform = _under(schema, found, tools, one=one, platform=platform), None
        if reference is not None:
            send_found(found, [reference], tools, reach, platform=platform, as_json=as_json, **options)
            return
        assert place is not None
        digest = _write(found, place, tools, platform=platform, referrers=not options["no_referrers"])
    said = json.dumps({"target": str(place), "digest": str(digest)}) if as_json else f"{place}@{digest}"
    click.echo(said, err=aside)


def _write(found: FoundImage, place: Place, tools: Tools, *, platform: str | None, referrers: bool) -> Digest:
    """Write a found image, and what is attached to it, to its place."""
    what = load(found, tools, platform=platform, one=place.form not in WHOLE, referrers=referrers)
    tools.reporter.begin(f"copy {found.name}")
    attached = bring_in(what, tools)
    tools.reporter.finish(f"copy {found.name}")
    return write_place(place, tools.store, what.root, reporter=tools.reporter, attached=attached)


def _under(schema: Schema, found: FoundImage, tools: Tools, *, one: bool, platform: str | None) -> FoundImage:
    """The image under another schema's media types; where that gives it another digest, nothing is attached to it."""
    descriptor = fetched(found, tools, one=one, platform=platform, schema=schema)
    if descriptor.digest == found.descriptor.digest:
        return found
    tools.reporter.note(f"{descriptor.digest} is another image to those who signed {found.descriptor.digest}")
    return stored_image(descriptor, tools.store, found.name)


def _registry(target: str) -> Reference | None:
    """The repository that is meant, when no place is."""
    try:
        Place.parse(target)
    except UsageError:
        with suppress(UsageError):
            return Reference.parse(target)
    return None


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
