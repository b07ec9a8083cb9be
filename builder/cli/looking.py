"""What the verbs that look at images share: options, tools, and an image of the platform asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from builder.cli.options import debug_option, platform_of, platform_option, settings_options
from builder.cli.start import reaching
from builder.finding import Connect
from builder.images import ReadImage, read_image
from builder.oci.descriptor import Platform
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.tools import Tools
from builder.wiring import open_tools

_Function = TypeVar("_Function", bound=Callable[..., Any])

looked_at = platform_option("Take this image out of an index.")
_OPTIONS = (
    settings_options,
    debug_option,
    click.option("--plain-http", is_flag=True, help="Speak plain http to the registry."),
)


def looking_options(function: _Function) -> _Function:
    """Settings, --debug and --plain-http: the options behind `looking`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """The tools, and the way to registries."""

    tools: Tools
    connect: Connect

    def read(self, image: str, platform: str | None) -> ReadImage:
        """The documents of an image as the user named it."""
        return read_image(image, connect=self.connect, platform=None if platform is None else parse_platform(platform))


@contextmanager
def looking(flags: dict[str, str | None], *, plain_http: bool) -> Iterator[Looking]:
    """Tools by the settings that these flags give."""
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        yield Looking(tools=tools, connect=reaching(tools, settings, plain_http=plain_http))


def parse_platform(text: str) -> Platform:
    """`linux/arm64/v8`, `linux/arm64` or `arm64`; UsageError for anything else."""
    parts = platform_of(text).split("/")
    return Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else None)
