"""`ocibuild referrers`: what is attached to an image: SBOMs, provenance, and whatever else has it as its subject."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import debug_option, settings_options
from builder.images import read_image
from builder.oci.descriptor import Descriptor
from builder.settings import read_settings
from builder.tables import shown, table
from builder.trust.attach import PREDICATE_TYPE, attached_to, content
from rootfs.errors import UsageError

_SHORT = {
    "spdx": "application/spdx+json",
    "cyclonedx": "application/vnd.cyclonedx+json",
    "provenance": "https://slsa.dev/provenance/v1",
}


@click.command(name="referrers")
@click.argument("image")
@settings_options
@debug_option
@click.option("--get", "wanted", metavar="TYPE", help="Print one: spdx, cyclonedx, provenance, a type or a digest.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of descriptors.")
def command(image: str, wanted: str | None, *, as_json: bool, **flags: str | None) -> None:
    """List what is attached to IMAGE, in a layout PATH[:TAG], or named by a recipe whose layout is in dist/."""
    read_settings(flags)
    found = read_image(image)
    layout = found.found.layout
    if layout is None:
        raise UsageError("only a layout can be looked through", at=image, hint="`ocibuild copy` makes one")
    attached = attached_to(layout, found.descriptor.digest)
    if wanted is not None:
        chosen = [one for one in attached if _SHORT.get(wanted, wanted) in _names(one)]
        if len(chosen) != 1:
            known = ", ".join(sorted({name for one in attached for name in _names(one)[1:]}))
            message = f"several are attached that are {wanted}" if chosen else f"nothing is attached that is {wanted}"
            raise UsageError(message, at=str(found), hint=f"it has {known or 'nothing'}")
        sys.stdout.buffer.write(content(layout, chosen[0]))
        sys.stdout.buffer.flush()
    elif as_json:
        click.echo(json.dumps([one.to_dict() for one in attached]))
    elif attached:
        rows = [
            (shown(_names(one)[1]), shown(one.annotations.get(PREDICATE_TYPE, "")), _names(one)[0]) for one in attached
        ]
        click.echo(table(("type", "predicate", "digest"), rows, left=(0, 1, 2)).rstrip("\n"))


def _names(one: Descriptor) -> tuple[str, ...]:
    """By what an artifact can be asked for: digest, artifact type, and predicate type if it has one."""
    names = (str(one.digest), one.artifact_type or one.media_type, one.annotations.get(PREDICATE_TYPE, ""))
    return tuple(filter(None, names))
