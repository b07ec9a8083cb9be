"""The command line: argv in, one line on stdout, everything else on stderr, an exit status.

Law: parses and prints; each verb's module is imported only when the verb is called, so that `--version` costs nothing.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from builder.version import VERSION
from rootfs.errors import HostError, OcibuildError, UsageError

_VERBS = {
    "recipe": "Build the image of a recipe; push it where --push says.",
    "rootfs": "Assemble a Debian rootfs by itself.",
    "pack": "Make an image of directories and tars, a layer of each.",
    "push": "Push an image, and what is attached to it, to registries.",
    "pull": "Fetch an image, and what is attached to it, from a registry.",
    "copy": "Copy an image into another form: layout, archive, files, runtime bundle.",
    "inspect": "Show what an image is, and with --sizes where its bytes go.",
    "diff": "Show what changed from one image to another.",
    "extract": "Take one file or directory out of an image.",
    "check": "Check every invariant of images, and say all that is wrong.",
    "mutate": "Change an image's config, or put it on another base; its layers stay.",
    "index": "Make one index of the images of several platforms.",
    "sbom": "Say what is in an image, as SPDX or CycloneDX.",
    "referrers": "List what is attached to an image, or print it.",
    "verify": "Check inside an image that what it promises works.",
    "bench": "Measure how fast the Python of images is, side by side.",
    "explain": "Say who pulls a package into a rootfs.",
    "profile": "Train, show, push, pull, export and import the profile that leads a build.",
    "tags": "List the tags of a repository.",
    "delete": "Delete a tag or a manifest in a registry.",
    "login": "Keep an account at a registry, where docker and podman find it too.",
    "logout": "Forget an account at a registry.",
    "registry": "Find out what a registry can.",
    "lock": "Resolve a recipe anew and write its lock.",
    "cache": "List what lies in the store, take out what is of no use, read it again.",
    "settings": "Print every setting with its value and where it comes from.",
}


_INTERRUPTED = "interrupted; what is finished is kept, run the same command to go on"
_GRACE = 5.0  # seconds from Ctrl-C until nobody is waited for any more, such as a server that says nothing


class _Verbs(click.Group):
    """Looks up a verb's module by the verb's name."""

    # ruff: noqa: ARG002 (click gives every method its context)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = importlib.import_module(f"builder.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.command(cls=_Verbs, subcommand_metavar="VERB ...", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="ocibuild", message="%(prog)s %(version)s")
def cli() -> None:
    """One TOML recipe in, one reproducible Python image out: no Docker, no daemon, no root."""


def main() -> None:
    """The `ocibuild` program.

    Of a short run a fifth would go into looking for garbage, of which there is little, and into taking the interpreter
    apart at the end, where nothing is left to be done.
    """
    gc.set_threshold(100_000)
    signal.signal(signal.SIGALRM, _leave)
    signal.signal(signal.SIGTERM, _interrupted)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the caller wants it ignored
        signal.signal(signal.SIGINT, _interrupted)
    _open_streams()
    os._exit(_flushed(run(sys.argv[1:])))


def run(argv: list[str]) -> int:
    """Carry out a command line; the exit status (docs/reference/exit-codes.md)."""
    try:
        status = cli.main(argv, prog_name="ocibuild", standalone_mode=False)
    except BrokenPipeError:
        return 141
    except SystemExit as left:  # the completion of a shell's line; else click's answer to a pipe that broke
        return 141 if "_OCIBUILD_COMPLETE" not in os.environ else int(left.code or 0)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (every failure ends here, as a message)
        text, status = _explain(error)
        print(text if "--debug" not in argv else f"{_trace()}{text}", file=sys.stderr)
        return status
    return status if isinstance(status, int) else 0  # what a verb ended with: click.exceptions.Exit


def _explain(error: BaseException) -> tuple[str, int]:
    """What to print for a failure, and the exit status."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), 2
        case click.Abort() | KeyboardInterrupt():
            return _INTERRUPTED, 130
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f"{context.command_path} --help" if context else None
            usage = UsageError(error.format_message(), hint=hint)
            return usage.render(), usage.exit_code
        case OSError():
            error = _refused(error)
        case _:
            pass
    if isinstance(error, OcibuildError):
        return error.render(), error.exit_code
    return f"{_trace()}error: this is a bug in ocibuild; please report it with the above", 70


def _trace() -> str:
    """Where the error that is being handled was raised."""
    import traceback  # noqa: PLC0415 (a run that fails is in no hurry)

    return traceback.format_exc()


def _refused(error: OSError) -> OcibuildError:
    """What nobody below knew the place of: a file that was to be read, or stdout."""
    if error.filename is None:
        from rootfs.files import host_error  # noqa: PLC0415 (a run that fails is in no hurry)

        return host_error(error, Path("stdout"))
    return HostError(f"cannot open {os.fsdecode(error.filename)}", because=error.strerror or str(error))


def _open_streams() -> None:
    """Have all three streams: of what the caller closed (`>&-`) the number would go to the next file that is opened."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (open to the end)


def _flushed(status: int) -> int:
    """The exit status when what is printed has left; a failure that `run` has told keeps its own."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if status == 0 and not isinstance(error, BrokenPipeError):
            print(_refused(error).render(), file=sys.stderr)
        return status or (141 if isinstance(error, BrokenPipeError) else HostError.exit_code)
    return status


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    """End in an orderly way, but soon."""
    signal.setitimer(signal.ITIMER_REAL, _GRACE)
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """End at once: what is written here outlives a process that is killed."""
    os.write(2, f"\n{_INTERRUPTED}\n".encode())
    os._exit(130)
