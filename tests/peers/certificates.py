"""Certificates for tests: an authority of our own, a server on the loopback and a client, as PEM files."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """`ca.crt` in `place`, and what it signs: `NAME.cert` with `NAME.key`."""

    place: Path

    @property
    def certificate(self) -> Path:
        return self.place / "ca.crt"

    def server(self) -> tuple[Path, Path]:
        """Certificate and key of `localhost`, 127.0.0.1 and ::1."""
        return self.place / "server.cert", self.place / "server.key"

    def client(self) -> tuple[Path, Path]:
        """Certificate and key of a client."""
        return self.place / "client.cert", self.place / "client.key"


def authority(place: Path, *hosts: str) -> Authority:
    """A new authority with a server's and a client's certificate, good for a day; the server has these names, too."""
    pytest.importorskip("cryptography", reason="the package cryptography makes the certificates of this test")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    place.mkdir(parents=True)
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ocibuild's tests")])
    root = ec.generate_private_key(ec.SECP256R1())
    names = [
        *(x509.DNSName(host) for host in ("localhost", *hosts)),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    for name, usage in (
        ("ca", None),
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = root if usage is None else ec.generate_private_key(ec.SECP256R1())
        subject = issuer if usage is None else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signed = builder.sign(root, hashes.SHA256())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (place / f"{name}{'.crt' if usage is None else '.cert'}").write_bytes(signed.public_bytes(pem))
        if usage is not None:
            (place / f"{name}.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return Authority(place=place)
