"""`ocibuild pack`: directories and tars in, an image out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from builder.change.pack import Owner, Packing, Source, pack_image
from builder.cli.deliver import deliver, delivery_options, goals, tell
from builder.cli.options import debug_option, from_the_command_line, platform_option, settings_options
from builder.cli.said import edit_of
from builder.cli.start import reaching
from builder.oci.check import check_image
from builder.oci.descriptor import Platform
from builder.oci.layer import parse_compression
from builder.progress import make_reporter
from builder.settings import read_settings, source_date_epoch
from builder.wiring import open_tools
from rootfs.architecture import Architecture
from rootfs.errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_CONFIG = (
    click.option(
        "--compression",
        metavar="HOW",
        default="gzip",
        show_default=True,
        help="gzip, zstd, estargz, zstd:chunked; :LEVEL; or none.",
    ),
    click.option("--owner", metavar="keep|root|UID:GID", help="Whose the files are: root's; a tar's keep theirs."),
    click.option("--created", metavar="EPOCH", help="The image's time, and the latest of any file: seconds."),
    platform_option("What it runs on (this machine's)."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
    click.option("--entrypoint", metavar="WORDS", help="Words as a shell takes them, or a JSON list."),
    click.option("--cmd", metavar="WORDS", help="Likewise."),
    click.option("--user", metavar="USER[:GROUP]", help="Who runs it."),
    click.option("--workdir", metavar="DIR", help="Where it runs."),
    click.option("--expose", multiple=True, metavar="PORT[/tcp|udp|sctp]", help="Name a port it listens on."),
    click.option("--volume", multiple=True, metavar="PATH", help="Name a directory that is no part of the image."),
    click.option("--stop-signal", metavar="SIGNAL", help="What ends it."),
    click.option("--label", multiple=True, metavar="NAME=VALUE", help="Set a label of the config."),
    click.option("--annotation", multiple=True, metavar="NAME=VALUE", help="Set an annotation of the manifest."),
)
_ABSENT = {"unset_env", "unset_label", "unset_annotation", "unset_expose", "unset_volume"}


def _config_options(function: _Function) -> _Function:
    for option in reversed(_CONFIG):
        function = option(function)
    return function


@click.command(name="pack")
@click.argument("sources", metavar="DIR|TAR...", nargs=-1, required=True)
@delivery_options
@_config_options
@settings_options
@debug_option
def command(
    sources: tuple[str, ...],
    output: str | None,
    tag: str | None,
    targets: tuple[str, ...],
    compression: str,
    owner: str | None,
    platform: str | None,
    *,
    plain_http: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Make an image of directories and tars: one layer for each, the first one lowest.

    A TAR may be compressed (gzip, zstd, xz, bzip2); - reads one from stdin. The same directory gives the same image,
    whoever packs it: without --created or SOURCE_DATE_EPOCH every time is 1970, without --owner everything is root's.

    Prints one line for each place: its name and the image's digest.
    """
    place, references = goals(output, tag, targets)
    with from_the_command_line():
        parse_compression(compression)
        architecture = Architecture.parse(platform) if platform else Architecture.host()
    settings = read_settings(words)
    packing = Packing(
        platform=Platform.of(architecture),
        epoch=_epoch(words["created"]),
        owner=Owner.parse(owner) if owner is not None else None,
        compression=compression,
        threads=int(settings.jobs.value),
        edit=edit_of(words | dict.fromkeys(_ABSENT, ()) | {"created": None}),
    )
    listed = sources_of(sources)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        descriptor = pack_image(listed, packing, tools.store, reporter=tools.reporter)
        if references:
            check_image(tools.store, descriptor)
        names = deliver(descriptor, place, references, tools, reaching(tools, settings, plain_http=plain_http))
    tell(names, descriptor, place, as_json=as_json)


def sources_of(texts: tuple[str, ...]) -> list[Source]:
    """The arguments, each there; UsageError when one is not, or stdin is to be read twice."""
    if texts.count("-") > 1:
        raise UsageError("stdin can be read only once", hint="give one - at most")
    for text in texts:
        if text != "-" and not Path(text).exists():
            raise UsageError("no such directory or tar", at=text)
    return [
        Source(name="stdin", path=Path("-"), stream=sys.stdin.buffer)
        if text == "-"
        else Source(name=text, path=Path(text))
        for text in texts
    ]


def _epoch(created: str | None) -> int:
    if created is None:
        return source_date_epoch() or 0
    if not created.isdecimal() or len(created) > 11:
        raise UsageError(f"not a time: {created!r:.80}", hint="write seconds since 1970: date +%s")
    return int(created)
