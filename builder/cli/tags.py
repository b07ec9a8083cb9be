"""`ocibuild tags`: the tags of a repository."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import debug_option, plain_http_option, settings_options
from builder.cli.start import reaching
from builder.look.tables import shown
from builder.progress import make_reporter
from builder.registry.listing import tags
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.wiring import open_tools
from rootfs.errors import UsageError


@click.command(name="tags")
@click.argument("repository", metavar="REPOSITORY")
@plain_http_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object: name, tags.")
@settings_options
@debug_option
def command(repository: str, *, plain_http: bool, as_json: bool, **flags: str | None) -> None:
    """List the tags of REPOSITORY, host/repository, one a line, as the registry orders them."""
    reference = Reference.parse(repository)
    if reference.tag or reference.digest:
        raise UsageError("a repository has tags, a reference is one", at=repository, hint=f"write {reference.name}")
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        registry = reaching(tools, settings, plain_http=plain_http)(reference)
        found = registry.hold(tags(registry.url), "pull")
    if as_json:
        click.echo(json.dumps({"name": reference.name, "tags": list(found)}))
        return
    for tag in found:
        click.echo(shown(tag))
