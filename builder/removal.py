"""Removal: a tag, or a manifest by its digest, out of a repository (distribution-spec 1.1, "Content Management").

Law: never takes out more than was asked for without being told to: where a registry only deletes manifests, that takes
every tag of one along, so these are named first. Something is pushed in a tag's place to get rid of it only when that
is asked for, and when the registry has shown that it deletes what is pushed.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import BinaryIO, cast

from builder.oci.descriptor import EMPTY, MANIFEST, Descriptor
from builder.oci.layout import referrers_tag
from builder.oci.manifest import Manifest
from builder.registry.client import Registry
from builder.registry.listing import delete, tags
from builder.registry.referrers import in_fallback, listed, tagged
from builder.registry.source import AT_ONCE
from rootfs.digest import Digest
from rootfs.errors import TransferError, UsageError
from rootfs.ports import Upload

_DEEPEST = 8
_NOTHING = "application/vnd.ocibuild.nothing"


def remove_name(
    registry: Registry, name: str | Digest, *, referrers: bool, force: bool, untag: bool = False
) -> list[str]:
    """Take out a tag or a manifest, with `referrers` all that is attached to the manifest; the names that went.

    With `untag` the tag alone also goes where only manifests can be deleted: see `_untag`.

    UsageError when the registry would take other tags along and there is no `force`; TransferError when there is no
    such thing, or the registry deletes nothing.
    """
    digest = registry.head_manifest(name)
    if digest is None:
        raise TransferError("nothing to delete", at=_shown(registry, name), because="the registry has no such manifest")
    if isinstance(name, Digest):
        _require_force(registry, digest, (), force=force)
    gone = list(_attached(registry, digest, 0)) if referrers else []
    if isinstance(name, str) and registry.hold(delete(registry.url, name), "push"):
        return [*gone, name]
    if isinstance(name, str) and untag:
        _untag(registry, name, digest)
        return [*gone, name]
    if isinstance(name, str):
        _require_force(registry, digest, (name,), force=force)
    _delete(registry, digest)
    return [*gone, str(digest)]


def _require_force(registry: Registry, digest: Digest, own: tuple[str, ...], *, force: bool) -> None:
    if force:
        return
    names = [name for name in registry.hold(tags(registry.url), "pull") if name not in own]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = zip(names, pool.map(registry.head_manifest, names), strict=True)
        others = [name for name, found in told if found == digest]
    if others or own:
        others_too = f"with it would go: {', '.join(others)}" if others else "no other tag stands for it"
        because = f"the manifest would be deleted; {others_too}" if own else others_too
        message = "the registry deletes manifests only, not tags" if own else "tags stand for this manifest"
        hint = "--force deletes the manifest" + ("; --untag the tag alone" if own else "")
        raise UsageError(message, at=_shown(registry, digest), because=because, hint=hint)


def _untag(registry: Registry, tag: str, stands_for: Digest) -> None:
    """Put a manifest under the tag that nothing else stands for, and delete that.

    First it is put, and deleted, without the tag: who deletes nothing shall not be left with it. A tag that another one
    moves meanwhile stays his, but for the moment between the last look and the PUT, as with any delete.
    """
    config = Descriptor.of(EMPTY, b"{}")
    registry.put(config, Upload(open=lambda: cast(BinaryIO, io.BytesIO(b"{}")), size=config.size))
    probe, data = _nothing(config, tag)
    registry.put_manifest(probe.digest, probe, data)
    _delete(registry, probe.digest)
    nothing, data = _nothing(config, tag)
    now, etag = registry.look(tag)
    if now != stands_for:
        because = f"it stands for {now}" if now else "it is gone"
        raise TransferError("another one was at the tag", at=_shown(registry, tag), because=because)
    try:
        registry.put_manifest(tag, nothing, data, etag=etag)
    except BaseException:
        with suppress(TransferError):
            _delete(registry, nothing.digest)
        raise
    _delete(registry, nothing.digest)
    if registry.head_manifest(tag) == nothing.digest:
        because = f"{nothing.digest} was deleted, and the tag still stands for it"
        raise TransferError("the registry keeps the tag", at=_shown(registry, tag), because=because)


def _nothing(config: Descriptor, tag: str) -> tuple[Descriptor, bytes]:
    """A manifest that there never was."""
    notes = {"removed": tag, "once": secrets.token_hex(16)}
    data = Manifest(config=config, layers=(config,), artifact_type=_NOTHING, annotations=notes).to_bytes()
    return Descriptor.of(MANIFEST, data), data


def _attached(registry: Registry, subject: Digest, depth: int) -> Iterator[str]:
    """Delete what refers to a manifest, and what refers to that, deepest first; the names that went."""
    if depth < _DEEPEST:
        for one in listed(registry, subject):
            yield from _attached(registry, one.digest, depth + 1)
            if registry.head_manifest(one.digest) is not None:
                _delete(registry, one.digest)
                yield str(one.digest)
    for one in tagged(registry, subject):
        _delete(registry, one.digest)
        yield str(one.digest)
    if in_fallback(registry, subject):
        index = registry.head_manifest(referrers_tag(subject))
        if index is not None:
            _delete(registry, index)
            yield referrers_tag(subject)


def _delete(registry: Registry, digest: Digest) -> None:
    if not registry.hold(delete(registry.url, digest), "push"):
        hint = "its operator has to allow that (docker-registry: storage.delete.enabled)"
        raise TransferError("the registry deletes nothing", at=_shown(registry, digest), hint=hint)


def _shown(registry: Registry, name: str | Digest) -> str:
    return f"{registry.reference.name}{'@' if isinstance(name, Digest) else ':'}{name}"
