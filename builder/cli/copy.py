"""`ocibuild copy`: an image from one form or place to another."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from builder.cli.options import debug_option, platforms_option, settings_options, takes_stdout
from builder.cli.sending import send_found, sending_options
from builder.cli.start import reaching
from builder.finding import FoundImage, bring, find_image, stored_image
from builder.oci.descriptor import Descriptor
from builder.oci.docker import Schema, converted
from builder.oci.dockerarchive import ImageName
from builder.places import WHOLE, write_place
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.sources import part_of
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
@platforms_option("Take these images out of an index.")
@click.option("--all", "--all-platforms", "whole", is_flag=True, help="Take all of an index, which DST must hold.")
@click.option("--format", "schema", type=click.Choice(["oci", "docker"]), help="Change the documents' media types.")
@click.option("--name", metavar="NAME:TAG", default="", help="What Docker and containerd are to call the image.")
@sending_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; of a registry the receipts.")
def command(
    source: str,
    target: str,
    platforms: tuple[str, ...],
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
    if whole and (platforms or (place is not None and place.form not in WHOLE)):
        message = "--all and --platform" if platforms or place is None else f"a {place.form} holds one platform"
        raise UsageError(message, hint="choose one")
    if place is not None and any(options[word] for word in ("tags", "planned", "check", "receipt")):
        raise UsageError("--tag, --plan, --check and --receipt are for registries", at=target)
    settings = read_settings(words)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        found = find_image(source, connect=reach)
        found = part_of(found, platforms, tools.reporter, one=place is not None and place.form not in WHOLE)
        if schema is not None:
            found = _under(schema, found, tools)
        if reference is not None:
            send_found(found, [reference], tools, reach, as_json=as_json, **options)
            return
        assert place is not None
        digest, attached = _write(found, place, tools, referrers=not options["no_referrers"])
    value = {"target": str(place), "digest": str(digest), "attached": [str(one.digest) for one in attached]}
    click.echo(json.dumps(value) if as_json else f"{place}@{digest}", err=aside)


def _write(found: FoundImage, place: Place, tools: Tools, *, referrers: bool) -> tuple[Digest, tuple[Descriptor, ...]]:
    """Write a found image, and what is attached to it, to its place; its digest there, and what went along."""
    what = load(found, tools, referrers=referrers)
    tools.reporter.begin(f"copy {found.name}")
    attached = bring_in(what, tools)
    tools.reporter.finish(f"copy {found.name}")
    digest = write_place(place, tools.store, what.root, reporter=tools.reporter, attached=attached)
    return digest, attached if place.form in WHOLE else ()


def _under(schema: Schema, found: FoundImage, tools: Tools) -> FoundImage:
    """The image under another schema's media types; where that gives it another digest, nothing is attached to it."""
    tools.reporter.begin(f"copy {found.name}")
    bring(found, tools.store)
    tools.reporter.finish(f"copy {found.name}")
    descriptor = converted(found.descriptor, tools.store, schema)
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
