"""As files: what is in an image of the store, as a tar, in a directory, or in a runtime bundle.

Law: flattens and writes; what is written appears whole or not at all. What layers do not say is not made up: nobody's
clock, and ids that this user may give to files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from builder.finding import stored_image
from builder.images import read_found, tree_of
from builder.oci.bundle import Account, Line, account_of, runtime_config
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.layer import pack
from builder.oci.tar import archive
from builder.target import Place
from rootfs.digest import Digest
from rootfs.errors import HostError
from rootfs.extract import arriving, extract
from rootfs.files import copy, replacing
from rootfs.ports import Reporter, Store, read_content
from rootfs.sandbox.ids import find_range
from rootfs.tree import Kind, Tree


def write_files(place: Place, store: Store, descriptor: Descriptor, reporter: Reporter) -> Digest:
    """Write the files of a stored image to their place; the image's digest, of a tar the file's."""
    image = read_found(stored_image(descriptor, store, str(descriptor.digest)))
    tree = tree_of(image, store, reporter)
    match place.form:
        case "dir":
            extract(tree, store, place.path, owners=os.geteuid() == 0)
        case "bundle":
            _write_bundle(place.path, tree, image.config, store, reporter)
        case _:
            return _write_tar(place, tree, image.config.created, store)
    return descriptor.digest


def _write_tar(place: Place, tree: Tree, created: int, store: Store) -> Digest:
    """Nothing is as new as what the layers hold; the root directory, of which they hold nothing, is as old as that."""
    epoch = max([created, *(entry.mtime for entry in tree.values())])
    if place.form == "tar":
        digest = store.put(archive(tree, store, epoch=epoch, lowest=True)).digest
    else:
        compression = {"tar.gz": "gzip", "tar.zst": "zstd"}[place.form]
        layer = pack(tree, store, created_by="", epoch=epoch, compression=compression, lowest=True)
        digest = layer.descriptor.digest
    with store.open(digest) as source, replacing(place.path) as stream:
        copy(source, stream.fileno(), offset=0, size=source.seek(0, os.SEEK_END))
    return digest


def _write_bundle(target: Path, tree: Tree, config: ImageConfig, store: Store, reporter: Reporter) -> None:
    """`config.json` and `rootfs` in a new directory. Who is not root gets a map of ids, which rootless runc needs."""
    account = account_of(config.user, *(_text(tree, store, path) for path in ("etc/passwd", "etc/group")))
    uids, gids = ((), ()) if os.geteuid() == 0 else _own_ids()
    account = _mapped(account, uids, gids, reporter) if uids else account
    with arriving(target) as partial:
        extract(tree, store, partial / "rootfs", owners=os.geteuid() == 0)
        with replacing(partial / "config.json") as stream:
            stream.write(runtime_config(config, account, uids=uids, gids=gids))


def _own_ids() -> tuple[Sequence[Line], Sequence[Line]]:
    """The lines of uid_map and gid_map: subordinate ids where this user has a range, else one id alone."""
    try:
        ids = find_range()
    except HostError:
        return ((0, os.geteuid(), 1),), ((0, os.getegid(), 1),)
    return ids.uid, ids.gid


def _mapped(account: Account, uids: Sequence[Line], gids: Sequence[Line], reporter: Reporter) -> Account:
    """The account, if it has ids in the container; else root, which is whoever runs it."""
    if _has(uids, account.uid) and all(_has(gids, gid) for gid in (account.gid, *account.groups)):
        return account
    if account.uid or account.gid:
        reporter.note(f"user {account.uid}:{account.gid} is root in the bundle: there is no range of ids for others")
    return Account(uid=0, gid=0)


def _has(lines: Sequence[Line], number: int) -> bool:
    return any(inside <= number < inside + count for inside, _, count in lines)


def _text(tree: Tree, store: Store, path: str) -> str:
    """A small file of the image, symbolic links followed; "" when there is none."""
    for _ in range(8):
        entry = tree.get(tree.resolve(path))
        if entry is None or entry.kind not in (Kind.FILE, Kind.HARDLINK, Kind.SYMLINK):
            return ""
        if entry.kind is Kind.FILE:
            return read_content(store, entry.content).decode("utf-8", "replace")
        hard = entry.kind is Kind.HARDLINK or entry.link.startswith("/")
        path = entry.link.lstrip("/") if hard else f"{entry.path.rpartition('/')[0]}/{entry.link}"
    return ""
