"""`ocibuild recipe`: recipe in, image out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from builder.app import (
    Built,
    accept,
    build,
    deliver,
    describe,
    load_of,
    push_image,
    read_lock,
    references_of,
    tag_of,
    targets_of,
)
from builder.cli.caching import caching
from builder.cli.options import recipe_options, settings_options, takes_stdout
from builder.cli.sending import all_done, check_receipt, show_plans
from builder.cli.start import begin, reaching
from builder.profiles import with_profile
from builder.registry.ahead import Ahead
from builder.registry.reference import Reference
from builder.settings import source_date_epoch
from builder.target import Place
from builder.transit import Delivered, plan_push
from builder.wiring import open_tools
from rootfs.digest import Digest
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
@click.option(
    "--output",
    "-o",
    default="dist",
    metavar="PLACE",
    show_default=True,
    help="DIR (the layout is DIR/NAME), or what else `ocibuild copy` writes: oci:PATH[:TAG], oci-archive:FILE, ...",
)
@click.option("--tag", metavar="TAG", help="The image's tag, in place of the recipe's.")
@click.option("--no-attest", is_flag=True, help="Make and push no SBOM and no provenance.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of one line.")
def command(
    recipe: str,
    overrides: tuple[str, ...],
    lock_path: Path | None,
    targets: tuple[str, ...],
    output: str,
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
    With --push layers are sent while the rest is made; manifest and tag follow when the image is verified.

    Prints one line: the image's place, or with --push each repository, and the manifest's digest.
    """
    place, references = _goals(output, tag, targets, receipt, planned=planned)
    found, settings, reporter = begin(recipe, overrides, lock_path, flags)
    with open_tools(settings, reporter) as ports:
        reach = reaching(ports, settings, plain_http=plain_http)
        with caching(ports, settings, reach, sources=sources, target=cache_to) as cached:
            lock = read_lock(found, cached, locked=locked, epoch=source_date_epoch())
            goals = targets_of(tag_of(found, lock, tag), references, reach)
            with Ahead(cached.store, cached.reporter, () if planned else [goal.registry for goal in goals]) as ahead:
                tools = replace(cached, ahead=ahead)
                lock = with_profile(found, lock, tools, locked=locked)
                built = build(found, lock, tools, output=place, tag=tag)
                if not no_attest:
                    built = describe(found, lock, built, tools, overrides=overrides)
                digest = deliver(built, tools)
                if planned:
                    show_plans([plan_push(load_of(built, tools), goal) for goal in goals], receipt, as_json=as_json)
                    return
                if goals:
                    accept(found, built, tools)
                pushed = all_done(push_image(built, goals, tools, ahead), receipt)
    _tell(built, digest, pushed, as_json=as_json)


def _goals(
    output: str, tag: str | None, targets: Sequence[str], receipt: Path | None, *, planned: bool
) -> tuple[Place | Path, list[Reference]]:
    """Where the image goes: a place, or a directory for a layout of the recipe's name; and what it is pushed to."""
    if (planned or receipt) and not targets:
        raise UsageError("--plan and --receipt without --push", hint="say where: --push host/repository:tag")
    references = references_of(targets)
    check_receipt(receipt)
    place = Place.parse(output, plain="dir")
    if tag is not None and (place.tag or place.name):
        raise UsageError("two names for one image", because=f"{place.tag or place.name} and {tag}")
    if takes_stdout(place) and planned:
        raise UsageError("--plan is printed where the archive goes", hint="write the archive to a file")
    is_plain = place.form == "dir" and not output.startswith("dir:")
    return place.path if is_plain else place, references


def _tell(built: Built, digest: Digest, pushed: Sequence[Delivered], *, as_json: bool) -> None:
    """Print where the image is now, and its digest (of a tar of its files, the tar's); aside of what goes to stdout."""
    names = [one.reference.name for one in pushed]
    aside = takes_stdout(built.place)
    if not as_json:
        for line in [f"{name}@{built.descriptor.digest}" for name in names] or [f"{built.place}@{digest}"]:
            click.echo(line, err=aside)
        return
    layout = None if built.layout is None else str(built.layout)
    value = {"layout": layout, "place": str(built.place), "tag": built.tag, "digest": str(built.descriptor.digest)}
    attached = [{"type": one.artifact_type, "digest": str(one.digest)} for one in built.attached]
    click.echo(json.dumps(value | {"pushed": names, "attached": attached}), err=aside)
