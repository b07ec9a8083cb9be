"""`ocibuild profile`: the profile that leads a recipe's build: train it, look at it, carry it to others."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from builder.app import Found, read_lock
from builder.artifact import in_file, in_registry, write_file
from builder.cli.options import recipe_options, settings_options
from builder.cli.start import begin, reaching
from builder.lock import Lock
from builder.profiles import Status, artifact, require_led, status, tag_of, take
from builder.profiles import train as train_profile
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push as push_artifact
from builder.settings import Settings, source_date_epoch
from builder.tools import Tools
from builder.wiring import open_tools
from rootfs.errors import LockError

_plain_http = click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
_replace = click.option("--replace", "instead", is_flag=True, help="Pin it even if the lock pins another.")
_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead.")
_target = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What every verb starts with."""

    found: Found
    lock: Lock
    settings: Settings
    tools: Tools

    def registry(self, reference: Reference, *, plain_http: bool) -> Registry:
        return reaching(self.tools, self.settings, plain_http=plain_http)(reference)

    def push(self, lock: Lock, target: str, *, plain_http: bool) -> str:
        """Push what this lock pins; `host/repository@digest`."""
        reference = Reference.parse(target)
        manifest = artifact(self.found, lock, self.tools)
        registry = self.registry(reference, plain_http=plain_http)
        tag = reference.tag or tag_of(self.found, lock)
        push_artifact(self.tools.store, manifest, registry, [tag], self.tools.reporter)
        return f"{reference.name}@{manifest.digest}"


@contextmanager
def _begun(words: dict[str, Any], *, locked: bool) -> Iterator[_Begun]:
    """The recipe, its lock (made if there is none, unless `locked`) and the real ports."""
    recipe, overrides, lock_path = (words.pop(name) for name in ("recipe", "overrides", "lock_path"))
    found, settings, reporter = begin(recipe, overrides, lock_path, words)
    require_led(found)
    with open_tools(settings, reporter) as tools:
        lock = read_lock(found, tools, locked=locked, epoch=source_date_epoch())
        yield _Begun(found=found, lock=lock, settings=settings, tools=tools)


@click.group(name="profile")
def command() -> None:
    """The profile that leads the build of an optimized RECIPE: it is pinned in the lock, by digest."""


@command.command()
@recipe_options
@settings_options
@click.option("--push", "target", metavar="REFERENCE", help="Push it to host/repository[:tag], too.")
@click.option("--again", is_flag=True, help="Train once more, and say what differs from the pinned profile.")
@_plain_http
@_json
def train(*, target: str | None, again: bool, plain_http: bool, as_json: bool, **words: Any) -> None:
    """Train the profile of RECIPE and pin it.

    What was trained before is taken. Prints one line: the profile's digest, and with --push the artifact's name.
    """
    if target is not None:
        Reference.parse(target)
    with _begun(words, locked=False) as begun:
        word = secrets.token_hex(8) if again else None
        lock, comparison = train_profile(begun.found, begun.lock, begun.tools, again=word)
        assert lock.profile is not None
        digest = lock.profile.digest
        if comparison is not None:
            begun.tools.reporter.note(f"trained again: {comparison}")
        pushed = None if target is None else begun.push(lock, target, plain_http=plain_http)
    if as_json:
        value = {"profile": digest, "pushed": pushed, "again": comparison.to_value() if comparison else None}
        click.echo(json.dumps(value))
    else:
        click.echo(" ".join(filter(None, (digest, pushed))))


@command.command()
@recipe_options
@settings_options
@_json
def show(*, as_json: bool, **words: Any) -> None:
    """Show the profile that RECIPE's lock pins.

    Prints what it fits and where it is; exit status 3 when it does not fit the recipe.
    """
    with _begun(words, locked=True) as begun:
        found = status(begun.found, begun.lock, begun.tools.store)
        click.echo(json.dumps(_value(found)) if as_json else "\n".join(_lines(found, begun.lock)))
        if found.misfits:
            raise LockError("the locked profile does not fit", at=str(begun.found.lock_path))


@command.command()
@recipe_options
@click.argument("reference")
@settings_options
@_plain_http
def push(*, reference: str, plain_http: bool, **words: Any) -> None:
    """Push the pinned profile to a registry.

    REFERENCE is host/repository[:tag]. Prints host/repository@digest.
    """
    with _begun(words, locked=True) as begun:
        click.echo(begun.push(begun.lock, reference, plain_http=plain_http))


@command.command()
@recipe_options
@click.argument("reference")
@settings_options
@_replace
@_plain_http
def pull(*, reference: str, instead: bool, plain_http: bool, **words: Any) -> None:
    """Fetch a profile from a registry and pin it.

    REFERENCE is host/repository[:tag][@digest]. Prints the profile's digest.
    """
    wanted = Reference.parse(reference)
    with _begun(words, locked=False) as begun:
        registry = begun.registry(wanted, plain_http=plain_http)
        offered = in_registry(registry, wanted.digest or wanted.tag or tag_of(begun.found, begun.lock))
        take(begun.found, begun.lock, offered, begun.tools, instead=instead)
        click.echo(offered.trained.profile.digest)


@command.command()
@recipe_options
@click.argument("target", metavar="FILE", type=_target)
@settings_options
def export(*, target: Path, **words: Any) -> None:
    """Write the pinned profile to a file.

    FILE is an OCI archive. Prints FILE@digest, with the digest that it has in a registry.
    """
    with _begun(words, locked=True) as begun:
        manifest = artifact(begun.found, begun.lock, begun.tools)
        write_file(target, manifest, begun.tools.store)
        click.echo(f"{target}@{manifest.digest}")


@command.command(name="import")
@recipe_options
@click.argument("source", metavar="FILE", type=_target)
@settings_options
@_replace
def import_(*, source: Path, instead: bool, **words: Any) -> None:
    """Take a profile from a file and pin it.

    FILE is what `ocibuild profile export` wrote. Prints the profile's digest.
    """
    with _begun(words, locked=False) as begun:
        offered = in_file(source)
        take(begun.found, begun.lock, offered, begun.tools, instead=instead)
        click.echo(offered.trained.profile.digest)


def _value(found: Status) -> dict[str, object]:
    profile = found.profile
    return {
        "profile": profile.digest,
        "source": profile.source,
        "commands": profile.commands,
        "compiler": list(profile.compiler),
        "headers": list(profile.headers),
        "misfits": list(found.misfits),
        "size": found.size,
        "shipped": found.shipped,
        "layout": profile.layout or None,
        "laid": list(profile.laid),
        "layout_size": found.layout_size,
    }


def _lines(found: Status, lock: Lock) -> Iterator[str]:
    profile = found.profile
    places = [f"in the store, {found.size / 1e6:.1f} MB"] if found.size is not None else []
    places += [f"shipped as {found.shipped}"] if found.shipped else []
    yield f"profile   {profile.digest}"
    yield f"here      {', '.join(places) or 'no'}"
    yield f"fits      {'yes' if not found.misfits else 'no: ' + found.misfits[0]}"
    yield from (f"          {line}" for line in found.misfits[1:])
    known = f"CPython {lock.python.version}, " if lock.python.sha256 == profile.source else ""
    yield f"source    {known}sha256:{profile.source}"
    yield f"commands  {profile.commands}"
    yield f"compiler  {', '.join(profile.compiler)}"
    yield f"headers   {', '.join(profile.headers)}"
    if profile.layout:
        here = "not here" if found.layout_size is None else f"in the store, {found.layout_size / 1e6:.1f} MB"
        yield f"layout    {profile.layout} ({here})"
        yield f"laid      {', '.join(profile.laid)}"
