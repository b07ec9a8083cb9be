"""Whether a Release is trusted: every way it may not be, with keys made here by Sequoia and, twice, by GnuPG."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pysequoia import Cert, CipherSuite, Profile, Sig, SignatureMode, Tsk, sign

from rootfs.debian.release import Release
from rootfs.errors import IntegrityError, RecipeError
from rootfs.keyring import pinned_keys, read_certificates, verify_release
from tests.fakes.archive import DATE, Signer, date, release

NOW = int(time.time())
DAY = 86400
ARCHIVE, OTHER = Signer(), Signer()
TEXT = release({"main/binary-amd64/Packages": b"x"})
SIGNED = ARCHIVE.clear(TEXT)


def check(data: bytes, *keys: Cert, signature: bytes | None = None, name: str = "tiny", now: int = NOW) -> Release:
    return verify_release(data, keys or (ARCHIVE.certificate,), name=name, now=now, signature=signature)


def refused(
    data: bytes, *keys: Cert, signature: bytes | None = None, name: str = "tiny", now: int = NOW
) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        check(data, *keys, signature=signature, name=name, now=now)
    return caught.value


@pytest.mark.parametrize("suite", [None, CipherSuite.RSA2k, CipherSuite.P256, CipherSuite.Cv448])
@pytest.mark.parametrize("profile", [Profile.RFC4880, Profile.RFC9580])
def test_an_inline_signature_holds(suite: CipherSuite | None, profile: Profile) -> None:
    signer = Signer(secret=Tsk.generate("A <a@example.org>", cipher_suite=suite, profile=profile))
    found = check(signer.clear(TEXT), signer.certificate)
    assert found.signers == (signer.certificate.fingerprint,)
    assert (found.suite, found.codename, found.date) == ("stable", "tiny", DATE)


def test_a_detached_signature_holds_armored_and_binary() -> None:
    signature = ARCHIVE.detached(TEXT)
    for form in (signature, bytes(Sig.from_bytes(signature))):
        assert check(TEXT, signature=form).signers == (ARCHIVE.certificate.fingerprint,)


@pytest.mark.parametrize("order", [(ARCHIVE, OTHER), (OTHER, ARCHIVE)])
@pytest.mark.parametrize("form", [lambda armored: armored, lambda armored: bytes(Sig.from_bytes(armored))])
def test_of_several_detached_signatures_one_valid_one_suffices(
    order: tuple[Signer, Signer], form: Callable[[bytes], bytes]
) -> None:
    signature = b"".join(form(signer.detached(TEXT)) for signer in order)
    assert check(TEXT, signature=signature).signers == (ARCHIVE.certificate.fingerprint,)
    both = check(TEXT, ARCHIVE.certificate, OTHER.certificate, signature=signature)
    assert set(both.signers) == {ARCHIVE.certificate.fingerprint, OTHER.certificate.fingerprint}


def test_a_detached_signature_of_another_release_is_refused() -> None:
    error = refused(TEXT, signature=ARCHIVE.detached(TEXT.replace(b"amd64", b"arm64")))
    assert "not what the key" in (error.because or "")


@pytest.mark.parametrize("signature", [b"", b"<html>", b"-----BEGIN PGP SIGNATURE-----\n\n"])
def test_a_signature_file_that_holds_none_is_refused(signature: bytes) -> None:
    assert "bears no signature" in (refused(TEXT, signature=signature).because or "")


def test_another_key_is_refused_and_named() -> None:
    for error in (refused(OTHER.clear(TEXT)), refused(TEXT, signature=OTHER.detached(TEXT))):
        assert "is not one that may sign this suite" in (error.because or "")


def test_an_expired_key_is_refused_though_it_signed_in_time() -> None:
    expiring = ARCHIVE.expiring(60)
    assert check(SIGNED, expiring).signers
    assert "expired on" in (refused(SIGNED, expiring, now=NOW + 2 * DAY).because or "")
    assert "expired on" in (refused(TEXT, expiring, signature=ARCHIVE.detached(TEXT), now=NOW + DAY).because or "")


def test_a_revoked_key_is_refused() -> None:
    assert "is revoked" in (refused(SIGNED, ARCHIVE.revoked()).because or "")
    assert "is revoked" in (refused(TEXT, ARCHIVE.revoked(), signature=ARCHIVE.detached(TEXT)).because or "")


def test_a_live_key_vouches_beside_an_expired_one() -> None:
    signature = ARCHIVE.detached(TEXT) + OTHER.detached(TEXT)
    keys = (ARCHIVE.expiring(60), OTHER.certificate)
    assert check(TEXT, *keys, signature=signature, now=NOW + DAY).signers == (OTHER.certificate.fingerprint,)


# Made by GnuPG 2.2 with --faked-system-time: a certificate that never expires, whose signing subkey does in ten days.
SUBKEY = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaVW5ABYJKwYBBAHaRw8BAQdA+9cdIHJSjP79Lv1061rS/g+1l0aouMzsrpSV
sEDIXt20BnN1YmtleYiQBBMWCAA4FiEE48G3ZzsyYCg/fo+DrsvEuBucP7IFAmlV
uQACGwEFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQrsvEuBucP7KFAAD/cx6F
8a4bMYHXG5wB1VbS2q62ez2Sind77pQOi1U2N+kBAPma+8uZmdA+48HYTiEbJRKB
X3tgExB4Fns6DxmTJcUMuDMEaVW5ABYJKwYBBAHaRw8BAQdACK6UJjsDEyt1CXP8
3xfxzx3H6FcvNBj15Er9LDXLpnyI9QQYFggAJhYhBOPBt2c7MmAoP36Pg67LxLgb
nD+yBQJpVbkAAhsCBQkADIZAAIEJEK7LxLgbnD+ydiAEGRYIAB0WIQT5j3qn6yrd
251HjI2nEqMlOxucvwUCaVW5AAAKCRCnEqMlOxucv3IZAQDHUQJLM1rSnrvd185W
47Y2vQvMqMqgMf3kAOFYnE9HfwEAhoFrYTpSlfqCqKTY+xEXafCJ3/2/mBwl7uks
nQb71Aue8wD/dKGa4imWfJNYp2EYxkl9ZGvQ9Ve8S9kNqnO9YMFQoA4BALMfaa9C
/7A/6xqM0tEbJCALbP1XVFPSByc2eAPC58EH
=Og68
-----END PGP PUBLIC KEY BLOCK-----
"""
SIGNED_BY_SUBKEY = b"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Suite: test
Codename: test
Date: Thu, 01 Jan 2026 12:00:00 UTC
Components: main
Architectures: amd64
SHA256:
-----BEGIN PGP SIGNATURE-----
Comment: x

