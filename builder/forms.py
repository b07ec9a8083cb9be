"""Forms: a Debian rootfs as a directory, as an image, or as a table of what it costs.

Law: has the steps run whose result it is, and hands that to the module that writes it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from builder.execute import execute
from builder.lock import Lock
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Platform
from builder.oci.image import assemble
from builder.oci.layer import pack
from builder.places import write_place
from builder.plan import Step, configured_step, rootfs_step, rules_of, slim_parameters
from builder.recipe import Base
from builder.target import Place
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.extract import extract
from rootfs.ports import read_blob
from rootfs.sizes import package_sizes, render, rule_sizes
from rootfs.slim import slim
from rootfs.tree import Tree


def write_directory(base: Base, lock: Lock, directory: Path, tools: Tools) -> None:
    """The files themselves; only root gives them to their owners."""
    extract(_tree(rootfs_step(base, lock), tools), tools.store, directory, owners=os.geteuid() == 0)


def write_image(base: Base, lock: Lock, place: Place, tools: Tools) -> Digest:
    """An image of one layer, with a shell for a command where there is one; its digest."""
    tree = _tree(rootfs_step(base, lock), tools)
    layer = pack(tree, tools.store, created_by=f"Debian {base.suite}", epoch=lock.epoch, lowest=True)
    platform = Platform.of(Architecture.parse(lock.platform))
    command = ("bash",) if "usr/bin/bash" in tree or "bin/bash" in tree else ()
    image = assemble([layer], ImageConfig(platform=platform, created=lock.epoch, cmd=command))
    for document in (image.config, image.manifest):
        tools.store.put([document])
    named = place if place.tag or place.name else replace(place, tag="rootfs")
    return write_place(named, tools.store, image.descriptor, reporter=tools.reporter)


def cost(base: Base, lock: Lock, tools: Tools) -> str:
    """What each package of a rootfs costs, and what its base's rules saved; without any, what each rule would save."""
    tree = _tree(rootfs_step(base, lock), tools)
    rules = rules_of(slim_parameters(base))
    saved = slim(_tree(configured_step(base, lock), tools), rules).saved if rules else rule_sizes(tree)
    return render(package_sizes(tree, tools.store), saved)


def _tree(step: Step, tools: Tools) -> Tree:
    return Tree.from_bytes(read_blob(tools.store, execute(step, tools)))
