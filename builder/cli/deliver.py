"""Where a verb's image goes: a place on the disk, repositories, and the lines on stdout that say so."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from builder.finding import Connect
from builder.oci.descriptor import Descriptor
from builder.places import Place, write_place
from builder.registry.reference import Reference
from builder.registry.transfer import push
from builder.tools import Tools
from rootfs.errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OPTIONS = (
    click.option("--output", "-o", metavar="PLACE", help="Write it there: oci:PATH[:TAG], oci-archive:FILE, ..."),
    click.option("--push", "targets", multiple=True, metavar="REFERENCE", help="Push to host/repository:tag."),
    click.option("--plain-http", is_flag=True, help="Speak plain http to registries."),
    click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of lines."),
)


def delivery_options(function: _Function) -> _Function:
    """`--output`, `--push`, `--plain-http`, `--json`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def goals(output: str | None, targets: Sequence[str]) -> tuple[Place | None, list[Reference]]:
    """What `--output` and `--push` say, before any work is done; UsageError when they say nothing."""
    references = [Reference.parse(target) for target in targets]
    for reference in references:
        if not reference.tag or reference.digest:
            raise UsageError("no tag to push to" if not reference.tag else "a tag and a digest", at=str(reference))
    if output is None and not references:
        raise UsageError("nowhere to put the image", hint="say --output oci:PATH:TAG, or --push host/repository:tag")
    return Place.parse(output) if output is not None else None, references


def deliver(
    descriptor: Descriptor, place: Place | None, references: Sequence[Reference], tools: Tools, reach: Connect
) -> list[str]:
    """Write and push an image of the store; `NAME@DIGEST` of each place it is in now: a tar of files has its own."""
    lines = []
    if place is not None:
        lines.append(f"{place}@{write_place(place, tools.store, descriptor, reporter=tools.reporter)}")
    for reference in references:
        push(tools.store, descriptor, reach(reference), [str(reference.tag)], tools.reporter)
        lines.append(f"{reference.name}@{descriptor.digest}")
    return lines


def tell(lines: Sequence[str], descriptor: Descriptor, *, as_json: bool) -> None:
    """Print where it is and its digest."""
    if as_json:
        click.echo(json.dumps({"digest": str(descriptor.digest), "places": list(lines)}))
    else:
        for line in lines:
            click.echo(line)
