"""Registry: blobs, manifests and tags of one repository (distribution-spec 1.1).

Law: speaks the API over a Transport, and decides which request carries the secret: only those to the registry's own
origin. Knows nothing of the order in which an image is pushed. Plain http only when it was asked for.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeVar, runtime_checkable
from urllib.parse import urlencode

from builder.oci.descriptor import INDEX, MANIFEST, SIZE_LIMIT, Descriptor, verified
from builder.registry.advice import advice
from builder.registry.download import download, ranges_for
from builder.registry.journal import Entry, Journal
from builder.registry.opening import Opening
from builder.registry.quirks import Facts, known_of
from builder.registry.reference import Reference
from builder.registry.refusal import check_document, refusal
from builder.registry.upload import JOURNALED, Action, Pushed, Session, opening, upload
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, TransferError
from rootfs.ports import Request, Response, Store, Stored, Transport, Upload
from rootfs.url import origin, redact

if TYPE_CHECKING:
    from builder.registry.auth import Account, Challenge, Token
    from builder.registry.probe import Finding

_ACCEPT = ", ".join(
    (
        MANIFEST,
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_Access = Literal["pull", "push"]
_T = TypeVar("_T")
_AHEAD = 1 << 20  # bytes from which on an upload is worth a request that may be for nothing
_CONNECTIONS = 6  # that are made early for a push, beside the two that ask what is there
_STREAMS = 5  # that are made early for a pull, beside the one that asks for the manifest
_LONG = 8 << 20  # bytes of a body that may take longer than what is left of a token's life


@runtime_checkable
class Prepares(Protocol):
    """A transport that can make connections before there is anything to send."""

    def prepare(self, url: str, count: int) -> None:
        """Begin with so many connections to the URL's host; nobody waits for them, and no failure is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """A token, what it was granted for, and when (seconds of the clock) to get the next one: before any request, and
    before one whose body is long."""

    challenges: tuple[Challenge, ...]
    token: Token
    renew: float
    renew_long: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What a registry says of a manifest it took: whether it lists it among its subject's referrers (OCI-Subject), and
    which of the asked-for tags it set (OCI-Tag)."""

    lists: bool = False
    tags: frozenset[str] = frozenset()


