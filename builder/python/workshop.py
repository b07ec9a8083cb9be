"""Workshop: one compile's directory and toolchain, and how a command is run between them.

Law: knows sandboxes, logs and progress; not what the commands mean. `work/` holds `build/` (seen as /build),
`out/usr/local/` (seen as /usr/local), `pip/` (seen as /pip) and `log/`, one file a command.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rootfs.errors import BuildError, HostError, OcibuildError
from rootfs.extract import extract
from rootfs.ports import Bind, Command, Outcome, Reporter, Sandbox, Store
from rootfs.tree import Tree

_TAIL = 20

# What a failed command says when the machine ran out of something: signs in its output, and the way out. A compiler
# that is killed makes make exit with 2, as any error does.
_RAN_OUT = {
    "disk space": (
        ("No space left on device", "Disk quota exceeded"),
        "a compile takes up to 2 GB below the store (--store), and some of the memory that holds /tmp",
    ),
    "memory": (
        ("Killed signal terminated", "signal 9 [Killed]", "] Killed", "memory exhausted", "out of memory allocating"),
        "it was killed, or could not get more; try fewer jobs at once (--jobs 1)",
    ),
}
_KILLED = 128 + 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where a compile happens. `toolchain` is a root directory that holds compilers; `work` is ours to empty."""

    toolchain: Path
    work: Path
    environment: Mapping[str, str]
    sandbox: Sandbox
    reporter: Reporter

    @property
    def build(self) -> Path:
        """The source and object files."""
        return self.work / "build"

    @property
    def prefix(self) -> Path:
        """What the commands see as /usr/local."""
        return self.work / "out" / "usr" / "local"

    @property
    def pip(self) -> Path:
        """A root directory for pip alone."""
        return self.work / "pip"

    def clear(self) -> None:
        """Throw away what an earlier stage left and lay out the directories anew."""
        with self.writing():
            if self.work.exists():
                shutil.rmtree(self.work)
            for path in (self.build, self.prefix, self.pip, self.work / "log"):
                path.mkdir(parents=True)

    def open(self, store: Store, *, build: Tree | None = None, out: Tree | None = None) -> None:
        """Begin with these: `build` as /build, `out` as the root that /usr/local is a part of."""
        self.clear()
        for tree, place in ((build, self.build), (out, self.work / "out")):
            if tree is not None:
                with self.writing():
                    shutil.rmtree(place)
                extract(tree, store, place)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns what the operating system refuses below `work` into a HostError."""
        try:
            yield
        except OSError as error:
            raise HostError(
                f"cannot write to {self.work}",
                at=error.filename and str(error.filename),
                because=error.strerror or str(error),
                hint="it must be a directory of yours with 500 MB free",
            ) from error

    def run(self, step: str, argv: tuple[str, ...], *, cwd: str = "/build", hint: str | None = None) -> None:
        """Run a command that must succeed; the error of `failure` when it does not."""
        outcome, tail = self.attempt(step, argv, cwd=cwd)
        if outcome.exit:
            raise failure(step, outcome, tail, hint=hint)

    def attempt(self, step: str, argv: tuple[str, ...], *, cwd: str = "/build") -> tuple[Outcome, tuple[str, ...]]:
        """Run a command; how it ended, and its last lines of output."""
        task = f"compile: {step}"
        tail: deque[str] = deque(maxlen=100)

        def on_line(line: str) -> None:
            tail.append(line.rstrip("\n"))
            self.reporter.advance(task, 1)

        command = Command(
            root=self.toolchain,
            argv=argv,
            cwd=cwd,
            environment=self.environment,
            binds=(
                Bind(source=self.build, target="/build", writable=True),
                Bind(source=self.prefix, target="/usr/local", writable=True),
                Bind(source=self.pip, target="/pip", writable=True),
            ),
            log=self.work / "log" / f"{step.replace(' ', '-')}.log",
            on_line=on_line,
        )
        self.reporter.begin(task, unit="lines")
        result = "failed"
        try:
            outcome = self.sandbox.run(command)
            result = f"{outcome.seconds:.0f} s" if outcome.exit == 0 else f"exited {outcome.exit}"
        finally:
            self.reporter.finish(task, result)
        return outcome, tuple(tail)


def failure(step: str, outcome: Outcome, tail: Sequence[str], *, hint: str | None = None) -> OcibuildError:
    """What to raise for a command that failed, with the end of its log.

    A HostError when memory or the disk ran out, else a BuildError with this hint.
    """
    at, because = str(outcome.log), "\n".join(tail[-_TAIL:])
    for what, (signs, way_out) in _RAN_OUT.items():
        if (what == "memory" and outcome.exit == _KILLED) or any(sign in line for line in tail for sign in signs):
            return HostError(f"compile: {step} ran out of {what}", at=at, because=because, hint=way_out)
    hint = hint or "the log holds every line; it stays until the next compile"
    return BuildError(f"compile: {step} exited {outcome.exit}", at=at, because=because, hint=hint)
