"""Edits of a config and a manifest, annotations, and rebasing: on JSON values, whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.oci.annotations import PREFIX, fault_of
from builder.oci.config import ImageConfig
from builder.oci.descriptor import CONFIG, LAYER_GZIP, MANIFEST, Descriptor
from builder.oci.edit import Edit, pointing, with_oci_names
from builder.oci.mediatypes import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST
from builder.oci.rebase import Documents, rebased
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, UsageError

FOREIGN: dict[str, Any] = {
    "created": "2026-01-02T03:04:05.123456789Z",
    "author": "somebody",
    "os": "windows",
    "os.version": "10.0.1",
    "architecture": "amd64",
    "config": {"Env": ["A=1", "B=2"], "Healthcheck": {"Test": ["NONE"]}, "OnBuild": ["RUN x"], "ArgsEscaped": True},
    "rootfs": {"type": "layers", "diff_ids": []},
    "history": [{"author": "x", "created_by": "y", "empty_layer": True}],
    "moby.buildkit.cache.v0": "eA==",
}


def test_an_edit_says_what_it_says_and_leaves_the_rest() -> None:
    edit = Edit(
        env={"A": None, "B": "3", "C": "=4"},
        labels={"l": "v"},
        ports={"80/tcp": True},
        volumes={"/data": True},
        entrypoint=("a", "b"),
        cmd=(),
        user="u",
        working_dir="/w",
        stop_signal="SIGINT",
        created=0,
    )
    value = edit.config(FOREIGN)
    assert value["config"] == {
        "Env": ["B=3", "C==4"],
        "Labels": {"l": "v"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Entrypoint": ["a", "b"],
        "User": "u",
        "WorkingDir": "/w",
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["NONE"]},
        "OnBuild": ["RUN x"],
        "ArgsEscaped": True,
    }
    assert value["created"] == "1970-01-01T00:00:00Z"
    assert {k: v for k, v in value.items() if k not in ("config", "created")} == {
        k: v for k, v in FOREIGN.items() if k not in ("config", "created")
    }
    assert ImageConfig.parse(canonical_json(value)).volumes == ("/data",)


def test_no_edit_changes_nothing() -> None:
    assert Edit().config(FOREIGN) == FOREIGN
    assert Edit().annotated({"layers": []}) == {"layers": []}
    assert Edit().config({"os": "linux"}) == {"os": "linux"}


NAMES = st.text(st.characters(codec="ascii", exclude_characters="=\0", categories=("L", "N")), min_size=1, max_size=4)
ENVS = st.dictionaries(NAMES, st.text(max_size=4), max_size=4)


@given(ENVS, ENVS, ENVS, st.sampled_from(["", "u"]))
def test_an_edit_taken_back_leaves_no_trace(
    env: dict[str, str], added: dict[str, str], labels: dict[str, str], user: str
) -> None:
    run = {"Env": [f"{n}={v}" for n, v in env.items()], "Labels": labels, "User": user}
    before = {**FOREIGN, "config": {name: member for name, member in run.items() if member}}
    new = {name: value for name, value in added.items() if name not in env and name not in labels}
    there = Edit(env=new, labels=new, annotations=new, ports={"1/tcp": True}, user="other", cmd=("c",)).config(before)
    back = Edit(
        env=dict.fromkeys(new),
        labels=dict.fromkeys(new),
        ports={"1/tcp": False},
        user=user,
        cmd=(),
    ).config(there)
    assert canonical_json(back) == canonical_json(before)


def test_a_descriptor_points_elsewhere_and_keeps_what_else_is_said() -> None:
    value = {"mediaType": "x/y", "digest": "d", "size": 1, "urls": ["u"], "data": "eA==", "platform": {"os": "linux"}}
    there = Descriptor.of(MANIFEST, b"other")
    assert pointing(value, there) == {**there.to_dict(), "urls": ["u"], "platform": {"os": "linux"}}


def test_docker_s_names_become_oci_s() -> None:
    value = {
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG},
        "layers": [{"mediaType": DOCKER_LAYER}],
    }
    assert with_oci_names(value) == {
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG},
        "layers": [{"mediaType": LAYER_GZIP}],
    }
    assert (
        with_oci_names({"manifests": [{"mediaType": DOCKER_MANIFEST}]})["manifests"][0]["mediaType"] == DOCKER_MANIFEST
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("org.example.team", ""),
        ("created", "2026-01-02T03:04:05Z"),
        ("created", "2026-01-02T03:04:05.1+01:00"),
        ("licenses", "MIT"),
        ("licenses", "Apache-2.0 AND (MIT OR GPL-2.0-or-later WITH Classpath-exception-2.0)"),
        ("licenses", "GPL-2.0+ OR DocumentRef-x:LicenseRef-y"),
        ("source", "git://example.org/x"),
        ("url", "https://example.org/?a=b#c"),
        ("base.digest", "sha256:" + "a" * 64),
        ("base.name", "docker.io/library/debian:trixie"),
        ("base.name", "localhost:5000/a@sha256:" + "a" * 64),
        ("base.name", "localhost/a"),
        ("ref.name", "3.14-wee"),
        ("title", "CPython"),
    ],
)
def test_annotations_that_are_right(name: str, value: str) -> None:
    assert fault_of(name if name.startswith("org.") else PREFIX + name, value) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("org.example team", "x"),
        ("", "x"),
        ("org.opencontainers.image.licences", "MIT"),
        ("org.opencontainers.other", "x"),
        ("created", "2026-01-02"),
        ("created", "2026-13-02T03:04:05Z"),
        ("created", "now"),
        ("licenses", ""),
        ("licenses", "MIT,Apache-2.0"),
        ("licenses", "MIT OR"),
        ("licenses", "(MIT"),
        ("licenses", "MIT)"),
        ("licenses", "MIT Apache-2.0"),
        ("licenses", "WITH MIT"),
        ("licenses", "a:b"),
        ("licenses", "()"),
        ("source", "example.org/x"),
        ("url", "https://exa mple"),
        ("base.digest", "sha256:abc"),
        ("base.name", "debian:trixie"),
        ("base.name", "library/debian"),
        ("base.name", "../x"),
        ("ref.name", "a b"),
        ("title", " "),
    ],
)
def test_annotations_that_are_wrong(name: str, value: str) -> None:
    assert fault_of(name if name.startswith("org.") or not name else PREFIX + name, value)


def test_a_wrong_name_has_its_likeness() -> None:
    assert "did you mean org.opencontainers.image.licenses?" in str(fault_of(f"{PREFIX}licences", "MIT"))


def documents(name: str, layers: list[str], run: dict[str, Any] | None = None, **config: Any) -> Documents:
    """An image of these layers, each with a history entry of its name."""
    diff_ids = [str(Digest.of(layer.encode())) for layer in layers]
    value = {
        "os": "linux",
        "architecture": "amd64",
        "config": run or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": layer} for layer in layers],
    }
    manifest = {"layers": [Descriptor.of(LAYER_GZIP, layer.encode()).to_dict() for layer in layers]}
    return Documents(name=name, manifest=manifest, config=value | config)


OLD = documents("old", ["o1", "o2"], {"Env": ["PATH=/bin", "V=1", "GONE=x"], "Cmd": ["sh"], "Labels": {"base": "1"}})
NEW = documents(
    "new", ["n1"], {"Env": ["V=2", "PATH=/usr/bin", "FRESH=y"], "Cmd": ["bash"], "Labels": {"base": "2"}, "User": "n"}
)
APP = documents(
    "app",
    ["o1", "o2", "a"],
    {
        "Env": ["PATH=/app/bin:/bin", "V=1", "GONE=x", "APP=1"],
        "Cmd": ["sh"],
        "Labels": {"base": "1", "app": "x"},
        "WorkingDir": "/app",
        "Odd": False,
    },
    author="me",
)


def test_rebasing_keeps_what_is_the_image_s_and_takes_what_was_the_base_s() -> None:
    after = rebased(APP, OLD, NEW)
    assert after.diff_ids == [*NEW.diff_ids, APP.diff_ids[2]]
    assert after.layers == [*NEW.layers, APP.layers[2]]
    assert [entry["created_by"] for entry in after.config["history"]] == ["n1", "a"]
    assert after.config["author"] == "me"
    assert after.config["config"] == {
        "Env": ["V=2", "PATH=/app/bin:/usr/bin", "FRESH=y", "APP=1"],
        "Cmd": ["bash"],
        "Labels": {"base": "2", "app": "x"},
        "User": "n",
        "WorkingDir": "/app",
        "Odd": False,
    }


def test_there_and_back_is_where_it_was() -> None:
    back = rebased(rebased(APP, OLD, NEW), NEW, OLD)
    assert (back.manifest, back.config) == (APP.manifest, APP.config)


VARIABLES = st.dictionaries(st.sampled_from("ABCD"), st.sampled_from(["1", "2"]), max_size=4)


@given(VARIABLES, VARIABLES, VARIABLES)
def test_a_variable_is_the_image_s_own_or_its_base_s(
    old: dict[str, str], new: dict[str, str], own: dict[str, str]
) -> None:
    def env(table: dict[str, str]) -> dict[str, Any]:
        return {"Env": [f"{name}={value}" for name, value in table.items()]}

    image = {**old, **{name: f"own{value}" for name, value in own.items()}}
    after = rebased(
        documents("i", ["o", "a"], env(image)), documents("o", ["o"], env(old)), documents("n", ["n"], env(new))
    )
    got = dict(pair.split("=", 1) for pair in after.config["config"].get("Env", []))
    assert got == {**new, **{name: f"own{value}" for name, value in own.items()}}


def test_what_an_image_took_out_stays_out() -> None:
    app = documents("app", ["o1", "o2"], {"Env": ["PATH=/bin"]})
    assert rebased(app, OLD, NEW).config["config"]["Env"] == ["PATH=/usr/bin", "FRESH=y"]
    assert "Cmd" not in rebased(documents("app", ["o1", "o2"], {"Cmd": None}), OLD, NEW).config["config"]


@pytest.mark.parametrize(
    ("image", "number", "got"),
    [
        (documents("app", ["o1", "x", "a"]), "layer 2 of 2", str(Digest.of(b"x"))),
        (documents("app", ["x"]), "layer 1 of 2", str(Digest.of(b"x"))),
        (documents("app", ["o1"]), "layer 2 of 2", "none: it has fewer"),
    ],
)
def test_another_base_is_refused_with_the_layer_that_differs(image: Documents, number: str, got: str) -> None:
    with pytest.raises(UsageError, match="old is not the base of app") as caught:
        rebased(image, OLD, NEW)
    assert number in str(caught.value.because)
    assert got in str(caught.value.because)


def test_a_base_for_another_platform_is_refused() -> None:
    with pytest.raises(UsageError, match="another platform"):
        rebased(APP, OLD, documents("new", ["n"], architecture="arm64"))


def test_history_is_spliced_also_where_it_is_other_than_the_base_s() -> None:
    def empty(word: str) -> dict[str, Any]:
        return {"created_by": word, "empty_layer": True}

    told = [{"created_by": "1"}, {"created_by": "2"}, empty("env"), {"created_by": "3"}]
    app = documents("app", ["o1", "o2", "a"], history=told)
    assert [entry["created_by"] for entry in rebased(app, OLD, NEW).config["history"]] == ["n1", "env", "3"]
    silent = documents("app", ["o1", "o2", "a"], history=[])
    assert rebased(silent, OLD, NEW).config["history"] == [{"created_by": "n1"}, {}]
    assert rebased(APP, OLD, documents("new", ["n1"], history=[empty("x")])).config["history"] == [
        {},
        {"created_by": "a"},
    ]


def test_a_time_beyond_time_is_refused() -> None:
    with pytest.raises(IntegrityError, match="not a time"):
        Edit(created=10**12).config(json.loads(json.dumps(FOREIGN)))
