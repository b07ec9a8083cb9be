"""A registry of upload sessions in memory, with the quirks real ones have, each a knob; for one repository, `a`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from rootfs.digest import Digest
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from tests.fakes.transport import body_of, reply


def broken() -> TransferError:
    """What a transport raises when the connection ended."""
    return TransferError("PUT failed", because="the other side reset the connection", retryable=True)


@dataclass(kw_only=True)
class Sessions:
    """Answers requests. Statuses of 0 break the connection.

    `cuts`: bytes received in all, at each of which one body breaks off; `keeps_cut`: what came of it counts.
    `drops_from`: the number of the PATCH from which on chunks are dropped. `strict`: a Location whose state is not the
    session's offset ends the session, as in distribution 2.8.
    """

    patch_status: int = 202
    drops_from: int | None = None
    first_patch: int | None = None
    put_status: int | None = None
    patch_limit: int | None = None
    body_limit: int | None = None
    limit_status: int = 413
    mounts: set[str] = field(default_factory=set)
    mount_status: int = 202
    anonymous_status: int = 202
    minimum: int | None = None
    cuts: list[int] = field(default_factory=list)
    keeps_cut: bool = True
    strict: bool = False
    absolute: bool = False
    range_prefix: str = ""
    fault: Callable[[Request], Response | None] = lambda _: None
    blobs: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, bytearray] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    bodies: list[tuple[str, int]] = field(default_factory=list)
    received: int = 0
    patches: int = 0

    def __call__(self, request: Request) -> Response:
        if (answer := self.fault(request)) is not None:
            return answer
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        kind, _, name = parts.path.removeprefix("/v2/a/").partition("/")
        if kind == "blobs" and name == "uploads/":
            return self._begin(request, query)
        if kind == "blobs":
            return reply(request, 200 if name in self.blobs else 404)
        data = self.sessions.get(name)
        if data is None or (self.strict and query["_state"] != str(len(data))):
            self.sessions.pop(name, None)
            return self._no(request, 404 if data is None else 400, "BLOB_UPLOAD_INVALID")
        return self._session(request, name, data, query)

    def _begin(self, request: Request, query: dict[str, str]) -> Response:
        if "mount" in query:
            anonymous = "from" not in query
            status = self.anonymous_status if anonymous else self.mount_status
            if query.get("from") in self.mounts or (anonymous and status == 201):
                self.blobs[query["mount"]] = b"mounted"
                return reply(request, 201)
            if status != 202:
                return self._no(request, status, "UNSUPPORTED")
        name = f"s{len(self.sessions) + len(self.cancelled) + 1}"
        while name in self.sessions or name in self.cancelled:
            name += "x"
        self.sessions[name] = bytearray()
        extra = {"OCI-Chunk-Min-Length": str(self.minimum)} if self.minimum else {}
        return self._where(request, 202, name, extra)

    def _session(self, request: Request, name: str, data: bytearray, query: dict[str, str]) -> Response:
        match request.method:
            case "GET":
                return self._where(request, 204, name)
            case "DELETE":
                del self.sessions[name]
                self.cancelled.append(name)
                return reply(request, 204)
            case "PATCH":
                self.patches += 1
                return self._patch(request, name, data)
            case _:
                return self._put(request, name, data, query["digest"])

    def _patch(self, request: Request, name: str, data: bytearray) -> Response:
        if self.patches == 1 and self.first_patch:
            return self._no(request, self.first_patch, "UNSUPPORTED")
        if refusal := self._take(request, name, data):
            return refusal
        return self._where(request, self.patch_status, name)

    def _put(self, request: Request, name: str, data: bytearray, digest: str) -> Response:
        if self.put_status is not None:
            return self._no(request, self.put_status, "UNKNOWN")
        if refusal := self._take(request, name, data):
            return refusal
        del self.sessions[name]
        if str(Digest.of(bytes(data))) != digest:
            return self._no(request, 400, "DIGEST_INVALID")
        self.blobs[digest] = bytes(data)
        return reply(request, 201)

    def _take(self, request: Request, name: str, data: bytearray) -> Response | None:
        """Append the body, or say why not."""
        body = body_of(request)
        self.bodies.append((request.method, len(body)))
        if self.body_limit is not None and len(body) > self.body_limit:
            return self._no(request, self.limit_status, "SIZE_INVALID")
        if request.method == "PATCH" and self.patch_limit is not None and len(body) > self.patch_limit:
            return self._no(request, 416, "RANGE_INVALID")
        told = request.headers.get("Content-Range")
        if told and told != f"{len(data)}-{len(data) + len(body) - 1}":
            return self._no(request, 416, "RANGE_INVALID")
        if self.cuts and self.received + len(body) > self.cuts[0]:
            kept = self.cuts.pop(0) - self.received
            self.received += kept
            data += body[:kept]
            if not self.keeps_cut:
                del self.sessions[name]
            raise broken()
        self.received += len(body)
        if self.drops_from is None or request.method == "PUT" or self.patches < self.drops_from:
            data += body
        return None

    def _where(self, request: Request, status: int, name: str, extra: dict[str, str] | None = None) -> Response:
        size = len(self.sessions[name])
        location = f"/v2/a/upload/{name}?_state={size}"
        headers = {
            "Location": f"https://r.example.org{location}" if self.absolute else location,
            "Range": f"{self.range_prefix}0-{max(0, size - 1)}",
            **(extra or {}),
        }
        return reply(request, status, headers=headers)

    def _no(self, request: Request, status: int, code: str) -> Response:
        if status == 0:
            raise broken()
        return reply(request, status, json.dumps({"errors": [{"code": code, "message": "no"}]}).encode())
