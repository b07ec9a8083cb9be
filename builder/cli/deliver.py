"""Where a verb's image goes: a place on the disk, repositories, and the lines on stdout that say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from builder.cli.options import takes_stdout
from builder.finding import Connect
from builder.oci.descriptor import Descriptor
from builder.oci.layout import check_name
from builder.places import WHOLE, write_place
from builder.registry.reference import Reference
from builder.registry.source import Source, gather, store_source
from builder.target import Place
from builder.tools import Tools
from builder.transit import Load, Target, push_each
from rootfs.errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--output", "-o", metavar="PLACE", help="Write it there: oci:PATH[:TAG], oci-archive:FILE, ..."),
    click.option("--tag", metavar="TAG", help="The image's tag in a layout, or the archive of one."),
    click.option("--push", "targets", multiple=True, metavar="REFERENCE", help="Push to host/repository:tag."),
    click.option("--plain-http", is_flag=True, help="Speak plain http to registries."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of lines."),
)


def delivery_options(function: _Function) -> _Function:
    """`--output`, `--tag`, `--push`, `--plain-http`, `--json`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def goals(output: str | None, tag: str | None, targets: Sequence[str]) -> tuple[Place | None, list[Reference]]:
    """What `--output`, `--tag` and `--push` say, before any work is done; UsageError when they say nothing."""
    references = [Reference.parse(target) for target in targets]
    for reference in references:
        if not reference.tag or reference.digest:
            message = "no tag to push to" if not reference.tag else "a tag and a digest"
            raise UsageError(message, at=str(reference), hint=f"write {reference.name}:TAG")
    if output is None and not references:
        raise UsageError("nowhere to put the image", hint="say --output oci:PATH:TAG, or --push host/repository:tag")
    place = Place.parse(output) if output is not None else None
    takes_stdout(place)
    return _tagged(place, tag) if tag is not None else place, references


def _tagged(place: Place | None, tag: str) -> Place:
    if place is None or place.form not in WHOLE or place.tag:
        hint = "write --output oci:PATH --tag TAG, or oci:PATH:TAG; for a registry --push host/repository:TAG"
        raise UsageError("--tag names the image in a layout", hint=hint)
    check_name(tag)
    return replace(place, tag=tag)


def deliver(
    descriptor: Descriptor,
    place: Place | None,
    references: Sequence[Reference],
    tools: Tools,
    reach: Connect,
    *,
    source: Source | None = None,
) -> list[str]:
    """Write and push an image of the store, of which a push may find blobs in another `source`; `NAME@DIGEST` of each
    place it is in now: a tar of files has its own.
    """
    lines = []
    if place is not None:
        lines.append(f"{place}@{write_place(place, tools.store, descriptor, reporter=tools.reporter)}")
    source = source or store_source(tools.store)
    if references:
        what = Load(source=source, graph=gather(source, descriptor), root=descriptor)
        wanted = [Target(registry=reach(reference), tags=(str(reference.tag),)) for reference in references]
        lines += [f"{one.reference.name}@{descriptor.digest}" for one in push_each(what, wanted, tools)]
    return lines


def tell(lines: Sequence[str], descriptor: Descriptor, place: Place | None, *, as_json: bool) -> None:
    """Print where it is and its digest; on stderr when stdout was the place."""
    aside = takes_stdout(place)
    if as_json:
        click.echo(json.dumps({"digest": str(descriptor.digest), "places": list(lines)}), err=aside)
    else:
        for line in lines:
            click.echo(line, err=aside)
