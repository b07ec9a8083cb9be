"""Workshop: one compile's directory and toolchain, and how a command is run between them.

Law: knows sandboxes, logs and progress; not what the commands mean. `work/` holds `build/` (seen as /build),
`out/usr/local/` (seen as /usr/local), `pip/` (seen as /pip) and `log/`, one file a command.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rootfs.errors import BuildError, HostError
from rootfs.ports import Bind, Command, Outcome, Reporter, Sandbox

_TAIL = 20


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
        """Throw away what an earlier compile left and lay out the directories anew."""
        with self.writing():
            if self.work.exists():
                shutil.rmtree(self.work)
            for path in (self.build, self.prefix, self.pip, self.work / "log"):
                path.mkdir(parents=True)

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
                hint="it must be a directory of yours with 300 MB free",
            ) from error

    def run(self, step: str, argv: tuple[str, ...], *, cwd: str = "/build", hint: str | None = None) -> None:
        """Run a command that must succeed; BuildError with the end of its log when it does not."""
        outcome, tail = self.attempt(step, argv, cwd=cwd)
        if outcome.exit > 128:
            hint = "it was killed; with signal 9 memory ran out, most likely: try fewer jobs"
        if outcome.exit:
            raise BuildError(
                f"compile: {step} exited {outcome.exit}",
                at=str(outcome.log),
                because="\n".join(tail[-_TAIL:]),
                hint=hint or "the log holds every line; it stays until the next compile",
            )

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
