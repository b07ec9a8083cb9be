"""`ocibuild recipe`: recipe in, image out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from builder.app import accept, build, describe, push_image, read_lock
from builder.cli.options import recipe_options, settings_options
from builder.cli.start import begin, reaching
from builder.profiles import with_profile
from builder.settings import source_date_epoch
from builder.wiring import open_tools


@click.command(name="recipe")
@recipe_options
@settings_options
@click.option("--push", "targets", multiple=True, metavar="REFERENCE", help="Push to host/repository[:tag].")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@click.option("--locked", is_flag=True, help="Never resolve: a missing or stale lock is an error.")
@click.option("--output", default="dist", metavar="DIR", type=click.Path(path_type=Path), show_default=True)
@click.option("--tag", metavar="TAG", help="The image's tag, in place of the recipe's.")
@click.option("--no-attest", is_flag=True, help="Make and push no SBOM and no provenance.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of one line.")
def command(
    recipe: str,
    overrides: tuple[str, ...],
    lock_path: Path | None,
    targets: tuple[str, ...],
    output: Path,
    tag: str | None,
    *,
    plain_http: bool,
    locked: bool,
    no_attest: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Build the image of RECIPE: a path, or the name of a recipe in ./recipes or of a shipped one.

    Beside the image its SBOMs (SPDX, CycloneDX) and its provenance (SLSA) are written, as artifacts about it.
    With --push the finished image is verified before a byte of it leaves the machine (`ocibuild verify`).

    Prints one line: the image layout, or with --push each repository, and the manifest's digest.
    """
    found, settings, reporter = begin(recipe, overrides, lock_path, flags)
    with open_tools(settings, reporter) as tools:
        lock = read_lock(found, tools, locked=locked, epoch=source_date_epoch())
        lock = with_profile(found, lock, tools, locked=locked)
        built = build(found, lock, tools, output=output, tag=tag)
        if not no_attest:
            built = describe(found, lock, built, tools, overrides=overrides)
        if targets:
            accept(found, built, tools)
        reach = reaching(tools, settings, plain_http=plain_http)
        pushed = push_image(built, targets, tools, connect=reach)
    digest = str(built.descriptor.digest)
    names = [f"{reference.host}/{reference.repository}" for reference in pushed] or [str(built.layout)]
    if as_json:
        value: dict[str, Any] = {
            "layout": str(built.layout),
            "tag": built.tag,
            "digest": digest,
            "pushed": names if pushed else [],
        }
        value["attached"] = [{"type": one.artifact_type, "digest": str(one.digest)} for one in built.attached]
        click.echo(json.dumps(value))
    else:
        for name in names:
            click.echo(f"{name}@{digest}")
