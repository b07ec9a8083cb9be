"""Plan: Recipe + Lock -> Steps, each with a key made of everything that can change its result.

Law: pure. A step's key is the digest of its kind, revision, parameters, platform and its inputs' keys: equal keys mean
equal bytes, on any machine. Raise a kind's revision when its code comes to give other bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from builder.budget import UPDATES
from builder.lock import Lock, LockedPackage, LockedProfile
from builder.python.flags import Commands, Options, commands
from builder.python.layout import layout_commands
from builder.python.lines import line_of
from builder.python.packages import packages_for
from builder.recipe import Base, Recipe
from builder.suites import suites_of
from rootfs.architecture import Architecture
from rootfs.archive import Download
from rootfs.digest import Digest
from rootfs.errors import LockError, RecipeError
from rootfs.slimrules import Rule, named, paths
from rootfs.suite import sources_file

REVISIONS = {"fragment": 2, "rootfs": 3, "slim": 2, "archive": 2, "layer": 3, "layers": 2, "image": 2}
REVISIONS |= {"configure": 1, "instrument": 1, "train": 1, "compile": 2, "install": 5}
REVISIONS |= {"count": 2, "arrange": 1}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One unit of work. `parameters` is a JSON value; `downloads` are files it needs in the store (named by digest in
    the parameters, so that a mirror never shows in a key); `title` is for people.
    """

    kind: str
    title: str
    parameters: Mapping[str, Any]
    inputs: tuple[Step, ...] = ()
    downloads: tuple[Download, ...] = ()
    key: Digest = field(init=False)

    def __post_init__(self) -> None:
        value = {
            "kind": self.kind,
            "revision": REVISIONS[self.kind],
            "parameters": self.parameters,
            "inputs": [str(step.key) for step in self.inputs],
        }
        object.__setattr__(self, "key", Digest.of_value(value))

    def walk(self) -> Iterator[Step]:
        """This step and all it rests on, inputs first, each once."""
        seen: set[Digest] = set()

        def visit(step: Step) -> Iterator[Step]:
            if step.key in seen:
                return
            seen.add(step.key)
            for before in step.inputs:
                yield from visit(before)
            yield step

        yield from visit(self)


def make_plan(recipe: Recipe, lock: Lock) -> Step:
    """The step that makes the image; everything else hangs below it."""
    fragments = {package.digest: _fragment(package) for package in lock.package}
    base = _slimmed(recipe.base, _rootfs("runtime", recipe.base, lock, fragments))
    layers = _layers(recipe, lock, base, _installed(recipe, lock), fragments)
    parameters = {
        "image": recipe.image.said,
        "without": list(recipe.python.without),
        "python": lock.python.version,
        "suite": recipe.base.suite,
        "platform": lock.platform,
        "epoch": lock.epoch,
    }
    return Step(kind="image", title=f"image {recipe.name}", parameters=parameters, inputs=tuple(layers))


def _layers(recipe: Recipe, lock: Lock, base: Step, installed: Step, fragments: Mapping[Digest, Step]) -> list[Step]:
    """The steps that make the layers, lowest first; one step makes all when they go by package."""
    suite, packages = recipe.base.suite, lock.packages("runtime")
    parts = {"python": f"CPython {lock.python.version}, {recipe.python.variant}"}
    if recipe.python.pip:
        parts["pip"] = "pip, from CPython's own source"
    registers = {"python": _registration(recipe, lock)}
    if recipe.image.layering == "parts":
        lowest = _layer("base", base, recipe, lock, f"Debian {suite}: {len(packages)} packages")
        return [lowest] + [
            _layer(part, installed, recipe, lock, said, upon=base, register=registers.get(part))
            for part, said in parts.items()
        ]
    parameters = {
        "parts": [{"part": part, "created_by": said, "register": registers.get(part)} for part, said in parts.items()],
        "suite": suite,
        "budget": recipe.image.budget,
        "updates": str(Digest.of_value(dict(UPDATES))),
        "compression": recipe.image.compression,
        "epoch": lock.epoch,
    }
    inputs = (base, installed, *(fragments[package.digest] for package in packages))
    return [Step(kind="layers", title="pack the layers", parameters=parameters, inputs=inputs)]


def _fragment(package: LockedPackage) -> Step:
    download = Download(url=package.url, digest=package.digest, size=package.size)
    return Step(
        kind="fragment",
        title=f"unpack {package.name}",
        parameters={"deb": str(package.digest), "name": f"{package.name} {package.version}"},
        downloads=(download,),
    )


