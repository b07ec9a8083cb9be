"""A Debian archive in memory, signed with keys made for the test: what `pages` serves as a mirror's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from pysequoia import Cert, SignatureMode, Tsk, sign

DATE = 1767268800
"""2026-01-01 12:00 UTC: when the archive's Release says it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key pair; `certificate` is what a user would have of it."""

    secret: Tsk = field(default_factory=lambda: Tsk.generate("Archive <archive@example.org>"))

    @property
    def certificate(self) -> Cert:
        return self.secret.extract_certificate()

    def clear(self, text: bytes) -> bytes:
        """An InRelease."""
        return sign(self.secret.signer(), text, mode=SignatureMode.CLEAR)

    def detached(self, text: bytes) -> bytes:
        """A Release.gpg."""
        return sign(self.secret.signer(), text, mode=SignatureMode.DETACHED)

    def expiring(self, seconds: int) -> Cert:
        """The certificate, to expire so many seconds from now."""
        return self.certificate.set_expiration(datetime.now(UTC) + timedelta(seconds=seconds), self.secret.certifier())

    def revoked(self) -> Cert:
        """The certificate with its revocation."""
        certificate = self.certificate
        return Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(self.secret.certifier())))


def release(files: Mapping[str, bytes], **fields: str) -> bytes:
    """A Release of these files; `fields` replace or add fields (`_` for `-`), an empty one takes a field out."""
    told = {
        "Suite": "stable",
        "Codename": "tiny",
        "Date": date(DATE),
        "Components": "main",
        "Architectures": "amd64",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    lines = [f"{name}: {value}" for name, value in told.items() if value]
    lines += ["SHA256:", *(f" {sha256(data).hexdigest()} {len(data)} {path}" for path, data in files.items())]
    return "\n".join([*lines, ""]).encode()


def date(seconds: int) -> str:
    """As a Release writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%a, %d %b %Y %H:%M:%S} UTC"
