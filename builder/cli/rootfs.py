"""`ocibuild rootfs`: a Debian rootfs by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from builder.cli.base import architecture_of, base_of, base_options
from builder.cli.options import debug_option, settings_options, takes_stdout
from builder.progress import make_reporter
from builder.settings import read_settings, source_date_epoch
from builder.standalone import lock_rootfs, write_rootfs
from builder.target import Place
from builder.wiring import open_tools


@click.command(name="rootfs")
@click.argument("suite")
@base_options
@settings_options
@debug_option
@click.option("--arch", metavar="ARCH", help="Debian's name of the architecture (this machine's).")
@click.option(
    "--lock", "lock_path", metavar="FILE", type=click.Path(path_type=Path), help="Use this lock, or write it."
)
@click.option(
    "--output",
    "-o",
    metavar="TARGET",
    help="DIR, FILE.tar[.gz|.zst], - (a tar to stdout), oci:PATH[:TAG], or what else `ocibuild copy` writes.",
)
@click.option("--sizes", is_flag=True, help="Print what each package costs, and what each rule saves.")
def command(
    suite: str, arch: str | None, lock_path: Path | None, output: str | None, *, sizes: bool, **words: object
) -> None:
    """Assemble the Debian SUITE without running anything, and write it to TARGET.

    Prints one line: the target and its digest (a directory has none); with --sizes a table.
    """
    if output is None and not sizes:
        raise click.UsageError("say where it goes with --output, or ask for --sizes")
    target = Place.parse(output, plain="dir") if output is not None else None
    aside = takes_stdout(target)
    base, architecture = base_of(suite, words), architecture_of(arch)
    with open_tools(read_settings(words), make_reporter(sys.stderr)) as tools:
        lock = lock_rootfs(base, architecture, tools, lock=lock_path, epoch=source_date_epoch())
        if sizes:
            from builder.forms import cost  # noqa: PLC0415 (as in builder.standalone)

            click.echo(cost(base, lock, tools), nl=False, err=aside)
        if target is not None:
            digest = write_rootfs(base, lock, target, tools)
            path = "-" if aside else target.path
            click.echo(f"{path}@{digest}" if digest else path, err=aside)
