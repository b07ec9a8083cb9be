"""Who vouches for CPython's source, beside the digest pinned in the table: Debian, and the release manager (PEP 761).

Law: what is found here only adds to the pinned digest, or ends the build. Who cannot be asked (a host out of reach, a
package that is not installed) is named and not counted; who says otherwise is an IntegrityError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from pysequoia import Cert, Sig, verify

from builder.python.sigstore import EXTRA, Identity, is_complete, is_installed, verify_bundle
from builder.python.source import fetch_source
from builder.python.versions import PythonRelease
from builder.tools import Tools
from rootfs.archive import read_listed, read_release
from rootfs.debian.release import Release
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, TransferError
from rootfs.ports import Origin, Request, read_blob
from rootfs.suite import CANONICAL, Suite, from_mirror

_REVISION = 1  # of the answers about Sources that are kept in the store
_LIMIT = 1 << 20
_INDEX = "main/source/Sources"

# The release managers' OpenPGP keys that could be had from a good place, Debian's own source packages (python3.13,
# debian/upstream/signing-key.asc); `keys/FINGERPRINT.asc`. There are no signatures from 3.14 on.
_KEYS: Mapping[str, str] = {
    "3.13": "7169605F62C751356D054A26A821E680E5FA6305",
    "3.12": "7169605F62C751356D054A26A821E680E5FA6305",
}
_GOOGLE, _GITHUB = "https://accounts.google.com", "https://github.com/login/oauth"
_IDENTITIES: Mapping[str, Identity] = {
    "3.15": Identity(name="hugo@python.org", issuer=_GITHUB),
    "3.14": Identity(name="hugo@python.org", issuer=_GITHUB),
    "3.13": Identity(name="thomas@python.org", issuer=_GOOGLE),
    "3.12": Identity(name="thomas@python.org", issuer=_GOOGLE),
    "3.11": Identity(name="pablogsal@python.org", issuer=_GOOGLE),
}


def vouched(
    release: PythonRelease, known: Sequence[tuple[Suite, Release]], tools: Tools, *, now: int
) -> tuple[str, ...]:
    """What vouches for a release's source, in words for the lock; a note says who could not be asked.

    `known` are Releases that were read already, `now` (seconds) is what another is held against. The source is fetched
    when there is a signature to check. IntegrityError when anybody says that this is not the source.
    """
    rungs, missing = ["pinned sha256"], []
    ask: tuple[Callable[[], str], ...] = (
        lambda: _debian(release, known, tools, now),
        lambda: _openpgp(release, tools),
        lambda: _sigstore(release, tools),
    )
    for rung in ask:
        try:
            rungs += filter(None, [rung()])
        except TransferError as error:
            missing.append(f"{error.message} ({error.because})")
    absent = f"; not by {', '.join(missing)}" if missing else ""
    tools.reporter.note(f"{release.file_name}: vouched for by {', '.join(rungs)}{absent}")
    return tuple(rungs)


def _debian(release: PythonRelease, known: Sequence[tuple[Suite, Release]], tools: Tools, now: int) -> str:
    """Debian's signed index of source packages names the same tarball."""
    if not release.listed:
        return ""
    rung, name = f"Debian Sources (signed, {release.listed})", release.pool.rpartition("/")[2]
    try:
        said = _listed(name, *_verified(release.listed, known, tools, now), tools)
    except OcibuildError as error:  # a mirror without sources, or with an old forky, does not keep anyone from building
        raise TransferError(rung, because=error.message) from error
    if not said:
        raise TransferError(rung, because=f"{name} is no longer listed")
    if said != f"{release.source.hex} {release.size}":
        raise IntegrityError(
            f"Debian's {release.listed} has another {name}",
            because=f"expected {release.source.hex} {release.size}, its Sources say {said}",
        )
    return rung


def _verified(name: str, known: Sequence[tuple[Suite, Release]], tools: Tools, now: int) -> tuple[Suite, Release]:
    for suite, release in known:
        if suite == Suite.parse(name, suite.components):
            return suite, release
    suite = Suite.parse(name)
    release = read_release(suite, transport=tools.transport, store=tools.store, mirrors=tools.mirrors, now=now)
    return suite, release


