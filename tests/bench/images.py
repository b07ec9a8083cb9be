"""Images to move: layouts with layers of any size that nothing can compress, or with one huge sparse layer.

Written without the code that is measured. Layers are gzip, so that no client thinks it has to compress them.
"""

from __future__ import annotations

import hashlib
import json
import random
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REF_NAME = "org.opencontainers.image.ref.name"
NAME = "bench"


def layered(layout: Path, *, layers: int, size: int) -> None:
    """An image of `layers` layers, each a tar of one file of `size` pseudo-random bytes in a gzip stream."""
    _finish(layout, [_random_layer(layout, number, size) for number in range(layers)])


def huge(layout: Path, *, size: int) -> None:
    """An image with one layer: a gzip header, and zeros that take no room on the disk; not to be unpacked."""
    path = layout / "huge"
    layout.mkdir(parents=True)
    with path.open("w+b") as stream:
        stream.write(b"\x1f\x8b\x08" + bytes(7))
        stream.truncate(size)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path.rename(_blobs(layout) / digest)
    _finish(layout, [({"mediaType": _LAYER, "digest": f"sha256:{digest}", "size": size}, digest)])


def _random_layer(layout: Path, number: int, size: int) -> tuple[dict[str, Any], str]:
    """Descriptor and diff id."""
    source = random.Random(number)
    member = tarfile.TarInfo(f"layer{number}")
    member.size = size
    packed, unpacked, written = hashlib.sha256(), hashlib.sha256(), 0
    pack = zlib.compressobj(0, wbits=31)
    path = _blobs(layout) / "unfinished"
    with path.open("wb") as stream:

        def add(data: bytes) -> None:
            nonlocal written
            packed.update(data)
            written += stream.write(data)

        def pieces() -> Iterator[bytes]:
            yield member.tobuf()
            yield from (source.randbytes(min(_CHUNK, size - done)) for done in range(0, size, _CHUNK))
            yield bytes(-size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)

        for piece in pieces():
            unpacked.update(piece)
            add(pack.compress(piece))
        add(pack.flush())
    path.rename(path.with_name(packed.hexdigest()))
    return {"mediaType": _LAYER, "digest": f"sha256:{packed.hexdigest()}", "size": written}, unpacked.hexdigest()


def _finish(layout: Path, layers: list[tuple[dict[str, Any], str]]) -> None:
    diff_ids = [f"sha256:{diff_id}" for _, diff_id in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": _document(layout, _CONFIG, config)}
    root = _document(layout, _MANIFEST, {**manifest, "layers": [layer for layer, _ in layers]})
    root["annotations"] = {REF_NAME: NAME}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [root]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _document(layout: Path, media_type: str, value: object) -> dict[str, Any]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (_blobs(layout) / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _blobs(layout: Path) -> Path:
    place = layout / "blobs/sha256"
    place.mkdir(parents=True, exist_ok=True)
    return place
