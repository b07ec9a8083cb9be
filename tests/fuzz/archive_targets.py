"""The targets of archives that others made: what `pack` is given, what `docker save` writes, what `check` judges."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
from pathlib import Path

from builder.oci.archive import read_archive
from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.oci.dockerarchive import classic
from builder.oci.listing import Forward
from builder.oci.manifest import Manifest
from builder.oci.walk import Walk
from rootfs.digest import Digest
from rootfs.tarstream import read_tar
from rootfs.tree import Kind, normalise
from tests.fuzz.oci_targets import LAYER
from tests.fuzz.target import Target, checked, member, tar

_MOST = 1 << 20  # bytes of content that are read: a sparse member may claim any size


def read_foreign_tar(data: bytes) -> None:
    """A tar that somebody wants packed: each path once, inside the root, and of a file as many bytes as it says."""
    paths: set[str] = set()
    for one in read_tar(io.BytesIO(checked(data)), "fuzzed"):
        path = one.path.decode("utf-8", "surrogateescape")
        assert path == normalise(path)
        assert path not in paths
        paths.add(path)
        assert one.kind is Kind.FILE or not one.size
        assert one.kind is not Kind.HARDLINK or one.link.decode("utf-8", "surrogateescape") in paths
        left = one.size
        for length, is_hole in one.content.runs() if one.content is not None and one.size <= _MOST else ():
            left -= length
            if not is_hole:
                one.content.fill(memoryview(bytearray(length)))  # type: ignore[union-attr]
        assert left == 0 or one.size > _MOST


def read_saved(data: bytes) -> None:
    """The config and, after a NUL, the manifest.json of what `docker save` wrote: all that is found is as described."""
    config, _, manifest = data.partition(b"\0")
    files = (member("a/layer.tar", LAYER), member("config.json", config), member("manifest.json", manifest))
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="ocibuild-fuzz-") as stream:
        stream.write(tar(*files))
        stream.flush()
        found = classic(read_archive(Path(stream.name)), "")
        written = Manifest.parse(b"".join(found.fetch(found.descriptor)))
        for one in written.children:
            assert Digest.of(b"".join(found.fetch(one))) == one.digest


def judge_layer(data: bytes) -> None:
    """A layer's archive above an honest one, as `check` reads it: every finding is about it, and can be shown."""
    walk = Walk(latest=9)
    for archive in (_LOWER, checked(data)):
        descriptor = Descriptor.of(LAYER_TAR, archive)
        stream = Forward(iter([archive]))
        for one in walk.layer(stream, descriptor):
            assert archive is not _LOWER
            assert one.at == str(descriptor.digest)
            assert one.text.isprintable()
        stream.drain()


_CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(LAYER))]},
    "config": {"Cmd": ["x"]},
}
_SAVED = [{"Config": "config.json", "RepoTags": ["a:1"], "Layers": ["a/layer.tar"]}]
_TREE = (
    member("./", type=tarfile.DIRTYPE),
    member("./a/", type=tarfile.DIRTYPE, mode=0o750),
    member("./a/file", b"content"),
    member("a/hard", type=tarfile.LNKTYPE, linkname="./a/file"),
    member("a/link", type=tarfile.SYMTYPE, linkname="../x"),
    member("n" * 120, b"x"),
)

_LOWER = tar(*_TREE)

ARCHIVE_TARGETS = {
    "tarstream": Target(
        read_foreign_tar,
        (
            _LOWER,
            tar(*_TREE, member("x", pax_headers={"SCHILY.xattr.user.z": "1", "mtime": "1.5"}), form=tarfile.PAX_FORMAT),
            gzip.compress(_LOWER, mtime=0),
        ),
        6144,
    ),
    "saved": Target(read_saved, (json.dumps(_CONFIG).encode() + b"\0" + json.dumps(_SAVED).encode(),), 2048),
    "walk": Target(
        judge_layer,
        (
            tar(member("a/new", b"n"), member("a/.wh.file"), member("a/link", type=tarfile.DIRTYPE)),
            tar(member("x", type=tarfile.LNKTYPE, linkname="a/file"), member("../y"), member("\n")),
        ),
        6144,
    ),
}
