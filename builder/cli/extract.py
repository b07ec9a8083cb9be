"""`ocibuild extract`: one file or directory out of an image."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from builder.cli.looking import looked_at, looking, looking_options
from builder.look.tables import shown
from builder.look.takeout import Taken, chunks_of, take
from builder.oci.tar import archive
from rootfs.errors import UsageError
from rootfs.extract import extract
from rootfs.files import replacing
from rootfs.ports import Store
from rootfs.tree import Kind

_STDOUT = "-"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2")


@click.command(name="extract")
@click.argument("image")
@click.argument("path")
@looking_options
@click.option("--output", "-o", metavar="TARGET", help="FILE, DIR, FILE.tar, or - for stdout (default, for a file).")
@looked_at
def command(
    image: str, path: str, *, output: str | None, platform: str | None, plain_http: bool, **flags: str | None
) -> None:
    """Take PATH out of IMAGE: a file to stdout or a file, a directory as a directory or a tar archive.

    Links are followed inside the image. IMAGE is a layout PATH[:TAG], an archive, a recipe's name whose layout is in
    dist/, or host/repository:tag.
    """
    with looking(flags, plain_http=plain_http) as look:
        store = look.tools.store
        taken = take(look.read(image, platform), path, look.tools)
        if taken.file is None:
            _write_directory(taken, output, store)
        else:
            _write_file(taken, output, store)


def _write_directory(taken: Taken, output: str | None, store: Store) -> None:
    if output is None:
        hint = "name a place: --output DIR, --output FILE.tar, or --output - for a tar archive"
        raise UsageError(f"/{shown(taken.path)} is a directory", hint=hint)
    if output.endswith(_COMPRESSED):
        hint = "write FILE.tar, or --output - and pipe it into the program that compresses"
        raise UsageError(f"a tar archive is not compressed: {output}", hint=hint)
    if output != _STDOUT and not output.endswith(".tar"):
        extract(taken.tree, store, Path(output))
        click.echo(output)
        return
    latest = max((entry.mtime for entry in taken.tree.values()), default=0)
    _write(archive(taken.tree, store, epoch=latest, lowest=False), output)


def _write_file(taken: Taken, output: str | None, store: Store) -> None:
    entry = taken.file
    assert entry is not None
    if entry.kind is not Kind.FILE:
        raise UsageError(f"/{shown(taken.path)} cannot be extracted", because=f"it is a {entry.kind.name.lower()}")
    if output is not None and output != _STDOUT and Path(output).is_dir():
        output = str(Path(output) / entry.path)
    _write(chunks_of(entry, store), output or _STDOUT, mode=entry.mode & 0o777)


def _write(pieces: Iterable[bytes], output: str, mode: int = 0o644) -> None:
    if output == _STDOUT:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    with replacing(Path(output), mode) as stream:
        for piece in pieces:
            stream.write(piece)
    click.echo(output)
