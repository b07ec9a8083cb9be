"""App: one function for each verb of the command line, from Settings to a result.

Law: calls the modules in order; makes no decision that is a recipe's or a module's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from builder.execute import execute
from builder.finding import Connect, stored_image
from builder.lock import Lock, LockedProfile
from builder.oci.descriptor import MANIFEST, Descriptor, Platform
from builder.oci.layer import parse_compression
from builder.oci.layout import write_layout
from builder.oci.manifest import Manifest
from builder.plan import commands_of, make_plan, options_of, rules_of, slim_parameters
from builder.python.layout import settled
from builder.python.lines import suite_for
from builder.python.pip import fetch_pip
from builder.python.profile import fitting, profile_for
from builder.python.versions import find
from builder.recipe import Recipe
from builder.registry.ahead import Ahead
from builder.registry.reference import Reference
from builder.registry.source import gather, store_source
from builder.suites import with_keys
from builder.target import Place
from builder.tools import Tools
from builder.transit import Delivered, Load, Target, push_each
from builder.trust.attach import attach
from builder.trust.attest import attest
from rootfs.architecture import Architecture
from rootfs.digest import Digest
from rootfs.errors import LockError, RecipeError, UsageError
from rootfs.files import replacing
from rootfs.ports import Origin, read_blob

SHIPPED = (Path(__file__).parent / "_recipes", Path(__file__).parents[1] / "recipes")
"""Where the recipes and profiles lie that come with us: in an install, and in a clone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A recipe, and where its lock belongs."""

    recipe: Recipe
    path: Path
    lock_path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A built image: its place, its tag there, its manifest's descriptor, the artifacts that are attached to it."""

    place: Place
    tag: str
    descriptor: Descriptor
    attached: tuple[Descriptor, ...] = ()

    @property
    def layout(self) -> Path | None:
        """The layout it is in; None when it goes to a place of another form."""
        return self.place.path if self.place.form == "oci" else None

    def __str__(self) -> str:
        return str(self.place) if self.place.tag or self.place.name else f"{self.place}:{self.tag}"


def find_recipe(name: str, *, overrides: Sequence[str] = (), lock: Path | None = None) -> Found:
    """Read a recipe: the path as given, then `./recipes/`, then the shipped ones; RecipeError when there is none.

    The lock lies beside the recipe; a shipped recipe's lock lies in the current directory.
    """
    file_name = name if name.endswith(".toml") else f"{name}.toml"
    places = [Path(name), Path(file_name), Path("recipes") / file_name, *(place / file_name for place in SHIPPED)]
    for path in places:
        if path.is_file():
            recipe = Recipe.parse(path.read_bytes(), at=str(path), overrides=overrides)
            recipe = _ready(recipe, path.parent)
            beside = Path() if path.parent in SHIPPED else path.parent
            return Found(recipe=recipe, path=path, lock_path=lock or beside / f"{path.stem}.lock.toml")
    known = sorted({path.stem for place in SHIPPED for path in place.glob("*.toml") if ".lock" not in path.name})
    raise RecipeError(f"no such recipe: {name}", hint=f"give a path, or one of the shipped: {', '.join(known)}")


def _ready(recipe: Recipe, directory: Path) -> Recipe:
    """The recipe with its suite, its layout and its repositories' keys in it.

    What cannot be built is refused before any fetch.
    """
    python = find(recipe.python.version)
    commands_of(recipe, python.version)
    rules_of(slim_parameters(recipe.base))
    parse_compression(recipe.image.compression)
    suite, architecture = suite_for(recipe.python.version, recipe.base.suite), Architecture.host().debian
    layout = settled(recipe.python.layout, python.facts, options_of(recipe), suite=suite, architecture=architecture)
    return msgspec.structs.replace(
        recipe,
        base=with_keys(msgspec.structs.replace(recipe.base, suite=suite), directory),
        python=msgspec.structs.replace(recipe.python, layout=layout),
    )


def write_lock(found: Found, tools: Tools, *, epoch: int | None) -> Lock:
    """Resolve a recipe and write its lock, whatever was there; a profile that still fits stays pinned."""
    from builder.resolve import resolve  # noqa: PLC0415 (a lock is made once)

    lock = resolve(found.recipe, Architecture.host(), tools, now=int(time.time()), epoch=epoch)
    lock = msgspec.structs.replace(lock, profile=_kept_profile(found, lock))
    with replacing(found.lock_path) as stream:
        stream.write(lock.to_bytes())
    return lock


def _kept_profile(found: Found, lock: Lock) -> LockedProfile | None:
    """The profile that the old lock pins, if it fits the new one; without a layout that does not."""
    try:
        pinned = Lock.parse(found.lock_path.read_bytes(), at=str(found.lock_path)).profile
    except (LockError, OSError):
        return None
    if pinned is None or found.recipe.python.variant == "plain":
        return None
    wanted = profile_for(Digest.parse(pinned.digest), commands_of(found.recipe, lock.python.version), lock)
    return fitting(pinned, wanted)


