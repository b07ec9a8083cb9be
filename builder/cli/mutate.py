"""`ocibuild mutate`: another config, another base or other layers for an image that is there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder.change.mutate import Mutation, Rebase, lying, mutate
from builder.change.restack import Restack
from builder.cli.deliver import deliver, delivery_options, goals, tell
from builder.cli.options import debug_option, from_the_command_line, platforms_option, settings_options
from builder.cli.pack import sources_of
from builder.cli.said import edit_of
from builder.cli.start import reaching
from builder.finding import Connect, FoundImage, find_image
from builder.oci.layer import parse_compression
from builder.progress import make_reporter
from builder.registry.reference import Reference
from builder.settings import read_settings
from builder.sources import part_of
from builder.wiring import open_tools
from rootfs.errors import UsageError

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _several(name: str, metavar: str, text: str) -> Callable[[_Function], _Function]:
    return click.option(name, multiple=True, metavar=metavar, help=text)


_EDITS = (
    _several("--env", "NAME=VALUE", "Set a variable."),
    _several("--unset-env", "NAME", "Take a variable out."),
    click.option("--entrypoint", metavar="WORDS", help="Words as a shell takes them, or a JSON list; '' for none."),
    click.option("--cmd", metavar="WORDS", help="Likewise."),
    click.option("--user", metavar="USER[:GROUP]", help="Who runs it; '' for none said."),
    click.option("--workdir", metavar="DIR", help="Where it runs; '' for none said."),
    _several("--label", "NAME=VALUE", "Set a label of the config."),
    _several("--unset-label", "NAME", "Take a label out."),
    _several("--annotation", "NAME=VALUE", "Set an annotation of the manifest."),
    _several("--unset-annotation", "NAME", "Take an annotation out."),
    _several("--expose", "PORT[/tcp|udp|sctp]", "Name a port it listens on."),
    _several("--unset-expose", "PORT[/tcp|udp|sctp]", "Take a port out."),
    _several("--volume", "PATH", "Name a directory whose contents are no part of the image."),
    _several("--unset-volume", "PATH", "Take a volume out."),
    click.option("--stop-signal", metavar="SIGNAL", help="What ends it; '' for none said."),
    click.option("--created", metavar="EPOCH|keep", help="When it was made, in seconds; kept without this."),
    platforms_option("Take these images out of an index; else all in it."),
    click.option("--rebase-from", "old", metavar="IMAGE", help="The base it is on; else what its annotations say."),
    click.option("--rebase-onto", "new", metavar="IMAGE", help="The base to put it on."),
    _several("--append", "DIR|TAR", "Put it on top as one more layer; may repeat."),
    click.option("--squash", is_flag=True, help="Make all layers one."),
    click.option("--squash-onto", "base", metavar="IMAGE", help="Its layers, and one of what is other than in it."),
    click.option("--compression", metavar="HOW", help="Compress every layer anew: gzip, zstd or none; :LEVEL."),
)


def _edit_options(function: _Function) -> _Function:
    for option in reversed(_EDITS):
        function = option(function)
    return function


@click.command(name="mutate")
@click.argument("image")
@delivery_options
@_edit_options
@settings_options
@debug_option
def command(
    image: str,
    output: str | None,
    tag: str | None,
    targets: tuple[str, ...],
    old: str | None,
    new: str | None,
    platforms: tuple[str, ...],
    compression: str | None,
    *,
    base: str | None,
    append: tuple[str, ...],
    squash: bool,
    plain_http: bool,
    as_json: bool,
    **words: Any,
) -> None:
    """Change the config of IMAGE, its base or its layers: first the base, then --append, then --squash.

    IMAGE is a layout PATH[:TAG], a recipe's name whose layout is in dist/, or host/repository:tag.
    Prints one line for each place: its name and the digest.
    """
    place, references = goals(output, tag, targets)
    edit = edit_of(words)
    if old is not None and new is None:
        raise UsageError("--rebase-from without --rebase-onto", hint="say which base it shall have")
    if compression is not None:
        with from_the_command_line():
            parse_compression(compression)
    if base is not None and (new is not None or squash):
        raise UsageError(f"--squash-onto with {'--squash' if squash else '--rebase-onto'}", hint="choose one")
    sources = tuple(sources_of(append))
    settings = read_settings(words)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        reach = reaching(tools, settings, plain_http=plain_http)
        rebase = _rebase(old, new, reach) if new else None
        onto = _base(base, reach) if base else (None, None)
        restack = Restack(append=sources, squash=squash, compression=compression, onto=onto[0], reference=onto[1])
        one = platforms[0] if len(platforms) == 1 else None
        wanted = Mutation(edit=edit, rebase=rebase, restack=restack, platform=one)
        found = find_image(image, connect=reach)
        found = found if one else part_of(found, platforms, tools.reporter)
        descriptor = mutate(found, wanted, tools, connect=reach, whole=place is not None)
        lines = deliver(descriptor, place, references, tools, reach, source=lying(found, tools.store))
    tell(lines, descriptor, place, as_json=as_json)


def _rebase(old: str | None, new: str, reach: Connect) -> Rebase:
    found, reference = _base(new, reach)
    return Rebase(old=find_image(old, connect=reach) if old else None, new=found, reference=reference)


def _base(text: str, reach: Connect) -> tuple[FoundImage, str | None]:
    """A base, and its name if that is one in a registry."""
    found = find_image(text, connect=reach)
    return found, None if found.near else str(Reference.parse(text)).partition("@")[0]
