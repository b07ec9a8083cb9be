"""Release: what an archive says of a suite (Debian repository format, "Release" files).

Law: pure. `Release.parse` takes the text a signature covered, and who signed: `rootfs.keyring` is its only caller, so a
Release exists only after its signature verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rootfs.debian.control import Stanza, parse_stanza
from rootfs.digest import Digest
from rootfs.errors import IntegrityError

_CLOCK_SKEW = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """One file a Release vouches for: its digest and its size in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A verified Release. `date` and `valid_until`: seconds since the epoch; `files`: paths below `dists/SUITE/`.

    `suite` or `codename` may be empty. `all_apart`: packages for all architectures have an index of their own.
    `priority` is the one apt gives its packages (apt_preferences(5)): 500; 100 for backports, 1 for experimental.
    `digest` is that of the signed file; `signers` are the fingerprints of the certificates whose signature held.
    """

    suite: str
    codename: str
    date: int
    valid_until: int | None
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    by_hash: bool
    all_apart: bool
    priority: int
    files: Mapping[str, IndexFile]
    digest: Digest
    signers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, digest: Digest, signers: tuple[str, ...]) -> Release:
        """From the signed text; IntegrityError when a field is missing or malformed."""
        fields = parse_stanza(text.strip("\n"))
        missing = [name for name in ("Date", "Components", "Architectures", "SHA256") if name not in fields]
        if missing:
            raise IntegrityError("the Release file is malformed", because=f"it has no {', '.join(missing)}")
        try:
            valid_until = fields.get("Valid-Until")
            return cls(
                suite=fields.get("Suite", ""),
                codename=fields.get("Codename", ""),
                date=_epoch(fields["Date"]),
                valid_until=_epoch(valid_until) if valid_until else None,
                components=tuple(fields["Components"].split()),
                architectures=tuple(fields["Architectures"].split()),
                by_hash=fields.get("Acquire-By-Hash") == "yes",
                all_apart="all" in fields["Architectures"].split()
                and fields.get("No-Support-for-Architecture-all") != "Packages",
                priority=_priority(fields),
                files=_files(fields["SHA256"]),
                digest=digest,
                signers=signers,
            )
        except ValueError as error:
            raise IntegrityError("the Release file is malformed", because=str(error)) from error

    def expect(self, name: str, *, now: int) -> None:
        """IntegrityError unless this is the suite asked for (by suite or codename), valid at `now` (seconds)."""
        if name not in (self.suite, self.codename):
            raise IntegrityError(
                f"the archive answered with another suite than {name}",
                because=f"its Release says suite {self.suite or '(none)'}, codename {self.codename or '(none)'}",
            )
        if self.date > now + _CLOCK_SKEW:
            raise IntegrityError(
                f"the Release of {name} is from the future",
                because=f"it was made at {_when(self.date)}, and now is {_when(now)}",
                hint="is this machine's clock right?",
            )
        if self.valid_until is not None and now > self.valid_until:
            raise IntegrityError(
                f"the Release of {name} has expired",
                because=f"Valid-Until was {_when(self.valid_until)}",
                hint="the mirror is out of date, or this machine's clock is wrong; try another --mirror",
            )


def _when(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _priority(fields: Stanza) -> int:
    if fields.get("NotAutomatic") != "yes":
        return 500
    return 100 if fields.get("ButAutomaticUpgrades") == "yes" else 1


def _epoch(text: str) -> int:
    """RFC 5322 date in UTC, as the archive writes it."""
    for form in ("%a, %d %b %Y %H:%M:%S UTC", "%a, %d %b %Y %H:%M:%S +0000", "%a, %d %b %Y %H:%M:%S GMT"):
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
        except ValueError:
            continue
    raise ValueError(f"not a date: {text}")


def _files(table: str) -> dict[str, IndexFile]:
    files = {}
    for line in table.splitlines():
        if line.strip():
            hex_, size, path = line.split()
            files[path] = IndexFile(digest=Digest("sha256", hex_), size=int(size))
    return files
