"""`ocibuild delete`: a tag or a manifest out of a registry."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import debug_option, plain_http_option, settings_options
from builder.cli.start import reaching
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.removal import remove_name
from builder.settings import read_settings
from builder.wiring import open_tools
from rootfs.errors import UsageError


@click.command(name="delete")
@click.argument("reference")
@click.option("--referrers", is_flag=True, help="And all that is attached: signatures, SBOMs, provenance.")
@click.option("--force", is_flag=True, help="Delete the manifest, with every tag that stands for it.")
@click.option("--untag", is_flag=True, help="The tag alone, also where only manifests can be deleted.")
@plain_http_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: deleted.")
@settings_options
@debug_option
def command(
    reference: str,
    *,
    referrers: bool,
    force: bool,
    untag: bool,
    plain_http: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Delete REFERENCE: of host/repository:tag the tag, of host/repository@digest the manifest.

    A registry that deletes no tags would delete the manifest, with every other tag that stands for it: these are named,
    and nothing is done without --force. With --untag an empty manifest is pushed in the tag's place and deleted:
    the image and its other tags stay. Prints what was deleted, one a line.
    """
    wanted = Reference.parse(reference)
    if (wanted.tag is None) == (wanted.digest is None):
        raise UsageError("name a tag or a digest", at=reference, hint=f"`ocibuild tags {wanted.name}` lists the tags")
    if untag and (wanted.tag is None or force):
        raise UsageError("--untag with --force" if force else "--untag without a tag", at=reference, hint="choose one")
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        registry = reaching(tools, settings, plain_http=plain_http)(wanted)
        name = wanted.digest or wanted.tag or ""
        gone = remove_name(registry, name, referrers=referrers, force=force, untag=untag)
    if as_json:
        click.echo(json.dumps({"name": wanted.name, "deleted": gone}))
        return
    for name in gone:
        click.echo(f"{wanted.name}{'@' if ':' in name else ':'}{name}")
