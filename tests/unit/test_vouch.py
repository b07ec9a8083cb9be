"""Who vouches for CPython's source: Debian's index, OpenPGP and Sigstore, each asked, absent, and of another mind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from pysequoia import Cert

from builder import vouch
from builder.python.sigstore import Identity, is_complete, is_installed, verify_bundle
from builder.python.versions import PythonRelease, find
from builder.tools import Tools
from builder.vouch import check_signature, vouched
from rootfs.debian.release import Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.suite import Suite
from tests.fakes.archive import DATE, Signer, release
from tests.fakes.reporter import ListReporter
from tests.fakes.sandbox import ScriptedSandbox
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, pages

BODY = b"the source of CPython 3.13.5"
SOURCE = dataclasses.replace(find("3.13.5"), source=Digest.of(BODY), size=len(BODY))
FILE = SOURCE.pool.rpartition("/")[2]
MIRROR = "https://mirror.test/debian"
INDEX = f"{MIRROR}/dists/trixie/main/source/Sources"
MANAGER, STRANGER = Signer(), Signer()
THOMAS = "7169605F62C751356D054A26A821E680E5FA6305"


def sources(digest: str, size: int = len(BODY), name: str = FILE) -> bytes:
    """An index of one source package, with the other digests that Debian gives, too."""
    return (
        f"Package: python3.13\nDirectory: pool/main/p/python3.13\nFiles:\n {'0' * 32} {size} {name}\n"
        f"Checksums-Sha256:\n {'1' * 64} 5 python3.13_3.13.5-2.debian.tar.xz\n {digest} {size} {name}\n\n"
    ).encode()


LISTED = sources(SOURCE.source.hex)
WEB: dict[str, bytes | Exception] = {
    INDEX: LISTED,
    f"{MIRROR}/{SOURCE.pool}": BODY,
    f"{MIRROR}/{SOURCE.pool}.asc": MANAGER.detached(BODY),
}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release manager's key is one made here; Sigstore is not installed."""
    monkeypatch.setattr(vouch, "pinned_key", lambda _: MANAGER.certificate)
    monkeypatch.setattr(vouch, "is_installed", lambda: False)


def tools(transport: FakeTransport, store: MemoryStore | None = None) -> Tools:
    return Tools(
        store=store or MemoryStore(),
        transport=transport,
        sandbox=ScriptedSandbox([]),
        reporter=ListReporter(),
        mirrors={"debian": MIRROR},
        work=Path(),
        jobs=1,
    )


def ask(
    changes: dict[str, bytes | Exception] | None = None, what: PythonRelease = SOURCE, index: bytes = LISTED
) -> tuple[tuple[str, ...], str]:
    """The rungs that held, and the note; `index` is what trixie's Release lists as its Sources."""
    used = tools(pages({**WEB, **(changes or {})}))
    text = release({"main/source/Sources": index}, Codename="trixie")
    known = [(Suite.parse("trixie"), Release.parse(text.decode(), digest=Digest.of(text), signers=()))]
    rungs = vouched(what, known, used, now=DATE)
    assert isinstance(used.reporter, ListReporter)
    return rungs, " ".join(str(event[1]) for event in used.reporter.events if event[0] == "note")


def test_all_who_can_be_asked_vouch_and_the_note_says_who_could_not() -> None:
    rungs, note = ask()
    assert rungs == ("pinned sha256", "Debian Sources (signed, trixie)", f"OpenPGP {THOMAS}")
    assert "not by Sigstore (ocibuild[sigstore] is not installed)" in note


def test_another_digest_or_size_in_debians_index_ends_it() -> None:
    for index in (sources("2" * 64), sources(SOURCE.source.hex, 5)):
        with pytest.raises(IntegrityError, match="has another"):
            ask({INDEX: index}, index=index)


@pytest.mark.parametrize("index", [b"", sources("2" * 64, name=f"x{FILE}"), sources("2" * 64, name=f"{FILE}.asc")])
def test_an_index_without_the_file_vouches_for_nothing(index: bytes) -> None:
    rungs, note = ask({INDEX: index}, index=index)
    assert "Debian Sources (signed, trixie)" not in rungs
    assert f"{FILE} is no longer listed" in note


