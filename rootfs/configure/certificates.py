"""Certificates: /etc/ssl/certs as update-ca-certificates(8) and `openssl rehash` fill it the first time.

Law: one handler. Every certificate below /usr/share/ca-certificates is trusted, as debconf's default says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator

from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.errors import BuildError
from rootfs.tree import FileEntry, Kind, directory, file, symlink

_SHIPPED = "usr/share/ca-certificates"
_CERTS = "etc/ssl/certs"
# no possessive group: of Python 3.11.2 (not of 3.11.7) `re` finds nothing by it, without a word
_PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----\s([^-]*(?:-(?!----END)[^-]*)*)-----END")
# X.680 tags; the ones OpenSSL makes canonical (ASN1_MASK_CANON), each with its Python encoding
_SEQUENCE, _SET, _VERSION, _UTF8 = 0x30, 0x31, 0xA0, 0x0C
_TEXT = {
    _UTF8: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}


def trust(root: Root, script: Script) -> Iterable[FileEntry]:
    """/etc/ca-certificates.conf, a link and a hash link for each certificate, and the bundle."""
    start = f"{_SHIPPED}/"
    names = sorted(
        (e.path.removeprefix(start) for e in root.tree.below(_SHIPPED) if e.path.endswith(".crt") and _is_file(e)),
        key=lambda name: name.encode("utf-8", "surrogateescape"),
    )
    conf = script.heredocs()[0] + "".join(f"{name}\n" for name in names)
    yield directory("usr/local/share/ca-certificates")
    yield file("etc/ca-certificates.conf", conf.encode("utf-8", "surrogateescape"))
    links: dict[str, bytes] = {}
    bundle = b""
    for name in names:
        content = root.read(start + name)
        bundle += content if content.endswith(b"\n") else content + b"\n"
        link = _link_name(name)
        links[link] = content
        yield symlink(f"{_CERTS}/{link}", f"/{start}{name}")
    yield file(f"{_CERTS}/ca-certificates.crt", bundle)
    yield from _hash_links(links)


def _is_file(entry: FileEntry) -> bool:
    return entry.kind in (Kind.FILE, Kind.SYMLINK, Kind.HARDLINK)


def _link_name(name: str) -> str:
    base = name.rpartition("/")[2].removesuffix(".crt")
    return base.replace(" ", "_").replace("(", "=").replace(")", "=").replace(",", "_") + ".pem"


def _hash_links(links: dict[str, bytes]) -> Iterator[FileEntry]:
    """HASH.0, HASH.1, ... in the order of the names; a certificate that is there twice gets one link (rehash)."""
    seen: set[bytes] = set()
    used: dict[int, int] = {}
    for name in sorted(links, key=lambda name: name.encode("utf-8", "surrogateescape")):
        found = _PEM.findall(links[name])
        if len(found) != 1:
            continue  # openssl rehash: "does not contain exactly one certificate"
        try:
            der = base64.b64decode(found[0])
            subject = subject_hash(der)
        except (binascii.Error, ValueError, IndexError) as error:
            raise BuildError("not a certificate", at=f"/{_CERTS}/{name}", because=str(error)) from error
        if der in seen:
            continue
        seen.add(der)
        count = used.get(subject, 0)
        used[subject] = count + 1
        yield symlink(f"{_CERTS}/{subject:08x}.{count}", name)


def subject_hash(der: bytes) -> int:
    """OpenSSL's X509_NAME_hash of a certificate's subject: SHA-1 of the name's canonical form, first 32 bits.

    ValueError or IndexError when the bytes are no certificate (RFC 5280, 4.1).
    """
    (_, certificate), *_ = _values(der)
    (_, signed), *_ = _values(certificate)
    fields = list(_values(signed))
    # version (explicit, optional), serial number, signature, issuer, validity, subject
    _, subject = fields[5 if fields[0][0] == _VERSION else 4]
    sets = (sorted(_canonical_pair(pair) for _, pair in _values(rdn)) for _, rdn in _values(subject))
    canonical = b"".join(_encode(_SET, b"".join(pairs)) for pairs in sets)
    return int.from_bytes(hashlib.sha1(canonical, usedforsecurity=False).digest()[:4], "little")


def _canonical_pair(pair: bytes) -> bytes:
    (oid_tag, oid), (tag, value) = _values(pair)
    if tag in _TEXT:
        # asn1_string_canon: UTF-8, ASCII letters in lower case, outer blanks off, inner runs of blanks one space
        text = value.decode(_TEXT[tag]).encode()
        value = b" ".join(text.split()).lower()
        tag = _UTF8
    return _encode(_SEQUENCE, _encode(oid_tag, oid) + _encode(tag, value))


def _values(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, content) pairs of a DER constructed value (X.690)."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            width = length & 0x7F
            length = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + length > len(data):
            raise ValueError("a DER value is longer than what holds it")
        yield tag, data[at : at + length]
        at += length


def _encode(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    width = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | width)) + size.to_bytes(width, "big") + content
