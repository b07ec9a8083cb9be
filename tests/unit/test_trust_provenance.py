"""Provenance of a recipe's image, read back by in-toto's own bindings."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from packageurl import PackageURL

from builder.lock import Lock, LockedPackage, LockedProfile, LockedRelease, LockedSource
from builder.plan import make_plan
from builder.recipe import Recipe
from builder.trust.provenance import PREDICATE, STATEMENT, provenance
from rootfs.digest import Digest

IMAGE = Digest.of(b"image")
RECIPE = Recipe.parse(
    b"""
name = "wee"
[base]
suite = "trixie"
security = false
[[base.repository]]
url = "https://user:secret@packages.example.org/debian"
suite = "stable"
components = ["main"]
key = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
[python]
version = "3.14.7"
variant = "optimized"
[image]
tag = "{version}"
""",
    at="recipe",
)
LOCK = Lock(
    schema=1,
    recipe=str(RECIPE.digest),
    platform="linux/amd64",
    epoch=1_789_199_741,
    release=(
        LockedRelease(
            archive="debian", suite="trixie", codename="trixie", date=1, digest=str(Digest.of(b"r")), signers=("ab",)
        ),
        LockedRelease(
            archive="https://user:secret@packages.example.org/debian",
            suite="stable",
            codename="stable",
            date=1,
            digest=str(Digest.of(b"s")),
            signers=("cd",),
        ),
    ),
    source=(
        LockedSource(
            name="cpython",
            version="3.14.7",
            urls=("https://www.python.org/x.tar.xz", "https://ftp.debian.org/x.tar.xz"),
            sha256="a" * 64,
            vouched=("pinned sha256", "Sigstore hugo@python.org"),
        ),
        LockedSource(name="pip", version="26.2.1", urls=("https://files.example.org/pip.whl",), sha256="c" * 64),
    ),
    package=tuple(
        LockedPackage(
            name=name,
            version="1:2+b1",
            architecture="amd64",
            sets=sets,
            url=f"https://ftp.debian.org/{name}.deb",
            size=1,
            sha256=Digest.of(name.encode()).hex,
        )
        for name, sets in (("dpkg", ("runtime", "toolchain")), ("gcc", ("toolchain",)))
    ),
    profile=LockedProfile(
        digest=str(Digest.of(b"profile")), source="a" * 64, commands="x", compiler=("gcc 1",), headers=()
    ),
)


def statement(overrides: tuple[str, ...] = (), lock: Lock = LOCK) -> dict[str, Any]:
    """The statement, found to be one by in-toto's bindings; they refuse members that they do not know."""
    value: dict[str, Any] = json.loads(provenance(IMAGE, RECIPE, lock, make_plan(RECIPE, lock), overrides))
    Statement.copy_from_pb(ParseDict(value, Message())).validate()
    ParseDict(value["predicate"], Provenance())
    return value


def dependencies(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The resolved dependencies."""
    found: list[dict[str, Any]] = value["predicate"]["buildDefinition"]["resolvedDependencies"]
    return found


def test_it_is_about_the_image() -> None:
    value = statement()
    assert (value["_type"], value["predicateType"]) == (STATEMENT, PREDICATE)
    assert value["subject"] == [{"name": "wee", "digest": {"sha256": IMAGE.hex}}]


def test_every_dependency_is_a_resource_with_a_digest() -> None:
    found = dependencies(statement())
    for one in found:
        ResourceDescriptor.copy_from_pb(ParseDict(one, ResourceDescriptor().pb)).validate()
        assert len(one["digest"]["sha256"]) == 64
    assert [one["name"] for one in found] == [
        "trixie InRelease",
        "stable InRelease",
        "cpython",
        "pip",
        "profile",
        "dpkg",
        "gcc",
    ]


def test_where_they_came_from_is_the_archives_own_address() -> None:
    found = {one["name"]: one for one in dependencies(statement())}
    assert found["trixie InRelease"]["uri"] == "https://ftp.debian.org/debian/dists/trixie/InRelease"
    assert found["cpython"]["downloadLocation"] == "https://www.python.org/x.tar.xz"
    assert found["cpython"]["annotations"] == {
        "vouched": ["pinned sha256", "Sigstore hugo@python.org"],
        "alternatives": ["https://ftp.debian.org/x.tar.xz"],
    }
    assert found["pip"]["uri"] == "pkg:pypi/pip@26.2.1"
    purl = PackageURL.from_string(found["dpkg"]["uri"])
    assert (purl.name, purl.version, purl.qualifiers) == ("dpkg", "1:2+b1", {"arch": "amd64", "distro": "trixie"})
    assert found["dpkg"]["annotations"] == {"sets": ["runtime", "toolchain"]}
    assert found["profile"]["annotations"]["compiler"] == ["gcc 1"]


def test_no_secret_of_a_repository_is_told() -> None:
    assert b"secret" not in provenance(IMAGE, RECIPE, LOCK, make_plan(RECIPE, LOCK))
    assert any("packages.example.org/debian/dists/stable" in one.get("uri", "") for one in dependencies(statement()))


def test_what_the_user_said_and_what_was_done() -> None:
    said = statement(("python.version=3.14.7",))["predicate"]["buildDefinition"]
    assert said["externalParameters"]["recipe"]["python"]["variant"] == "optimized"
    assert said["externalParameters"]["overrides"] == ["python.version=3.14.7"]
    plan = make_plan(RECIPE, LOCK)
    keys = {str(step.key): step.kind for step in plan.walk() if step.kind != "fragment"}
    told = {step["key"]: step["kind"] for step in said["internalParameters"]["steps"]}
    assert told == keys
    assert said["internalParameters"]["steps"][-1]["key"] == str(plan.key)


def test_the_same_again_and_another_invocation_for_another_lock() -> None:
    plan = make_plan(RECIPE, LOCK)
    assert provenance(IMAGE, RECIPE, LOCK, plan) == provenance(IMAGE, RECIPE, LOCK, plan)
    other = statement(lock=msgspec.structs.replace(LOCK, epoch=2))
    identities = {one["predicate"]["runDetails"]["metadata"]["invocationId"] for one in (statement(), other)}
    assert len(identities) == 2
    assert "startedOn" not in json.dumps(other)
