"""Resolve: a Recipe -> its Lock. The only step that asks "what is newest?".

Law: asks the archive (through its verified chain) and the table of known CPython releases; decides nothing about how
the image is built.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.lock import SCHEMA, Lock, LockedPackage, LockedRelease, LockedSource
from builder.python.flags import RUNTIME_PACKAGES, TOOLCHAIN_PACKAGES
from builder.python.versions import PythonRelease, find
from builder.recipe import Recipe
from rootfs.architecture import Architecture
from rootfs.archive import CANONICAL, Suite, read_index, read_release, standard_suites
from rootfs.debian.package import Package
from rootfs.debian.release import Release
from rootfs.debian.solve import solve
from rootfs.ports import Reporter, Store, Transport


def resolve(
    recipe: Recipe,
    architecture: Architecture,
    *,
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
    now: int,
    epoch: int | None = None,
) -> Lock:
    """The Lock of a recipe as the archive stands. `now` is the time (seconds) that Valid-Until is held against.

    `epoch` (SOURCE_DATE_EPOCH) is the time stamp of what is made; when None the date of the release itself, not that of
    its security archive: a lock made a day later with the same packages gives the same image.
    """
    python = find(recipe.python.version)
    suites = standard_suites(recipe.base.suite, recipe.base.components, security=recipe.base.security)
    releases = [
        (suite, read_release(suite, transport=transport, store=store, mirrors=mirrors, now=now)) for suite in suites
    ]
    index = read_index(releases, architecture, transport=transport, store=store, mirrors=mirrors, reporter=reporter)
    deny = recipe.base.deny
    runtime = solve(index, [*recipe.base.packages, *RUNTIME_PACKAGES], deny=deny)
    toolchain = solve(index, TOOLCHAIN_PACKAGES, deny=deny)
    reporter.note(
        f"resolved {recipe.base.suite}: {len(runtime.packages)} packages, {len(toolchain.packages)} to compile with; "
        f"CPython {python.version}"
    )
    return Lock(
        schema=SCHEMA,
        recipe=str(recipe.digest),
        platform=f"linux/{architecture.oci}",
        epoch=releases[0][1].date if epoch is None else epoch,
        release=tuple(_release(suite, release) for suite, release in releases),
        source=(_source(python),),
        package=_packages({"runtime": runtime.packages, "toolchain": toolchain.packages}),
    )


def _release(suite: Suite, release: Release) -> LockedRelease:
    return LockedRelease(
        archive=suite.archive,
        suite=suite.name,
        codename=release.codename,
        date=release.date,
        digest=str(release.digest),
        signers=release.signers,
    )


def _source(python: PythonRelease) -> LockedSource:
    return LockedSource(
        name="cpython",
        version=python.version,
        urls=(python.upstream, f"{CANONICAL['debian']}/{python.pool}"),
        size=python.size,
        sha256=python.source.hex,
    )


def _packages(sets: Mapping[str, tuple[Package, ...]]) -> tuple[LockedPackage, ...]:
    """Every package of every set once, by name and version."""
    packages = {(p.name, str(p.version)): p for chosen in sets.values() for p in chosen}
    return tuple(
        LockedPackage(
            name=package.name,
            version=package.fields["Version"],
            architecture=package.architecture,
            sets=tuple(name for name, chosen in sets.items() if package in chosen),
            url=f"{CANONICAL[package.origin]}/{package.filename}",
            size=package.size,
            sha256=package.digest.hex,
        )
        for _, package in sorted(packages.items())
    )
