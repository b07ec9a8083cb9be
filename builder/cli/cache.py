"""`ocibuild cache`: what lies in the store, taking out what is of no use, and reading all of it again."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from builder.cache import Listed, Pruned, Row, list_cache, prune_cache, verify_cache
from builder.cli.options import debug_option, settings_options
from builder.look.tables import table
from builder.progress import make_reporter
from builder.settings import read_settings
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError
from rootfs.holdings import named_in
from rootfs.prune import Wish
from rootfs.sandbox.namespaces import NamespaceSandbox
from rootfs.scrub import repair

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgt]i?)?b?\Z", re.ASCII | re.IGNORECASE)
_AGE = re.compile(r"(\d{1,9})([smhdw])\Z", re.ASCII)


@click.group(name="cache")
def command() -> None:
    """List what lies in the store, take out what is of no use, read all of it again."""


@command.command(name="ls")
@settings_options
@debug_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def ls(*, as_json: bool, **flags: str | None) -> None:
    """Show what lies in the store, by kind: how many, bytes on the disk, when the last was of use."""
    place = Path(read_settings(flags).store.value)
    listed = list_cache(place)
    if as_json:
        rows = [asdict(row) for row in listed.rows]
        click.echo(json.dumps({"store": str(place), "kinds": rows, "size": listed.size, "shared": listed.shared}))
        return
    click.echo(_listing(place, listed), nl=False)


@command.command(name="prune")
@settings_options
@debug_option
@click.option("--older-than", metavar="AGE", help="What was not used for so long goes: 14d, 12h.  [default: 14d]")
@click.option("--keep-size", metavar="SIZE", help="So much stays, what was used last first: 10GB.")
@click.option("--all", "everything", is_flag=True, help="All goes that no build is using now.")
@click.option("--root", "roots", multiple=True, metavar="WHAT", help="Keep what a recipe, a layout or a digest needs.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def prune(
    *,
    older_than: str | None,
    keep_size: str | None,
    everything: bool,
    roots: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    **flags: str | None,
) -> None:
    """Take out of the store what was not used for long. Builds may go on meanwhile.

    What was used within the last hour stays, and within the last day while another ocibuild runs.
    """
    if everything and (older_than or keep_size):
        raise UsageError("--all takes no --older-than and no --keep-size")
    size = None if keep_size is None else _bytes(keep_size)
    if everything:
        age = 0.0
    elif older_than is None:
        age = _seconds("14d") if size is None else float("inf")
    else:
        age = _seconds(older_than)
    keys, digests = _kept(roots)
    wish = Wish(since=float("inf") if everything else time.time() - age, size=size, keys=keys, digests=digests)
    place = Path(read_settings(flags).store.value)
    pruned = prune_cache(place, wish, everything=everything, dry=dry_run, remove=NamespaceSandbox().remove)
    if as_json:
        click.echo(json.dumps(_value(pruned)))
        return
    if pruned.busy:
        click.echo("another ocibuild is at work: what was used within the last day stays", err=True)
    click.echo(_summary(pruned, dry=dry_run))


@command.command(name="verify")
@settings_options
@debug_option
@click.option("--repair", "repairing", is_flag=True, help="Take away what is damaged: the next build makes it anew.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def verify(*, repairing: bool, as_json: bool, **flags: str | None) -> None:
    """Read every blob in the store and compare it with its digest. Exit status 5 when one is damaged."""
    settings = read_settings(flags)
    place = Path(settings.store.value)
    checked = verify_cache(place, jobs=int(settings.jobs.value), reporter=make_reporter(sys.stderr))
    damaged = [fault for fault in checked.faults if fault.severity == "damage"]
    if repairing:
        repair(fault for fault in checked.faults if fault.text != "is no blob")
    if as_json:
        faults = [{**asdict(fault), "path": str(fault.path)} for fault in checked.faults]
        value = {"blobs": checked.blobs, "bytes": checked.size, "seconds": checked.seconds, "links": checked.links}
        click.echo(json.dumps({**value, "faults": faults, "repaired": repairing}))
    else:
        for fault in checked.faults:
            click.echo(f"{fault.severity}: {fault.path.relative_to(place)} {fault.text}")
        rate = checked.size / checked.seconds / 1e9 if checked.seconds else 0.0
        done = " and taken away" if repairing and damaged else ""
        click.echo(
            f"{checked.blobs:,} blobs, {_size(checked.size)}, {checked.links:,} links: {len(damaged)} damaged{done} "
            f"({rate:.1f} GB/s)"
        )
    if damaged and not repairing:
        raise IntegrityError(
            f"{len(damaged)} damaged file(s) in the store",
            at=str(place),
            hint="`ocibuild cache verify --repair` takes them away; the next build makes them anew",
        )


def _kept(roots: Iterable[str]) -> tuple[frozenset[Digest], frozenset[Digest]]:
    """Keys of links and digests of blobs that these lead to; UsageError for what is neither."""
    keys: set[Digest] = set()
    digests: set[Digest] = set()
    for root in roots:
        if root.startswith(("sha256:", "sha512:")):
            digests.add(Digest.parse(root))
        elif (Path(root) / "index.json").is_file():
            digests |= named_in(Path(root) / "index.json")
        else:
            keys |= _steps_of(root)
    return frozenset(keys), frozenset(digests)


def _steps_of(name: str) -> set[Digest]:
    """The keys of all steps of a recipe, by its lock."""
    from builder.app import find_recipe  # noqa: PLC0415 (half of what a short run takes)
    from builder.lock import Lock  # noqa: PLC0415
    from builder.plan import make_plan  # noqa: PLC0415

    found = find_recipe(name)
    if not found.lock_path.is_file():
        raise UsageError(f"the recipe {name} has no lock", at=str(found.lock_path), hint=f"`ocibuild lock {name}`")
    lock = Lock.parse(found.lock_path.read_bytes(), at=str(found.lock_path))
    return {step.key for step in make_plan(found.recipe, lock).walk()}


def _listing(place: Path, listed: Listed) -> str:
    """The table of `cache ls`."""
    rows = [(row.kind, f"{row.number:,}", _size(row.size), _ago(row)) for row in listed.rows]
    rows.append(("together", "", _size(listed.size), ""))
    text = table((str(place), "number", "size", "last used"), rows)
    if listed.shared:
        text += f"{_size(listed.shared)} of it is in layouts, too, and is not freed while they are there\n"
    return text


def _ago(row: Row) -> str:
    seconds = max(0.0, time.time() - row.used)
    if seconds < 3600:
        return "within the hour"
    return f"{seconds / 3600:.0f} h ago" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} d ago"


def _summary(pruned: Pruned, *, dry: bool) -> str:
    """One line for people."""
    swept = pruned.swept
    numbers = ", ".join(f"{number:,} {kind}" for kind, number in sorted(swept.numbers.items())) or "nothing"
    said = f"{'would go' if dry else 'gone'}: {numbers}; {_size(swept.freed)} {'would be ' if dry else ''}freed"
    if swept.held:
        said += f", {_size(swept.held)} more when the layouts go that hold them, too"
    return f"{said}; {_size(pruned.stays)} stay"


def _value(pruned: Pruned) -> dict[str, object]:
    swept = pruned.swept
    numbers = dict(sorted(swept.numbers.items()))
    return {"gone": numbers, "freed": swept.freed, "held": swept.held, "stays": pruned.stays, "busy": pruned.busy}


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 10**9 else f"{count / 1e6:,.1f} MB"


def _bytes(text: str) -> int:
    """`10GB`, `500 MiB`: as many bytes."""
    match = _SIZE.match(text)
    if match is None:
        raise UsageError(f"not a size: {text!r:.100}", hint="write 500MB, 10GB or 10GiB")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def _seconds(text: str) -> float:
    """`14d`, `12h`: as many seconds."""
    match = _AGE.match(text)
    if match is None:
        raise UsageError(f"not an age: {text!r:.100}", hint="write 30m, 12h, 14d or 2w")
    return float(int(match[1]) * _TIMES[match[2]])
