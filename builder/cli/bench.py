"""`ocibuild bench`: how fast the Python of images is, side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from builder.bench.plot import to_svg
from builder.bench.report import to_dict, to_markdown
from builder.bench.session import run_bench
from builder.bench.suite import FAST
from builder.cli.options import debug_option, settings_options
from builder.progress import make_reporter
from builder.settings import read_settings
from builder.wiring import open_tools
from rootfs.errors import UsageError
from rootfs.files import replacing

_file = click.Path(path_type=Path, dir_okay=False)


@click.command(name="bench")
@click.argument("images", nargs=-1, required=True, metavar="[NAME=]IMAGE[#PYTHON]...")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="How often everything is run.")
@click.option("--benchmarks", "names", metavar="NAME,...", default="", help="Only these.")
@click.option("--fast", is_flag=True, help=f"Only {', '.join(FAST)}.")
@click.option("--baseline", metavar="NAME", help="The image the others are compared with; the first.")
@click.option("--json", "json_file", metavar="FILE", type=_file, help="Write every value there.")
@click.option("--svg", "svg_file", metavar="FILE", type=_file, help="Draw the ratios there.")
@settings_options
@debug_option
def command(
    images: tuple[str, ...],
    rounds: int,
    names: str,
    baseline: str | None,
    json_file: Path | None,
    svg_file: Path | None,
    *,
    fast: bool,
    **flags: str | None,
) -> None:
    """Run pyperformance in the images, in turns, and print a table.

    IMAGE is a layout, a recipe's name whose layout lies in dist/, or dir:PATH, a root directory. PYTHON is its
    interpreter, python3 when not given. After Ctrl-C the table is of what was measured until then.
    """
    if svg_file is not None and len(images) < 2:
        raise UsageError("a plot compares images, and there is one", hint="leave --svg out, or name a second image")
    settings = read_settings(flags)
    with open_tools(settings, make_reporter(sys.stderr)) as tools:
        report = run_bench(
            images,
            tools,
            cache=Path(settings.store.value) / "bench",
            names=[*(name.strip() for name in names.split(",") if name.strip()), *(FAST if fast else ())],
            baseline=baseline,
            rounds=rounds,
        )
    click.echo(to_markdown(report), nl=False)
    if json_file is not None:
        with replacing(json_file) as stream:
            stream.write(json.dumps(to_dict(report), indent=1).encode() + b"\n")
    if svg_file is not None:
        with replacing(svg_file) as stream:
            stream.write(to_svg(report.rows, report.mean, report.baseline).encode())
    if not report.measured.complete:
        click.echo("interrupted; this is what was measured until then, and another run begins anew", err=True)
        raise click.exceptions.Exit(130)
