"""What `push` and `copy` share when the target is a registry: options, the plan, the lines on stdout, the receipt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from builder.cli.options import plain_http_option, referrers_option
from builder.finding import Connect, FoundImage
from builder.look.tables import table
from builder.registry.receipt import Plan
from builder.registry.reference import Reference
from builder.tools import Tools
from builder.transit import Delivered, load, plan_push, push_each, targets
from rootfs.digest import canonical_json
from rootfs.files import replacing, require_replaceable

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option("--tag", "-t", "tags", multiple=True, metavar="TAG", help="Set this tag, too; may repeat."),
    referrers_option,
    click.option("--plan", "planned", is_flag=True, help="Say what would be sent, and send nothing."),
    click.option("--check", is_flag=True, help="Ask for every blob, also of manifests that are there."),
    click.option("--receipt", metavar="FILE", type=_FILE, help="Write what was done to a JSON file."),
    plain_http_option,
)


def sending_options(function: _Function) -> _Function:
    """The options of a push."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def send_found(
    found: FoundImage,
    references: Sequence[Reference],
    tools: Tools,
    reach: Connect,
    *,
    tags: Sequence[str],
    no_referrers: bool,
    planned: bool,
    check: bool,
    receipt: Path | None,
    as_json: bool,
) -> None:
    """Push a found image to every reference, or say what that would do; print it, and write the receipt."""
    check_receipt(receipt)
    goals = targets(references, tags, found, reach)
    what = load(found, tools, referrers=not no_referrers)
    if planned:
        plans = [plan_push(what, goal, check=check) for goal in goals]
        show_plans(plans, receipt, as_json=as_json)
        return
    done = all_done(push_each(what, goals, tools, check=check), receipt)
    if as_json:
        click.echo(json.dumps([one.receipt for one in done]))
    for one in () if as_json else done:
        click.echo(f"{one.reference.name}@{one.outcome.digest}")


def all_done(pushes: Iterable[Delivered], receipt: Path | None) -> list[Delivered]:
    """Every push; the receipt has those that were done, also when one fails."""
    done: list[Delivered] = []
    try:
        for one in pushes:
            done.append(one)  # noqa: PERF402 (what came before a failure is kept)
    finally:
        write_receipt(receipt, [one.receipt for one in done])
    return done


def show_plans(plans: Sequence[Plan], receipt: Path | None, *, as_json: bool) -> None:
    """Print what would be sent; the receipt of a plan is the plan."""
    write_receipt(receipt, [plan.to_dict() for plan in plans])
    click.echo(json.dumps([plan.to_dict() for plan in plans]) if as_json else _shown(plans), nl=as_json)


def check_receipt(path: Path | None) -> None:
    """HostError where no receipt can be written: before anything is pushed."""
    if path is not None:
        require_replaceable(path)


def write_receipt(path: Path | None, value: Sequence[dict[str, Any]]) -> None:
    """A JSON list, one receipt for each repository."""
    if path is not None:
        with replacing(path) as stream:
            stream.write(canonical_json(list(value)) + b"\n")


def _shown(plans: Sequence[Plan]) -> str:
    lines = []
    for plan in plans:
        rows = [
            (one.descriptor.digest.hex[:12], one.descriptor.media_type, one.action, str(one.bytes), str(one.requests))
            for one in (*plan.blobs, *plan.manifests)
        ]
        lines.append(f"{plan.target}@{plan.digest}\n")
        lines.append(table(("digest", "media type", "", "bytes", "requests"), rows, left=(0, 1, 2)))
        lines += [f"tag {tag}: {'moves' if moves else 'stays'}\n" for tag, moves in plan.tags.items()]
        lines.append(f"{plan.bytes} bytes, at least {plan.requests} requests\n")
    return "".join(lines)
