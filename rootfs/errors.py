"""The errors of ocibuild: one base class, one family for each exit code.

Law: this module imports nothing of ours. A message says what failed (`error:`), where (`at`), why (`because`) and what
to do next (`hint:`). Errors are raised where the cause is known; only `builder.cli` prints them and exits.
"""

from __future__ import annotations


class OcibuildError(Exception):
    """Base of every failure a user can meet; `exit_code` is the process's exit status."""

    exit_code = 70
    retryable = False

    def __init__(
        self, message: str, *, at: str | None = None, because: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.because = because
        self.hint = hint

    def render(self) -> str:
        """The message as the terminal shows it, one part a line."""
        lines = [f"error: {self.message}"]
        lines += [
            f"  {label} {text}"
            for label, text in (("at", self.at), ("because", self.because), ("hint:", self.hint))
            if text
        ]
        return "\n".join(lines)


class BuildError(OcibuildError):
    """A step ran and failed: a compile, a sandboxed command, a check of the finished image."""

    exit_code = 1


class UsageError(OcibuildError):
    """The command line is wrong."""

    exit_code = 2


class RecipeError(OcibuildError):
    """The recipe, or what it asks for, is not something ocibuild can build."""

    exit_code = 3


class LockError(OcibuildError):
    """The lock is missing, damaged, or was made for another recipe."""

    exit_code = 3


class ResolveError(OcibuildError):
    """No set of packages satisfies what was asked for."""

    exit_code = 4


class IntegrityError(OcibuildError):
    """A digest, size or signature is not the expected one; the bytes were discarded. Never retried."""

    exit_code = 5


class TransferError(OcibuildError):
    """Bytes could not be fetched or pushed."""

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        at: str | None = None,
        because: str | None = None,
        hint: str | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, at=at, because=because, hint=hint)
        self.retryable = retryable


class HostError(OcibuildError):
    """This machine does not allow what is needed: namespaces off, disk full, directory not writable."""

    exit_code = 7
