"""Every document we write, against the schemas of the specification's authors (tests/schemas, image-spec v1.1.1)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import (
    CONFIG,
    EMPTY,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    Platform,
)
from builder.oci.layout import write_layout
from builder.oci.manifest import Index, Manifest
from rootfs.digest import Digest, canonical_json
from rootfs.store import DiskStore
from tests.peers.sample import COMPRESSIONS, sample
from tests.peers.schemas import valid


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_a_layout_holds(compression: str, tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store")
    image, descriptor = sample(store, compression)
    write_layout(tmp_path / "layout", store, descriptor, ref_name="x")
    valid("image-layout-schema", (tmp_path / "layout/oci-layout").read_bytes())
    valid("image-index-schema", (tmp_path / "layout/index.json").read_bytes())
    valid("image-manifest-schema", image.manifest)
    valid("config-schema", image.config)
    valid("content-descriptor", canonical_json(descriptor.to_dict()))


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ("image-layout-schema", {"imageLayoutVersion": 1}),
        ("image-index-schema", {"schemaVersion": 2, "manifests": [{}]}),
        ("image-manifest-schema", {"schemaVersion": 2, "layers": []}),
        ("image-manifest-schema", {"schemaVersion": 2, "config": {"digest": "x"}, "layers": []}),
        ("config-schema", {"os": "linux", "architecture": "amd64", "rootfs": {"type": "x", "diff_ids": []}}),
        ("config-schema", {"os": "linux", "architecture": "a", "rootfs": {"type": "layers"}, "config": {"Env": [1]}}),
        ("content-descriptor", {"mediaType": "a/b", "size": 1, "digest": "no digest"}),
    ],
)
def test_the_schemas_refuse(schema: str, value: object) -> None:
    """Else all of this would show nothing: references between the files must be followed."""
    with pytest.raises(jsonschema.ValidationError):
        valid(schema, json.dumps(value).encode())


_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_KEY = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=9)
_TABLE = st.dictionaries(_KEY, _TEXT, max_size=3)
_DIGEST = st.binary(max_size=4).map(Digest.of)
_PLATFORM = st.builds(
    Platform, architecture=st.sampled_from(["amd64", "arm64", "arm"]), variant=st.sampled_from([None, "v7", "v8"])
)
_TIME = st.integers(0, 253402300799)


def _descriptor(*media_types: str) -> st.SearchStrategy[Descriptor]:
    return st.builds(
        Descriptor,
        media_type=st.sampled_from(media_types),
        digest=_DIGEST,
        size=st.integers(0, (1 << 63) - 1),
        annotations=_TABLE,
        platform=st.none() | _PLATFORM,
        artifact_type=st.sampled_from([None, "application/vnd.example+json"]),
    )


@given(
    st.builds(
        ImageConfig,
        platform=_PLATFORM,
        created=_TIME,
        env=st.lists(_TEXT.map("A={}".format), max_size=3).map(tuple),
        entrypoint=st.lists(_TEXT, max_size=3).map(tuple),
        cmd=st.lists(_TEXT, max_size=3).map(tuple),
        user=_TEXT,
        working_dir=_TEXT,
        labels=_TABLE,
        exposed_ports=st.sampled_from([(), ("80",), ("53/udp", "80/tcp")]),
        stop_signal=st.sampled_from(["", "SIGTERM", "9"]),
        diff_ids=st.lists(_DIGEST, max_size=3).map(tuple),
        history=st.lists(
            st.builds(History, created=st.none() | _TIME, created_by=_TEXT, comment=_TEXT, empty_layer=st.booleans()),
            max_size=3,
        ).map(tuple),
    )
)
@settings(max_examples=100, deadline=None)
def test_any_config(config: ImageConfig) -> None:
    valid("config-schema", config.to_bytes())
    assert ImageConfig.parse(config.to_bytes()) == config


@given(
    _descriptor(CONFIG, "application/vnd.example+json"),
    st.lists(_descriptor(LAYER_TAR, LAYER_GZIP, LAYER_ZSTD), min_size=1, max_size=4),
    _TABLE,
    st.none() | _descriptor(MANIFEST, INDEX),
    st.sampled_from([None, "application/spdx+json"]),
)
@settings(max_examples=100, deadline=None)
def test_any_manifest(
    config: Descriptor,
    layers: list[Descriptor],
    annotations: dict[str, str],
    subject: Descriptor | None,
    artifact_type: str | None,
) -> None:
    manifest = Manifest(
        config=config, layers=tuple(layers), annotations=annotations, subject=subject, artifact_type=artifact_type
    )
    valid("image-manifest-schema", manifest.to_bytes())
    assert Manifest.parse(manifest.to_bytes()) == manifest


def test_an_artifact_without_content() -> None:
    """manifest.md, "Guidelines for Artifact Usage": the empty descriptor as config and as the one layer."""
    empty = Descriptor.of(EMPTY, b"{}")
    valid("image-manifest-schema", Manifest(config=empty, layers=(empty,), artifact_type="a/b").to_bytes())


@given(st.lists(_descriptor(MANIFEST, INDEX), max_size=4), _TABLE)
@settings(max_examples=100, deadline=None)
def test_any_index(manifests: list[Descriptor], annotations: dict[str, str]) -> None:
    index = Index(manifests=tuple(manifests), annotations=annotations)
    valid("image-index-schema", index.to_bytes())
    assert Index.parse(index.to_bytes()) == index
    for manifest in manifests:
        valid("content-descriptor", canonical_json(replace(manifest, platform=None).to_dict()))
