"""Profiles: the one profile that leads a recipe's build: pinned in its lock, shipped with us, fetched, or trained.

Law: decides where a profile comes from, and what the lock says of it; what it fits is `python.profile`, what it looks
like outside the store is `artifact`, how it is trained is the plan. A profile that does not fit is never pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from builder.app import SHIPPED, Found
from builder.artifact import Offered, Trained, admit, assemble, in_file
from builder.execute import execute, missing
from builder.lock import Lock, LockedProfile
from builder.oci.descriptor import Descriptor
from builder.plan import Step, commands_of, make_plan, train_step
from builder.python.counters import Comparison, compare
from builder.python.profile import misfits, profile_for
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError, RecipeError
from rootfs.files import replacing
from rootfs.ports import Store, read_blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a lock pins: `misfits` are reasons why it leads no build of the recipe, `size` (bytes) is None when it is
    not in the store, `shipped` the file that has it.
    """

    profile: LockedProfile
    misfits: tuple[str, ...]
    size: int | None
    shipped: str | None


def require_led(found: Found) -> None:
    """RecipeError when no profile leads the recipe's build."""
    if found.recipe.python.variant == "plain":
        because = "python.variant is plain: no profile leads its build"
        hint = "set python.variant to optimized or optimized-lto"
        raise RecipeError("the recipe has no profile", at=str(found.path), because=because, hint=hint)


def with_profile(found: Found, lock: Lock, tools: Tools, *, locked: bool, places: Sequence[Path] = SHIPPED) -> Lock:
    """The lock with a profile that fits and is at hand, for a recipe that is led by one.

    A pinned one that is not in the store is taken from those that are shipped. Where none is pinned, a shipped one that
    fits is, and else one is trained. LockError when the pinned one does not fit, or `locked` forbids to pin one;
    IntegrityError when it is needed and nowhere to be had.
    """
    if found.recipe.python.variant == "plain":
        return lock
    if lock.profile is not None:
        _require_fit(found, lock, lock.profile, "the locked profile does not fit", str(found.lock_path))
        _require_blob(found, lock, lock.profile, tools, places)
        return lock
    if locked:
        hint = f"run `ocibuild profile train {found.path}`"
        raise LockError("the lock names no profile", at=str(found.lock_path), hint=hint)
    for offered in _shipped(places):
        if not misfits(offered.trained.profile, _wanted(found, lock)):
            tools.reporter.note(f"profile {offered.trained.profile.digest}: shipped as {offered.at}, pinned")
            return _pin(found, lock, admit(offered, tools.store))
    tools.reporter.note("no profile is pinned, no shipped one fits: pinning what training gives")
    return train(found, lock, tools)[0]


def train(found: Found, lock: Lock, tools: Tools, *, again: str | None = None) -> tuple[Lock, Comparison | None]:
    """The lock with the recipe's own trained profile pinned; the step's result is taken when there is one.

    With `again`, a word that was never given before, the instrumented build and the training run once more, and what
    they gave is compared with the pinned profile (if it fits and is here, else with the first training's).
    """
    require_led(found)
    step = train_step(found.recipe, lock)
    pinned = lock.profile
    if again is None or pinned is None or misfits(pinned, _wanted(found, lock)) or not _holds(tools.store, pinned):
        lock = _pin(found, lock, _wanted(found, lock, execute(step, tools)))
        if pinned is not None and lock.profile != pinned:
            tools.reporter.note(f"{found.lock_path}: pinned before was {pinned.digest}")
    if again is None or lock.profile is None:
        return lock, None
    second = execute(_anew(step, again), tools)
    first = Digest.parse(lock.profile.digest)
    return lock, compare(read_blob(tools.store, first), read_blob(tools.store, second))


def take(found: Found, lock: Lock, offered: Offered, tools: Tools, *, instead: bool = False) -> Lock:
    """The lock with a profile that was fetched: in the store, and pinned where none was, or `instead` of another.

    LockError when the lock pins another, or it does not fit; IntegrityError when it is not what it says it is.
    """
    require_led(found)
    profile, pinned = offered.trained.profile, lock.profile
    if pinned is not None and pinned.digest != profile.digest and not instead:
        raise LockError(
            "the lock pins another profile",
            at=str(found.lock_path),
            because=f"expected {pinned.digest}, {offered.at} has {profile.digest}",
            hint="--replace pins the new one; every image built with it gets another digest",
        )
    trained = f"CPython {offered.trained.python} on {offered.trained.platform}"
    _require_fit(found, lock, profile, f"the profile does not fit: it was trained for {trained}", offered.at)
    return _pin(found, lock, admit(offered, tools.store))


