"""The upload of one blob (distribution-spec 1.1, "Pushing blobs": POST then PUT).

Law: no I/O; the dialogue is a generator that yields requests and receives responses. Who sends them decides about
secrets: a Location on another host never gets them.
"""

from __future__ import annotations

from collections.abc import Generator
from enum import StrEnum
from urllib.parse import quote

from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload
from rootfs.url import join, origin, redact, without_user


class Action(StrEnum):
    """What became of a blob or a manifest that was pushed."""

    EXISTS = "exists"
    UPLOADED = "uploaded"


def upload(repository: str, digest: Digest, body: Upload) -> Generator[Request, Response, Action]:
    """Put a blob into the repository at this URL (`https://host/v2/name`), unless it is there.

    TransferError when the registry refuses; it is retryable when the dialogue, begun anew, may succeed.
    """
    response = yield Request(method="HEAD", url=f"{repository}/blobs/{digest}")
    if response.status == 200:
        return Action.EXISTS
    if response.status != 404:
        raise refusal(response, f"to look for blob {digest}")
    response = yield Request(method="POST", url=f"{repository}/blobs/uploads/")
    if response.status != 202:
        raise refusal(response, f"an upload to {repository.partition('/v2/')[2]}")
    response = yield Request(
        method="PUT",
        url=_location(response, digest),
        headers={"Content-Type": "application/octet-stream"},
        body=body,
    )
    if response.status not in (201, 204):
        # 404 and 416: the session is lost, or is not where we think it is; a new one has neither trouble
        raise refusal(response, f"blob {digest}", retryable=response.status in (404, 416))
    return Action.UPLOADED


def _location(response: Response, digest: Digest) -> str:
    """The session's URL with the digest added; its own query is opaque and kept as it is."""
    location = response.headers.get("location")
    if not location:
        raise TransferError("the registry opened an upload without saying where", at=redact(response.url))
    url = without_user(join(response.url, location))
    if origin(response.url)[0] == "https" and origin(url)[0] == "http":
        raise TransferError(
            "the upload would leave https",
            at=redact(response.url),
            because=f"the registry sends it to {redact(url)}",
            hint="the proxy before the registry must tell it the scheme (X-Forwarded-Proto)",
        )
    return f"{url}{'&' if '?' in url else '?'}digest={quote(str(digest), safe='')}"
