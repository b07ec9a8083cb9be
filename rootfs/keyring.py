"""Keyring: signed Release bytes and pinned keys -> a verified Release (OpenPGP, RFC 9580, sections 7 and 10.4).

Law: the one place where it is decided whether a Release is trusted. The arithmetic is Sequoia's (pysequoia), which also
refuses weak digests; which keys may sign what, and that they are alive now, is decided here. Debian's own keys are
shipped in `rootfs/keys` and pinned for each suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pysequoia import Cert, Sig, verify
from pysequoia.packet import HashAlgorithm, Packet, PacketPile, SignatureType, Tag

from rootfs.debian.release import Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError

# Whose automatic keys sign a suite: its own release's and the one before, while both are supported; the rolling suites
# are signed with the newest two (https://ftp-master.debian.org/keys.html). A stable key signs only its release.
_SIGNED_BY = {
    "bullseye": ("bullseye",),
    "bookworm": ("bullseye", "bookworm"),
    "trixie": ("bookworm", "trixie"),
    "forky": ("bookworm", "trixie"),
    "testing": ("bookworm", "trixie"),
    "sid": ("bookworm", "trixie"),
    "unstable": ("bookworm", "trixie"),
    "experimental": ("bookworm", "trixie"),
}
_STABLE = frozenset({"bullseye", "bookworm", "trixie"})
_ROLES = {"": "automatic", "updates": "automatic", "backports": "automatic", "security": "security"}

_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
_KEYS = Path(__file__).with_name("keys")
_WEAK = (HashAlgorithm.MD5, HashAlgorithm.RipeMD, HashAlgorithm.SHA1)
_HINT = "the mirror serves something that the pinned keys did not sign; try another --mirror"


def pinned_keys(suite: str) -> tuple[Cert, ...]:
    """The certificates that may sign this suite of Debian's; RecipeError when none is pinned."""
    base, _, part = suite.partition("-")
    if base not in _SIGNED_BY or part not in _ROLES or suite.endswith("-"):
        raise RecipeError(
            f"no keys are pinned for the suite {suite}",
            hint=f"suites with pinned keys: {', '.join(_SIGNED_BY)} (`stable` becomes another release one day)",
        )
    names = [f"{release}-{_ROLES[part]}" for release in _SIGNED_BY[base]]
    if not part and base in _STABLE:
        names.append(f"{base}-stable")
    return tuple(Cert.from_bytes((_KEYS / f"{name}.asc").read_bytes()) for name in names)


def read_certificates(data: bytes) -> tuple[Cert, ...]:
    """The OpenPGP certificates in a key file, armored or binary; RecipeError when it holds none, or a secret key.

    What Sequoia cannot use is left out: certificates bound by SHA1, as keyrings from before 2013 hold them.
    """
    try:
        certificates = Cert.split_bytes(data)
        secret = b"PRIVATE KEY BLOCK" in data or any(
            packet.tag == Tag.SecretKey for packet in PacketPile.from_bytes(data)
        )
    except RuntimeError as error:
        raise RecipeError("not a file of OpenPGP certificates", because=_first_line(error)) from error
    if not certificates:
        raise RecipeError("the file holds no OpenPGP certificate")
    if secret:
        raise RecipeError("the file holds a secret key", hint="export the public one: gpg --export --armor KEY")
    usable = tuple(certificate for certificate in certificates if _usable(certificate))
    if not usable:
        raise RecipeError("the file holds no usable OpenPGP certificate", because="what binds its keys is too weak")
    return usable


def verify_release(
    data: bytes, keys: Sequence[Cert], *, name: str, now: int, signature: bytes | None = None
) -> Release:
    """The Release of the suite `name` in `data`: a cleartext-signed InRelease, or a Release beside its `signature`.

    One valid signature suffices, as for apt, by a key among `keys` that is neither expired at `now` (seconds since the
    epoch) nor revoked. IntegrityError when there is none, or the Release is of another suite, expired, or of the
    future. Only the bytes that the signature covers are read.
    """
    if signature is None:
        _expect_frame(data)
        text, made = _verify_inline(data, keys)
    else:
        text, made = data, _verify_detached(data, keys, signature)
    parts = {part.fingerprint: part for cert in keys for part in _parts(cert)}
    signers = {parts[key].certificate for key in made if key in parts and parts[key].fault(now) is None}
    if not signers:
        raise _refusal(signature if signature is not None else data[data.find(_SIGNATURE) :], parts, now)
    try:
        release = Release.parse(text.decode("utf-8"), digest=Digest.of(data), signers=tuple(sorted(signers)))
    except UnicodeDecodeError as error:
        raise IntegrityError("the Release file is malformed", because=str(error)) from error
    release.expect(name, now=now)
    return release


def _expect_frame(data: bytes) -> None:
    """Nothing before the signed text, nothing after the signature: what is kept as evidence is what was signed."""
    if not data.startswith(_BEGIN + b"\n"):
        begins = data.partition(b"\n")[0][:60].decode("ascii", "replace")
        raise IntegrityError("not a signed Release", because=f"the file begins with {begins!r}", hint=_HINT)
    if not data.rstrip().endswith(b"\n" + _END):
        raise IntegrityError("not a signed Release", because="the file does not end with its signature", hint=_HINT)


