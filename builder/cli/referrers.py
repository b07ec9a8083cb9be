"""`ocibuild referrers`: what is attached to an image: SBOMs, provenance, and whatever else has it as its subject."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

import click

from builder.cli.options import debug_option, plain_http_option, settings_options
from builder.cli.start import reaching
from builder.finding import FoundImage, find_image
from builder.look.tables import shown, table
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.manifest import Manifest
from builder.progress import make_reporter
from builder.registry.referrers import cosign_tags
from builder.registry.source import Graph, gather, listings
from builder.settings import read_settings
from builder.sources import source_of
from builder.trust.attach import PREDICATE_TYPE
from builder.wiring import open_tools
from rootfs.errors import IntegrityError, UsageError

_SHORT = {
    "spdx": "application/spdx+json",
    "cyclonedx": "application/vnd.cyclonedx+json",
    "provenance": "https://slsa.dev/provenance/v1",
}


@click.command(name="referrers")
@click.argument("image")
@settings_options
@debug_option
@click.option("--type", "kind", metavar="TYPE", help="Only these: spdx, cyclonedx, provenance, or a type.")
@click.option("--get", "wanted", metavar="TYPE", help="Print one: spdx, cyclonedx, provenance, a type or a digest.")
@plain_http_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of descriptors.")
def command(
    image: str, kind: str | None, wanted: str | None, *, plain_http: bool, as_json: bool, **flags: str | None
) -> None:
    """List what is attached to IMAGE: host/repository:tag or @digest, a layout PATH[:TAG], an archive of one, or a
    recipe's name whose layout is in dist/."""
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        found = find_image(image, connect=reaching(tools, settings, plain_http=plain_http))
        graph = gather(source_of(found, tools.store), found.descriptor)
        attached = (*listings(graph).get(found.descriptor.digest, ()), *_tagged(graph))
        chosen = [one for one in attached if kind is None or _SHORT.get(kind, kind) in _names(one)]
        if wanted is not None:
            sys.stdout.buffer.write(_document(graph, _the_one(wanted, chosen, found.name), found))
            sys.stdout.buffer.flush()
            return
    if as_json:
        click.echo(json.dumps([one.to_dict() for one in chosen]))
    elif chosen:
        rows = [
            (shown(_names(one)[1]), shown(one.annotations.get(PREDICATE_TYPE, "")), _names(one)[0]) for one in chosen
        ]
        click.echo(table(("type", "predicate", "digest"), rows, left=(0, 1, 2)).rstrip("\n"))


def _tagged(graph: Graph) -> Iterator[Descriptor]:
    """What cosign's tags hold about the image, each with its tag; the type is that of the documents in it."""
    for tag in cosign_tags(graph.root.descriptor.digest):
        if tag in graph.tagged:
            node = graph.nodes[graph.tagged[tag]]
            layers = node.content.layers if isinstance(node.content, Manifest) else ()
            kind = layers[0].media_type if layers else None
            yield replace(node.descriptor, artifact_type=kind, annotations={REF_NAME: tag})


def _the_one(wanted: str, attached: Sequence[Descriptor], image: str) -> Descriptor:
    chosen = [one for one in attached if _SHORT.get(wanted, wanted) in _names(one)]
    if len(chosen) != 1:
        known = ", ".join(sorted({name for one in attached for name in _names(one)[1:]}))
        message = f"several are attached that are {wanted}" if chosen else f"nothing is attached that is {wanted}"
        raise UsageError(message, at=image, hint=f"it has {shown(known) or 'nothing'}")
    return chosen[0]


def _document(graph: Graph, one: Descriptor, found: FoundImage) -> bytes:
    """The document of an attached artifact; IntegrityError when it has not just one."""
    content = graph.nodes[one.digest].content
    layers = content.layers if isinstance(content, Manifest) else ()
    if len(layers) != 1:
        raise IntegrityError("not one document", at=str(one.digest), because=f"it has {len(layers)} layers")
    return b"".join(found.fetch(layers[0]))


def _names(one: Descriptor) -> tuple[str, ...]:
    """By what an artifact can be asked for: digest, artifact type, and predicate type if it has one."""
    names = (str(one.digest), one.artifact_type or one.media_type, one.annotations.get(PREDICATE_TYPE, ""))
    return tuple(filter(None, names))
