"""Descriptors, manifests, indexes and configs: strict in, canonical out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from builder.oci.config import History, ImageConfig, rfc3339
from builder.oci.descriptor import CONFIG, EMPTY, INDEX, LAYER_GZIP, MANIFEST, Descriptor, Platform
from builder.oci.manifest import Index, Manifest, parse
from rootfs.digest import Digest
from rootfs.errors import IntegrityError

ARM = Platform(architecture="arm64", variant="v8")
FULL = Descriptor(
    media_type=MANIFEST,
    digest=Digest.of(b"x"),
    size=1,
    annotations={"a": "b"},
    platform=ARM,
    artifact_type="application/x",
    urls=("https://example.org/layer",),
)
MANIFEST_VALUE = Manifest(config=Descriptor.of(CONFIG, b"{}"), layers=(Descriptor.of(LAYER_GZIP, b"layer"),))


def changed(value: Manifest | Index | ImageConfig, **members: Any) -> bytes:
    """The document with some members replaced; None removes one."""
    document = json.loads(value.to_bytes()) | members
    return json.dumps({name: member for name, member in document.items() if member is not None}).encode()


def test_descriptor_round_trip() -> None:
    assert Descriptor.from_dict(FULL.to_dict()) == FULL
    assert FULL.to_dict()["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    plain = Descriptor.of(MANIFEST, b"x")
    assert plain.to_dict().keys() == {"mediaType", "digest", "size"}
    assert hash(Descriptor.from_dict(plain.to_dict())) == hash(plain)


def test_platform_prints_as_docker_writes_it() -> None:
    assert str(ARM) == "linux/arm64/v8"
    assert str(Platform(architecture="amd64")) == "linux/amd64"


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"mediaType": 3}, "descriptor"),
        ({"mediaType": "no-slash"}, str(FULL.digest)),
        ({"mediaType": None}, "descriptor"),
        ({"digest": "sha256:abc"}, "descriptor.digest"),
        ({"digest": "md5:" + 32 * "a"}, "descriptor.digest"),
        ({"size": "1"}, "descriptor"),
        ({"size": True}, "descriptor"),
        ({"size": -1}, str(FULL.digest)),
        ({"size": 1.0}, "descriptor"),
        ({"annotations": {"a": 1}}, "descriptor"),
        ({"annotations": ["a"]}, "descriptor"),
        ({"platform": "linux/amd64"}, "descriptor.platform"),
        ({"platform": {"os": "linux"}}, "descriptor.platform"),
    ],
)
def test_descriptor_refuses_and_says_where(change: dict[str, Any], at: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Descriptor.from_dict(FULL.to_dict() | change)
    assert caught.value.at == at


def test_descriptor_ignores_what_it_does_not_know() -> None:
    assert Descriptor.from_dict(FULL.to_dict() | {"data": "eA==", "x": 1}) == FULL


def test_manifest_round_trip() -> None:
    artifact = Manifest(
        config=Descriptor.of(EMPTY, b"{}"),
        layers=(FULL,),
        annotations={"k": "v"},
        artifact_type="application/x",
        subject=Descriptor.of(MANIFEST, b"subject"),
    )
    for manifest in (MANIFEST_VALUE, artifact):
        assert Manifest.parse(manifest.to_bytes()) == manifest
        assert parse(MANIFEST, manifest.to_bytes()) == manifest


def test_index_round_trip() -> None:
    index = Index(manifests=(FULL, Descriptor.of(MANIFEST, b"y")), annotations={"k": "v"})
    assert Index.parse(index.to_bytes()) == index
    assert parse(INDEX, index.to_bytes()) == index


@pytest.mark.parametrize(
    ("value", "docker"),
    [
        (MANIFEST_VALUE, "application/vnd.docker.distribution.manifest.v2+json"),
        (Index(manifests=(FULL,)), "application/vnd.docker.distribution.manifest.list.v2+json"),
    ],
)
def test_docker_s_documents_are_read_as_what_they_are(value: Manifest | Index, docker: str) -> None:
    data = replace(value, media_type=docker).to_bytes()
    read = parse(docker, data)
    assert (read.media_type, read.to_bytes(), read.children) == (docker, data, value.children)
    with pytest.raises(IntegrityError, match="another one"):
        parse(docker, value.to_bytes())


def test_parse_refuses_what_it_does_not_know() -> None:
    with pytest.raises(IntegrityError, match="neither"):
        parse("application/vnd.docker.container.image.v1+json", MANIFEST_VALUE.to_bytes())
    with pytest.raises(IntegrityError, match="first schema") as caught:
        parse("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}")
    assert caught.value.hint


def test_empty_config_needs_an_artifact_type() -> None:
    with pytest.raises(IntegrityError, match="artifactType"):
        Manifest(config=Descriptor.of(EMPTY, b"{}"), layers=())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"schemaVersion": 2, "schemaVersion": 2}', "cannot be read"),
        (b'{"schemaVersion": NaN}', "cannot be read"),
        (b'{"a": "\\ud800"}', "cannot be read"),
        (b" " * (4 << 20) + b"{}", "too large"),
        (changed(MANIFEST_VALUE, schemaVersion=1), "schemaVersion"),
        (changed(MANIFEST_VALUE, schemaVersion=True), "schemaVersion"),
        (changed(MANIFEST_VALUE, schemaVersion=None), "schemaVersion"),
        (changed(MANIFEST_VALUE, mediaType=INDEX), "mediaType"),
        (changed(MANIFEST_VALUE, manifests=[]), "manifests"),
        (changed(MANIFEST_VALUE, config=None), "config"),
        (changed(MANIFEST_VALUE, layers=None), "layers"),
        (changed(MANIFEST_VALUE, layers=[{}]), "mediaType"),
        (changed(MANIFEST_VALUE, layers={}), "layers"),
    ],
)
def test_manifest_refuses(data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        Manifest.parse(data)


def test_an_error_deep_in_a_list_has_its_path() -> None:
    value = Index(manifests=(FULL, FULL))
    broken = json.loads(value.to_bytes())
    broken["manifests"][1]["platform"]["os"] = 1
    with pytest.raises(IntegrityError) as caught:
        Index.parse(json.dumps(broken).encode())
    assert caught.value.at == "index.manifests[1].platform"


CONFIG_VALUE = ImageConfig(
    platform=ARM,
    created=1767323045,
    env=("PATH=/usr/bin", "EMPTY="),
    entrypoint=("/usr/bin/python3",),
    cmd=("-c", "pass"),
    user="1000:1000",
    working_dir="/srv",
    labels={"name": "value"},
    exposed_ports=("8080/tcp",),
    volumes=("/data",),
    stop_signal="SIGINT",
    healthcheck={"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    diff_ids=(Digest.of(b"1"),),
    history=(History(created=0, created_by="one", comment="c"), History(created_by="two", empty_layer=True)),
)


def test_config_round_trip() -> None:
    for config in (CONFIG_VALUE, ImageConfig(platform=Platform(architecture="amd64"), created=0)):
        assert ImageConfig.parse(config.to_bytes()) == config


def test_config_has_the_names_of_the_specification() -> None:
    value = json.loads(CONFIG_VALUE.to_bytes())
    assert value["created"] == "2026-01-02T03:04:05Z"
    assert (value["os"], value["architecture"], value["variant"]) == ("linux", "arm64", "v8")
    assert value["config"]["ExposedPorts"] == {"8080/tcp": {}}
    assert value["rootfs"] == {"type": "layers", "diff_ids": [str(Digest.of(b"1"))]}
    assert value["history"] == [
        {"created": "1970-01-01T00:00:00Z", "created_by": "one", "comment": "c"},
        {"created_by": "two", "empty_layer": True},
    ]


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T03:04:05.999999999Z", 1767323045),
        ("2026-01-02T04:04:05+01:00", 1767323045),
        ("0001-01-01T00:00:00Z", -62135596800),
    ],
)
def test_config_reads_the_times_others_write(text: str, epoch: int) -> None:
    assert ImageConfig.parse(changed(CONFIG_VALUE, created=text)).created == epoch


@pytest.mark.parametrize(
    "change",
    [
        {"created": "2026-01-02"},
        {"created": "2026-13-02T03:04:05Z"},
        {"created": "9999-12-31T23:59:59-23:59"},
        {"created": 5},
        {"os": None},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": None},
        {"config": {"Env": ["NOVALUE"]}},
        {"config": {"Env": "A=b"}},
        {"config": {"ExposedPorts": {"http": {}}}},
        {"history": [{"empty_layer": "yes"}]},
    ],
)
def test_config_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        ImageConfig.parse(changed(CONFIG_VALUE, **change))


def test_rfc3339_has_an_end() -> None:
    assert rfc3339(-62135596800) == "0001-01-01T00:00:00Z"
    with pytest.raises(IntegrityError):
        rfc3339(1 << 60)
