"""Compiling: the steps of a CPython build as `execute` runs them: configure, instrument, train, compile, install.

Law: turns a step's parameters and inputs into a call of `python.stages` or `python.install`, and its result into a blob
of the store; a stage's directory is gone when it succeeded, and stays, for its logs, when it failed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from builder.plan import Step
from builder.python import stages
from builder.python.flags import Commands, environment
from builder.python.install import Contents, install
from builder.python.layout import LayoutCommands
from builder.python.source import fetch_source
from builder.python.versions import PythonRelease, find
from builder.python.workshop import Workshop
from builder.tools import Tools
from builder.work import extracted, place_of, result, result_tree
from rootfs.digest import Digest, canonical_json
from rootfs.errors import IntegrityError, LockError
from rootfs.suite import CANONICAL
from rootfs.tree import Tree


def _configure(step: Step, tools: Tools) -> Digest:
    release = _release(step)
    mirror = tools.mirrors.get("debian", CANONICAL["debian"])
    source = fetch_source(release, tools.transport, tools.store, mirror, tools.reporter)
    return _put(stages.configure(_workshop(step, tools), source, _commands(step), tools.jobs, tools.store), tools)


def _instrument(step: Step, tools: Tools) -> Digest:
    configured = result_tree(step.inputs[1], tools.store)
    return _put(stages.instrument(_workshop(step, tools), configured, _commands(step), tools.jobs, tools.store), tools)


def _train(step: Step, tools: Tools) -> Digest:
    instrumented = result_tree(step.inputs[1], tools.store)
    return stages.train(_workshop(step, tools), instrumented, _commands(step), tools.store)


def _compile(step: Step, tools: Tools) -> Digest:
    text = step.parameters["profile"]
    profile = _here(text, tools) if text else None
    configured = result_tree(step.inputs[1], tools.store)
    workshop = _workshop(step, tools)
    return _put(stages.compile_(workshop, configured, profile, _commands(step), tools.jobs, tools.store), tools)


def _count(step: Step, tools: Tools) -> Digest:
    compiled = result_tree(step.inputs[1], tools.store)
    practice = tuple(step.parameters["practice"])
    return stages.count(_workshop(step, tools), compiled, _layout(step), practice, tools.store)


def _arrange(step: Step, tools: Tools) -> Digest:
    counts = _here(step.parameters["counts"], tools)
    compiled = result_tree(step.inputs[1], tools.store)
    return _put(stages.arrange(_workshop(step, tools), compiled, counts, _layout(step), tools.store), tools)


def _here(text: str, tools: Tools) -> Digest:
    """The digest of a part of the locked profile; IntegrityError when that is not in the store."""
    profile = Digest.parse(text)
    if not tools.store.exists(profile):
        raise IntegrityError(
            f"the locked profile is not here: {profile}",
            hint="`ocibuild profile pull RECIPE REFERENCE` brings one, `ocibuild profile train RECIPE` makes another",
        )
    return profile


def _install(step: Step, tools: Tools) -> Digest:
    parameters, store = step.parameters, tools.store
    installed = install(
        _workshop(step, tools),
        result_tree(step.inputs[1], store),
        release=find(parameters["version"]),
        contents=Contents(
            modules=tuple(parameters["modules"]),
            headers=parameters["headers"],
            without=tuple(parameters["without"]),
            pyc=parameters["pyc"],
            pip=parameters["pip"],
        ),
        wheel=Digest.parse(parameters["wheel"]) if parameters["wheel"] else None,
        epoch=parameters["epoch"],
        store=store,
    )
    parts = {"python": installed.python, "pip": installed.pip}
    return store.put([canonical_json({name: str(_put(tree, tools)) for name, tree in parts.items()})]).digest


_STAGES: Mapping[str, Callable[[Step, Tools], Digest]] = {
    "configure": _configure,
    "instrument": _instrument,
    "train": _train,
    "compile": _compile,
    "count": _count,
    "arrange": _arrange,
    "install": _install,
}
KINDS = frozenset(_STAGES)


def run_stage(step: Step, tools: Tools) -> Digest:
    """Have a stage's result in the store; its digest."""
    made = _STAGES[step.kind](step, tools)
    shutil.rmtree(place_of(step, tools), ignore_errors=True)
    return made


def _release(step: Step) -> PythonRelease:
    """The release a step names; LockError when the lock means another by that name."""
    release = find(step.parameters["version"])
    if f"sha256:{release.source.hex}" != step.parameters["source"]:
        raise LockError(
            f"the lock's CPython {release.version} is not the release of that name",
            because=f"expected {release.source}, the lock says {step.parameters['source']}",
            hint="make the lock anew with `ocibuild lock RECIPE`",
        )
    return release


def _commands(step: Step) -> Commands:
    """The step's own commands; those of other stages are empty."""
    names = [one.name for one in fields(Commands)]
    return Commands(**{name: tuple(step.parameters.get(name, ())) for name in names})


def _layout(step: Step) -> LayoutCommands:
    names = [one.name for one in fields(LayoutCommands)]
    return LayoutCommands(**{name: tuple(step.parameters.get(name, ())) for name in names})


def _workshop(step: Step, tools: Tools) -> Workshop:
    toolchain = extracted(result(step.inputs[0], tools.store), tools, "the toolchain")
    return Workshop(
        toolchain=toolchain,
        work=place_of(step, tools),
        environment=environment(step.parameters["epoch"], llvm=_llvm_of(toolchain)),
        sandbox=tools.sandbox,
        reporter=tools.reporter,
    )


def _llvm_of(toolchain: Path) -> str:
    """The newest LLVM of a toolchain, the one that clang builds take; empty where there is none."""
    versions = (place.parent.name.removeprefix("llvm-") for place in toolchain.glob("usr/lib/llvm-*/bin"))
    return max((version for version in versions if version.isdecimal()), key=int, default="")


def _put(tree: Tree, tools: Tools) -> Digest:
    return tools.store.put([tree.to_bytes()]).digest
