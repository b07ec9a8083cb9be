"""`ocibuild diff`: what changed between two images."""

from __future__ import annotations

import json

import click

from builder.cli.looking import looked_at, looking, looking_options
from builder.look.compare import compare
from builder.look.differences import SECTIONS, Section, differs, render


@click.command(name="diff")
@click.argument("before")
@click.argument("after")
@looking_options
@click.option("--packages", is_flag=True, help="Show packages, CPythons and Python distributions, all of them.")
@click.option("--files", is_flag=True, help="Show every file.")
@click.option("--config", is_flag=True, help="Show the config.")
@click.option("--layers", is_flag=True, help="Show the layers.")
@click.option("--mtime", is_flag=True, help="Count files that differ in nothing but their time.")
@looked_at
@click.option("--exit-code", is_flag=True, help="Exit with 1 when there are differences.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(
    before: str,
    after: str,
    *,
    mtime: bool,
    platform: str | None,
    exit_code: bool,
    plain_http: bool,
    as_json: bool,
    **flags: str | bool | None,
) -> None:
    """Show what changed from the image BEFORE to the image AFTER.

    An image is a layout PATH[:TAG], a recipe's name whose layout is in dist/, or host/repository:tag.
    """
    sections: tuple[Section, ...] = tuple(section for section in SECTIONS if flags.pop(section))
    settings = {name: value for name, value in flags.items() if not isinstance(value, bool)}
    with looking(settings, plain_http=plain_http) as look:
        found = compare(look.read(before, platform), look.read(after, platform), look.tools, times=mtime)
    click.echo(json.dumps(found.to_value()) if as_json else render(found, sections).rstrip("\n"))
    if exit_code and differs(found, sections or SECTIONS):
        raise click.exceptions.Exit(1)