def _listed(name: str, suite: Suite, release: Release, tools: Tools) -> str:
    """Digest and size that the suite's Sources give for a file, empty when they name none; kept in the store."""
    question = {"kind": "sources", "revision": _REVISION, "release": str(release.digest), "file": name}
    key = Digest.of_value(question)
    kept = tools.store.lookup(key)
    if kept is None:
        text = read_listed(
            suite,
            release,
            _INDEX,
            transport=tools.transport,
            store=tools.store,
            mirrors=tools.mirrors,
            reporter=tools.reporter,
        )
        kept = tools.store.put([_entry(text or b"", name)]).digest
        tools.store.link(key, kept, Origin(kind="sources"))
    return read_blob(tools.store, kept).decode()


def _entry(text: bytes, name: str) -> bytes:
    """`sha256 size` of a file in a Sources index (Checksums-Sha256: digest, size, name; other digests are shorter)."""
    position = -1
    while (position := text.find(f" {name}\n".encode(), position + 1)) >= 0:
        words = text[text.rfind(b"\n", 0, position) + 1 : position].split()
        if len(words) == 2 and len(words[0]) == 64:
            return b" ".join(words)
    return b""


def _openpgp(release: PythonRelease, tools: Tools) -> str:
    """The release manager's signature, which Debian's pool has of some releases, and python.org of all up to 3.13."""
    fingerprint = _KEYS.get(release.line)
    if fingerprint is None:
        return ""
    rung = f"OpenPGP {fingerprint}"
    places = [f"{release.upstream}.asc"]
    if release.signed:
        places.insert(0, from_mirror(f"{CANONICAL['debian']}/{release.pool}.asc", tools.mirrors))
    signature = _get(rung, places, tools)
    check_signature(_source(release, tools), signature, pinned_key(fingerprint))
    return rung


def pinned_key(fingerprint: str) -> Cert:
    """A release manager's certificate."""
    return Cert.from_bytes((files("builder.python") / "keys" / f"{fingerprint}.asc").read_bytes())


def check_signature(data: bytes, signature: bytes, key: Cert) -> None:
    """IntegrityError unless the detached signature over `data` holds and was made by this key while it was valid.

    That the key may have expired since is no fault: the digest is pinned, so nobody gains by an old signature.
    """
    try:
        made = verify(bytes=data, store=lambda _ids: [key], signature=Sig.from_bytes(signature)).valid_sigs
        fault = "" if any(one.certificate == key.fingerprint for one in made) else "it was made by another key"
    except RuntimeError as error:  # Sequoia's messages carry a stack trace
        fault = str(error).partition("\n")[0]
    if fault:
        raise IntegrityError(f"the OpenPGP signature is not that of {key.fingerprint.upper()}", because=fault)


def _sigstore(release: PythonRelease, tools: Tools) -> str:
    identity = _IDENTITIES.get(release.line)
    if identity is None:
        return ""
    if not is_installed():
        raise TransferError("Sigstore", because=f"{EXTRA} is not installed")
    bundle = _get("Sigstore", [f"{release.upstream}.sigstore"], tools)
    if not is_complete(bundle):
        raise TransferError("Sigstore", because="its bundle is of the old kind that can be checked only online")
    verify_bundle(release.source, bundle, identity)
    return f"Sigstore {identity.name}"


def _source(release: PythonRelease, tools: Tools) -> bytes:
    mirror = tools.mirrors.get("debian", CANONICAL["debian"])
    return read_blob(tools.store, fetch_source(release, tools.transport, tools.store, mirror, tools.reporter))


def _get(rung: str, places: Sequence[str], tools: Tools) -> bytes:
    """A small file from the first place that has it, each asked once; TransferError named after the rung."""
    answers = []
    for url in places:
        try:
            with tools.transport.send(Request(method="GET", url=url, attempts=1)) as response:
                if response.status == 200:
                    return response.read(_LIMIT)
                answers.append(f"{url} answered {response.status}")
        except TransferError as error:
            answers.append(f"{url}: {error.because or error.message}")
    raise TransferError(rung, because="; ".join(answers))
