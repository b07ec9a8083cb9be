"""`ocibuild inspect`: what an image is, what it holds and what it costs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from builder.cli.looking import Looking, looked_at, looking, looking_options, parse_platform
from builder.finding import FoundImage, find_image
from builder.images import ReadImage, present, read_found, tree_of
from builder.look.inspect import Inspection, inspect_image
from builder.oci.descriptor import Descriptor
from builder.oci.manifest import parse
from builder.oci.mediatypes import INDEXES
from rootfs.errors import UsageError

if TYPE_CHECKING:
    from builder.look.contents import Contents
    from builder.registry.client import Registry


@click.command(name="inspect")
@click.argument("image", required=False, metavar="IMAGE")
@looking_options
@click.option("--sizes", is_flag=True, help="Add what each package, each part of CPython and each rule costs.")
@click.option("--layers", is_flag=True, help="Add what each layer holds, replaces and hides.")
@click.option("--packages", is_flag=True, help="Add Debian packages, CPythons and Python distributions.")
@click.option("--files", metavar="[PATTERN]", is_flag=False, flag_value="*", help="Add the files, those that fit.")
@click.option("--raw", is_flag=True, help="Print the bytes of the manifest (or index) and nothing else.")
@click.option("--config", is_flag=True, help="Print the bytes of the config and nothing else.")
@looked_at
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

    Of an image in a registry no layer is fetched unless --packages, --files, --layers or --sizes asks what they hold.

    IMAGE is a layout PATH[:TAG], an archive, a recipe's name whose layout is in dist/, or host/repository:tag.
    """
    if image is None:
        raise _no_image(files)
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
        if found.registry is not None and not (sizes or layers or packages or files is not None):
            inspection = _unfetched(chosen, found.registry, look)
        else:
            chosen = present(chosen, look.tools.reporter)
            inspection = _inspect(chosen, look, sizes=sizes)
        held = _held(chosen, look, layers=layers, packages=packages, files=files)
        platforms = _platforms(found)
    if as_json:
        more = {"platforms": [one.to_dict() for one in platforms]} if platforms else {}
        click.echo(json.dumps({**inspection.to_value(), **(held.to_value() if held else {}), **more}))
    else:
        click.echo(_text(inspection, held, platforms).rstrip("\n"))


def _no_image(files: str | None) -> UsageError:
    because = f"--files took {files} for its pattern" if files else None
    hint = "write the image first: ocibuild inspect IMAGE" + (" --files" if files else "")
    return UsageError("Missing argument 'IMAGE'.", because=because, hint=hint)


def _inspect(image: ReadImage, look: Looking, *, sizes: bool) -> Inspection:
    tree = tree_of(image, look.tools.store, look.tools.reporter)
    return inspect_image(image, tree, look.tools.store, sizes=sizes)


def _unfetched(image: ReadImage, registry: Registry, look: Looking) -> Inspection:
    """What the documents of an image in a registry say, and what is attached to it, or to the index it is of."""
    from builder.registry.referrers import listed, tagged  # noqa: PLC0415 (images elsewhere do without)

    about = dict.fromkeys((image.descriptor.digest, image.found.descriptor.digest))
    attached = [one for subject in about for one in (*listed(registry, subject), *tagged(registry, subject))]
    return replace(inspect_image(image, None, look.tools.store, sizes=False), attached=tuple(attached))


def _held(image: ReadImage, look: Looking, *, layers: bool, packages: bool, files: str | None) -> Contents | None:
    if not layers and not packages and files is None:
        return None
    from builder.look.contents import contents  # noqa: PLC0415 (few ask for it)

    return contents(image, look.tools, layers=layers, packages=packages, files=files)


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
