"""The targets of the image side: layers, documents, archives, and what a registry answers."""

from __future__ import annotations

import gzip
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import zstandard

from builder.oci.archive import read_archive
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, MANIFEST, Descriptor, verified
from builder.oci.flatten import flatten
from builder.oci.layout import read_layout
from builder.oci.listing import listing, tree_of
from builder.oci.manifest import Index, Manifest
from builder.registry.auth import Challenge, authorize
from builder.registry.credentials import AuthFile, Place
from builder.registry.reference import Reference
from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Request, Response
from rootfs.tree import Kind, Slice, parent
from tests.fakes.store import MemoryStore
from tests.fuzz.target import Target, checked, member, tar

LAYER = tar(
    member("./", type=tarfile.DIRTYPE),
    member("a", type=tarfile.DIRTYPE, mode=0o755),
    member("a/file", b"content", mode=0o4755, uid=1, gid=2, mtime=3),
    member("a/link", type=tarfile.SYMTYPE, linkname="file"),
    member("a/hard", type=tarfile.LNKTYPE, linkname="a/file"),
    member("a/.wh.gone"),
    member("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
)
_LOWER = tar(member("a", type=tarfile.DIRTYPE), member("a/gone", b"x"), member("b", b"y"), member("dev"))
_MEDIA_TYPES = {b"g": LAYER_GZIP, b"z": LAYER_ZSTD}


def _applied(layers: list[tuple[str, bytes, Digest]]) -> None:
    """The layers by both readers: they agree, and what they accept is a sound tree inside its archives."""
    blobs = {Digest.of(blob): blob for _, blob, _ in layers}
    pairs = [(Descriptor.of(media_type, blob), diff_id) for media_type, blob, diff_id in layers]

    def fetch(descriptor: Descriptor) -> Iterator[bytes]:
        return verified([blobs[descriptor.digest]], descriptor, "fuzzed")

    store = MemoryStore()
    tree = flatten(pairs, fetch, store)
    with suppress(IntegrityError):  # the listing is stricter about what may follow the last member
        listed = tree_of([listing(*pair, fetch, MemoryStore()) for pair in pairs], placed=True)
        assert dict(tree) == dict(listed)
    for path, entry in tree.items():
        assert path
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        up = tree.get(parent(path))
        assert up is None or up.kind is Kind.DIRECTORY
        assert entry.kind is not Kind.HARDLINK or tree[entry.link].kind is not Kind.DIRECTORY
        if isinstance(entry.content, Slice):
            size = len(store.blobs[entry.content.blob])
            assert 0 <= entry.content.offset <= entry.content.offset + entry.content.size <= size


def read_layer(data: bytes) -> None:
    """A layer's archive above an honest one; the checksums are made good unless the last byte says otherwise."""
    upper = checked(data)
    _applied([(LAYER_TAR, one, Digest.of(one)) for one in (_LOWER, upper)])


def read_compressed(data: bytes) -> None:
    """A compressed layer (`g` or `z`, then the blob) whose archive should be LAYER."""
    media_type = _MEDIA_TYPES.get(data[:1], LAYER_TAR)
    _applied([(media_type, data[1:], Digest.of(LAYER))])


def read_config(data: bytes) -> None:
    """A config; what is written of it reads the same."""
    config = ImageConfig.parse(data)
    assert ImageConfig.parse(config.to_bytes()) == config


def read_manifest(data: bytes) -> None:
    """A manifest; what is written of it reads the same, and it is not an index, too."""
    manifest = Manifest.parse(data)
    assert Manifest.parse(manifest.to_bytes()) == manifest
    try:
        Index.parse(data)
    except IntegrityError:
        return
    raise AssertionError("one document, two readings")


def read_index(data: bytes) -> None:
    """An index; what is written of it reads the same."""
    index = Index.parse(data)
    assert Index.parse(index.to_bytes()) == index
    assert len(index.children) == len(index.manifests)


def read_layout_files(data: bytes) -> None:
    """A layout's two files, with a NUL between them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ocibuild-fuzz-") as place:
        marker, _, index = data.partition(b"\0")
        (Path(place) / "oci-layout").write_bytes(marker)
        (Path(place) / "index.json").write_bytes(index)
        assert read_layout(Path(place)).manifests is not None


def read_tar_file(data: bytes) -> None:
    """An archive that may hold an image; no member of it lies outside, nor begins before the last one's end."""
    data = checked(data)
    with tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="ocibuild-fuzz-") as stream:
        stream.write(data)
        stream.flush()
        archive = read_archive(Path(stream.name))
        for name, found in archive.members.items():
            assert not name.startswith("/")
            assert ".." not in name.split("/")
            assert found.link or 0 <= found.offset <= found.offset + found.size <= max(len(data), 1 << 20)


def read_challenge(data: bytes) -> None:
    """A WWW-Authenticate header, and what is asked because of it: never another host than the registry's own."""
    challenges = Challenge.parse(data.decode("latin-1"))
    dialogue = authorize(challenges, registry="https://registry.example/v2/", credentials=lambda: None)
    try:
        request = next(dialogue)
    except StopIteration:
        return
    assert "Authorization" not in request.headers
    assert request.url.startswith("https://")