def _verify_inline(data: bytes, keys: Sequence[Cert]) -> tuple[bytes, set[str]]:
    """The text that is signed, and the fingerprints of the (sub)keys whose signature holds."""
    try:
        verified = verify(bytes=data, store=lambda _ids: list(keys))
    except RuntimeError:
        return b"", set()
    return verified.bytes or b"", {made.signing_key.lower() for made in verified.valid_sigs}


def _verify_detached(data: bytes, keys: Sequence[Cert], signature: bytes) -> set[str]:
    """The fingerprints of the (sub)keys whose signature over `data` holds."""
    made: set[str] = set()
    for packet in _signatures(signature):
        try:
            verified = verify(bytes=data, store=lambda _ids: list(keys), signature=Sig.from_bytes(bytes(packet)))
        except RuntimeError:
            continue
        made |= {valid.signing_key.lower() for valid in verified.valid_sigs}
    return made


def _signatures(data: bytes) -> list[Packet]:
    """The signature packets of a binary file, or of one or more armored blocks; none when it cannot be read."""
    starts = [match.start() for match in re.finditer(re.escape(_SIGNATURE), data)] or [0]
    packets: list[Packet] = []
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        try:
            packets += [packet for packet in PacketPile.from_bytes(data[start:end]) if packet.tag == Tag.Signature]
        except RuntimeError:
            continue
    return packets


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A certificate's primary key or a subkey. `expires`: seconds since the epoch."""

    fingerprint: str
    certificate: str
    expires: float | None
    revoked: bool

    def fault(self, now: int) -> str | None:
        """Why it may not vouch for anything at `now`.

        Sequoia asks whether a key was alive when it signed; whoever stole an expired key writes that date themselves.
        """
        if self.revoked:
            return f"the key {self.fingerprint} is revoked"
        if self.expires is not None and now >= self.expires:
            return f"the key {self.fingerprint} expired on {datetime.fromtimestamp(self.expires, UTC):%Y-%m-%d}"
        return None


def _usable(cert: Cert) -> bool:
    try:
        return bool(list(_parts(cert)))
    except RuntimeError:
        return False


def _parts(cert: Cert) -> Iterator[_Part]:
    """The keys of a certificate; a subkey is never better than its certificate."""
    own = cert.fingerprint.lower()
    expires = cert.expiration.timestamp() if cert.expiration else None
    yield _Part(fingerprint=own, certificate=own, expires=expires, revoked=cert.is_revoked)
    subkeys: dict[str, list[Packet]] = {}
    for packet in PacketPile.from_bytes(bytes(cert)):
        if packet.tag == Tag.PublicSubkey and packet.fingerprint:
            subkeys[packet.fingerprint.lower()] = [packet]
        elif packet.tag == Tag.Signature and subkeys:
            list(subkeys.values())[-1].append(packet)
    for fingerprint, (key, *signed) in subkeys.items():
        ends = [end for end in (expires, _subkey_end(key, signed)) if end is not None]
        revoked = any(packet.signature_type == SignatureType.SubkeyRevocation for packet in signed)
        yield _Part(
            fingerprint=fingerprint,
            certificate=own,
            expires=min(ends, default=None),
            revoked=cert.is_revoked or revoked,
        )


def _subkey_end(key: Packet, signed: Sequence[Packet]) -> float | None:
    """When a subkey expires: its newest binding says so (RFC 9580, 5.2.3.13)."""
    bindings = [
        (packet.signature_created, packet.key_validity_period)
        for packet in signed
        if packet.signature_type == SignatureType.SubkeyBinding and packet.signature_created
    ]
    if not bindings or key.key_created is None:
        return None
    _, validity = max(bindings, key=lambda binding: binding[0])
    return (key.key_created + validity).timestamp() if validity else None


def _refusal(signature: bytes, parts: Mapping[str, _Part], now: int) -> IntegrityError:
    """Why none of the signatures counts, each with its own reason."""
    reasons = [_fault(packet, parts, now) for packet in _signatures(signature)]
    return IntegrityError(
        "the signature of the Release does not hold",
        because="; ".join(dict.fromkeys(reasons)) or "it bears no signature that can be read",
        hint=_HINT,
    )


def _fault(packet: Packet, parts: Mapping[str, _Part], now: int) -> str:
    try:
        weak = packet.hash_algorithm in _WEAK
    except RuntimeError as error:  # an algorithm that Sequoia does not know
        return _first_line(error)
    issuer = (packet.issuer_fingerprint or packet.issuer_key_id or "").lower()
    part = next((part for fingerprint, part in parts.items() if issuer and fingerprint.endswith(issuer)), None)
    if part is None:
        return f"the key {issuer or '(not named)'} is not one that may sign this suite"
    if (fault := part.fault(now)) is not None:
        return fault
    if weak:
        digest = str(packet.hash_algorithm).rpartition(".")[2]
        return f"the key {part.fingerprint} signed a {digest} digest, which can be forged"
    return f"not what the key {part.fingerprint} signed, or not signed while it was valid"


def _first_line(error: Exception) -> str:
    """Sequoia's messages carry a stack trace."""
    return str(error).partition("\n")[0]
