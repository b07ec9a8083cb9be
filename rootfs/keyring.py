"""Keyring: signed Release bytes and pinned keys -> a verified Release (OpenPGP cleartext signatures, RFC 9580 7).

Law: the one place where it is decided whether a Release is trusted. Verification is Sequoia's (pysequoia); the keys are
Debian's own, shipped in `rootfs/keys` and pinned for each suite here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from pysequoia import Cert, verify

from rootfs.debian.release import Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError

# Which pinned certificates may sign which suite: the release's own and its predecessor's, which sign it while both are
# supported (https://ftp-master.debian.org/keys.html). Stable release keys sign main archives only.
_MAIN = ("automatic", "stable")
SUITE_KEYS = {
    "bullseye": tuple(f"bullseye-{role}" for role in _MAIN),
    "bullseye-security": ("bullseye-security",),
    "bookworm": tuple(f"{name}-{role}" for name in ("bullseye", "bookworm") for role in _MAIN),
    "bookworm-security": ("bullseye-security", "bookworm-security"),
    "trixie": tuple(f"{name}-{role}" for name in ("bookworm", "trixie") for role in _MAIN),
    "trixie-security": ("bookworm-security", "trixie-security"),
}


def pinned_keys(suite: str) -> tuple[Cert, ...]:
    """The certificates that may sign this suite; RecipeError when none is pinned."""
    names = SUITE_KEYS.get(suite)
    if names is None:
        known = ", ".join(name for name in SUITE_KEYS if "-" not in name)
        raise RecipeError(f"no keys are pinned for the suite {suite}", hint=f"suites with pinned keys: {known}")
    keys = files("rootfs") / "keys"
    return tuple(Cert.from_bytes((keys / f"{name}.asc").read_bytes()) for name in names)


def verify_release(data: bytes, keys: Sequence[Cert]) -> Release:
    """The Release in a cleartext-signed InRelease file; one valid signature by one of `keys` suffices, as for apt.

    IntegrityError when there is none; only the bytes the signature covers are read.
    """
    trusted = {cert.fingerprint.lower(): cert for cert in keys}
    try:
        verified = verify(bytes=data, store=lambda _ids: list(trusted.values()))
    except RuntimeError as error:
        raise IntegrityError(
            "the signature of the Release does not hold",
            because=str(error).partition("\n")[0],
            hint="the mirror serves something that Debian did not sign; try another --mirror",
        ) from error
    signers = tuple(sorted({signature.certificate.lower() for signature in verified.valid_sigs} & set(trusted)))
    if not signers or verified.bytes is None:
        raise IntegrityError("the Release bears no signature by a pinned key")
    return Release.parse(verified.bytes.decode("utf-8"), digest=Digest.of(data), signers=signers)
