"""`ocibuild recipe`: recipe in, image out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from builder.app import Built, accept, build, describe, load_of, push_image, read_lock, targets_of
from builder.cli.caching import caching
from builder.cli.options import recipe_options, settings_options
from builder.cli.sending import show_plans, write_receipt
from builder.cli.start import begin, reaching
from builder.profiles import with_profile
from builder.settings import source_date_epoch
from builder.transit import Delivered, plan_push
from builder.wiring import open_tools
from rootfs.errors import UsageError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(name="recipe")
@recipe_options
@settings_options
@click.option("--push", "targets", multiple=True, metavar="REFERENCE", help="Push to host/repository[:tag].")
@click.option("--plan", "planned", is_flag=True, help="With --push: say what would be sent, and send nothing.")
@click.option("--receipt", metavar="FILE", type=_FILE, help="Write what was pushed to a JSON file.")
@click.option("--cache", metavar="REPOSITORY", help="Take results of steps from there, and keep them there.")
@click.option("--cache-from", "sources", multiple=True, metavar="REPOSITORY", help="Only take them from there.")
@click.option("--cache-to", metavar="REPOSITORY", help="Only keep them there.")
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
    sources: tuple[str, ...],
    cache_to: str | None,
    receipt: Path | None,
    planned: bool,
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
    if (planned or receipt) and not targets:
        raise UsageError("--plan and --receipt without --push", hint="say where: --push host/repository:tag")
    found, settings, reporter = begin(recipe, overrides, lock_path, flags)
    with open_tools(settings, reporter) as ports:
        reach = reaching(ports, settings, plain_http=plain_http)
        with caching(ports, settings, reach, sources=sources, target=cache_to) as tools:
            lock = with_profile(
                found, read_lock(found, tools, locked=locked, epoch=source_date_epoch()), tools, locked=locked
            )
            built = build(found, lock, tools, output=output, tag=tag)
            if not no_attest:
                built = describe(found, lock, built, tools, overrides=overrides)
            goals = targets_of(built, targets, reach)
            if planned:
                show_plans([plan_push(load_of(built, tools), goal) for goal in goals], receipt, as_json=as_json)
                return
            if goals:
                accept(found, built, tools)
            pushed = push_image(built, goals, tools)
            write_receipt(receipt, [one.receipt for one in pushed])
    _tell(built, pushed, as_json=as_json)


def _tell(built: Built, pushed: Sequence[Delivered], *, as_json: bool) -> None:
    """Print where the image is now, and its digest."""
    names = [one.reference.name for one in pushed]
    if not as_json:
        for name in names or [str(built.layout)]:
            click.echo(f"{name}@{built.descriptor.digest}")
        return
    value = {"layout": str(built.layout), "tag": built.tag, "digest": str(built.descriptor.digest), "pushed": names}
    attached = [{"type": one.artifact_type, "digest": str(one.digest)} for one in built.attached]
    click.echo(json.dumps(value | {"attached": attached}))