def read_lock(found: Found, tools: Tools, *, locked: bool, epoch: int | None) -> Lock:
    """The lock beside the recipe when it matches; else a new one, or LockError when `locked` forbids that."""
    platform = f"linux/{Architecture.host().oci}"
    path = found.lock_path
    lock = Lock.parse(path.read_bytes(), at=str(path)) if path.exists() else None
    if lock is not None and lock.matches(found.recipe.digest, platform):
        return lock
    if locked:
        because = "there is none" if lock is None else "it was made for another recipe or platform"
        raise LockError(
            "no lock for this recipe", at=str(path), because=because, hint=f"run `ocibuild lock {found.path}`"
        )
    tools.reporter.note(f"{path}: {'not there' if lock is None else 'out of date'}, resolving")
    return write_lock(found, tools, epoch=epoch)


def tag_of(found: Found, lock: Lock, tag: str | None) -> str:
    """The image's tag: this one, or the recipe's."""
    return tag or found.recipe.tag(lock.python.version)


def build(found: Found, lock: Lock, tools: Tools, *, output: Place | Path, tag: str | None) -> Built:
    """Have the image: in a layout, which of a plain directory is `output/<recipe's name>`, or in the store, from where
    `deliver` writes it to a place of another form. Its tag there is the place's own, this one, or the recipe's.
    """
    tag = tag_of(found, lock, tag)
    if wheel := lock.source_named("pip"):
        fetch_pip(wheel, tools.transport, tools.store, tools.mirrors, tools.reporter)
    manifest = read_blob(tools.store, execute(make_plan(found.recipe, lock), tools))
    platform = Platform.of(Architecture.parse(lock.platform))
    descriptor = replace(Descriptor.of(MANIFEST, manifest), platform=platform)
    name = found.recipe.name
    place = output if isinstance(output, Place) else Place(form="oci", path=output / name)
    if place.form == "docker-archive":
        place = replace(place, name=place.name or f"{name}:{tag}")
    built = Built(place=place, tag=place.tag or tag, descriptor=descriptor)
    if built.layout is not None:
        write_layout(built.layout, tools.store, descriptor, ref_name=built.tag)
    return built


def describe(found: Found, lock: Lock, built: Built, tools: Tools, *, overrides: Sequence[str] = ()) -> Built:
    """The built image with its SBOMs and its provenance attached, in a layout, too."""
    attached = attest(built.descriptor, str(built), found.recipe, lock, tools, overrides=overrides)
    if built.layout is not None:
        attach(built.layout, attached, tools.store)
    return replace(built, attached=attached)


def deliver(built: Built, tools: Tools) -> Digest:
    """Have the image, and what is attached to it as far as there is room, at its place; see `places.write_place`."""
    if built.layout is not None:
        return built.descriptor.digest
    from builder.places import WHOLE, write_place  # noqa: PLC0415 (a layout is there already)

    place = replace(built.place, tag=built.tag) if built.place.form in WHOLE else built.place
    return write_place(place, tools.store, built.descriptor, reporter=tools.reporter, attached=built.attached)


def accept(found: Found, built: Built, tools: Tools) -> None:
    """See that the finished image does what an image of CPython must; once for each digest. BuildError when not."""
    key = Digest.of_value({"kind": "accept", "revision": 1, "manifest": str(built.descriptor.digest)})
    if tools.store.lookup(key) is None:
        from builder.images import open_found  # noqa: PLC0415 (once for each digest)
        from builder.verify import verify_image  # noqa: PLC0415

        if tools.ahead is not None:  # it takes a while
            tools.ahead.packed(Manifest.parse(read_blob(tools.store, built.descriptor.digest)).layers)
        image = open_found(stored_image(built.descriptor, tools.store, str(built)), tools)
        verify_image(image, tools, without=found.recipe.python.without).require()
        tools.store.link(key, built.descriptor.digest, Origin(kind="accept", title=str(built.place)))


def references_of(texts: Sequence[str]) -> list[Reference]:
    """Each `host/repository[:tag]`; UsageError for anything else, before there is anything to push."""
    references = [Reference.parse(text) for text in texts]
    for reference in references:
        if reference.digest is not None:
            raise UsageError("an image is pushed to a tag", at=str(reference))
    return references


def targets_of(tag: str, references: Sequence[Reference], connect: Connect) -> list[Target]:
    """The repositories that are meant; `tag`, the image's own, where a reference has none."""
    return [Target(registry=connect(replace(one, tag=None)), tags=(one.tag or tag,)) for one in references]


def push_image(
    built: Built, targets: Sequence[Target], tools: Tools, ahead: Ahead | None = None
) -> Iterator[Delivered]:
    """Push a built image, and what is attached to it, to one target after the other; see `transit.push_each`."""
    yield from push_each(load_of(built, tools), targets, tools, ahead=ahead)


def load_of(built: Built, tools: Tools) -> Load:
    """A built image with what is attached to it, in the store."""
    source = store_source(tools.store, built.attached)
    return Load(source=source, graph=gather(source, built.descriptor), root=built.descriptor)
