"""A registry in memory: what `FakeTransport` answers for the distribution API (spec 1.1), with tokens when asked.

Only the token issued last is good, and only for its scope.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from rootfs.digest import Digest
from rootfs.ports import Request, Response
from tests.fakes.transport import body_of, reply

_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>blobs|manifests)/(?P<name>.+)\Z")


class MemoryRegistry:
    """Answers requests; `location` is the upload session's URL, `fault` may answer instead, `realm` wants tokens."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.location = "/v2/a/session/1?_state=abc%3D"
        self.fault: Callable[[Request], Response | None] = lambda request: None
        self.realm: str | None = None
        self.lifetime = 60
        self.issued = 0
        self.scope = ""

    def __call__(self, request: Request) -> Response:
        if (answer := self.fault(request)) is not None:
            return answer
        if self.realm and (answer := self._guard(request, self.realm)) is not None:
            return answer
        parts = urlsplit(request.url)
        if request.method == "PUT" and "digest=" in parts.query:
            return self._finish(request, parse_qs(parts.query)["digest"][0])
        match = _PATH.match(parts.path)
        if match is None:
            return self.error(request, 404, "NAME_UNKNOWN")
        if match["name"] == "uploads/":
            return reply(request, 202, headers={"Location": self.location})
        return (
            self._blob(request, match["name"]) if match["kind"] == "blobs" else self._manifest(request, match["name"])
        )

    def _guard(self, request: Request, realm: str) -> Response | None:
        """A token for who asks at the realm; a challenge for who has not the latest one."""
        if request.url.startswith(realm):
            self.issued += 1
            self.scope = parse_qs(urlsplit(request.url).query)["scope"][0]
            token = {"token": f"token-{self.issued}", "expires_in": self.lifetime}
            return reply(request, 200, json.dumps(token).encode())
        scope = "repository:a:pull" if request.method in ("GET", "HEAD") else "repository:a:pull,push"
        if request.headers.get("Authorization") == f"Bearer token-{self.issued}" and self.scope.startswith(scope):
            return None
        challenge = f'Bearer realm="{realm}",service="fake",scope="{scope}"'
        return self.error(request, 401, "UNAUTHORIZED", {"WWW-Authenticate": challenge})

    def error(self, request: Request, status: int, code: str, headers: dict[str, str] | None = None) -> Response:
        body = json.dumps({"errors": [{"code": code, "message": "said the registry"}]}).encode()
        return reply(request, status, body, headers)

    def _finish(self, request: Request, digest: str) -> Response:
        data = body_of(request)
        if str(Digest.of(data)) != digest:
            return self.error(request, 400, "DIGEST_INVALID")
        self.blobs[digest] = data
        return reply(request, 201)

    def _blob(self, request: Request, name: str) -> Response:
        if name not in self.blobs:
            return self.error(request, 404, "BLOB_UNKNOWN")
        return reply(request, 200, self.blobs[name])

    def _manifest(self, request: Request, name: str) -> Response:
        if request.method == "PUT":
            data = body_of(request)
            for known in (name, str(Digest.of(data))):
                self.manifests[known] = (request.headers["Content-Type"], data)
            return reply(request, 201)
        if name not in self.manifests:
            return self.error(request, 404, "MANIFEST_UNKNOWN")
        media_type, data = self.manifests[name]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": str(Digest.of(data))}
        return reply(request, 200, data, headers)