def artifact(found: Found, lock: Lock, tools: Tools, *, places: Sequence[Path] = SHIPPED) -> Descriptor:
    """The artifact of the pinned profile, in the store: its manifest. LockError when none is pinned that fits."""
    profile = pinned_in(found, lock)
    _require_fit(found, lock, profile, "the locked profile does not fit", str(found.lock_path))
    if not _holds(tools.store, profile) and not _from_shipped(profile, tools, places):
        raise _nowhere(found, profile)
    trained = Trained(profile=profile, python=lock.python.version, platform=lock.platform)
    return assemble(trained, tools.store)


def status(found: Found, lock: Lock, store: Store, *, places: Sequence[Path] = SHIPPED) -> Status:
    """What the lock pins, whether that fits, and where it is; LockError when it pins none."""
    profile = pinned_in(found, lock)
    digest = Digest.parse(profile.digest)
    shipped = (offered.at for offered in _shipped(places) if offered.trained.profile.digest == profile.digest)
    return Status(
        profile=profile,
        misfits=tuple(misfits(profile, _wanted(found, lock))),
        size=len(read_blob(store, digest)) if store.exists(digest) else None,
        shipped=next(shipped, None),
    )


def pinned_in(found: Found, lock: Lock) -> LockedProfile:
    """What the lock pins; LockError when that is nothing, RecipeError when the recipe needs no profile."""
    require_led(found)
    if lock.profile is None:
        hint = f"`ocibuild profile train {found.path}` trains one, `ocibuild profile pull` fetches one"
        raise LockError("the lock names no profile", at=str(found.lock_path), hint=hint)
    return lock.profile


def tag_of(found: Found, lock: Lock) -> str:
    """The tag of the recipe's profile where a reference names none: the image's, and `-profile`."""
    return f"{found.recipe.tag(lock.python.version)}-profile"


def _wanted(found: Found, lock: Lock, digest: Digest | None = None) -> LockedProfile:
    """What a profile has to be trained for; of `digest`, if there is one."""
    said = commands_of(found.recipe, lock.python.version)
    return profile_for(digest or Digest.of(b""), said, lock)


def _require_fit(found: Found, lock: Lock, profile: LockedProfile, message: str, at: str) -> None:
    if lines := misfits(profile, _wanted(found, lock)):
        hint = f"`ocibuild profile train {found.path}` trains one that fits, and pins it"
        raise LockError(message, at=at, because="\n    ".join(lines), hint=hint)


def _require_blob(found: Found, lock: Lock, profile: LockedProfile, tools: Tools, places: Sequence[Path]) -> None:
    """Have the pinned profile in the store, if anything is left to be compiled with it."""
    if _holds(tools.store, profile):
        tools.reporter.note(f"profile {profile.digest}: pinned")
    elif not _from_shipped(profile, tools, places):
        to_do = missing(make_plan(found.recipe, lock), tools.store)
        if any(step.kind == "compile" for step in to_do):
            raise _nowhere(found, profile)


def _nowhere(found: Found, profile: LockedProfile) -> IntegrityError:
    verb = "`ocibuild profile"
    hint = f"{verb} pull` or {verb} import` brings it, {verb} train {found.path}` makes and pins another"
    return IntegrityError(f"the locked profile is not here: {profile.digest}", at=str(found.lock_path), hint=hint)


def _holds(store: Store, profile: LockedProfile) -> bool:
    return store.exists(Digest.parse(profile.digest))


def _from_shipped(profile: LockedProfile, tools: Tools, places: Sequence[Path]) -> bool:
    """Put a profile into the store if it is among those that are shipped; whether it was."""
    for offered in _shipped(places):
        if offered.trained.profile.digest == profile.digest:
            admit(offered, tools.store)
            tools.reporter.note(f"profile {profile.digest}: pinned, taken from {offered.at}")
            return True
    return False


def _shipped(places: Sequence[Path]) -> Iterator[Offered]:
    for place in places:
        for path in sorted((place / "profiles").glob("*.profile")):
            yield in_file(path)


def _anew(step: Step, word: str) -> Step:
    """The training, behind an instrumented build that has no result yet."""
    toolchain, instrumented = step.inputs
    fresh = replace(instrumented, parameters={**instrumented.parameters, "again": word})
    return replace(step, inputs=(toolchain, fresh))


def _pin(found: Found, lock: Lock, profile: LockedProfile) -> Lock:
    if lock.profile == profile:
        return lock
    lock = msgspec.structs.replace(lock, profile=profile)
    with replacing(found.lock_path) as stream:
        stream.write(lock.to_bytes())
    return lock
