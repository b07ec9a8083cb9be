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
from builder.plan import Step, commands_of, count_step, make_plan, options_of, train_step
from builder.python.counters import Comparison, compare
from builder.python.profile import fitting, misfits, profile_for
from builder.tools import Tools
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, LockError, RecipeError
from rootfs.files import replacing
from rootfs.ports import Store, read_blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a lock pins: `misfits` are reasons why it leads no build of the recipe, `size` (bytes) is None when it is
    not in the store, `shipped` the file that has it. `layout_size` is that of the counts to lay out by, None when they
    are not in the store, or there are none.
    """

    profile: LockedProfile
    misfits: tuple[str, ...]
    size: int | None
    shipped: str | None
    layout_size: int | None = None


def require_led(found: Found) -> None:
    """RecipeError when no profile leads the recipe's build."""
    if found.recipe.python.variant == "plain":
        because = "python.variant is plain: no profile leads its build"
        hint = "set python.variant to optimized or optimized-lto"
        raise RecipeError("the recipe has no profile", at=str(found.path), because=because, hint=hint)


def with_profile(found: Found, lock: Lock, tools: Tools, *, locked: bool, places: Sequence[Path] = SHIPPED) -> Lock:
    """The lock with a profile that fits and is at hand, for a recipe that is led by one.

    A pinned one that is not in the store is taken from those that are shipped. Where none is pinned, a shipped one that
    fits is, and else one is trained. The same for the counts by which the interpreter is laid out, if the recipe says
    so. LockError when what is pinned does not fit, or `locked` forbids to pin anything; IntegrityError when it is
    needed and nowhere to be had.
    """
    if found.recipe.python.variant == "plain":
        return lock
    if lock.profile is not None:
        _require_fit(found, lock, lock.profile, "the locked profile does not fit", str(found.lock_path))
        _require_blobs(found, lock, lock.profile, tools, places)
    elif locked:
        hint = f"run `ocibuild profile train {found.path}`"
        raise LockError("the lock names no profile", at=str(found.lock_path), hint=hint)
    else:
        lock = _first(found, lock, tools, places)
    return _with_counts(found, lock, tools, locked=locked)


def _first(found: Found, lock: Lock, tools: Tools, places: Sequence[Path]) -> Lock:
    """The lock with its first profile: one that is shipped, rather with a layout than without, or a trained one."""
    usable = [(fitting(one.trained.profile, _wanted(found, lock)), one) for one in _shipped(places)]
    for profile, offered in sorted(usable, key=lambda pair: pair[0] is None or not pair[0].layout):
        if profile is not None:
            tools.reporter.note(f"profile {profile.digest}: shipped as {offered.at}, pinned")
            admit(offered, tools.store)
            return _pin(found, lock, profile)
    tools.reporter.note("no profile is pinned, no shipped one fits: pinning what training gives")
    return train(found, lock, tools)[0]


def _with_counts(found: Found, lock: Lock, tools: Tools, *, locked: bool) -> Lock:
    """The lock with counts to lay the interpreter out by, if it is, and has none; those made before are taken."""
    if lock.profile is None or lock.profile.layout or not options_of(found.recipe).is_laid_out:
        return lock
    if locked:
        hint = f"`ocibuild recipe {found.path}` without --locked makes and pins them"
        raise LockError("the locked profile has no counts to lay out by", at=str(found.lock_path), hint=hint)
    tools.reporter.note("the profile has no counts to lay the interpreter out by: pinning what counting gives")
    counts = execute(count_step(found.recipe, lock), tools)
    return _pin(found, lock, _wanted(found, lock, Digest.parse(lock.profile.digest), counts))


def train(found: Found, lock: Lock, tools: Tools, *, again: str | None = None) -> tuple[Lock, Comparison | None]:
    """The lock with the recipe's own trained profile pinned; the step's result is taken when there is one.

    Where the interpreter is laid out, what that goes by is counted, too. With `again`, a word that was never given
    before, the instrumented build and the training run once more, and what they gave is compared with the pinned
    profile (if it fits and is here, else with the first training's).
    """
    require_led(found)
    step = train_step(found.recipe, lock)
    pinned = lock.profile
    if again is None or pinned is None or misfits(pinned, _wanted(found, lock)) or _absent(tools.store, pinned):
        lock = _pin(found, lock, _wanted(found, lock, execute(step, tools)))
        lock = _with_counts(found, lock, tools, locked=False)
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
    others = zip(pinned.digests, profile.digests, strict=False) if pinned else ()
    for expected, got in others:
        if expected != got and not instead:
            raise LockError(
                "the lock pins another profile",
                at=str(found.lock_path),
                because=f"expected {expected}, {offered.at} has {got}",
                hint="--replace pins the new one; every image built with it gets another digest",
            )
    trained = f"CPython {offered.trained.python} on {offered.trained.platform}"
    _require_fit(found, lock, profile.counters, f"the profile does not fit: it was trained for {trained}", offered.at)
    admit(offered, tools.store)
    usable = fitting(profile, _wanted(found, lock)) or profile.counters
    if profile.layout and not usable.layout and options_of(found.recipe).is_laid_out:
        tools.reporter.note(f"{offered.at}: its counts to lay out by are of another interpreter, and left out")
    return lock if pinned is not None and pinned.counters == usable else _pin(found, lock, usable)


