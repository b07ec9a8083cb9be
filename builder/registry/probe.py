"""Probe: finds out what a registry can by trying, as one dialogue (distribution-spec 1.1).

Law: no I/O. What is tried is said, what it shows becomes Facts; what did not become clear stays None. Nothing is left
behind but, when it may write, the two bytes of the empty blob; upload sessions are cancelled.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast
from urllib.parse import urlencode

from builder.registry.quirks import MIB, Facts
from builder.registry.refusal import refusal
from builder.registry.upload import Record, Session, acknowledged, location, upload
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload

CHUNKS = (MIB, 16 * MIB)
"""What is sent to see whether chunks arrive: a small one, and the smallest that `upload` would send."""
_EMPTY = b"{}"
_NOBODY = Digest("sha256", "0" * 64)
_Asking = Generator[Request, Response, "Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was tried, what came of it in words, and what it shows."""

    tried: str
    found: str
    facts: Facts = field(default_factory=Facts)


def probe(repository: str, *, write: bool, record: Record) -> Generator[Request, Response, tuple[Finding, ...]]:
    """Try what the repository at this URL (`https://host/v2/name`) can; without `write` only what reads.

    TransferError when the registry does not answer, or does not let us in. What one question could not find out is
    said in its Finding.
    """
    findings = [(yield from _api(repository.partition("/v2/")[0])), (yield from _referrers(repository))]
    if write:
        for ask in (_chunks, _mounts):
            try:
                findings.append((yield from ask(repository, record)))
            except TransferError as error:
                findings.append(Finding(tried=ask.__name__.strip("_"), found=f"{error.message}: {error.because}"))
    return tuple(findings)


def _api(registry: str) -> _Asking:
    response = yield Request(method="GET", url=f"{registry}/v2/")
    if response.status != 200:
        raise refusal(response, "the API")
    version = response.headers.get("docker-distribution-api-version", "not told")
    return Finding(tried="api", found="".join(one for one in version if one.isprintable())[:60])


def _referrers(repository: str) -> _Asking:
    response = yield Request(method="GET", url=f"{repository}/referrers/{_NOBODY}")
    body = response.read(1 << 16)
    if response.status == 200:
        return Finding(tried="referrers", found="the API is there", facts=Facts(referrers=True))
    if response.status == 404 and b"NAME_UNKNOWN" not in body:
        return Finding(tried="referrers", found="no such API: 404", facts=Facts(referrers=False))
    return Finding(tried="referrers", found=f"not clear: {response.status}")


def _chunks(repository: str, record: Record) -> _Asking:
    """Two chunks, and what GET says of the session then."""
    del record
    response = yield Request(method="POST", url=f"{repository}/blobs/uploads/")
    if response.status != 202:
        raise refusal(response, "an upload")
    minimum = response.headers.get("oci-chunk-min-length", "")
    session, statuses, limit = Session(location=location(response, None)), [], None
    for size in (max(CHUNKS[0], int(minimum) if minimum.isdecimal() else 0), CHUNKS[1]):
        headers = {"Content-Range": f"{session.offset}-{session.offset + size - 1}"}
        headers["Content-Type"] = "application/octet-stream"
        body = Upload(open=partial(_zeros, size), size=size)
        response = yield Request(method="PATCH", url=session.location, headers=headers, body=body)
        statuses.append(str(response.status))
        if response.status not in (201, 202, 204):
            limit = session.offset or None
            break
        offset = acknowledged(response)
        now = Session(location=location(response, session), offset=session.offset + size if offset is None else offset)
        if now.offset != session.offset + size:
            statuses.append("dropped")
            session = now
            break
        session = now
    arrived = len(statuses) == len(CHUNKS) and "dropped" not in statuses and response.status < 300
    response = yield Request(method="GET", url=session.location)
    resumes = response.status in (200, 202, 204) and acknowledged(response) == session.offset
    with suppress(TransferError):
        response = yield Request(method="DELETE", url=session.location, attempts=1)
        statuses.append(f"cancel {response.status}")
    found = f"PATCH {', '.join(statuses)}; {'can' if resumes else 'cannot'} be resumed"
    return Finding(tried="chunks", found=found, facts=Facts(chunks=arrived or limit is not None, max_chunk=limit))


def _mounts(repository: str, record: Record) -> _Asking:
    """The empty blob, mounted from the repository itself, and from nowhere in particular."""
    digest = Digest.of(_EMPTY)
    body = Upload(open=lambda: cast(BinaryIO, io.BytesIO(_EMPTY)), size=len(_EMPTY))
    quiet = Facts(mount=False, anonymous_mount=False)
    yield from upload(repository, digest, body, record=record, facts=quiet)
    statuses = []
    for source in (repository.partition("/v2/")[2], None):
        query = {"mount": str(digest)} | ({"from": source} if source else {})
        response = yield Request(method="POST", url=f"{repository}/blobs/uploads/?{urlencode(query)}")
        statuses.append(response.status)
        if response.status == 202:
            with suppress(TransferError):
                yield Request(method="DELETE", url=location(response, None), attempts=1)
    shown = {201: True, 400: False, 405: False}  # 202 shows nothing: what is free is tried again
    facts = Facts(mount=shown.get(statuses[0]), anonymous_mount=shown.get(statuses[1]))
    return Finding(tried="mounts", found=f"from itself {statuses[0]}, from anywhere {statuses[1]}", facts=facts)


def _zeros(size: int) -> BinaryIO:
    return cast(BinaryIO, io.BytesIO(bytes(size)))
