"""Standalone: a Debian rootfs by itself, in the form its user wants it.

Law: what `ocibuild rootfs` does between its words and the modules that do the work.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from builder.execute import execute
from builder.lock import Lock
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.plan import Step, archive_step, configured_step, rootfs_step, rules_of, slim_parameters
from builder.recipe import Base
from builder.resolve import resolve_rootfs
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.errors import UsageError
from rootfs.extract import extract
from rootfs.files import replacing
from rootfs.ports import read_blob
from rootfs.sizes import package_sizes, render, rule_sizes
from rootfs.slim import slim
from rootfs.tree import Tree

_ARCHIVE = re.compile(r"\.tar(?P<compression>\.gz|\.zst)?\Z|\.(?P<short>tgz|tzst)\Z")
_COPY_SIZE = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a rootfs goes: `form` is dir, tar, tar.gz, tar.zst or oci; `tag` names the image in an oci layout."""

    form: str
    path: Path
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """`DIR`, `FILE.tar[.gz|.zst]` or `oci:PATH[:TAG]`; UsageError for anything that cannot be one."""
        if text.startswith("oci:"):
            path, _, tag = text.removeprefix("oci:").partition(":")
            if not path:
                raise UsageError(f"no path in {text}", hint="write oci:PATH or oci:PATH:TAG")
            return cls(form="oci", path=Path(path), tag=tag or "rootfs")
        match = _ARCHIVE.search(text)
        if match is None:
            return cls(form="dir", path=Path(text))
        short = {"tgz": ".gz", "tzst": ".zst"}.get(match["short"] or "", "")
        return cls(form=f"tar{match['compression'] or short}", path=Path(text))


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


def write_rootfs(base: Base, lock: Lock, target: Target, tools: Tools) -> Digest | None:
    """Write the rootfs to its target, whole or not at all; the digest of what was written (none of a directory)."""
    if target.form == "dir":
        extract(_tree(rootfs_step(base, lock), tools), tools.store, target.path, owners=os.geteuid() == 0)
        return None
    if target.form == "oci":
        return _write_image(base, lock, target, tools).digest
    compression = {"tar": "none", "tar.gz": "gzip", "tar.zst": "zstd"}[target.form]
    digest = execute(archive_step(base, lock, compression), tools)
    with tools.store.open(digest) as source, replacing(target.path) as stream:
        shutil.copyfileobj(source, stream, _COPY_SIZE)
    return digest


def _write_image(base: Base, lock: Lock, target: Target, tools: Tools) -> Descriptor:
    """An image of one layer, with a shell for a command where there is one."""
    tree = _tree(rootfs_step(base, lock), tools)
    layer = pack(tree, tools.store, created_by=f"Debian {base.suite}", epoch=lock.epoch, lowest=True)
    platform = Platform.of(Architecture.parse(lock.platform))
    command = ("bash",) if "usr/bin/bash" in tree or "bin/bash" in tree else ()
    image = assemble([layer], ImageConfig(platform=platform, created=lock.epoch, cmd=command))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(target.path, tools.store, image.descriptor, ref_name=target.tag)
    return image.descriptor


def cost(base: Base, lock: Lock, tools: Tools) -> str:
    """What each package of a rootfs costs, and what its base's rules saved; without any, what each rule would save."""
    tree = _tree(rootfs_step(base, lock), tools)
    rules = rules_of(slim_parameters(base))
    saved = slim(_tree(configured_step(base, lock), tools), rules).saved if rules else rule_sizes(tree)
    return render(package_sizes(tree, tools.store), saved)


def _tree(step: Step, tools: Tools) -> Tree:
    return Tree.from_bytes(read_blob(tools.store, execute(step, tools)))