def artifact(found: Found, lock: Lock, tools: Tools, *, places: Sequence[Path] = SHIPPED) -> Descriptor:
    """The artifact of the pinned profile, in the store: its manifest. LockError when none is pinned that fits."""
    profile = pinned_in(found, lock)
    _require_fit(found, lock, profile, "the locked profile does not fit", str(found.lock_path))
    for digest in _absent(tools.store, profile):
        if not _from_shipped(digest, tools, places):
            raise _nowhere(found, digest)
    trained = Trained(profile=profile, python=lock.python.version, platform=lock.platform)
    return assemble(trained, tools.store)


def status(found: Found, lock: Lock, store: Store, *, places: Sequence[Path] = SHIPPED) -> Status:
    """What the lock pins, whether that fits, and where it is; LockError when it pins none."""
    profile = pinned_in(found, lock)
    shipped = (
        offered.at for offered in _shipped(places) if set(profile.digests) <= set(offered.trained.profile.digests)
    )
    sizes = [len(read_blob(store, one)) if store.exists(one) else None for one in profile.digests]
    return Status(
        profile=profile,
        misfits=tuple(misfits(profile, _wanted(found, lock))),
        size=sizes[0],
        shipped=next(shipped, None),
        layout_size=sizes[1] if profile.layout else None,
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


def _wanted(found: Found, lock: Lock, digest: Digest | None = None, layout: Digest | None = None) -> LockedProfile:
    """What a profile has to be trained for; of `digest` and `layout`, if there are these."""
    said = commands_of(found.recipe, lock.python.version)
    wanted = profile_for(digest or Digest.of(b""), said, lock, layout=layout)
    return wanted if layout or digest is None else wanted.counters


def _require_fit(found: Found, lock: Lock, profile: LockedProfile, message: str, at: str) -> None:
    if lines := misfits(profile, _wanted(found, lock)):
        hint = f"`ocibuild profile train {found.path}` trains one that fits, and pins it"
        raise LockError(message, at=at, because="\n    ".join(lines), hint=hint)


def _require_blobs(found: Found, lock: Lock, profile: LockedProfile, tools: Tools, places: Sequence[Path]) -> None:
    """Have the pinned profile in the store, if anything is left to be made with it."""
    absent = _absent(tools.store, profile)
    if not absent:
        tools.reporter.note(f"profile {profile.digest}: pinned")
    nowhere = {digest for digest in absent if not _from_shipped(digest, tools, places)}
    if nowhere:
        is_whole = profile.layout or not options_of(found.recipe).is_laid_out
        goal = make_plan(found.recipe, lock) if is_whole else count_step(found.recipe, lock)
        for step in missing(goal, tools.store):
            for name in ("profile", "counts"):
                wants = step.parameters.get(name)
                if wants and Digest.parse(wants) in nowhere:
                    raise _nowhere(found, Digest.parse(wants))


def _nowhere(found: Found, digest: Digest) -> IntegrityError:
    verb = "`ocibuild profile"
    hint = f"{verb} pull` or {verb} import` brings it, {verb} train {found.path}` makes and pins another"
    return IntegrityError(f"the locked profile is not here: {digest}", at=str(found.lock_path), hint=hint)


def _absent(store: Store, profile: LockedProfile) -> list[Digest]:
    return [digest for digest in profile.digests if not store.exists(digest)]


def _from_shipped(digest: Digest, tools: Tools, places: Sequence[Path]) -> bool:
    """Put a part of a profile into the store if it is among those that are shipped; whether it was."""
    for offered in _shipped(places):
        if digest in offered.trained.profile.digests:
            admit(offered, tools.store)
            tools.reporter.note(f"profile {digest}: pinned, taken from {offered.at}")
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