def rootfs_step(base: Base, lock: Lock) -> Step:
    """The step that makes a rootfs alone."""
    return _slimmed(base, configured_step(base, lock))


def configured_step(base: Base, lock: Lock) -> Step:
    """The step that makes a rootfs alone, before anything is left out of it."""
    return _rootfs("runtime", base, lock, {package.digest: _fragment(package) for package in lock.package})


def archive_step(base: Base, lock: Lock, compression: str) -> Step:
    """The step that makes a rootfs alone as an archive; `compression` is gzip, zstd or none."""
    parameters = {"compression": compression, "epoch": lock.epoch}
    inputs = (rootfs_step(base, lock),)
    return Step(kind="archive", title="write the archive", parameters=parameters, inputs=inputs)


def _rootfs(set_name: str, base: Base, lock: Lock, fragments: Mapping[Digest, Step]) -> Step:
    parameters = {
        "set": set_name,
        "sources": sources_file(suites_of(base)) if set_name == "runtime" else "",
        "scripts": base.maintainer_scripts,
        "platform": lock.platform,
        "epoch": lock.epoch,
    }
    packages = lock.packages(set_name)
    if not any(package.name == "dpkg" for package in packages):
        parameters["database"] = "status.d"  # rootfs.debian.dpkg; so the keys of other sets stay what they were
    inputs = tuple(fragments[package.digest] for package in packages)
    return Step(kind="rootfs", title=f"assemble the {set_name} rootfs", parameters=parameters, inputs=inputs)


def _slimmed(base: Base, rootfs: Step) -> Step:
    """The rootfs less what the base's rules leave out."""
    parameters = slim_parameters(base)
    rules = rules_of(parameters)
    if not rules:
        return rootfs
    parameters["meaning"] = str(Digest.of(repr(rules).encode()))  # a name may come to mean something else
    parameters["platform"] = rootfs.parameters["platform"]
    return Step(kind="slim", title="leave out what the rules say", parameters=parameters, inputs=(rootfs,))


def slim_parameters(base: Base) -> dict[str, Any]:
    """What a base says of slimming, as the parameters of a step."""
    return {"rules": list(base.slim), "exclude": list(base.exclude_paths), "include": list(base.include_paths)}


def rules_of(parameters: Mapping[str, Any]) -> list[Rule]:
    """The rules that a step with these parameters applies, in order; RecipeError for one that is none."""
    rules = [named(name) for name in parameters["rules"]]
    globs = paths(exclude=parameters["exclude"], include=parameters["include"])
    return [*rules, globs] if globs.filters else rules


def train_step(recipe: Recipe, lock: Lock) -> Step:
    """The step that makes the profile a build is led by: a build that counts, and the training."""
    said = commands_of(recipe, lock.python.version)
    toolchain, configured = _configured_source(recipe, lock, said)
    instrumented = _stage(
        "instrument", "compile to count", {"instrument": said.instrument}, lock, toolchain, configured
    )
    return _stage("train", "train", {"train": said.train, "practice": said.practice}, lock, toolchain, instrumented)


def count_step(recipe: Recipe, lock: Lock) -> Step:
    """The step that counts what an interpreter is laid out by: it is compiled, led by the lock's profile."""
    said = commands_of(recipe, lock.python.version)
    layout = layout_commands(line_of(lock.python.version))
    toolchain, compiled = _compiled(recipe, lock, said)
    parameters = {"equip": layout.equip, "practice": said.practice, "gather": layout.gather}
    return _stage("count", "count to lay out", parameters, lock, toolchain, compiled)


def options_of(recipe: Recipe) -> Options:
    """What the recipe says about the compile itself."""
    python = recipe.python
    return Options(
        variant=python.variant,
        configure=python.configure,
        shared=python.shared,
        free_threaded=python.free_threaded,
        jit=python.jit,
        march=python.march,
        compiler=python.compiler,
        training=python.training,
        train_without=python.train_without,
        layout=python.layout,
    )


def commands_of(recipe: Recipe, version: str) -> Commands:
    """Every command of the recipe's compile; RecipeError for what this version of CPython, or this build, cannot do."""
    python, options = recipe.python, options_of(recipe)
    said = commands(line_of(version), options)
    if options.compiler == "clang" and options.is_trained:
        raise RecipeError(
            "a build with clang that is led by a profile cannot be made yet",
            because="its stages were tried on small programs, and on no whole CPython",
            hint='variant = "plain", or compiler = "gcc"',
        )
    fixed = [name for name in python.without if name in said.builtin]
    if fixed:
        raise RecipeError(
            f"python.without: {', '.join(fixed)} cannot be left out",
            because=f"in a build of the variant {python.variant} it is a part of the interpreter itself",
            hint='variant = "plain" has it as a file of its own',
        )
    return said


