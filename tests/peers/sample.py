"""A small image that has one of everything a layer can hold, for the peers to read, and a directory to pack; busybox is
what runs in them.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.image import Image, assemble
from builder.oci.layer import MEMBER_SIZE, pack
from rootfs.architecture import Architecture
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Tree, directory, file, symlink

EPOCH = 1767323045
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep
LONG = "/".join(["long" * 20] * 3)
SPARSE = 24 << 20  # bytes of zeros, several members of a compressed layer
COMPRESSIONS = ("gzip", "zstd", "zstd:19", "none")


def lower(*, portable: bool = False) -> Tree:
    """The lower layer: links, modes, owners, attributes, devices, names of every kind.

    A `portable` one has only what an ordinary user can unpack.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed: run tests/peers/install")
    program = file("bin/busybox", Path(busybox).read_bytes(), 0o755)
    noise = random.Random(3).randbytes(MEMBER_SIZE + 12345)
    tree = Tree(
        [
            program,
            *(symlink(f"bin/{name}", "busybox") for name in ("sh", "cat", "stat", "id", "ls")),
            file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nuser:x:1234:33::/srv:/bin/sh\n"),
            file("etc/greeting", "grüß\n".encode()),
            FileEntry(path="etc/hard", kind=Kind.HARDLINK, link="etc/greeting"),
            replace(file("bin/capable", b"#!/bin/sh\n", 0o755), xattrs=(("security.capability", CAPABILITY),)),
            replace(file("etc/attributed", b"x"), xattrs=(("user.key", b"v=\n\0\xff"),)),
            file("bin/setuid", b"s", 0o4755),
            file("srv/owned", b"o", 0o2640, 33, 65534),
            file("srv/far", b"f", 0o600, 3_000_000, 4_000_000_000),
            replace(file("srv/old", b"1"), mtime=12345),
            file("srv/noise", noise),
            file("srv/sparse", bytes(SPARSE)),
            file(f"{LONG}/{'name' * 30}", b"long"),
            symlink("srv/far-away", "x" * 150),
            file("srv/naïve", b"not ASCII"),
            file("srv/b\udcffd", b"not UTF-8"),
            file("srv/-rf *\n'\"\\", b"awkward"),
            FileEntry(path="dev/null", kind=Kind.CHARACTER, device=(1, 3), mode=0o666),
            FileEntry(path="dev/loop", kind=Kind.BLOCK, device=(7, 0), mode=0o660),
            FileEntry(path="run/pipe", kind=Kind.FIFO, mode=0o600),
            directory("tmp", 0o1777),
            directory("root", 0o700),
        ]
    ).with_parents()
    return Tree(entry for entry in tree.values() if not portable or _is_portable(entry))


def _is_portable(entry: FileEntry) -> bool:
    odd = entry.kind in (Kind.CHARACTER, Kind.BLOCK) or entry.xattrs or "\udcff" in entry.path
    return not odd and entry.uid < 65536


UPPER = Tree([directory("etc", 0o755), file("etc/greeting", b"hello\n"), file("etc/new", b"new\n")])


def sample(store: Store, compression: str, *, portable: bool = False) -> tuple[Image, Descriptor]:
    """The image in the store, and its descriptor; `portable` as for `lower`."""
    layers = [
        pack(part, store, created_by=name, epoch=EPOCH, compression=compression, lowest=name == "lower")
        for name, part in (("lower", lower(portable=portable)), ("upper", UPPER))
    ]
    host = Architecture.host()
    config = ImageConfig(
        platform=Platform(architecture=host.oci, variant=host.variant),
        created=EPOCH,
        env=("PATH=/bin", "GREETING=moin"),
        entrypoint=("/bin/sh", "-c"),
        cmd=("cat /etc/greeting /etc/new; echo $GREETING; id -u",),
        user="1234:33",
        working_dir="/srv",
        labels={"org.example": "yes"},
        exposed_ports=("8080/tcp",),
        stop_signal="SIGINT",
    )
    image = assemble(layers, config, annotations={"org.opencontainers.image.title": "sample"})
    store.put([image.config])
    store.put([image.manifest])
    return image, image.descriptor


def unpacked(place: Path, busybox: str, more: Mapping[str, bytes]) -> Path:
    """A root file system in the directory `place`: busybox, what an archive finds hard (a long name, a hard link, a
    pipe, a hole), and `more` files. Whoever makes it, under any umask, modes and times are the same.
    """
    deep = "deep/" + "/".join(["d" * 60] * 5)
    for name in ("bin", "etc", "var/empty", deep):
        (place / name).mkdir(parents=True)
    shutil.copyfile(busybox, place / "bin/busybox")
    (place / "bin/busybox").chmod(0o4755)
    (place / "bin/sh").symlink_to("busybox")
    contents = {"etc/motd": b"hello\n", "etc/naïve": b"utf-8", f"{deep}/file": b"x" * 1025, **more}
    for name, content in contents.items():
        (place / name).write_bytes(content)
    os.link(place / "etc/motd", place / "etc/issue")
    os.mkfifo(place / "var/pipe")
    with (place / "var/sparse").open("wb") as stream:
        stream.truncate(20_000_000)
        stream.seek(10_000_000)
        stream.write(b"island")
    for path in place.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else stat.S_IMODE(path.stat().st_mode) | 0o644)
        os.utime(path, (1_500_000_000, 1_500_000_000), follow_symlinks=False)
    return place
