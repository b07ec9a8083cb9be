"""Media types: what the bytes behind a descriptor are, by OCI's names and by Docker's (image-spec 1.1, media-types.md).

Law: pure tables. What ocibuild makes has OCI's names; Docker's are read wherever they come, and written only when asked
for (`builder.oci.docker`). A non-distributable ("foreign") layer may be absent wherever an image is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from builder.oci.descriptor import CONFIG, INDEX, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, MANIFEST

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_FOREIGN_TAR = "application/vnd.docker.image.rootfs.foreign.diff.tar"
FOREIGN_TAR = "application/vnd.oci.image.layer.nondistributable.v1.tar"
FOREIGN_GZIP = f"{FOREIGN_TAR}+gzip"
FOREIGN_ZSTD = f"{FOREIGN_TAR}+zstd"

MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_INDEX})
DOCUMENTS = MANIFESTS | INDEXES
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})
FOREIGN = frozenset({FOREIGN_TAR, FOREIGN_GZIP, FOREIGN_ZSTD, DOCKER_FOREIGN, DOCKER_FOREIGN_TAR})
SCHEMA1 = frozenset(f"application/vnd.docker.distribution.manifest.v1+{form}" for form in ("json", "prettyjws"))

DOCKER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        MANIFEST: DOCKER_MANIFEST,
        INDEX: DOCKER_INDEX,
        CONFIG: DOCKER_CONFIG,
        LAYER_GZIP: DOCKER_LAYER,
        FOREIGN_GZIP: DOCKER_FOREIGN,
    }
)
"""Docker's name of what has one that its own programs write."""
OCI_NAMES: Mapping[str, str] = MappingProxyType(
    {docker: oci for oci, docker in DOCKER_NAMES.items()}
    | {DOCKER_LAYER_TAR: LAYER_TAR, DOCKER_FOREIGN_TAR: FOREIGN_TAR}
)
"""OCI's name of everything that is read under Docker's."""

Compression = Literal["none", "gzip", "zstd"]

LAYERS: Mapping[str, Compression] = MappingProxyType(
    {
        LAYER_TAR: "none",
        LAYER_GZIP: "gzip",
        LAYER_ZSTD: "zstd",
        FOREIGN_TAR: "none",
        FOREIGN_GZIP: "gzip",
        FOREIGN_ZSTD: "zstd",
        DOCKER_LAYER_TAR: "none",
        DOCKER_LAYER: "gzip",
        DOCKER_FOREIGN_TAR: "none",
        DOCKER_FOREIGN: "gzip",
    }
)
"""How the tar archive of a layer is compressed."""

_MAGIC: Mapping[bytes, Compression] = MappingProxyType({b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"})


def compression_of(start: bytes) -> Compression:
    """How bytes that begin like this (4 will do) are compressed: RFC 1952, 2.3.1; RFC 8878, 3.1.1."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), "none")