def _configured_source(recipe: Recipe, lock: Lock, said: Commands) -> tuple[Step, Step]:
    """The toolchain, and the source as configured with it."""
    fragments = {package.digest: _fragment(package) for package in lock.package}
    base = recipe.base
    if recipe.python.jit and base.maintainer_scripts == "native":
        # Debian's python3, which writes the JIT's stencils, is byte-compiled by its scripts: no handler can do that.
        base = msgspec.structs.replace(base, maintainer_scripts="run")
    toolchain = _rootfs("toolchain", base, lock, fragments)
    parameters = {
        "version": lock.python.version,
        "source": f"sha256:{lock.python.sha256}",
        "builtin": said.builtin,
        "configure": said.configure,
        "freeze": said.freeze,
    }
    return toolchain, _stage("configure", f"configure CPython {lock.python.version}", parameters, lock, toolchain)


def _stage(kind: str, title: str, parameters: Mapping[str, Any], lock: Lock, *inputs: Step) -> Step:
    """A stage of the compile; the first of its inputs is the toolchain."""
    always = {"platform": lock.platform, "epoch": lock.epoch}
    return Step(kind=kind, title=title, parameters={**msgspec.to_builtins(parameters), **always}, inputs=inputs)


def _compiled(recipe: Recipe, lock: Lock, said: Commands) -> tuple[Step, Step]:
    """The toolchain, and CPython as `make install` leaves it."""
    variant = recipe.python.variant
    toolchain, configured = _configured_source(recipe, lock, said)
    profile = None if variant == "plain" else _profile(lock).digest
    made = {"compile": said.compile, "install": said.install, "profile": profile}
    title = f"compile CPython {lock.python.version} ({variant})"
    return toolchain, _stage("compile", title, made, lock, toolchain, configured)


def _arranged(lock: Lock, toolchain: Step, compiled: Step) -> Step:
    """CPython with its interpreter laid out."""
    layout, counts = layout_commands(line_of(lock.python.version)), _profile(lock).layout
    if not counts:
        hint = "`ocibuild recipe RECIPE` without --locked makes and pins them"
        raise LockError("the lock's profile has no counts to lay the interpreter out by", hint=hint)
    parameters = {"arrange": layout.arrange, "strip": layout.strip, "counts": counts}
    return _stage("arrange", "lay out the interpreter", parameters, lock, toolchain, compiled)


def _installed(recipe: Recipe, lock: Lock) -> Step:
    """CPython and pip as the image carries them."""
    python, source = recipe.python, lock.python
    toolchain, compiled = _compiled(recipe, lock, commands_of(recipe, source.version))
    if options_of(recipe).is_laid_out:
        compiled = _arranged(lock, toolchain, compiled)
    pip = lock.source_named("pip") if python.pip else None
    parameters = {
        "version": source.version,
        "modules": python.modules,
        "without": python.without,
        "headers": python.headers,
        "pyc": python.pyc,
        "pip": bool(python.pip),
        "wheel": f"sha256:{pip.sha256}" if pip else None,
    }
    return _stage("install", f"install CPython {source.version}", parameters, lock, toolchain, compiled)


def _profile(lock: Lock) -> LockedProfile:
    """The profile; without one gcc would only leave its optimisations out, and say nothing."""
    if lock.profile is None:
        raise LockError("the lock names no profile", hint="`ocibuild profile train RECIPE` trains and pins one")
    return lock.profile


def _registration(recipe: Recipe, lock: Lock) -> dict[str, Any]:
    """What dpkg is told of the interpreter."""
    python = recipe.python
    needed = packages_for(recipe.base.suite, line_of(lock.python.version), tkinter="tkinter" in python.modules)
    return {
        "version": lock.python.version,
        "variant": python.variant,
        "architecture": Architecture.parse(lock.platform).debian,
        "depends": list(needed.libraries),
    }


def _layer(
    part: str,
    content: Step,
    recipe: Recipe,
    lock: Lock,
    created_by: str,
    upon: Step | None = None,
    register: Mapping[str, Any] | None = None,
) -> Step:
    """A layer of one part of a step's result, less what is below it already; `register` has dpkg know the part."""
    parameters = {
        "part": part,
        "created_by": created_by,
        "compression": recipe.image.compression,
        "register": register,
        "epoch": lock.epoch,
    }
    inputs = (content,) if upon is None else (content, upon)
    return Step(kind="layer", title=f"pack the {part} layer", parameters=parameters, inputs=inputs)
