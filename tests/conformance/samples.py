"""The images that the scenarios push and pull: small OCI layouts, the same bytes on every machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.peers.quirky import INDEX, Quirky, digest_of

TAG = "v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
SMALL, BIG = 600_000, 40 << 20
_Row = dict[str, object]
_Layer = tuple[_Row, bytes]
_STORED = 0  # gzip's level: what is no use to compress is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A layout: the digest its tag stands for, what it is, and its bytes by digest. `biggest` is a blob's digest."""

    layout: Path
    digest: str
    media_type: str
    blobs: dict[str, bytes]
    manifests: dict[str, tuple[str, bytes]]
    biggest: str

    def load(self, registry: Quirky, repository: str) -> None:
        """Have a registry hold it."""
        registry.blobs |= {(repository, digest): data for digest, data in self.blobs.items()}
        for media_type, data in self.manifests.values():
            registry.put(repository, media_type, data)
        registry.tags[repository, TAG] = self.digest


class _Layout:
    """A layout while it is made."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}

    def blob(self, media_type: str, data: bytes, like: str = "sha256:") -> _Row:
        digest = digest_of(data, like)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, media_type: str, value: _Row) -> _Row:
        data = json.dumps({"schemaVersion": 2, "mediaType": media_type, **value}).encode()
        digest = digest_of(data, "sha256:")
        self.manifests[digest] = (media_type, data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(self, layers: list[_Layer], architecture: str, **extra: object) -> _Row:
        diff_ids = [digest_of(tar, "sha256:") for _, tar in layers]
        config = {"architecture": architecture, "os": "linux", "config": {}}
        config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        config["history"] = [{"created_by": "conformance"} for _ in layers]
        rows = [row for row, _ in layers]
        return self.document(
            MANIFEST, {"config": self.blob(CONFIG, json.dumps(config).encode()), "layers": rows, **extra}
        )

    def write(self, place: Path, root: _Row) -> Sample:
        for digest, data in {**self.blobs, **{key: data for key, (_, data) in self.manifests.items()}}.items():
            algorithm, _, name = digest.partition(":")
            (place / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)
            (place / "blobs" / algorithm / name).write_bytes(data)
        named = {**root, "annotations": {"org.opencontainers.image.ref.name": TAG}}
        (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]}))
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return Sample(
            layout=place,
            digest=str(root["digest"]),
            media_type=str(root["mediaType"]),
            blobs=self.blobs,
            manifests=self.manifests,
            biggest=max(self.blobs, key=lambda digest: len(self.blobs[digest])),
        )


def make(kind: str, place: Path) -> Sample:
    """The layout of this kind; see `_KINDS`."""
    layout = _Layout()
    return layout.write(place, _KINDS[kind](layout))


def _small(layout: _Layout) -> _Row:
    """Two layers."""
    return layout.image([_layer(layout, "a", 20_000), _layer(layout, "b", SMALL)], "amd64")


def _big(layout: _Layout) -> _Row:
    """A layer large enough for chunks."""
    return layout.image([_layer(layout, "big", BIG)], "amd64")


def _index(layout: _Layout) -> _Row:
    """Two platforms that share a layer."""
    rows = []
    for architecture in ("amd64", "arm64"):
        row = layout.image([_layer(layout, "a", 20_000), _layer(layout, architecture, 50_000)], architecture)
        rows.append({**row, "platform": {"os": "linux", "architecture": architecture}})
    return layout.document(INDEX, {"manifests": rows})


def _sha512(layout: _Layout) -> _Row:
    """A layer under its sha512."""
    row, tar = _layer(layout, "a", 20_000)
    data = layout.blobs.pop(str(row["digest"]))
    return layout.image([(layout.blob(LAYER, data, "sha512:"), tar)], "amd64")


def _foreign(layout: _Layout) -> _Row:
    """A layer that lies elsewhere, and is not in the layout."""
    row, tar = _layer(layout, "foreign", 30_000)
    del layout.blobs[str(row["digest"])]
    far = {**row, "mediaType": FOREIGN, "urls": ["https://elsewhere.example/layer"]}
    return layout.image([_layer(layout, "a", 20_000), (far, tar)], "amd64")


def _empty(layout: _Layout) -> _Row:
    """An artifact whose only layer has no bytes."""
    config, layer = layout.blob(EMPTY, b"{}"), layout.blob("application/octet-stream", b"")
    return layout.document(MANIFEST, {"artifactType": "x/nothing", "config": config, "layers": [layer]})


def _large_manifest(layout: _Layout) -> _Row:
    """A manifest of somewhat less than 4 MiB."""
    return layout.image([_layer(layout, "a", 20_000)], "amd64", annotations={"padding": "x" * ((4 << 20) - 4096)})


def _huge_manifest(layout: _Layout) -> _Row:
    """A manifest of 64 MiB."""
    return layout.image([_layer(layout, "a", 20_000)], "amd64", annotations={"padding": "x" * (64 << 20)})


def _attached(layout: _Layout) -> _Row:
    """An artifact about the image `small`, which is not in the layout."""
    about = _small(other := _Layout())
    assert other.manifests
    config, layer = layout.blob(EMPTY, b"{}"), layout.blob("application/json", b'{"about":"it"}')
    value = {"artifactType": "x/note", "config": config, "layers": [layer], "subject": about}
    return layout.document(MANIFEST, {**value, "annotations": {"org.example.note": "kept"}})


_KINDS = {
    "small": _small,
    "big": _big,
    "index": _index,
    "sha512": _sha512,
    "foreign": _foreign,
    "empty": _empty,
    "large-manifest": _large_manifest,
    "huge-manifest": _huge_manifest,
    "attached": _attached,
}


def _layer(layout: _Layout, name: str, size: int) -> _Layer:
    """A layer of one file without any pattern: its descriptor and its tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size = size
        archive.addfile(member, io.BytesIO(hashlib.shake_256(name.encode()).digest(size)))
    tar = stream.getvalue()
    return layout.blob(LAYER, gzip.compress(tar, _STORED, mtime=0)), tar
