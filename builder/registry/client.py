"""Registry: blobs, manifests and tags of one repository (distribution-spec 1.1).

Law: speaks the API over a Transport, and decides which request carries the secret: only those to the registry's own
origin. Knows nothing of stores, nor of the order in which an image is pushed. Plain http only when it was asked for.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from builder.oci.descriptor import INDEX, MANIFEST, SIZE_LIMIT, Descriptor, verified
from builder.registry.auth import Challenge, Credentials, Token, authorize
from builder.registry.reference import Reference
from builder.registry.refusal import refusal
from builder.registry.upload import Action, upload
from rootfs.digest import Digest
from rootfs.errors import IntegrityError
from rootfs.ports import Request, Response, Transport, Upload
from rootfs.url import origin, redact

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """A token, what it was granted for, and when (seconds of the clock) to get the next one."""

    challenges: tuple[Challenge, ...]
    token: Token
    renew: float


class Registry:
    """One repository of a registry; thread-safe. Names of manifests are tags or digests.

    `trusted_realms` are the hosts of token servers that may be told the password, beside the registry's own host.
    """

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        *,
        plain_http: bool = False,
        credentials: Credentials | None = None,
        trusted_realms: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reference = reference
        self._transport = transport
        self._base = f"{'http' if plain_http else 'https'}://{reference.api_host}/v2/{reference.repository}"
        self._origin = origin(self._base)
        self._credentials = credentials
        self._trusted = tuple(trusted_realms)
        self._clock = clock
        self._grants: dict[_Access, _Grant] = {}
        self._lock = threading.Lock()

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

    def put(self, descriptor: Descriptor, body: Upload) -> Action:
        """Upload the blob unless it is there; a retryable TransferError when beginning anew may help."""
        return _hold(upload(self._base, descriptor.digest, body), lambda request: self._send(request, "push"))

    def head_manifest(self, name: str | Digest) -> Digest | None:
        """The digest of the manifest with this name, as the registry has it now; None when there is none."""
        with self._send(self._manifest("HEAD", name), "pull") as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise refusal(response, f"to look for manifest {name}")
            told = response.headers.get("docker-content-digest")
        return Digest.parse(told) if told else self.get_manifest(name)[0].digest

    def get_manifest(self, name: str | Digest) -> tuple[Descriptor, bytes]:
        """The manifest's bytes and what they are; IntegrityError when they are not what the name or registry says."""
        with self._send(self._manifest("GET", name), "pull") as response:
            if response.status != 200:
                raise refusal(response, f"manifest {name}")
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

    def put_manifest(self, name: str | Digest, descriptor: Descriptor, data: bytes) -> None:
        """Give the manifest this name; its blobs must be there already."""
        request = replace(self._manifest("PUT", name), headers={"Content-Type": descriptor.media_type}, body=data)
        with self._send(request, "push") as response:
            if response.status not in (200, 201, 202, 204):
                raise refusal(response, f"manifest {name}")

    def _manifest(self, method: str, name: str | Digest) -> Request:
        return Request(method=method, url=f"{self._base}/manifests/{name}", headers={"Accept": _ACCEPT})

    def _send(self, request: Request, access: _Access) -> Response:
        """The answer; a 401 of the registry itself is answered once with who we are."""
        if origin(request.url) != self._origin:
            return self._transport.send(request)
        token = self._token(access)
        response = self._transport.send(_bearing(request, token))
        if response.status != 401:
            return response
        with response:
            challenges = Challenge.parse(response.headers.get("www-authenticate", ""))
        return self._transport.send(_bearing(request, self._renewed(access, challenges, token)))

    def _token(self, access: _Access) -> Token | None:
        """What was granted earlier; a new one in good time, lest it ends during a long upload."""
        with self._lock:
            grant = self._grants.get(access)
            if grant and self._clock() >= grant.renew:
                grant = self._authorize(access, grant.challenges)
            return grant.token if grant else None

    def _renewed(self, access: _Access, challenges: tuple[Challenge, ...], stale: Token | None) -> Token:
        """A token other than the stale one; the threads that were refused together ask once."""
        with self._lock:
            grant = self._grants.get(access)
            if grant is None or grant.token is stale:
                grant = self._authorize(access, challenges)
            return grant.token

    def _authorize(self, access: _Access, challenges: tuple[Challenge, ...]) -> _Grant:
        began = self._clock()
        dialogue = authorize(
            challenges, registry=self._base, credentials=self._credentials, trusted_realms=self._trusted
        )
        token = _hold(dialogue, self._transport.send)
        lifetime = float("inf") if token.lifetime is None else token.lifetime
        self._grants[access] = _Grant(challenges=challenges, token=token, renew=began + lifetime / 2)
        return self._grants[access]


def _hold(dialogue: Generator[Request, Response, _T], send: Callable[[Request], Response]) -> _T:
    """Send what the dialogue yields, until it returns."""
    try:
        request = next(dialogue)
        while True:
            with send(request) as response:
                request = dialogue.send(response)
    except StopIteration as end:
        result: _T = end.value
        return result


def _bearing(request: Request, token: Token | None) -> Request:
    if token is None:
        return request
    return replace(request, headers={**request.headers, "Authorization": token.header.reveal()})