iHUEARYIAB0WIQT5j3qn6yrd251HjI2nEqMlOxucvwUCaVZhwAAKCRCnEqMlOxuc
v63NAQD/wAO2CoM56pw2Mnf1JaEVW7vtwNfxwmSsKa1P9ZbPKgD/Q8IDvsxrOReU
F1TiRRCYAN/YsFi+lvPFC8GRAWPJfw8=
=6cKN
-----END PGP SIGNATURE-----
"""
WEAK = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaVW5ABYJKwYBBAHaRw8BAQdAIApcxy4gklitq1sB37taQk64hyNXuTWnvljV
YemhHsK0BHdlYWuIkAQTFggAOBYhBHey8mYjg45PYkF3xHfV12mPyUyqBQJpVbkA
AhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEHfV12mPyUyqXAYA/1jLRC+p
GkiDpTUE1L1hfcLB/DFGX1lVrHgWU+qiC/TCAP9k8Jctvp59ucR7gp7++eh3hXT5
a2zDsym+qshvW74SDQ==
=vjRf
-----END PGP PUBLIC KEY BLOCK-----
"""
SIGNED_WITH_SHA1 = b"""-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA1

Suite: test
Codename: test
Date: Thu, 01 Jan 2026 12:00:00 UTC
Components: main
Architectures: amd64
SHA256:
-----BEGIN PGP SIGNATURE-----

iHUEARYCAB0WIQR3svJmI4OOT2JBd8R31ddpj8lMqgUCaVZhwAAKCRB31ddpj8lM
qrZmAP4qRQI937ESVCgGZXgZraLDPsnDMVP5zc3+FQ1TPHtU6AEArPJVF2MmL9uf
5ciA243cUqrqGIjK3WkO/hUbxoQk2AQ=
=BXiJ
-----END PGP SIGNATURE-----
"""
BOUND_BY_SHA1 = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEaVW5ABYJKwYBBAHaRw8BAQdAxkTVB44lSLZUwgelQNoRb55NvwjSckPzUb8w
9q1JkpK0A29sZIiQBBMWAgA4FiEE7Ter6sLw1f2r202Dw3/S4uvodF8FAmlVuQAC
GwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQw3/S4uvodF/lWQD/Y5ReNsHR
70h7DjOLsk7U8cJJgptRAvVdJIu0AXBiHgMA/i2YWy6uXeANg4XC3zV33Q3nWSl9
YQjzjPRt1RMS8AMO
=G6BV
-----END PGP PUBLIC KEY BLOCK-----
"""


def test_an_expired_subkey_is_refused_though_its_certificate_lives() -> None:
    keys = read_certificates(SUBKEY)
    assert check(SIGNED_BY_SUBKEY, *keys, name="test", now=DATE + 8 * DAY).signers == (keys[0].fingerprint,)
    error = refused(SIGNED_BY_SUBKEY, *keys, name="test", now=DATE + 10 * DAY)
    assert "expired on 2026-01-10" in (error.because or "")


def test_a_weak_digest_is_refused() -> None:
    error = refused(SIGNED_WITH_SHA1, *read_certificates(WEAK), name="test", now=DATE + 60)
    assert "SHA1 digest, which can be forged" in (error.because or "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        TEXT,
        b"<!DOCTYPE html><title>Log in</title>",
        b"\xff\xfe\x00",
        sign(ARCHIVE.secret.signer(), TEXT, mode=SignatureMode.INLINE),
        b"Suite: evil\n\n" + SIGNED,
        SIGNED + b"Suite: evil\n",
        SIGNED[: len(SIGNED) // 2],
    ],
)
def test_what_is_not_exactly_one_signed_text_is_refused(data: bytes) -> None:
    reason = "does not end with" if data.startswith(SIGNED[:80]) else "begins with"
    assert reason in (refused(data).because or "")


def test_no_signed_text_but_the_last_one_counts() -> None:
    """Two signed texts in a row: whatever is read must be one that is signed, whole."""
    evil = OTHER.clear(TEXT.replace(b"tiny", b"evil"))
    for data in (evil + SIGNED, SIGNED + evil):
        try:
            assert check(data).codename == "tiny"
        except IntegrityError:
            continue


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Valid_Until": date(NOW - 1)}, "has expired"),
        ({"Date": date(NOW + DAY)}, "from the future"),
        ({"Suite": "tiny-security", "Codename": "tiny-security"}, "another suite"),
        ({"Suite": "tiny-updates", "Codename": "tiny-updates"}, "another suite"),
        ({"Suite": "", "Codename": ""}, "another suite"),
        ({"Date": ""}, "malformed"),
        ({"Date": "yesterday"}, "malformed"),
        ({"Valid_Until": "tomorrow"}, "malformed"),
        ({"Components": ""}, "malformed"),
        ({"MD5Sum": "x\n y", "SHA512": "x\nno field"}, "no field"),
    ],
)
def test_what_a_signed_release_says_is_held_against_what_was_asked(fields: dict[str, str], message: str) -> None:
    error = refused(ARCHIVE.clear(release({}, **fields)))
    assert message in error.message


@pytest.mark.parametrize("line", ["zz 1 path", f"{'0' * 64} x path", f"{'0' * 64} 1", f"{'0' * 64} 1 a b"])
def test_a_malformed_table_of_files_is_refused(line: str) -> None:
    assert refused(ARCHIVE.clear(TEXT + f" {line}\n".encode())).exit_code == 5


def test_text_that_is_not_utf8_is_refused() -> None:
    data = TEXT.replace(b"main", b"m\xe9in")
    assert "malformed" in refused(data, signature=ARCHIVE.detached(data)).message


def test_a_suite_is_known_by_suite_or_codename_and_by_nothing_near_them() -> None:
    for name in ("stable", "tiny"):
        assert check(SIGNED, name=name)
    for name in ("tiny-security", "tin", "stable-updates", "TINY", ""):
        assert "another suite" in refused(SIGNED, name=name).message


def test_the_priority_of_backports_is_apts() -> None:
    def priority(**fields: str) -> int:
        return check(ARCHIVE.clear(release({}, **fields))).priority

    assert priority() == 500
    assert priority(NotAutomatic="yes") == 1
    assert priority(NotAutomatic="yes", ButAutomaticUpgrades="yes") == 100


def test_certificates_come_armored_binary_and_several_in_a_file() -> None:
    certificates = (ARCHIVE.certificate, OTHER.certificate)
    fingerprints = [certificate.fingerprint for certificate in certificates]
    for data in (b"".join(map(bytes, certificates)), "".join(map(str, certificates)).encode()):
        assert [certificate.fingerprint for certificate in read_certificates(data)] == fingerprints


@pytest.mark.parametrize("data", [b"", b"hello", SIGNED, b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=\n"])
def test_a_file_that_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(RecipeError):
        read_certificates(data)


def test_a_secret_key_is_refused() -> None:
    with pytest.raises(RecipeError, match="secret key"):
        read_certificates(bytes(ARCHIVE.secret))


def test_a_certificate_bound_by_sha1_is_left_out() -> None:
    with pytest.raises(RecipeError, match="no usable"):
        read_certificates(BOUND_BY_SHA1)
    assert len(read_certificates(BOUND_BY_SHA1 + str(ARCHIVE.certificate).encode())) == 1


@pytest.mark.parametrize("binary", [True, False])
def test_a_damaged_key_is_refused_or_signs_nothing_new(binary: bool) -> None:
    data = bytes(ARCHIVE.certificate) if binary else str(ARCHIVE.certificate).encode()
    for position, byte in enumerate(data):
        damaged = data[:position] + bytes([byte ^ (1 << position % 8)]) + data[position + 1 :]
        try:
            found = check(SIGNED, *read_certificates(damaged))
        except (IntegrityError, RecipeError):
            continue
        assert found.signers == (ARCHIVE.certificate.fingerprint,)


def test_debians_keys_are_pinned_for_each_suite() -> None:
    counts = {"trixie": 3, "trixie-security": 2, "trixie-backports": 2, "bullseye": 2, "sid": 2, "forky-security": 2}
    assert {suite: len(pinned_keys(suite)) for suite in counts} == counts
    main = {certificate.fingerprint for certificate in pinned_keys("trixie")}
    assert not main & {certificate.fingerprint for certificate in pinned_keys("trixie-security")}


@pytest.mark.parametrize("suite", ["jessie", "trixie-nonsense", "trixie-", "stable", "security", ""])
def test_a_suite_without_pinned_keys_is_refused(suite: str) -> None:
    with pytest.raises(RecipeError, match="no keys are pinned"):
        pinned_keys(suite)
