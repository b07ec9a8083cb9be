"""Layout: an interpreter's machine code put into the order in which it runs, by LLVM's BOLT, after it was linked.

Law: pure. Which builds can have it, the commands, and what counts are: text of BOLT's own (fdata), a line for each
branch with how often it was taken, by names and offsets in the one interpreter that was counted. They come from a
registry as well as from our own counting, so they may hold nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.python.flags import BUILD, PREFIX, Options
from builder.python.lines import Line
from builder.python.packages import BOLT
from rootfs.errors import IntegrityError, RecipeError

# Functions and their blocks in order of the calls, the rarely used half of each apart, equal ones once; small functions
# and the usual targets of indirect calls inlined, jumps by table straight to the usual target. These are the options of
# CPython's own --enable-bolt without those that rewrite a function's frame. Functions without counts stay where they
# were. With the same counts BOLT writes the same bytes on any number of threads, save for a note of its command line.
_OPTIONS = (
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-reorder-functions-use-hot-size",
    "-split-functions",
    "-split-eh",
    "-icf=1",
    "-inline-all",
    "-inline-ap",
    "-indirect-call-promotion=all",
    "-jump-tables=aggressive",
    "-peepholes=none",
    "-use-gnu-stack",
    "-no-huge-pages",
    # Counts of another program are an error, as they are to GCC.
    "-stale-threshold=0",
)

# Branches that were taken less often are left out of the counts: a third of the lines, which lead to nothing.
_LEAST = 10

COUNTS = "layout.fdata"
"""The file of counts in /build."""

_ARCHITECTURE = "amd64"
_FIRST = (3, 12)  # an interpreter that lies at a fixed address
_HELPED = frozenset({(3, 13)})  # measured (benchmarks.md): 2 to 3 % there, nothing in 3.14
_LINE = re.compile(rb"[01] [^ \n]+ [0-9a-f]+ [01] [^ \n]+ [0-9a-f]+ [0-9]+ (?P<taken>[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutCommands:
    """Argument vectors, run in /build; `python` there is the interpreter that counts, and later the one laid out.

    Between `equip` and `gather` it does its work and leaves `counts.PID.fdata` for each process.
    """

    equip: tuple[str, ...] = ()
    gather: tuple[str, ...] = ()
    arrange: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()


def settled(wanted: str, line: Line, options: Options, *, suite: str, architecture: str) -> str:
    """`bolt` or `none` for what a recipe says of its layout; `auto` is bolt where it was measured to be of use.

    RecipeError when bolt is wanted, and cannot be had.
    """
    reason = _obstacle(line, options, suite, architecture)
    if wanted == "bolt" and reason:
        hint = 'layout = "auto" takes it where it is of use and can be had'
        raise RecipeError("python.layout: bolt cannot be had for this build", because=reason, hint=hint)
    helps = wanted == "bolt" or (wanted == "auto" and line.numbers in _HELPED)
    return "bolt" if helps and not reason else "none"


def _obstacle(line: Line, options: Options, suite: str, architecture: str) -> str | None:
    """Why an interpreter cannot be laid out, if so."""
    untried = [name for name in ("shared", "free_threaded", "jit") if getattr(options, name)]
    obstacles = {
        f"python.variant is {options.variant}: no profile leads this build": not options.is_trained,
        f"it was tried with gcc only, and python.compiler is {options.compiler}": options.compiler != "gcc",
        f"only an interpreter at a fixed address is laid out, from 3.12 on; this is {line.name}": line.numbers < _FIRST,
        f"it was not tried with python.{' or python.'.join(untried)}": bool(untried),
        f"it was tried on {_ARCHITECTURE} only, and this is {architecture}": architecture != _ARCHITECTURE,
        f"it was tried on {', '.join(BOLT)} only, and this is {suite}": suite not in BOLT,
    }
    return next((reason for reason, holds in obstacles.items() if holds), None)


def layout_commands(line: Line) -> LayoutCommands:
    """How the interpreter of this line is counted and laid out."""
    place = f"{PREFIX}/bin/python{line.name}"
    modules = f"{PREFIX}/lib/python{line.name}/lib-dynload"
    return LayoutCommands(
        equip=(
            *("llvm-bolt", place, "-instrument", "-o", "python"),
            *(f"-instrumentation-file={BUILD}/counts", "-instrumentation-file-append-pid"),
            # Where it would look for itself is closed to a user's own namespace (proc(5), map_files).
            f"-instrumentation-binpath={BUILD}/python",
        ),
        gather=("sh", "-c", f"exec merge-fdata -o {COUNTS} counts.*.fdata"),
        arrange=("llvm-bolt", place, "-o", "python", f"-data={COUNTS}", *_OPTIONS),
        # The linker left the symbols that BOLT goes by; its note repeats the command line.
        strip=("sh", "-c", f"exec strip --strip-all --remove-section=.note.bolt_info python {modules}/*.so"),
    )


def canonical(counts: bytes, *, at: str) -> bytes:
    """Gathered counts as they are kept: sorted, without the rare ones; IntegrityError for what is no counts."""
    check(counts, at=at)
    lines = (line for line in counts.splitlines() if int(line.rpartition(b" ")[2]) >= _LEAST)
    return b"".join(line + b"\n" for line in sorted(lines))


def check(counts: bytes, *, at: str) -> None:
    """IntegrityError unless they are counts of branches, and nothing else."""
    odd = next((line for line in counts.splitlines() if not _LINE.fullmatch(line)), None)
    if odd is not None:
        raise IntegrityError("not counts of a layout", at=at, because=f"a line is {odd[:80]!r}")
    if not counts:
        raise IntegrityError("not counts of a layout", at=at, because="it is empty")