class Registry:
    """One repository of a registry; thread-safe. Names of manifests are tags or digests.

    `trusted_realms` are the hosts of token servers that may be told the password, beside the registry's own host. With
    a `journal` uploads outlive the process, and what was learnt of the registry is known the next time. `note` is told
    each Warning of the registry once.
    """

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        *,
        plain_http: bool = False,
        credentials: Account = None,
        trusted_realms: Iterable[str] = (),
        journal: Journal | None = None,
        note: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reference = reference
        self._transport = transport
        self._base = f"{'http' if plain_http else 'https'}://{reference.api_host}/v2/{reference.repository}"
        self._origin = origin(self._base)
        self._credentials = credentials
        self._trusted = tuple(trusted_realms)
        self._clock = clock
        self._journal = journal
        self._note = note
        self._grants: dict[_Access, _Grant] = {}
        self._warned: set[str] = set()
        self._pushes = False
        self._last: tuple[Descriptor, bytes] | None = None
        self._learnt = Facts()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The registry's origin (`https://host`), under which the journal knows it."""
        return self._base.partition("/v2/")[0]

    @property
    def url(self) -> str:
        """The repository's URL, `https://host/v2/name`."""
        return self._base

    @property
    def warnings(self) -> tuple[str, ...]:
        """The Warnings that the registry has sent."""
        with self._lock:
            return tuple(sorted(self._warned))

    @property
    def facts(self) -> Facts:
        """What is known of the registry: learnt now, learnt earlier, and the table."""
        earlier = self._journal.facts(self.name) if self._journal else Facts()
        return self._learnt.over(earlier).over(known_of(self.reference.host))

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob."""
        with self._send(Request(method="HEAD", url=f"{self._base}/blobs/{descriptor.digest}"), "pull") as response:
            if response.status not in (200, 404):
                raise refusal(response, f"to look for blob {descriptor.digest}")
            return response.status == 200

    def open(self, descriptor: Descriptor) -> Iterator[bytes]:
        """The blob's bytes; IntegrityError at the latest at their end when they are not the described ones."""
        with self._send(Request(method="GET", url=f"{self._base}/blobs/{descriptor.digest}"), "pull") as response:
            if response.status != 200:
                raise refusal(response, f"blob {descriptor.digest}")
            yield from verified(response.chunks, descriptor, redact(response.url))

    def open_at(self, descriptor: Descriptor, offset: int) -> Response:
        """The blob from a byte on, not compared with its digest: for who passes it on to one that will."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._get(descriptor, headers)
        if response.status != (206 if offset else 200):
            with response:
                raise refusal(response, f"blob {descriptor.digest} from byte {offset}")
        return response

    def fetch(
        self,
        descriptor: Descriptor,
        store: Store,
        *,
        advance: Callable[[int], None] | None = None,
        together: Iterable[int] = (),
    ) -> Stored:
        """The blob into the Store; a big one by several ranges at a time, going on where a killed process was.

        `advance` is told the bytes as they come; `together` are the sizes of all blobs that are fetched at the same
        time. IntegrityError when the bytes are not the described ones.
        """
        ranges = ranges_for(descriptor.size, together)
        return download(partial(self._get, descriptor), descriptor, store, advance, ranges=ranges)

    def put(self, descriptor: Descriptor, body: Upload, *, mount_from: Iterable[str] = ()) -> Action:
        """Have the blob in the repository; see `upload`."""
        return self.upload(descriptor, body, mount_from=mount_from).action

    def upload(
        self, descriptor: Descriptor, body: Upload, *, mount_from: Iterable[str] = (), is_new: bool = False
    ) -> Pushed:
        """Have the blob in the repository: it is there, it is mounted from one of `mount_from` or another one that is
        known to have it, or it is uploaded. The body's stream must be able to seek.

        One that probably `is_new` there is looked for while its upload is opened. TransferError when the registry
        refuses, or what breaks cannot be mended.
        """
        digest, facts = descriptor.digest, self.facts
        with self._session(descriptor) as entry:
            known = self._journal.repositories(self.name, digest) if self._journal else ()
            sources = dict.fromkeys((*mount_from, *known))
            sources.pop(self.reference.repository, None)
            dialogue = upload(
                self._base,
                digest,
                body,
                record=_Record(self, digest, entry),
                facts=facts,
                mount_from=tuple(sources),
                chunked=entry is not None,
            )
            is_new = is_new and descriptor.size >= _AHEAD and self.reference.repository not in known
            if is_new and not (entry and entry.resume()):
                first = opening(self._base, digest, facts, tuple(sources))
                with Opening(partial(self._send, access="push"), first) as ahead:
                    pushed = _hold(dialogue, ahead.send)
            else:
                pushed = self.hold(dialogue, "push")
        if self._journal:
            self._journal.seen(self.name, digest, self.reference.repository)
        return pushed

    def may_mount(self, descriptor: Descriptor) -> bool:
        """Whether another repository of the registry is known to have the blob."""
        known = self._journal.repositories(self.name, descriptor.digest) if self._journal else ()
        return self.facts.mount is not False and any(name != self.reference.repository for name in known)

    def probe(self, *, write: bool) -> tuple[Finding, ...]:
        """Try what the registry can, and learn it; see `probe`."""
        from builder.registry.probe import probe  # noqa: PLC0415 (of no other use)

        record = _Record(self, Digest.of(b""), None)
        findings = self.hold(probe(self._base, write=write, record=record), "push" if write else "pull")
        for finding in findings:
            self.learn(finding.facts)
        return findings

    def hold(self, dialogue: Generator[Request, Response, _T], access: _Access) -> _T:
        """Send what a dialogue yields, with the secret where it may have it; its result."""
        return _hold(dialogue, lambda request: self._send(request, access))

    def will_push(self, blobs: Sequence[Descriptor]) -> None:
        """What follows is the push of an image with these blobs: one token that is good for all of it is asked for, and
        where the image seems to be new, connections are made while the registry is asked what it has."""
        self._pushes = True
        largest = max(blobs, key=lambda blob: blob.size, default=None)
        known = self._journal.repositories(self.name, largest.digest) if self._journal and largest else ()
        if isinstance(self._transport, Prepares) and self.reference.repository not in known:
            wanted = sum(2 if blob.size >= _AHEAD else 1 for blob in blobs)
            self._transport.prepare(self._base, min(wanted, _CONNECTIONS))

    def will_pull(self) -> Self:
        """Itself. What follows is the pull of an image: connections for its blobs are made while its manifest is asked
        for."""
        if isinstance(self._transport, Prepares):
            self._transport.prepare(self._base, _STREAMS)
        return self

    def learn(self, facts: Facts) -> None:
        """The registry showed what it can; kept for the next time."""
        with self._lock:
            self._learnt = facts.over(self._learnt)
        if self._journal:
            self._journal.learn(self.name, facts)

    def not_in(self, digest: Digest, repository: str) -> None:
        """The blob could not be mounted from there."""
        if self._journal:
            self._journal.not_seen(self.name, digest, repository)

    def _session(self, descriptor: Descriptor) -> AbstractContextManager[Entry | None]:
        if self._journal is None or descriptor.size < JOURNALED:
            return nullcontext()
        return self._journal.session(self.name, self.reference.repository, descriptor.digest)

    def _get(self, descriptor: Descriptor, headers: Mapping[str, str]) -> Response:
        """A blob, or the part of it that the headers ask for."""
        url = f"{self._base}/blobs/{descriptor.digest}"
        return self._send(Request(method="GET", url=url, headers=headers), "pull")

    def head_manifest(self, name: str | Digest) -> Digest | None:
        """The digest of the manifest with this name, as the registry has it now; None when there is none."""
        return self.look(name)[0]

    def look(self, name: str | Digest) -> tuple[Digest | None, str]:
        """The digest of the manifest with this name, None when there is none, and its ETag, "" when none is told."""
        with self._send(self._manifest("HEAD", name), "pull") as response:
            if response.status == 404:
                return None, ""
            if response.status != 200:
                raise refusal(response, f"to look for manifest {name}")
            told = response.headers.get("docker-content-digest")
            etag = response.headers.get("etag", "")
        return (Digest.parse(told) if told else self._read(name)[0].digest), etag

    def get_manifest(self, name: str | Digest) -> tuple[Descriptor, bytes]:
        """The manifest's bytes and what they are; IntegrityError when they are not what the name or registry says.

        What was read last is not asked for again by its digest: who looks a tag up goes on with that.
        """
        known = self._last
        if known is None or known[0].digest != name:
            self._last = known = self._read(name)
        return known

    def _read(self, name: str | Digest) -> tuple[Descriptor, bytes]:
        with self._send(self._manifest("GET", name), "pull") as response:
            if response.status != 200:
                raise refusal(response, f"manifest {name}")
            check_document(response)
            data = response.read(SIZE_LIMIT + 1)
            told = response.headers.get("docker-content-digest")
            media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        if len(data) > SIZE_LIMIT:
            raise IntegrityError("manifest is too large", at=redact(response.url), because=f"over {SIZE_LIMIT} bytes")
        expect = name if isinstance(name, Digest) else Digest.parse(told) if told else Digest.of(data)
        got = Digest(expect.algorithm, hashlib.new(expect.algorithm, data).hexdigest())
        if got != expect:
            raise IntegrityError("digest differs", at=redact(response.url), because=f"expected {expect}, got {got}")
        return Descriptor(media_type=media_type, digest=got, size=len(data)), data

    def put_manifest(
        self, name: str | Digest, descriptor: Descriptor, data: bytes, *, tags: Iterable[str] = (), etag: str = ""
    ) -> Accepted:
        """Give the manifest this name; its blobs must be there already.

        `tags` are asked for beside a digest; not every registry sets them. With an `etag` nothing is written where the
        name has another one: TransferError that is retryable, from a registry that looks at it.
        """
        request = self._manifest("PUT", name)
        headers = {"Content-Type": descriptor.media_type} | ({"If-Match": etag} if etag else {})
        query = urlencode([("tag", tag) for tag in tags])
        url = f"{request.url}?{query}" if query else request.url
        with self._send(replace(request, url=url, headers=headers, body=data), "push") as response:
            if response.status not in (200, 201, 202, 204):
                raise refusal(response, f"manifest {name}", retryable=response.status == 412)
            told = response.headers
            return Accepted(
                lists="oci-subject" in told,
                tags=frozenset(tag.strip() for tag in told.get("oci-tag", "").split(",") if tag.strip()),
            )

    def _manifest(self, method: str, name: str | Digest) -> Request:
        return Request(method=method, url=f"{self._base}/manifests/{name}", headers={"Accept": _ACCEPT})

    def _send(self, request: Request, access: _Access) -> Response:
        """The answer; a 401 of the registry itself is answered once with who we are."""
        if origin(request.url) != self._origin:
            return self._transport.send(request)
        is_long = isinstance(request.body, Upload) and request.body.size >= _LONG
        wanted, access = access, "push" if self._pushes else access
        token = self._token(access, is_long=is_long)
        response = self._transport.send(_bearing(request, token))
        is_shared = True
        while response.status == 401 and is_shared:
            from builder.registry.auth import Challenge  # noqa: PLC0415 (not every registry asks)

            with response:
                challenges = Challenge.parse(response.headers.get("www-authenticate", ""))
            try:
                token, is_shared = self._renewed(access, challenges, token)
            except TransferError:
                if access == wanted:
                    raise
                self._pushes, access = False, wanted  # who may only read is told what is there
                token, is_shared = self._renewed(access, challenges, None)
            response = self._transport.send(_bearing(request, token))
        if response.status == 401 and token and token.source:
            with response:
                error = refusal(response, "an account")
            error.because = f"{error.because} (with the account of {token.source})"
            raise error
        self._warn(response)
        return response

    def _warn(self, response: Response) -> None:
        for text in advice(response):
            with self._lock:
                is_new = text not in self._warned
                self._warned.add(text)
            if is_new and self._note:
                self._note(f"{self.reference.host} says: {text}")

    def _token(self, access: _Access, *, is_long: bool) -> Token | None:
        """What was granted earlier; a new one in good time, lest it ends during a long upload."""
        with self._lock:
            grant = self._grants.get(access)
            if grant and self._clock() >= (grant.renew_long if is_long else grant.renew):
                grant = self._authorize(access, grant.challenges)
            return grant.token if grant else None

    def _renewed(self, access: _Access, challenges: tuple[Challenge, ...], stale: Token | None) -> tuple[Token, bool]:
        """A token other than the stale one; the threads that were refused together ask once.

        And whether another thread had asked for it: then it may be over as well.
        """
        with self._lock:
            grant = self._grants.get(access)
            is_shared = grant is not None and grant.token is not stale
            if grant is None or not is_shared:
                grant = self._authorize(access, challenges)
            return grant.token, is_shared

    def _authorize(self, access: _Access, challenges: tuple[Challenge, ...]) -> _Grant:
        from builder.registry.auth import authorize, scope_of  # noqa: PLC0415

        began = self._clock()
        dialogue = authorize(
            challenges,
            registry=self._base,
            credentials=self._credentials,
            trusted_realms=self._trusted,
            scopes=(scope_of(self.reference.repository, access),),
        )
        token = _hold(dialogue, self._transport.send)
        lifetime = float("inf") if token.lifetime is None else token.lifetime
        self._grants[access] = _Grant(
            challenges=challenges, token=token, renew=began + lifetime / 2, renew_long=began + lifetime / 8
        )
        return self._grants[access]


class _Record:
    """`upload.Record` of one blob, in the journal when there is one."""

    def __init__(self, registry: Registry, digest: Digest, entry: Entry | None) -> None:
        self._registry = registry
        self._digest = digest
        self._entry = entry

    def resume(self) -> Session | None:
        return self._entry.resume() if self._entry else None

    def reached(self, session: Session) -> None:
        if self._entry:
            self._entry.reached(session)

    def ended(self) -> None:
        if self._entry:
            self._entry.ended()

    def learn(self, facts: Facts) -> None:
        self._registry.learn(facts)

    def not_in(self, repository: str) -> None:
        self._registry.not_in(self._digest, repository)


def _hold(dialogue: Generator[Request, Response, _T], send: Callable[[Request], Response]) -> _T:
    """Send what the dialogue yields, until it returns; it is told when there was no answer."""
    try:
        request = next(dialogue)
        while True:
            try:
                response = send(request)
            except TransferError as error:
                request = dialogue.throw(error)
            else:
                with response:
                    request = dialogue.send(response)
    except StopIteration as end:
        result: _T = end.value
        return result


def _bearing(request: Request, token: Token | None) -> Request:
    if token is None:
        return request
    return replace(request, headers={**request.headers, "Authorization": token.header.reveal()})
