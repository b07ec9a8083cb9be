"""Listing: what a repository says it has: tags, and what refers to a manifest (distribution-spec 1.1, "Content
Discovery"); and how names and manifests are taken out of it ("Content Management").

Law: no I/O; dialogues are generators that yield requests and receive responses. A page leads to the next by its `Link`
alone (a registry may give fewer than were asked for), never to another origin, and never in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from urllib.parse import urlencode

from builder.oci.descriptor import INDEX, Descriptor, Fields, read_object
from builder.oci.manifest import Index
from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from rootfs.url import join, origin, redact

_PAGE = 1000  # what most registries give at most
_PAGES = 10_000
_READ = 32 << 20
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel\s*=\s*"?next\b', re.IGNORECASE)
_NO_API = (404, 405, 501)
_NO_DELETE = (400, 405, 501)


def tags(repository: str) -> Generator[Request, Response, tuple[str, ...]]:
    """All tags of the repository at this URL, as the registry orders them; TransferError when there is none."""
    found: dict[str, None] = {}
    first = f"{repository}/tags/list?{urlencode({'n': _PAGE})}"
    seen = {first}
    url: str | None = first
    while url:
        response = yield Request(method="GET", url=url)
        if response.status in (400, 413) and url == first and first.endswith(str(_PAGE)):
            url = first = f"{repository}/tags/list"  # it does not want to be asked for so many
            continue
        if response.status != 200:
            raise refusal(response, f"the tags of {repository.partition('/v2/')[2]}")
        found |= dict.fromkeys(_object(response).texts("tags"))
        url = _next(response, seen)
    return tuple(found)


def referrers(
    repository: str, subject: Digest, artifact_type: str | None = None
) -> Generator[Request, Response, tuple[Descriptor, ...] | None]:
    """What the registry lists of a manifest's referrers, of one type if it is given; None when it has no such API.

    What it did not filter (`OCI-Filters-Applied`) is filtered here.
    """
    found: dict[Digest, Descriptor] = {}
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
    url: str | None = f"{repository}/referrers/{subject}{query}"
    seen = {str(url)}
    while url:
        response = yield Request(method="GET", url=url, headers={"Accept": INDEX})
        if response.status in _NO_API and len(seen) == 1:
            return None
        if response.status != 200:
            raise refusal(response, f"what refers to {subject}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in (INDEX, "application/json", ""):
            return None  # a page for people, as from a proxy that answers everything
        listed = Index.parse(_body(response), INDEX).manifests
        found |= {one.digest: one for one in listed}
        url = _next(response, seen)
    return tuple(one for one in found.values() if artifact_type in (None, one.artifact_type))


def delete(repository: str, name: str | Digest) -> Generator[Request, Response, bool]:
    """Take a tag out of the repository, or a manifest by its digest; False when the registry does no such thing.

    TransferError when there is none of that name, or it refuses.
    """
    response = yield Request(method="DELETE", url=f"{repository}/manifests/{name}")
    if response.status in _NO_DELETE:
        return False
    if response.status not in (200, 202, 204):
        raise refusal(response, f"to delete {name}")
    return True


def _object(response: Response) -> Fields:
    return read_object(_body(response), redact(response.url))


def _body(response: Response) -> bytes:
    data = response.read(_READ + 1)
    if len(data) > _READ:
        raise TransferError("a listing is too large", at=redact(response.url), because=f"over {_READ} bytes")
    return data


def _next(response: Response, seen: set[str]) -> str | None:
    """The URL of the next page (RFC 8288); None after the last one."""
    link = _NEXT.search(response.headers.get("link", ""))
    if link is None:
        return None
    url = join(response.url, link[1])
    if origin(url) != origin(response.url):
        because = f"it goes on at {redact(url)}"
        raise TransferError("a listing leads to another host", at=redact(response.url), because=because)
    if url in seen or len(seen) >= _PAGES:
        raise TransferError("a listing has no end", at=redact(response.url), because="its pages lead in a circle")
    seen.add(url)
    return url
