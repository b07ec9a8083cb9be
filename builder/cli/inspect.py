"""`ocibuild inspect`: what an image is, what it holds and what it costs."""

from __future__ import annotations

import json
import sys

import click

from builder.cli.looking import Looking, looking, looking_options, parse_platform, platform_option
from builder.finding import FoundImage, find_image
from builder.images import OpenedImage, ReadImage, read_found, tree_of
from builder.look.contents import Contents, contents
from builder.look.inspect import Inspection, inspect_image
from builder.oci.descriptor import Descriptor
from builder.oci.manifest import parse
from builder.oci.mediatypes import INDEXES
from rootfs.errors import UsageError


@click.command(name="inspect")
@click.argument("image", required=False, metavar="IMAGE")
@looking_options
@click.option("--sizes", is_flag=True, help="Add what each package, each part of CPython and each rule costs.")
@click.option("--layers", is_flag=True, help="Add what each layer holds, replaces and hides.")
@click.option("--packages", is_flag=True, help="Add Debian packages, CPythons and Python distributions.")
@click.option("--files", metavar="[PATTERN]", is_flag=False, flag_value="*", help="Add the files, those that fit.")
@click.option("--raw", is_flag=True, help="Print the bytes of the manifest (or index) and nothing else.")
@click.option("--config", is_flag=True, help="Print the bytes of the config and nothing else.")
@platform_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(
    image: str | None,
    *,
    sizes: bool,
    layers: bool,
    packages: bool,
    files: str | None,
    raw: bool,
    config: bool,
    platform: str | None,
    plain_http: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Show what IMAGE is: what runs in it, its layers; and, when asked, what it holds and where its bytes go.

    IMAGE is a layout PATH[:TAG], an archive, a recipe's name whose layout is in dist/, or host/repository:tag.
    """
    if image is None:
        because = f"--files took {files} for its pattern" if files else None
        hint = "write the image first: ocibuild inspect IMAGE" + (" --files" if files else "")
        raise UsageError("Missing argument 'IMAGE'.", because=because, hint=hint)
    if raw and config:
        raise UsageError("--raw and --config are two things", hint="give one of them")
    with looking(flags, plain_http=plain_http) as look:
        found = find_image(image, connect=look.connect)
        if raw and platform is None:
            _print(found, found.descriptor)
            return
        chosen = read_found(found, platform=None if platform is None else parse_platform(platform))
        if raw or config:
            _print(found, chosen.descriptor if raw else chosen.manifest.config)
            return
        inspection = _inspect(chosen, look, sizes=sizes)
        held = None
        if layers or packages or files is not None:
            held = contents(chosen, look.tools, layers=layers, packages=packages, files=files)
        platforms = _platforms(found)
    if as_json:
        more = {"platforms": [one.to_dict() for one in platforms]} if platforms else {}
        click.echo(json.dumps({**inspection.to_value(), **(held.to_value() if held else {}), **more}))
    else:
        click.echo(_text(inspection, held, platforms).rstrip("\n"))


def _inspect(image: ReadImage, look: Looking, *, sizes: bool) -> Inspection:
    opened = OpenedImage(
        name=image.found.name,
        descriptor=image.descriptor,
        manifest=image.manifest,
        config=image.config,
        tree=tree_of(image, look.tools.store, look.tools.reporter),
    )
    return inspect_image(opened, look.tools.store, sizes=sizes)


def _print(found: FoundImage, descriptor: Descriptor) -> None:
    for chunk in found.fetch(descriptor):
        sys.stdout.buffer.write(chunk)


def _platforms(found: FoundImage) -> tuple[Descriptor, ...]:
    """All that an index holds; nothing when one image is meant."""
    if found.descriptor.media_type not in INDEXES:
        return ()
    return parse(found.descriptor.media_type, b"".join(found.fetch(found.descriptor))).children


def _text(inspection: Inspection, held: Contents | None, platforms: tuple[Descriptor, ...]) -> str:
    text = inspection.render()
    if platforms:
        text += "\n== All that the index holds\n"
        text += "".join(f"{one.platform or one.artifact_type or '?'!s:<18} {one.digest}\n" for one in platforms)
    return text + (held.render() if held else "")