def test_an_index_that_cannot_be_had_does_not_stop_a_lock() -> None:
    rungs, note = ask({INDEX: TransferError("out of reach")})
    assert "Debian Sources (signed, trixie)" not in rungs
    assert "Debian Sources (signed, trixie) (out of reach)" in note


def test_debians_answer_is_kept_with_its_release() -> None:
    used = tools(pages(WEB))
    text = release({"main/source/Sources": LISTED}, Codename="trixie")
    known = [(Suite.parse("trixie"), Release.parse(text.decode(), digest=Digest.of(text), signers=()))]
    for _ in range(2):
        assert len(vouched(SOURCE, known, used, now=DATE)) == 3
    assert isinstance(used.transport, FakeTransport)
    assert [request.url for request in used.transport.requests].count(INDEX) == 1


@pytest.mark.parametrize(
    ("signature", "because"),
    [
        (STRANGER.detached(BODY), ""),
        (MANAGER.detached(BODY + b"!"), ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_a_signature_that_does_not_hold_ends_it(signature: bytes, because: str) -> None:
    with pytest.raises(IntegrityError, match="OpenPGP signature is not that of"):
        ask({f"{MIRROR}/{SOURCE.pool}.asc": signature})


def test_a_signature_that_cannot_be_had_is_named_and_each_place_asked_once() -> None:
    missing = dict.fromkeys([f"{MIRROR}/{SOURCE.pool}.asc", f"{SOURCE.upstream}.asc"], TransferError("no route"))
    rungs, note = ask(missing)
    assert rungs == ("pinned sha256", "Debian Sources (signed, trixie)")
    assert f"{SOURCE.upstream}.asc: no route" in note


def test_a_release_that_nobody_else_vouches_for_has_its_pinned_digest() -> None:
    rungs, note = ask(what=find("3.10"))
    assert rungs == ("pinned sha256",)
    assert note == "Python-3.10.21.tar.xz: vouched for by pinned sha256"


def test_the_pinned_keys_are_those_of_their_names() -> None:
    monkey = Path(vouch.__file__).parent / "python" / "keys"
    names = {path.stem for path in monkey.glob("*.asc")}
    assert names == {THOMAS}
    for name in names:
        assert Cert.from_bytes((monkey / f"{name}.asc").read_bytes()).fingerprint.upper() == name


def test_a_key_that_expired_since_may_have_signed() -> None:
    check_signature(BODY, MANAGER.detached(BODY), MANAGER.expiring(3600))
    with pytest.raises(IntegrityError):
        check_signature(BODY, MANAGER.detached(BODY), MANAGER.revoked())


def test_with_sigstore_a_bundle_is_asked_for_and_what_is_none_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vouch, "is_installed", lambda: True)
    bundle = f"{SOURCE.upstream}.sigstore"
    assert f"Sigstore ({bundle} answered 404)" in ask()[1]
    old = b'{"verificationMaterial": {"tlogEntries": [{"inclusionProof": {}}]}}'
    assert "of the old kind" in ask({bundle: old})[1]
    asked = []
    monkeypatch.setattr(vouch, "verify_bundle", lambda *words: asked.append(words))
    assert ask({bundle: b"{}"})[0][-1] == "Sigstore thomas@python.org"
    signer = Identity(name="thomas@python.org", issuer="https://accounts.google.com")
    assert asked == [(SOURCE.source, b"{}", signer)]


@pytest.mark.skipif(not is_installed(), reason="sigstore is not installed: pip install 'ocibuild[sigstore]'")
@pytest.mark.parametrize("bundle", [b"", b"{}", b"\xff", b"[]", b'{"mediaType": "x", "verificationMaterial": {}}'])
def test_a_made_up_bundle_is_refused(bundle: bytes) -> None:
    assert is_complete(bundle)
    with pytest.raises(IntegrityError, match=r"is not thomas@python\.org's signature"):
        verify_bundle(SOURCE.source, bundle, Identity(name="thomas@python.org", issuer="https://accounts.google.com"))
