"""How verbs start: recipe, settings, reporter; and how they reach an image in a registry."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from builder.progress import make_reporter
from builder.settings import Settings, read_settings, registry_access
from builder.tools import Tools
from rootfs.ports import Reporter

if TYPE_CHECKING:
    from builder.app import Found
    from builder.finding import Connect
    from builder.registry.client import Registry
    from builder.registry.reference import Reference


def begin(
    recipe: str, overrides: tuple[str, ...], lock_path: Path | None, flags: dict[str, str | None]
) -> tuple[Found, Settings, Reporter]:
    """The recipe, the settings and a reporter on stderr."""
    from builder.app import find_recipe  # noqa: PLC0415 (all that makes a build: what only pushes does without)

    settings = read_settings(flags)
    return find_recipe(recipe, overrides=overrides, lock=lock_path), settings, make_reporter(sys.stderr)


def reaching(tools: Tools, settings: Settings, *, plain_http: bool) -> Connect:
    """The way to registries, with the user's own accounts."""

    def reach(reference: Reference) -> Registry:
        from builder.reach import connect  # noqa: PLC0415 (what lies on the disk is found without it)

        return connect(reference, tools=tools, access=registry_access(settings), plain_http=plain_http)

    return reach
