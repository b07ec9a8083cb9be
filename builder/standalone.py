"""Standalone: a Debian rootfs by itself, in the form its user wants it.

Law: what `ocibuild rootfs` does between its words and the modules that do the work. These are imported when there is
work: of an archive that the store holds, two thirds of the time would go into them.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import time
from pathlib import Path

from builder.lock import Lock
from builder.plan import archive_step
from builder.recipe import Base
from builder.resolve import resolve_rootfs
from builder.target import Place
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.files import copy, replacing


def lock_rootfs(base: Base, architecture: Architecture, tools: Tools, *, lock: Path | None, epoch: int | None) -> Lock:
    """The lock of a base: the one at `lock` when it fits; else the archive is asked, and `lock`, if given, written."""
    platform = f"linux/{architecture.oci}"
    known = Lock.parse(lock.read_bytes(), at=str(lock)) if lock is not None and lock.exists() else None
    if known is None or not known.matches(base.digest, platform):
        known = resolve_rootfs(base, architecture, tools, now=int(time.time()), epoch=epoch)
        if lock is not None:
            with replacing(lock) as stream:
                stream.write(known.to_bytes())
    return known


def write_rootfs(base: Base, lock: Lock, target: Place, tools: Tools) -> Digest | None:
    """Write the rootfs to its target, whole or not at all; the digest of what was written (none of a directory)."""
    if target.form == "dir":
        from builder.forms import write_directory

        write_directory(base, lock, target.path, tools)
        return None
    if not target.form.startswith("tar"):
        from builder.forms import write_image

        return write_image(base, lock, target, tools)
    step = archive_step(base, lock, {"tar": "none", "tar.gz": "gzip", "tar.zst": "zstd"}[target.form])
    digest = tools.store.lookup(step.key)
    if digest is None:
        from builder.execute import execute

        digest = execute(step, tools)
    with tools.store.open(digest) as source, replacing(target.path) as stream:
        copy(source, stream.fileno(), offset=0, size=source.seek(0, os.SEEK_END))
    return digest
