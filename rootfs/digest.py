"""Digest: the name of a sequence of bytes (image-spec, descriptor.md, "Digests").

Law: pure; knows hashing and nothing of files, networks or stores.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from rootfs.errors import IntegrityError

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm:hex`; only the registered algorithms sha256 and sha512, lower-case hex of the right length."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if _HEX_LENGTH.get(self.algorithm) != len(self.hex) or not _HEX.match(self.hex):
            raise IntegrityError(
                f"not a digest: {self.algorithm}:{self.hex}"[:160],
                hint="a digest is sha256: and 64 lower-case hex digits, or sha512: and 128",
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:...`; raises IntegrityError for anything else."""
        algorithm, _, hex_ = text.partition(":")
        return cls(algorithm, hex_)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of `data`."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @classmethod
    def of_value(cls, value: object) -> Digest:
        """The digest of a JSON value's canonical form: how step keys are made."""
        return cls.of(canonical_json(value))

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def canonical_json(value: object) -> bytes:
    """One byte sequence for one JSON value: sorted keys, no spaces, UTF-8 (as the registries' own writers do it)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogateescape"
    )
