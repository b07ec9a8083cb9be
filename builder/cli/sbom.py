"""`ocibuild sbom`: what is in an image, in a form that other programs read."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from builder.cli.options import debug_option, settings_options
from builder.cli.start import reaching
from builder.finding import find_image
from builder.images import OpenedImage, open_image
from builder.lock import Lock
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.trust.attach import artifact, attach
from builder.trust.attest import FORMATS, sbom
from builder.wiring import open_tools
from rootfs.errors import LockError, UsageError
from rootfs.files import replacing

_TITLE = "org.opencontainers.image.title"


@click.command(name="sbom")
@click.argument("image")
@settings_options
@debug_option
@click.option("--format", "format_", type=click.Choice(FORMATS), default="spdx", show_default=True)
@click.option("--files", is_flag=True, help="Name every file, too, with its digest.")
@click.option(
    "--lock", "lock_path", metavar="FILE", type=click.Path(path_type=Path), help="The lock it was built from."
)
@click.option("--output", "-o", metavar="FILE", type=click.Path(path_type=Path), help="Write it there, not to stdout.")
@click.option("--attach", "is_attached", is_flag=True, help="Attach it to IMAGE, which lies in a layout.")
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
def command(
    image: str,
    format_: str,
    lock_path: Path | None,
    output: Path | None,
    *,
    files: bool,
    is_attached: bool,
    plain_http: bool,
    **flags: str | None,
) -> None:
    """Say what is in IMAGE: Debian's packages, CPython, what pip installed; whoever built it.

    IMAGE is a layout PATH[:TAG], a recipe's name whose layout is in dist/, an archive, or host/repository:tag. With
    --lock it also says where everything came from.

    Prints the document, or with --output or --attach its place and digest.
    """
    settings = read_settings(flags)
    lock = None if lock_path is None else _lock(lock_path)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        layout = find_image(image, connect=reach).layout if is_attached else None
        if is_attached and layout is None:
            raise UsageError("only an image in a layout can be attached to", at=image, hint="leave --attach out")
        opened = open_image(image, tools, connect=reach)
        document = sbom(opened, _name(opened), format_, tools.store, lock=lock, files=files)
        if layout is not None:
            made = artifact(document, opened.descriptor, tools.store, created=opened.config.created)
            attach(layout, [made], tools.store)
            click.echo(f"{layout}@{made.digest}")
    if output is not None:
        with replacing(output) as stream:
            stream.write(document.data)
        click.echo(output)
    elif layout is None:
        click.echo(document.data)


def _lock(path: Path) -> Lock:
    try:
        return Lock.parse(path.read_bytes(), at=str(path))
    except OSError as error:
        raise LockError("cannot read the lock", at=str(path), because=error.strerror or str(error)) from error


def _name(image: OpenedImage) -> str:
    """What the image calls itself: the name it was found by says where it lies, not what it is."""
    title = image.config.labels.get(_TITLE) or image.manifest.annotations.get(_TITLE) or ""
    return title if title.isprintable() and title.strip() and "/" not in title else "image"
