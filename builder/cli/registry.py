"""`ocibuild registry`: what a registry can, found out by trying."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.options import debug_option, settings_options
from builder.cli.start import reaching
from builder.look.tables import table
from builder.progress import make_reporter
from builder.registry.quirks import Facts, known_of, names
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.wiring import open_tools

_REPOSITORY = "ocibuild/probe"


@click.group(name="registry")
def command() -> None:
    """Find out what a registry can."""


@command.command(name="probe")
@click.argument("target", metavar="HOST[/REPOSITORY]")
@settings_options
@debug_option
@click.option("--read-only", is_flag=True, help="Try only what reads.")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def probe(target: str, *, read_only: bool, plain_http: bool, as_json: bool, **flags: str | None) -> None:
    """Try what the registry HOST can, and keep it for the pushes to come.

    Without --read-only an account is needed that may push to REPOSITORY (ocibuild/probe). 17 MiB are uploaded and
    thrown away; a blob of two bytes stays.
    """
    settings = read_settings(flags)
    reference = Reference.parse(target if "/" in target else f"{target}/{_REPOSITORY}")
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        registry = reaching(tools, settings, plain_http=plain_http)(reference)
        before = registry.facts
        findings = registry.probe(write=not read_only)
        found = Facts()
        for finding in findings:
            found = finding.facts.over(found)
    listed = {"table": known_of(reference.host), "known": before, "found": found}
    rows = {name: {kind: getattr(facts, name) for kind, facts in listed.items()} for name in names()}
    if as_json:
        tried = {finding.tried: finding.found for finding in findings}
        value = {"registry": registry.name, "repository": reference.repository, "facts": rows, "tried": tried}
        click.echo(json.dumps(value))
        return
    cells = [(name, *(_word(value) for value in row.values())) for name, row in rows.items()]
    click.echo(table(("", *listed), cells, left=(0, 1, 2, 3)), nl=False)
    for finding in findings:
        click.echo(f"{finding.tried}: {finding.found}")


def _word(value: bool | int | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value / (1 << 20):g} MiB"
