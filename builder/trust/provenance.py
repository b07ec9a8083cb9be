"""Provenance: what an image was built from and how, as an in-toto Statement v1 with SLSA provenance v1.

Law: pure. Says what recipe and lock say, and nothing of this machine: no mirror, no path, no user, no clock. The same
recipe and lock give the same bytes. Sources: in-toto attestation framework 1.0, slsa.dev/provenance/v1; what our own
members mean: docs/reference/provenance.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from packageurl import PackageURL

from builder.lock import Lock, LockedPackage, LockedSource
from builder.plan import REVISIONS, Step
from builder.recipe import Recipe
from builder.suites import suites_of
from builder.trust.identity import urn
from builder.version import VERSION
from rootfs.digest import Digest, canonical_json
from rootfs.url import without_user

MEDIA_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
BUILD_TYPE = "https://ocibuild.invalid/provenance/recipe/v1"
BUILDER = "https://ocibuild.invalid/builder/v1"


def provenance(image: Digest, recipe: Recipe, lock: Lock, plan: Step, overrides: Sequence[str] = ()) -> bytes:
    """The statement of an image (its manifest's digest), as canonical JSON.

    `plan` are the steps that made it; `overrides` the keys of the recipe that were given beside its file.
    """
    locked = Digest.of(msgspec.json.encode(lock))
    value = {
        "_type": STATEMENT,
        "subject": [{"name": recipe.name, "digest": _digests(image)}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"recipe": _said(recipe), "overrides": list(overrides)},
                "internalParameters": {
                    "recipeDigest": str(recipe.digest),
                    "platform": lock.platform,
                    "epoch": lock.epoch,
                    "steps": list(_steps(plan)),
                },
                "resolvedDependencies": list(_dependencies(recipe, lock)),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"ocibuild": VERSION}},
                "metadata": {"invocationId": urn(recipe.digest, locked, image, VERSION)},
            },
        },
    }
    return canonical_json(value)


def _said(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says, overrides and defaults included; no user or password of a repository."""
    value: dict[str, Any] = msgspec.to_builtins(recipe)
    for repository in value["base"]["repository"]:
        repository["url"] = without_user(repository["url"])
    return value


def _steps(plan: Step) -> Iterator[dict[str, Any]]:
    """The steps in the order of their inputs; those that unpack one .deb each are left out: it is named itself."""
    for step in plan.walk():
        if step.kind != "fragment":
            yield {
                "kind": step.kind,
                "revision": REVISIONS[step.kind],
                "title": step.title,
                "key": str(step.key),
            }


def _dependencies(recipe: Recipe, lock: Lock) -> Iterator[dict[str, Any]]:
    """Resource descriptors of everything that came in: indexes first, then sources, profile and packages."""
    places = {(suite.archive, suite.name): suite.directory for suite in suites_of(recipe.base)}
    for one in lock.release:
        where = places.get((one.archive, one.suite), f"{one.archive}/dists/{one.suite}")
        yield {
            "name": f"{one.suite} InRelease",
            "uri": f"{without_user(where)}/InRelease",
            "digest": _digests(Digest.parse(one.digest)),
            "annotations": {"codename": one.codename, "date": one.date, "signers": list(one.signers)},
        }
    for source in lock.source:
        yield _source(source)
    if lock.profile is not None:
        pinned = lock.profile
        fits = {"source": pinned.source, "commands": pinned.commands, "compiler": list(pinned.compiler)}
        yield {"name": "profile", "digest": _digests(Digest.parse(pinned.digest)), "annotations": fits}
        if pinned.layout:
            yield {
                "name": "layout",
                "digest": _digests(Digest.parse(pinned.layout)),
                "annotations": {"laid": list(pinned.laid)},
            }
    for package in lock.package:
        yield _package(package, recipe.base.suite)


def _source(source: LockedSource) -> dict[str, Any]:
    kind = "pypi" if source.name == "pip" else "generic"
    urls = [without_user(url) for url in source.urls]
    return {
        "name": source.name,
        "uri": PackageURL(kind, None, source.name, source.version).to_string(),
        "downloadLocation": urls[0],
        "digest": {"sha256": source.sha256},
        "annotations": {"vouched": list(source.vouched), "alternatives": urls[1:]},
    }


def _package(package: LockedPackage, codename: str) -> dict[str, Any]:
    qualifiers = {"arch": package.architecture, "distro": codename}
    return {
        "name": package.name,
        "uri": PackageURL("deb", "debian", package.name, package.version, qualifiers).to_string(),
        "downloadLocation": without_user(package.url),
        "digest": {"sha256": package.sha256},
        "annotations": {"sets": list(package.sets)},
    }


def _digests(digest: Digest) -> dict[str, str]:
    return {digest.algorithm: digest.hex}
