"""Places: an image of the store, written to where it goes, in each of the forms that people load.

Law: chooses the module that writes a form; what is written appears whole or not at all. Forms of one platform take this
machine's out of an index.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from builder.finding import stored_image
from builder.images import read_found, tree_of
from builder.multi import chosen
from builder.oci.archive import write_archive
from builder.oci.bundle import Account, Line, account_of, runtime_config
from builder.oci.config import ImageConfig
from builder.oci.descriptor import REF_NAME, Descriptor
from builder.oci.dockerarchive import ImageName, write_docker_archive
from builder.oci.layer import pack
from builder.oci.layout import IMAGE_NAME, check_name, relist, write_layout
from builder.oci.mediatypes import MANIFESTS
from builder.oci.tar import archive
from builder.target import Place
from builder.trust.attach import attach, indexes
from rootfs.digest import Digest
from rootfs.errors import HostError
from rootfs.extract import extract, remove
from rootfs.files import copy, host_error, replacing
from rootfs.ports import Reporter, Store, read_content
from rootfs.sandbox.ids import find_range
from rootfs.tree import Kind, Tree

WHOLE = ("oci", "oci-archive")
"""The forms that hold an index, and what is attached to an image."""
_UNNAMED = "latest"


def write_place(
    place: Place, store: Store, descriptor: Descriptor, *, reporter: Reporter, attached: Sequence[Descriptor] = ()
) -> Digest:
    """Write an image (or index) of the store, with all it refers to, to its place, whole or not at all.

    `attached` are artifacts of the store about it, which a layout and an archive of one list: by themselves, or under
    the name they have. Other forms have no room for them, and say so.

    Gives the digest of what is there now: the image's, in a layout or an archive of one the very one it had; of a tar
    of the files, the file's. UsageError when the form cannot hold it, HostError when the disk does not take it.
    """
    if attached and place.form not in WHOLE:
        reporter.note(f"a {place.form} has no room for what is attached: {', '.join(str(a.digest) for a in attached)}")
    match place.form:
        case "oci" | "oci-archive":
            notes = _notes(place, descriptor)
            named = replace(descriptor, annotations=notes)
            if place.form == "oci":
                write_layout(place.path, store, named, ref_name=notes[REF_NAME])
                _attach(place.path, attached, store)
            else:
                plain = [one for one in attached if _is_artifact(one)]
                write_archive(place.path, store, named, listed=(*attached, *indexes(plain, store)))
            return descriptor.digest
        case "docker-archive":
            one = one_of(descriptor, store)
            write_docker_archive(place.path, store, one, name=place.name or one.annotations.get(IMAGE_NAME, ""))
            return one.digest
        case _:
            return _write_files(place, store, one_of(descriptor, store), reporter)


def _attach(layout: Path, attached: Sequence[Descriptor], store: Store) -> None:
    """List artifacts in a layout beside the image."""
    if plain := [one for one in attached if _is_artifact(one)]:
        attach(layout, plain, store)
    for one in attached:
        if REF_NAME in one.annotations:
            write_layout(layout, store, one, ref_name=one.annotations[REF_NAME])
        elif not _is_artifact(one):
            relist(layout, store, add=[one], drop=frozenset())


def _is_artifact(one: Descriptor) -> bool:
    return REF_NAME not in one.annotations and one.media_type in MANIFESTS


def one_of(descriptor: Descriptor, store: Store, platform: str | None = None) -> Descriptor:
    """The image of a platform (`os/architecture[/variant]`; None: this machine's, or the only one) in a stored index.

    It keeps the name of the index.
    """
    one = chosen(stored_image(descriptor, store, str(descriptor.digest)), platform).descriptor
    names = {key: value for key, value in descriptor.annotations.items() if key in (REF_NAME, IMAGE_NAME)}
    return replace(one, annotations={**one.annotations, **names})


def write_file(path: Path, store: Store, digest: Digest) -> None:
    """Write a blob of the store as a file of its own."""
    with store.open(digest) as source, replacing(path) as stream:
        copy(source, stream.fileno(), offset=0, size=source.seek(0, os.SEEK_END))


def _notes(place: Place, descriptor: Descriptor) -> dict[str, str]:
    """The annotations of the image in a layout's index: a name that it had stays until it is given another."""
    notes = {**descriptor.annotations}
    if place.tag:
        notes.pop(IMAGE_NAME, None)
    if place.name:
        notes |= {IMAGE_NAME: (name := ImageName.parse(place.name)).full, REF_NAME: name.tag}
    notes[REF_NAME] = place.tag or notes.get(REF_NAME) or _UNNAMED
    check_name(notes[REF_NAME])
    return notes


def _write_files(place: Place, store: Store, descriptor: Descriptor, reporter: Reporter) -> Digest:
    """The files of an image: as a tar, in a directory, or in a runtime bundle."""
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
    write_file(place.path, store, digest)
    return digest


def _write_bundle(target: Path, tree: Tree, config: ImageConfig, store: Store, reporter: Reporter) -> None:
    """`config.json` and `rootfs` in a new directory. Who is not root gets a map of ids, which rootless runc needs."""
    if os.path.lexists(target):
        hint = "choose a new directory, or move that one away"
        raise HostError(f"cannot write to {target}", because="it exists already", hint=hint)
    account = account_of(config.user, *(_text(tree, store, path) for path in ("etc/passwd", "etc/group")))
    uids, gids = ((), ()) if os.geteuid() == 0 else _own_ids()
    account = _mapped(account, uids, gids, reporter) if uids else account
    partial = target.with_name(target.name + ".partial")
    try:
        remove(partial)
        extract(tree, store, partial / "rootfs", owners=os.geteuid() == 0)
        with replacing(partial / "config.json") as stream:
            stream.write(runtime_config(config, account, uids=uids, gids=gids))
        partial.rename(target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise host_error(error, target) from error
        raise


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
