"""Sigstore: whether a bundle says that a release manager of CPython signed these bytes (PEP 761).

Law: one check, with the `sigstore` package, which is an optional extra (`ocibuild[sigstore]`) and is imported only
here, when it is wanted. Nothing is fetched: the root of trust is the one that the package was released with.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

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


def verify_bundle(data: bytes, bundle: bytes, identity: Identity) -> None:
    """IntegrityError unless the bundle is this identity's signature of `data`. Only with the extra installed."""
    # PLC0415: an optional extra, and half a second to import.
    from sigstore.errors import Error  # noqa: PLC0415
    from sigstore.models import Bundle  # noqa: PLC0415
    from sigstore.verify import Verifier, policy  # noqa: PLC0415

    signer = policy.Identity(identity=identity.name, issuer=identity.issuer)
    try:
        Verifier.production(offline=True).verify_artifact(input_=data, bundle=Bundle.from_json(bundle), policy=signer)
    except (Error, ValueError) as error:
        raise IntegrityError(
            f"the Sigstore bundle is not {identity.name}'s signature of this file",
            because=str(error).strip().partition("\n")[0] or type(error).__name__,
        ) from error