def read_token(data: bytes) -> None:
    """A token server's answer."""
    challenge = Challenge(scheme="bearer", parameters={"realm": "https://registry.example/token"})
    dialogue = authorize([challenge], registry="https://registry.example/v2/", credentials=lambda: None)
    request: Request = next(dialogue)
    try:
        dialogue.send(Response(status=200, url=request.url, headers={}, chunks=iter([data])))
    except StopIteration as end:
        token = end.value
    else:
        raise AssertionError("asked again")
    header = token.header.reveal()
    assert header.isprintable()
    assert header.isascii()
    assert token.lifetime is None or 0 <= token.lifetime < float("inf")


def read_refusal(data: bytes) -> None:
    """The body of an error; what is told of it is short and holds no control character."""
    status = 400 + data[0] % 200 if data else 400
    error = refusal(Response(status=status, url="https://x.example/v2/", headers={}, chunks=iter([data[1:]])), "fuzz")
    told = str(error.because)
    assert told.isprintable()
    assert len(told) <= 310


def read_credentials(data: bytes) -> None:
    """A docker config.json, asked for one place."""
    file = AuthFile.parse(data, "fuzzed")
    account = file.credentials(Place.of(Reference.parse("registry.example/team/python")))
    assert account is None or "***" in repr(account.basic())
    file.helper("registry.example")
    assert file.written is not None


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_DESCRIPTOR = {"mediaType": LAYER_GZIP, "digest": f"sha256:{'0' * 64}", "size": 3, "annotations": {"a": "b"}}
_CONFIG = {
    "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2026-01-02T03:04:05.5+01:00",
    "config": {"Env": ["A=b"], "Cmd": ["x"], "Labels": {"l": "m"}, "ExposedPorts": {"80/tcp": {}}, "User": "1:2"},
    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]},
    "history": [{"created_by": "x", "created": "2026-01-02T03:04:05Z"}, {"empty_layer": True}],
}  # fmt: skip
_MANIFEST = {
    "schemaVersion": 2, "mediaType": MANIFEST, "config": {**_DESCRIPTOR, "mediaType": CONFIG},
    "layers": [_DESCRIPTOR], "subject": {**_DESCRIPTOR, "mediaType": MANIFEST}, "artifactType": "a/b",
}  # fmt: skip
_INDEX = {
    "schemaVersion": 2,
    "manifests": [{**_DESCRIPTOR, "mediaType": MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}],
}

OCI_TARGETS = {
    "layer": Target(
        read_layer,
        (
            LAYER,
            tar(member("a/new", b"n"), member("a/.wh..wh..opq"), member("b", type=tarfile.DIRTYPE), member("b/c")),
            tar(member("./" + "n" * 120, b"x"), member("l", type=tarfile.SYMTYPE, linkname="t" * 120)),
            tar(member("x", pax_headers={"path": "y", "SCHILY.xattr.user.z": "1"}), form=tarfile.PAX_FORMAT),
            tar(member("x", b"1"), member("y", type=tarfile.LNKTYPE, linkname="x"), member("x", b"22")),
        ),
        6144,
    ),
    "compressed": Target(
        read_compressed,
        (
            b"g" + gzip.compress(LAYER, mtime=0),
            b"g" + gzip.compress(LAYER[:512], mtime=0) + gzip.compress(LAYER[512:], mtime=0),
            b"z" + zstandard.compress(LAYER),
            b"z" + zstandard.compress(LAYER[:512]) + b"\x50\x2a\x4d\x18\x01\0\0\0x" + zstandard.compress(LAYER[512:]),
            b"n" + LAYER,
        ),
        6144,
    ),
    "config": Target(read_config, (_json(_CONFIG), _json({**_CONFIG, "config": None, "history": None})), 2048),
    "manifest": Target(read_manifest, (_json(_MANIFEST), _json({**_MANIFEST, "layers": []})), 2048),
    "index": Target(read_index, (_json(_INDEX), _json({**_INDEX, "annotations": {"x": "é"}})), 2048),
    "layout": Target(read_layout_files, (b'{"imageLayoutVersion":"1.0.0"}\0' + _json(_INDEX),), 2048),
    "archive": Target(
        read_tar_file,
        (
            tar(member("index.json", _json(_INDEX)), member("oci-layout", b"{}"), member("blobs/x", b"y")),
            tar(member("manifest.json", b"[]"), member("l", type=tarfile.SYMTYPE, linkname="manifest.json")),
            gzip.compress(LAYER, mtime=0),
            zstandard.compress(LAYER),
        ),
        6144,
    ),
    "challenge": Target(
        read_challenge,
        (
            b'Bearer realm="https://registry.example/token",service="s",scope="repository:a:pull,push"',
            b'Basic realm="x y", Digest nonce=1, qop="a\\"b", Bearer realm=https',
            b"Negotiate, Basic",
        ),
        512,
    ),
    "token": Target(
        read_token,
        (
            b'{"token":"abc","expires_in":60}',
            b'{"access_token":"x.y.z"}',
            b'{"token":"t","expires_in":1' + b"0" * 400 + b"}",
        ),
        512,
    ),
    "refusal": Target(
        read_refusal,
        (
            b'1{"errors":[{"code":"DENIED","message":"no","detail":{}}]}',
            b"2<html>",
            b'3{"message":"m"}',
            b"4text\nmore",
        ),
        1024,
    ),
    "credentials": Target(
        read_credentials,
        (
            _json({"auths": {"registry.example": {"auth": "YTpi"}, "https://x/v1/": {"identitytoken": "t"}}}),
            _json({"auths": {"registry.example/team": {"username": "u", "password": "p"}}, "credsStore": "s"}),
            _json({"credHelpers": {"registry.example": "pass"}}),
        ),
        1024,
    ),
}
