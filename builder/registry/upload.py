"""The upload of one blob (distribution-spec 1.1, "Pushing blobs"), as a ladder: it exists; it is mounted from another
repository; it is sent in one PUT, or in chunks where that can be resumed, or where a limit asks for it.

Law: no I/O; the dialogue is a generator that yields requests, receives responses, and is told by a TransferError when
there was none. Who sends them decides about secrets: a Location on another host never gets them. What shall outlive
the dialogue goes through a Record.

What breaks is mended: the registry is asked how far it got (GET Location, Range), and the upload goes on there, or
begins anew when the session is lost. Each mending takes of a credit that every step forward fills up again.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import BinaryIO, Protocol
from urllib.parse import quote, urlencode

from builder.registry.quirks import MIB, Facts
from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload
from rootfs.url import join, origin, redact, without_user

RESUMABLE = 32 * MIB
"""From this size on a blob is sent in chunks, so that a process that was killed loses one chunk at most."""
JOURNALED = 4 * MIB
"""From this size on the session is written down: many registries keep what came of a body that broke off."""
_SMALLEST, _SMALL, _LARGEST = MIB, 16 * MIB, 64 * MIB
_CHUNKS = 5  # each costs the registry a sync of its disk
_USEFUL = 8 * MIB  # smaller chunks cost more in round trips than resuming saves
_CREDIT = 5
_STEPS = 16
_RANGE = re.compile(r"(?:bytes[= ])?0-(\d+)\Z")
_NO_CHUNKS = frozenset({400, 404, 405, 501})
_NEVER = frozenset({405, 501})  # also after a first chunk that was taken
Dialogue = Generator[Request, Response, "Pushed"]


class Action(StrEnum):
    """What became of a blob or a manifest that was pushed."""

    EXISTS = "exists"
    MOUNTED = "mounted"
    UPLOADED = "uploaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What became of a blob; of one that was uploaded, at which offset an earlier process's upload was taken up."""

    action: Action
    resumed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An upload session: where its next request goes (it may hold a signature), and how many bytes are there."""

    location: str = field(repr=False)
    offset: int = 0


class Record(Protocol):
    """What a dialogue leaves behind; the I/O is done here."""

    def resume(self) -> Session | None:
        """The session of an earlier process; None when there is none, or nothing is kept."""

    def reached(self, session: Session) -> None:
        """The registry has so many bytes."""

    def ended(self) -> None:
        """The session is over."""

    def learn(self, facts: Facts) -> None:
        """The registry showed what it can."""

    def not_in(self, repository: str) -> None:
        """The blob could not be mounted from this repository."""


def upload(
    repository: str,
    digest: Digest,
    body: Upload,
    *,
    record: Record,
    facts: Facts | None = None,
    mount_from: Sequence[str] = (),
    chunked: bool = False,
) -> Dialogue:
    """Put a blob into the repository at this URL (`https://host/v2/name`), unless it is there.

    `mount_from` are repositories of the same registry that may have it, the best first; `chunked` prefers chunks for
    what is RESUMABLE. TransferError when the registry refuses; a retryable one when the credit is used up.
    """
    ladder = _Ladder(repository, digest, body, record, facts or Facts(), mount_from, chunked=chunked)
    return (yield from ladder.climb())


def opening(repository: str, digest: Digest, facts: Facts, mount_from: Sequence[str]) -> Request:
    """The request that `upload` sends next for a blob that is not there, and for which no session is to be resumed."""
    if mount_from and facts.mount is not False:
        return _mounting(repository, digest, mount_from[0])
    if facts.anonymous_mount is not False:
        return _mounting(repository, digest, None)
    return Request(method="POST", url=f"{repository}/blobs/uploads/")


def _mounting(repository: str, digest: Digest, source: str | None) -> Request:
    query = {"mount": str(digest)} | ({"from": source} if source else {})
    return Request(method="POST", url=f"{repository}/blobs/uploads/?{urlencode(query)}")


class _Ladder:
    """Where one upload stands."""

    def __init__(
        self,
        repository: str,
        digest: Digest,
        body: Upload,
        record: Record,
        facts: Facts,
        mount_from: Sequence[str],
        *,
        chunked: bool,
    ) -> None:
        self._repository = repository
        self._digest = digest
        self._body = body
        self._record = record
        self._facts = facts
        self._mount_from: tuple[str, ...] | None = tuple(mount_from)
        self._chunk = _chunk(body.size, facts, chunked=chunked)
        self._kept = chunked and facts.chunks is not False
        self._minimum = 0
        self._session: Session | None = None
        self._mended = False
        self._resumed = 0
        self._sent = 0
        self._furthest = 0
        self._credit = _CREDIT
        self._breaks = 0

    def climb(self) -> Dialogue:
        """From rung to rung, and back where something broke."""
        if (yield from self._exists()):
            self._record.ended()
            return Pushed(action=Action.EXISTS)
        earlier = self._record.resume() if self._facts.chunks is not False else None
        done = earlier is not None and (yield from self._take_up(earlier))
        while not done:
            try:
                if self._session is None and (yield from self._begin()):
                    return Pushed(action=Action.MOUNTED)
                done = yield from self._step()
            except TransferError as error:
                done = yield from self._mend(error)
        self._record.ended()
        return Pushed(action=Action.UPLOADED, resumed=self._resumed)

    def _exists(self) -> Generator[Request, Response, bool]:
        response = yield Request(method="HEAD", url=f"{self._repository}/blobs/{self._digest}")
        if response.status not in (200, 404):
            raise refusal(response, f"to look for blob {self._digest}")
        return response.status == 200

    def _take_up(self, earlier: Session) -> Generator[Request, Response, bool]:
        """Go on where an earlier process was, if its session is still there; True when it had sent all."""
        try:
            _check_scheme(self._repository, earlier.location)
            self._session = yield from self._status(earlier)
        except TransferError as error:
            if error.retryable:
                self._session = earlier
                if (yield from self._mend(error)):
                    return True
        if self._session is None:
            self._record.ended()
        else:
            self._resumed = self._furthest = self._session.offset
            self._chunk = self._chunk or _SMALL
        return False

    # Mending

    def _mend(self, error: TransferError) -> Generator[Request, Response, bool]:
        """After a failure: where the registry got to. True when the blob is there whole; raises when it is hopeless."""
        while True:
            if not error.retryable or self._credit == 0:
                raise error
            self._credit -= 1
            try:
                self._session = (yield from self._status(self._session)) if self._session else None
                if self._session is None:
                    self._record.ended()
                    self._resumed = 0
                    self._shrink()
                    return (yield from self._exists())
            except TransferError as another:
                error = another
            else:
                if self._session.offset <= self._furthest:
                    self._shrink()
                self._forward(self._session.offset)
                return False

    def _shrink(self) -> None:
        """Some proxies break a connection where they should answer 413: try smaller bodies when it happens again."""
        self._breaks += 1
        if self._breaks < 2 or self._facts.chunks is False or self._body.size <= _USEFUL:
            return
        self._chunk = _SMALL if self._chunk is None else max(_SMALLEST, self._minimum, self._chunk // 2)

    def _status(self, session: Session) -> Generator[Request, Response, Session | None]:
        """The session as the registry has it; None when it is lost."""
        response = yield Request(method="GET", url=session.location)
        if response.status >= 500 or response.status == 429:
            raise refusal(response, "to say how far an upload got")
        offset = acknowledged(response)
        if response.status not in (200, 202, 204) or offset is None or offset > self._body.size:
            return None
        now = Session(location=location(response, session), offset=offset)
        if offset and self._facts.chunks is False:
            yield from self._cancel(now)
            return None
        self._mended = True
        return now

    def _cancel(self, session: Session) -> Generator[Request, Response, None]:
        """Give the registry its room back; whether it wants to is its own affair."""
        self._session = None
        self._record.ended()
        with suppress(TransferError):
            yield Request(method="DELETE", url=session.location, attempts=1)

    def _forward(self, offset: int) -> None:
        """The registry has so many bytes: what was achieved fills the credit up."""
        if offset - self._furthest > min(MIB, self._body.size // _STEPS):
            self._furthest = offset
            self._credit = _CREDIT
            self._breaks = 0

    # Beginning

    def _begin(self) -> Generator[Request, Response, bool]:
        """A mount (True), or a new session. Mounts are tried once."""
        self._mended, self._sent = False, 0
        candidates, self._mount_from = self._mount_from, None
        if candidates is not None and (yield from self._mount(candidates)):
            return True
        if self._session is None:
            response = yield Request(method="POST", url=f"{self._repository}/blobs/uploads/")
            if response.status != 202:
                raise refusal(response, f"an upload to {self._repository.partition('/v2/')[2]}")
            self._open(response)
        return False

    def _mount(self, candidates: Sequence[str]) -> Generator[Request, Response, bool]:
        for source in candidates if self._facts.mount is not False else ():
            try:
                status = yield from self._post_mount(source)
            except TransferError:  # the token server may refuse the other repository
                continue
            if status == 201:
                return True
            self._record.not_in(source)
            if status == 405:
                self._learn(Facts(mount=False))
            if self._session:
                return False
        if self._facts.anonymous_mount is not False:
            try:
                status = yield from self._post_mount(None)
            except TransferError:
                return False
            if status in (201, 400, 405):
                self._learn(Facts(anonymous_mount=status == 201))
            return status == 201
        return False

    def _post_mount(self, source: str | None) -> Generator[Request, Response, int]:
        """Ask for a mount. 201: there it is. 202: it is not, and a session has begun. Else: no."""
        response = yield _mounting(self._repository, self._digest, source)
        if response.status == 202:
            self._open(response)
        return response.status

    def _open(self, response: Response) -> None:
        minimum = response.headers.get("oci-chunk-min-length", "")
        self._minimum = int(minimum) if minimum.isdecimal() else 0
        if self._chunk:
            self._chunk = max(self._chunk, self._minimum)
        self._session = Session(location=location(response, None))
        if self._chunk or self._kept:
            self._record.reached(self._session)

    # Sending

    def _step(self) -> Generator[Request, Response, bool]:
        """One PATCH, or the closing PUT; True when the blob is there."""
        session = self._session
        assert session is not None
        left = self._body.size - session.offset
        amount = left if self._chunk is None else min(left, self._chunk)
        closing = amount == left
        response = yield self._piece(session, amount, closing=closing)
        if closing and response.status in (201, 204):
            return True
        if not closing and response.status in (201, 202, 204):
            yield from self._advance(response, session, amount)
        else:
            yield from self._refused(response, session, amount, closing=closing)
        return False

    def _piece(self, session: Session, amount: int, *, closing: bool) -> Request:
        headers = {"Content-Type": "application/octet-stream"}
        if amount and (session.offset or not closing):
            headers["Content-Range"] = f"{session.offset}-{session.offset + amount - 1}"
        url = session.location
        if closing:
            url += f"{'&' if '?' in url else '?'}digest={quote(str(self._digest), safe='')}"
        body = Upload(open=partial(_open_at, self._body, session.offset), size=amount)
        return Request(method="PUT" if closing else "PATCH", url=url, headers=headers, body=body)

    def _advance(self, response: Response, session: Session, amount: int) -> Generator[Request, Response, None]:
        """A chunk was taken: how much of it, if any (a registry that drops chunks lets Range stand)."""
        offset = acknowledged(response)
        if offset is None:
            offset = session.offset + amount
        now = Session(location=location(response, session), offset=offset)
        if not session.offset < offset <= session.offset + amount:  # zot 1.4.3 tells of the chunk alone
            now = (yield from self._status(now)) or now
            offset = now.offset
        if session.offset < offset <= session.offset + amount:
            self._session = now
            self._forward(offset)
            self._record.reached(now)
            self._sent += 1
            if self._sent == 2:
                self._learn(Facts(chunks=True))
            return
        yield from self._cancel(now)
        if offset == session.offset:
            self._whole(learn=True)
            return
        raise TransferError(
            "the registry lost count of an upload",
            at=redact(response.url),
            because=f"of {session.offset + amount} bytes it says it has {offset}",
            retryable=True,
        )

    def _refused(
        self, response: Response, session: Session, amount: int, *, closing: bool
    ) -> Generator[Request, Response, None]:
        """A body was not taken: try it otherwise, or raise."""
        status = response.status
        error = refusal(response, f"blob {self._digest}")
        smaller = max(_SMALLEST, self._minimum, min(_LARGEST, amount // 2))
        if status == 413 and smaller < amount and self._facts.chunks is not False:
            self._chunk = smaller
            self._learn(Facts(max_body=smaller))
            self._session = yield from self._status(session)
        elif not closing and (status in _NEVER or (status in _NO_CHUNKS and session.offset == 0)):
            yield from self._cancel(session)
            self._whole(learn=True)
        elif not closing and status == 416 and (yield from self._stands(session)):
            yield from self._cancel(session)
            self._whole(learn=session.offset == 0)
        elif status in (404, 416) or (status == 400 and (not closing or "BLOB_UPLOAD" in (error.because or ""))):
            error.retryable = True  # the session is lost, or is not where we think it is
            raise error
        elif status == 400 and self._mended:
            yield from self._cancel(session)
            error.retryable = True  # what was patched together is wrong: once more, in one go
            raise error
        else:
            if not error.retryable:
                yield from self._cancel(session)
            raise error

    def _stands(self, session: Session) -> Generator[Request, Response, bool]:
        """Whether the session is where we think it is: then 416 means that the chunk is too large."""
        self._session = yield from self._status(session)
        return self._session is not None and self._session.offset == session.offset

    def _whole(self, *, learn: bool) -> None:
        """No more chunks."""
        self._chunk = None
        if learn:
            self._learn(Facts(chunks=False))
        else:
            self._facts = replace(self._facts, chunks=False)

    def _learn(self, facts: Facts) -> None:
        self._facts = facts.over(self._facts)
        self._record.learn(facts)


def _chunk(size: int, facts: Facts, *, chunked: bool) -> int | None:
    """How many bytes to send at a time; None: all at once."""
    limit = min(facts.max_chunk or _LARGEST, facts.max_body or _LARGEST)
    if facts.chunks is False:
        return None
    if facts.max_body and size > facts.max_body:
        return limit
    if not chunked or size < RESUMABLE or limit < _USEFUL:
        return None
    return min(limit, max(_SMALL, size // _CHUNKS))


def acknowledged(response: Response) -> int | None:
    """How many bytes the registry has, by its Range (`0-<last>`); None when it does not say.

    `0-0` is what registries say of an empty session, so it is taken for that.
    """
    told = _RANGE.match(response.headers.get("range", "").strip())
    if told is None:
        return None
    last = int(told[1])
    return last + 1 if last else 0


def location(response: Response, session: Session | None) -> str:
    """The session's URL; its query is opaque and kept as it is. An answer without one leaves it as it was."""
    location = response.headers.get("location")
    if not location:
        if session:
            return session.location
        raise TransferError("the registry opened an upload without saying where", at=redact(response.url))
    url = without_user(join(response.url, location))
    _check_scheme(response.url, url)
    return url


def _check_scheme(asked: str, url: str) -> None:
    if origin(asked)[0] == "https" and origin(url)[0] == "http":
        raise TransferError(
            "the upload would leave https",
            at=redact(asked),
            because=f"the registry sends it to {redact(url)}",
            hint="the proxy before the registry must tell it the scheme (X-Forwarded-Proto)",
        )


def _open_at(body: Upload, offset: int) -> BinaryIO:
    stream = body.open()
    if offset:
        stream.seek(offset)
    return stream
