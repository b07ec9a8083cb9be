"""How every verb that builds starts: recipe, settings, reporter."""

from __future__ import annotations

import sys
from pathlib import Path

from builder.app import Found, find_recipe
from builder.progress import make_reporter
from builder.settings import Settings, read_settings
from rootfs.ports import Reporter


def begin(
    recipe: str, overrides: tuple[str, ...], lock_path: Path | None, flags: dict[str, str | None]
) -> tuple[Found, Settings, Reporter]:
    """The recipe, the settings and a reporter on stderr."""
    settings = read_settings(flags)
    return find_recipe(recipe, overrides=overrides, lock=lock_path), settings, make_reporter(sys.stderr)
