"""Resolve: a Recipe -> its Lock. The only step that asks "what is newest?".

Law: asks the archive (through its verified chain) and the table of known CPython releases; decides nothing about how
the image is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder.lock import SCHEMA, Lock, LockedPackage, LockedRelease, LockedSource
from builder.python.flags import RUNTIME_PACKAGES, TOOLCHAIN_PACKAGES
from builder.python.versions import PythonRelease, find
from builder.recipe import Base, Recipe
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.archive import CANONICAL, Suite, read_index, read_release, standard_suites
from rootfs.debian.package import Package, PackageIndex
from rootfs.debian.release import Release
from rootfs.debian.solve import Selection, solve
from rootfs.digest import Digest


def resolve(recipe: Recipe, architecture: Architecture, tools: Tools, *, now: int, epoch: int | None = None) -> Lock:
    """The Lock of a recipe as the archive stands. `now` is the time (seconds) that Valid-Until is held against.

    `epoch` (SOURCE_DATE_EPOCH) is the time stamp of what is made; when None the date of the release itself, not that of
    its security archive: a lock made a day later with the same packages gives the same image.
    """
    python = find(recipe.python.version)
    releases, index = read_archive(recipe.base, architecture, tools, now=now)
    runtime = select(index, recipe.base, RUNTIME_PACKAGES)
    toolchain = solve(index, TOOLCHAIN_PACKAGES, deny=recipe.base.deny)
    tools.reporter.note(
        f"resolved {recipe.base.suite}: {len(runtime.packages)} packages, {len(toolchain.packages)} to compile with; "
        f"CPython {python.version}"
    )
    sets = {"runtime": runtime.packages, "toolchain": toolchain.packages}
    return _lock(recipe.digest, architecture, releases, sets, (_source(python),), epoch)


def resolve_rootfs(base: Base, architecture: Architecture, tools: Tools, *, now: int, epoch: int | None = None) -> Lock:
    """The Lock of a rootfs alone; as `resolve`, with one set of packages, `runtime`."""
    releases, index = read_archive(base, architecture, tools, now=now)
    packages = select(index, base).packages
    tools.reporter.note(f"resolved {base.suite}: {len(packages)} packages")
    return _lock(base.digest, architecture, releases, {"runtime": packages}, (), epoch)


def read_archive(
    base: Base, architecture: Architecture, tools: Tools, *, now: int
) -> tuple[list[tuple[Suite, Release]], PackageIndex]:
    """The verified Releases of a base's suites, and their packages."""
    transport, store, mirrors = tools.transport, tools.store, tools.mirrors
    releases = [
        (suite, read_release(suite, transport=transport, store=store, mirrors=mirrors, now=now))
        for suite in standard_suites(base.suite, base.components, security=base.security)
    ]
    index = read_index(
        releases, architecture, transport=transport, store=store, mirrors=mirrors, reporter=tools.reporter
    )
    return releases, index


def select(index: PackageIndex, base: Base, more: Sequence[str] = ()) -> Selection:
    """The packages of a base, and those it takes to have `more`."""
    variant = {"custom": [], "essential": [], "apt": ["apt"], "minbase": ["apt", *_required(index)]}[base.variant]
    return solve(index, [*variant, *base.packages, *more], deny=base.deny, essential=base.variant != "custom")


def _required(index: PackageIndex) -> list[str]:
    return [package.name for package in index.with_priority("required")]


def _lock(
    recipe: Digest,
    architecture: Architecture,
    releases: Sequence[tuple[Suite, Release]],
    sets: Mapping[str, tuple[Package, ...]],
    sources: tuple[LockedSource, ...],
    epoch: int | None,
) -> Lock:
    return Lock(
        schema=SCHEMA,
        recipe=str(recipe),
        platform=f"linux/{architecture.oci}",
        epoch=releases[0][1].date if epoch is None else epoch,
        release=tuple(_release(suite, release) for suite, release in releases),
        source=sources,
        package=_packages(sets),
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
