"""Plan: Recipe + Lock -> Steps, each with a key made of everything that can change its result.

Law: pure. A step's key is the digest of its kind, revision, parameters, platform and its inputs' keys: equal keys mean
equal bytes, on any machine. Raise a kind's revision when its code comes to give other bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from builder.lock import Lock, LockedPackage
from builder.python.flags import configure_command
from builder.recipe import Base, Recipe
from rootfs.archive import Download
from rootfs.digest import Digest

REVISIONS = {"fragment": 1, "rootfs": 1, "compile": 1, "layer": 2, "image": 1}


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
    base = _rootfs("runtime", recipe.base, lock, fragments)
    toolchain = _rootfs("toolchain", recipe.base, lock, fragments)
    compiled = _compile(recipe, lock, toolchain)
    layers = [
        _layer("base", base, recipe, lock, f"Debian {recipe.base.suite}: {len(lock.packages('runtime'))} packages"),
        _layer("python", compiled, recipe, lock, f"CPython {lock.python.version}, {recipe.python.variant}", upon=base),
    ]
    if recipe.python.pip:
        layers.append(_layer("pip", compiled, recipe, lock, "pip, from CPython's own source", upon=base))
    image = msgspec.to_builtins(recipe.image)
    parameters = {
        "image": image,
        "python": lock.python.version,
        "suite": recipe.base.suite,
        "platform": lock.platform,
        "epoch": lock.epoch,
    }
    return Step(kind="image", title=f"image {recipe.name}", parameters=parameters, inputs=tuple(layers))


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
    return _rootfs("runtime", base, lock, {package.digest: _fragment(package) for package in lock.package})


def _rootfs(set_name: str, base: Base, lock: Lock, fragments: Mapping[Digest, Step]) -> Step:
    parameters = {
        "set": set_name,
        "suite": base.suite,
        "components": list(base.components),
        "security": base.security,
        "platform": lock.platform,
        "epoch": lock.epoch,
    }
    inputs = tuple(fragments[package.digest] for package in lock.packages(set_name))
    return Step(kind="rootfs", title=f"assemble the {set_name} rootfs", parameters=parameters, inputs=inputs)


def _compile(recipe: Recipe, lock: Lock, toolchain: Step) -> Step:
    source = lock.python
    parameters = {
        "version": source.version,
        "source": f"sha256:{source.sha256}",
        "configure": list(configure_command(recipe.python.variant, recipe.python.configure)),
        "options": msgspec.to_builtins(recipe.python) | {"version": source.version},
        "platform": lock.platform,
        "epoch": lock.epoch,
    }
    title = f"compile CPython {source.version} ({recipe.python.variant})"
    return Step(kind="compile", title=title, parameters=parameters, inputs=(toolchain,))


def _layer(part: str, content: Step, recipe: Recipe, lock: Lock, created_by: str, upon: Step | None = None) -> Step:
    """A layer of one part of a step's result, less what the tree below it already holds."""
    parameters = {
        "part": part,
        "created_by": created_by,
        "compression": recipe.image.compression,
        "epoch": lock.epoch,
    }
    inputs = (content,) if upon is None else (content, upon)
    return Step(kind="layer", title=f"pack the {part} layer", parameters=parameters, inputs=inputs)
