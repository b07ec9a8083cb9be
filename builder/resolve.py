"""Resolve: a Recipe -> its Lock. The only step that asks "what is newest?".

Law: asks the archive (through its verified chain) and the table of known CPython releases; decides nothing about how
the image is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from builder.lock import SCHEMA, Lock, LockedPackage, LockedRelease, LockedSource
from builder.python.lines import suite_for
from builder.python.packages import SuitePackages, packages_for
from builder.python.pip import lock_pip
from builder.python.versions import PythonRelease, find
from builder.recipe import Base, Recipe
from builder.suites import suites_of
from builder.tools import Tools
from builder.vouch import vouched
from rootfs.architecture import Architecture
from rootfs.archive import read_index, read_release
from rootfs.debian.index import PackageIndex
from rootfs.debian.package import Package
from rootfs.debian.release import Release
from rootfs.debian.solve import Selection, solve
from rootfs.digest import Digest
from rootfs.ports import Origin, read_blob
from rootfs.suite import CANONICAL, Suite, package_url

Releases = Sequence[tuple[Suite, Release]]
_REVISION = 1  # of the kept answers: raise it when the same archive comes to be resolved otherwise


def resolve(recipe: Recipe, architecture: Architecture, tools: Tools, *, now: int, epoch: int | None = None) -> Lock:
    """The Lock of a recipe as the archive stands. `now` is the time (seconds) that Valid-Until is held against.

    `epoch` (SOURCE_DATE_EPOCH) is the time stamp of what is made; when None the date of the release itself, not that of
    its security archive: a lock made a day later with the same packages gives the same image.
    """
    python = find(recipe.python.version)
    base = msgspec.structs.replace(recipe.base, suite=suite_for(python.version, recipe.base.suite))
    names = _names(recipe, python, base.suite)
    releases = read_releases(base, tools, now=now)
    index = _read_index(releases, architecture, tools)
    runtime = select(index, base, names.runtime)
    foreign = [name for name in names.foreign if index.named(name)]
    toolchain = solve(index, names.toolchain, deny=base.deny, omit=foreign)
    tools.reporter.note(
        f"resolved {base.suite}: {len(runtime.packages)} packages, {len(toolchain.packages)} to compile with; "
        f"CPython {python.version}"
    )
    sets = {"runtime": runtime.packages, "toolchain": toolchain.packages}
    sources = (_source(python, vouched(python, releases, tools, now=now)), *_pip(recipe, python, tools))
    return _lock(recipe.digest, architecture, releases, sets, sources, epoch)


def _names(recipe: Recipe, python: PythonRelease, suite: str) -> SuitePackages:
    """The packages by name that a recipe's `[python]` asks for."""
    said = recipe.python
    return packages_for(
        suite,
        python.facts,
        tkinter="tkinter" in said.modules,
        clang=said.compiler == "clang",
        jit=said.jit,
        bolt=said.layout == "bolt",
    )


def _pip(recipe: Recipe, python: PythonRelease, tools: Tools) -> tuple[LockedSource, ...]:
    """pip's wheel, unless the recipe wants none, or the one that this CPython bundles."""
    asked = recipe.python.pip
    version = (python.facts.pip if asked else "") if isinstance(asked, bool) else asked
    if not version:
        return ()
    return (lock_pip(version, python.numbers, tools.transport, tools.store, tools.mirrors, tools.reporter),)


def resolve_rootfs(base: Base, architecture: Architecture, tools: Tools, *, now: int, epoch: int | None = None) -> Lock:
    """The Lock of a rootfs alone; as `resolve`, with one set of packages, `runtime`.

    While the archive's Releases are the same the answer is, and it is kept in the store under them.
    """
    releases = read_releases(base, tools, now=now)
    digests = [str(release.digest) for _, release in releases]
    question = {"base": str(base.digest), "architecture": architecture.debian, "epoch": epoch, "releases": digests}
    key = Digest.of_value({"kind": "resolve", "revision": _REVISION, **question})
    kept = tools.store.lookup(key)
    if kept is not None:
        return msgspec.json.decode(read_blob(tools.store, kept), type=Lock)
    packages = select(_read_index(releases, architecture, tools), base).packages
    tools.reporter.note(f"resolved {base.suite}: {len(packages)} packages")
    lock = _lock(base.digest, architecture, releases, {"runtime": packages}, (), epoch)
    tools.store.link(key, tools.store.put([msgspec.json.encode(lock)]).digest, Origin(kind="resolve"))
    return lock


def explain(name: str, base: Base, architecture: Architecture, tools: Tools, *, now: int) -> str:
    """Who pulls a package into a rootfs of this base, in lines; ResolveError when nobody does."""
    return select(_read_index(read_releases(base, tools, now=now), architecture, tools), base).explain(name)


def read_releases(base: Base, tools: Tools, *, now: int) -> Releases:
    """The verified Releases of a base's suites, asked for all at once."""
    suites = suites_of(base)

    def read(suite: Suite) -> Release:
        return read_release(suite, transport=tools.transport, store=tools.store, mirrors=tools.mirrors, now=now)

    with ThreadPoolExecutor(len(suites), thread_name_prefix="release") as pool:
        return list(zip(suites, pool.map(read, suites), strict=True))


def _read_index(releases: Releases, architecture: Architecture, tools: Tools) -> PackageIndex:
    return read_index(
        releases,
        architecture,
        transport=tools.transport,
        store=tools.store,
        mirrors=tools.mirrors,
        reporter=tools.reporter,
    )


def select(index: PackageIndex, base: Base, more: Sequence[str] = ()) -> Selection:
    """The packages of a base, and those it takes to have `more`."""
    variant = ["apt"] if base.variant in ("apt", "minbase") else []
    if base.variant == "minbase":
        variant += [package.name for package in index.with_priority("required")]
    wanted = [*variant, *base.packages, *more]
    return solve(index, wanted, deny=base.deny, omit=base.omit, essential=base.variant != "custom")


def _lock(
    recipe: Digest,
    architecture: Architecture,
    releases: Releases,
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
        package=_packages(sets, [suite for suite, _ in releases]),
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


def _source(python: PythonRelease, rungs: tuple[str, ...]) -> LockedSource:
    pool = (f"{CANONICAL['debian']}/{python.pool}",) if python.pool else ()
    return LockedSource(
        name="cpython",
        version=python.version,
        urls=(python.upstream, *pool),
        size=python.size,
        sha256=python.source.hex,
        vouched=rungs,
    )


def _packages(sets: Mapping[str, tuple[Package, ...]], suites: Sequence[Suite]) -> tuple[LockedPackage, ...]:
    """Every package of every set once, by name and version."""
    packages = {(p.name, str(p.version)): p for chosen in sets.values() for p in chosen}
    return tuple(
        LockedPackage(
            name=package.name,
            version=package.fields["Version"],
            architecture=package.architecture,
            sets=tuple(name for name, chosen in sets.items() if package in chosen),
            url=package_url(package, suites),
            size=package.size,
            sha256=package.digest.hex,
        )
        for _, package in sorted(packages.items())
    )
