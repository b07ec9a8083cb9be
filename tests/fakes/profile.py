"""Small profiles: .gcda files as GCC 14 writes them, the tar that holds them, and a recipe and lock that they fit."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.app import Found, find_recipe
from builder.lock import SCHEMA, Lock, LockedPackage, LockedSource
from builder.oci.tar import archive
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.ports import Store
from rootfs.tree import Tree, file
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, pages

ARCS, TOPN, TIME = 0, 3, 7
RECIPE = b'name = "fast"\n[python]\nversion = "3.14.7"\nvariant = "optimized-lto"\n[image]\ntag = "{version}-fast"\n'


def gcda(functions: Mapping[int, Mapping[int, Sequence[int]]], version: bytes = b"*24B") -> bytes:
    """A file of counters: function -> number of the counter's kind -> its 64-bit numbers."""
    is_new = version[3:] + version[2:3] >= b"B2"
    unit = 1 if is_new else 4

    def record(tag: int, payload: bytes) -> bytes:
        return struct.pack("<II", tag, len(payload) // unit) + payload

    data = b"adcg" + version + b"stmp" + (b"sum " if is_new else b"") + record(0xA1000000, struct.pack("<II", 1, 9))
    for ident, kinds in functions.items():
        data += record(0x01000000, struct.pack("<III", ident, 1, 2))
        for kind, numbers in kinds.items():
            tag = 0x01A10000 + (kind << 17)
            if any(numbers):
                data += record(tag, struct.pack(f"<{len(numbers)}q", *numbers))
            else:  # as many zeros, without a payload
                data += struct.pack("<Ii", tag, -8 * len(numbers) // unit)
    return data + bytes(4)


def profile(files: Mapping[str, bytes]) -> bytes:
    """The canonical tar of these files, as training makes it."""
    tree = Tree([file(path, content) for path, content in files.items()]).with_parents()
    return b"".join(archive(tree, MemoryStore(), epoch=0, lowest=True))


SMALL = profile({"Objects/list.gcda": gcda({1: {ARCS: (7, 0, 5), TIME: (3,)}}), "Python/x.gcda": gcda({2: {}})})

COUNTS = b"1 f.lto_priv.0/1 1f 1 f.lto_priv.0/1 30 0 100\n1 f.lto_priv.0/1 2a 1 g 0 7 34818052\n"
"""Counts of a layout, as they are kept."""


def package(name: str, version: str = "1") -> LockedPackage:
    """A package of the toolchain."""
    return LockedPackage(
        name=name, version=version, architecture="amd64", sets=("toolchain",), url="u", size=1, sha256="0" * 64
    )


def recipe_in(directory: Path) -> tuple[Found, Lock]:
    """A recipe that is led by a profile, and its lock, written beside it: it pins none yet."""
    path = directory / "fast.toml"
    path.write_bytes(RECIPE)
    found = find_recipe(str(path))
    lock = Lock(
        schema=SCHEMA,
        recipe=str(found.recipe.digest),
        platform=f"linux/{Architecture.host().oci}",
        epoch=5,
        release=(),
        source=(LockedSource(name="cpython", version="3.14.7", urls=("u",), size=1, sha256="1" * 64),),
        package=(package("gcc-14", "14.2.0-19"), package("libssl-dev", "3.5"), package("make")),
    )
    found.lock_path.write_bytes(lock.to_bytes())
    return found, lock


def tools_with(store: Store, work: Path) -> tuple[Tools, ListReporter]:
    """Tools that have this store, and neither a network nor a sandbox."""
    reporter = ListReporter()
    transport: FakeTransport = pages({})
    sandbox = ScriptedSandbox()
    tools = Tools(store=store, transport=transport, sandbox=sandbox, reporter=reporter, mirrors={}, work=work, jobs=1)
    return tools, reporter
