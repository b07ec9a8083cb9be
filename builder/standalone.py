"""Standalone: a Debian rootfs by itself, in the form its user wants it.

Law: what `ocibuild rootfs` does between its words and the modules that do the work.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from builder.execute import execute
from builder.lock import Lock
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.oci.layout import write_layout
from builder.oci.tar import archive
from builder.plan import configured_step, rootfs_step, rules_of, slim_parameters
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
_READ_SIZE = 1 << 20


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Rootfs:
    """A configured Tree and the lock it was made from."""

    tree: Tree
    lock: Lock


def make_rootfs(
    base: Base, architecture: Architecture, tools: Tools, *, lock: Path | None, epoch: int | None
) -> Rootfs:
    """The rootfs of a base. A lock that fits is used; else the archive is asked, and `lock`, if given, written."""
    platform = f"linux/{architecture.oci}"
    known = Lock.parse(lock.read_bytes(), at=str(lock)) if lock is not None and lock.exists() else None
    if known is None or not known.matches(base.digest, platform):
        known = resolve_rootfs(base, architecture, tools, now=int(time.time()), epoch=epoch)
        if lock is not None:
            with replacing(lock) as stream:
                stream.write(known.to_bytes())
    result = execute(rootfs_step(base, known), tools)
    return Rootfs(tree=Tree.from_bytes(read_blob(tools.store, result)), lock=known)


def write_rootfs(rootfs: Rootfs, base: Base, target: Target, tools: Tools) -> Digest | None:
    """Write the rootfs to its target, whole or not at all; the digest of what was written (none of a directory)."""
    epoch = rootfs.lock.epoch
    if target.form == "dir":
        extract(rootfs.tree, tools.store, target.path, owners=os.geteuid() == 0)
        return None
    if target.form == "oci":
        return _write_image(rootfs, base, target, tools).digest
    if target.form == "tar":
        return _write_file(target.path, archive(rootfs.tree, tools.store, epoch=epoch, lowest=True))
    compression = {"tar.gz": "gzip", "tar.zst": "zstd"}[target.form]
    layer = pack(
        rootfs.tree, tools.store, created_by="", epoch=epoch, compression=compression, threads=tools.jobs, lowest=True
    )
    with tools.store.open(layer.descriptor.digest) as stream:
        return _write_file(target.path, iter(lambda: stream.read(_READ_SIZE), b""))


def _write_file(path: Path, pieces: Iterable[bytes]) -> Digest:
    hasher = hashlib.sha256()
    with replacing(path) as stream:
        for piece in pieces:
            hasher.update(piece)
            stream.write(piece)
    return Digest("sha256", hasher.hexdigest())


def _write_image(rootfs: Rootfs, base: Base, target: Target, tools: Tools) -> Descriptor:
    """An image of one layer, with a shell for a command where there is one."""
    epoch = rootfs.lock.epoch
    layer = pack(rootfs.tree, tools.store, created_by=f"Debian {base.suite}", epoch=epoch, lowest=True)
    platform = Platform.of(Architecture.parse(rootfs.lock.platform))
    command = ("bash",) if "usr/bin/bash" in rootfs.tree else ()
    image = assemble([layer], ImageConfig(platform=platform, created=epoch, cmd=command))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    write_layout(target.path, tools.store, image.descriptor, ref_name=target.tag)
    return image.descriptor


def cost(rootfs: Rootfs, base: Base, tools: Tools) -> str:
    """What each package of a rootfs costs, and what its base's rules saved; without any, what each rule would save."""
    rules = rules_of(slim_parameters(base))
    saved = rule_sizes(rootfs.tree)
    if rules:
        configured = execute(configured_step(base, rootfs.lock), tools)
        saved = slim(Tree.from_bytes(read_blob(tools.store, configured)), rules).saved
    return render(package_sizes(rootfs.tree, tools.store), saved)
