"""Sigstore: whether a bundle says that a release manager of CPython signed a file (PEP 761).

Law: one check of a digest, with the `sigstore` package, which is an optional extra (`ocibuild[sigstore]`) and is
imported only here, when it is wanted. Nothing is fetched: the root of trust is the one that the package came with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec

from rootfs.digest import Digest
from rootfs.errors import IntegrityError

EXTRA = "ocibuild[sigstore]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who signs: a mail address, and the OpenID Connect issuer that vouches for it."""

    name: str
    issuer: str


def is_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("sigstore") is not None


def is_complete(bundle: bytes) -> bool:
    """Whether a bundle has what a check without a network takes; older ones (2024) lack the log's checkpoint."""
    try:
        entries = json.loads(bundle)["verificationMaterial"]["tlogEntries"]
        return all(entry["inclusionProof"].get("checkpoint") for entry in entries)
    except (ValueError, LookupError, TypeError, AttributeError):
        return True  # no bundle at all: `verify_bundle` says so


def verify_bundle(digest: Digest, bundle: bytes, identity: Identity) -> None:
    """IntegrityError unless the bundle is this identity's signature of a file with this digest; wants the extra."""
    # PLC0415: an optional extra, and seconds to import.
    from sigstore.errors import Error  # noqa: PLC0415
    from sigstore.hashes import Hashed  # noqa: PLC0415
    from sigstore.models import Bundle  # noqa: PLC0415
    from sigstore.verify import Verifier, policy  # noqa: PLC0415
    from sigstore_models.common.v1 import HashAlgorithm  # noqa: PLC0415

    file = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(digest.hex))
    signer = policy.Identity(identity=identity.name, issuer=identity.issuer)
    try:
        Verifier.production(offline=True).verify_artifact(input_=file, bundle=Bundle.from_json(bundle), policy=signer)
    except (Error, ValueError) as error:
        raise IntegrityError(
            f"the Sigstore bundle is not {identity.name}'s signature of {digest}",
            because=str(error).strip().partition("\n")[0] or type(error).__name__,
        ) from error
