"""Release: what an archive says of a suite (Debian repository format, "Release" files).

Law: pure. `Release.parse` takes the text a signature covered, and who signed: `rootfs.keyring` is its only caller, so a
Release exists only after its signature verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rootfs.debian.control import parse_stanza
from rootfs.digest import Digest
from rootfs.errors import IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFile:
    """One file a Release vouches for: its digest and its size in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A verified Release. `date` and `valid_until`: seconds since the epoch; `files`: paths below `dists/SUITE/`.

    `digest` is that of the signed file; `signers` are the fingerprints of the certificates whose signature held.
    """

    suite: str
    codename: str
    date: int
    valid_until: int | None
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    by_hash: bool
    files: Mapping[str, IndexFile]
    digest: Digest
    signers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, *, digest: Digest, signers: tuple[str, ...]) -> Release:
        """From the signed text; IntegrityError when a field is missing or malformed."""
        fields = parse_stanza(text)
        try:
            valid_until = fields.get("Valid-Until")
            return cls(
                suite=fields["Suite"],
                codename=fields["Codename"],
                date=_epoch(fields["Date"]),
                valid_until=_epoch(valid_until) if valid_until else None,
                components=tuple(fields["Components"].split()),
                architectures=tuple(fields["Architectures"].split()),
                by_hash=fields.get("Acquire-By-Hash") == "yes",
                files=_files(fields["SHA256"]),
                digest=digest,
                signers=signers,
            )
        except (KeyError, ValueError) as error:
            raise IntegrityError("the Release file is malformed", because=str(error)) from error

    def expect(self, name: str, *, now: int) -> None:
        """IntegrityError unless this is the suite asked for (by suite or codename) and not past its Valid-Until."""
        # security archives write "trixie-security" into both fields or leave the suffix off (Debian before bullseye)
        if name not in (self.suite, self.codename) and name.partition("-")[0] != self.codename.partition("-")[0]:
            raise IntegrityError(
                f"the archive answered with another suite than {name}",
                because=f"its Release says suite {self.suite}, codename {self.codename}",
            )
        if self.valid_until is not None and now > self.valid_until:
            raise IntegrityError(
                f"the Release of {name} has expired",
                because=f"Valid-Until was {datetime.fromtimestamp(self.valid_until, UTC):%Y-%m-%d %H:%M} UTC",
                hint="the mirror is out of date, or this machine's clock is wrong; try another --mirror",
            )


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
