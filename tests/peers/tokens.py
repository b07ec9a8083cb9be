"""A token server on the loopback whose tokens a real docker-registry accepts (distribution's token.md and oauth.md).

It knows one account, signs with a key of its own that openssl made, and keeps every request it saw. Anybody may pull.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.peers.registry import PASSWORD, USER, registry

SERVICE, ISSUER = "test", "test issuer"
_LEEWAY = 60  # seconds for which docker-registry takes a token that is past its time
_BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


class TokenServer(ThreadingHTTPServer):
    """`lifetime` is the seconds its tokens are good for; `refuses_get` makes GET answer 405, `revoked` a refresh 401.

    `seen` holds method, path, and the Authorization header or the form of each request.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, openssl: str, place: Path, lifetime: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lifetime = lifetime
        self.refuses_get = False
        self.revoked = False
        self.seen: list[tuple[str, str, str]] = []
        self.refresh_tokens: set[str] = set()
        self.certificate, self._key = place / "tokens.crt", place / "tokens.key"
        self._openssl = openssl
        wanted = ["-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens", "-days", "2"]
        files = ["-keyout", self._key, "-out", self.certificate]
        subprocess.run([openssl, "req", *wanted, *files], check=True, capture_output=True)

    def auth(self) -> dict[str, object]:
        """The section `auth` of docker-registry's configuration."""
        realm = f"http://localhost:{self.server_port}/token"
        bundle = str(self.certificate)
        return {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}}

    def token(self, user: str, scopes: list[str]) -> str:
        """A signed token (RFC 7519) for all these scopes; nobody, who is "", may only pull."""
        access = []
        for scope in scopes:
            name, _, actions = scope.rpartition(":")
            kind, _, repository = name.partition(":")
            allowed = [action for action in actions.split(",") if user or action == "pull"]
            access.append({"type": kind, "name": repository, "actions": allowed})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 2 * _LEEWAY, "access": access}
        claims |= {"exp": now + self.lifetime - _LEEWAY, "jti": secrets.token_hex(8)}
        chain = "".join(self.certificate.read_text().strip().splitlines()[1:-1])
        signed = f"{_packed({'typ': 'JWT', 'alg': 'RS256', 'x5c': [chain]})}.{_packed(claims)}"
        sign = [self._openssl, "dgst", "-sha256", "-sign", self._key]
        signature = subprocess.run(sign, input=signed.encode(), check=True, capture_output=True).stdout
        return f"{signed}.{_base64(signature)}"


class _Handler(BaseHTTPRequestHandler):
    server: TokenServer
    timeout = 10

    def do_GET(self) -> None:
        header = self.headers.get("Authorization", "")
        self.server.seen.append((self.command, self.path, header))
        if self.server.refuses_get:
            self._answer(405, {})
        elif header and header != _BASIC:
            self._answer(401, {"details": "incorrect username or password"})
        else:
            scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
            token = self.server.token(USER if header else "", scopes)
            self._answer(200, {"token": token, "expires_in": self.server.lifetime})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.command, self.path, body))
        form = {name: values[0] for name, values in parse_qs(body).items()}
        known = form.get("refresh_token") in self.server.refresh_tokens and not self.server.revoked
        if form.get("grant_type") == "password":
            known = (form.get("username"), form.get("password")) == (USER, PASSWORD)
        if not known:
            self._answer(401, {"error": "invalid_grant"})
            return
        token = self.server.token(USER, form.get("scope", "").split())
        value = {"access_token": token, "expires_in": self.server.lifetime}
        if form.get("access_type") == "offline" and "refresh_token" not in form:
            value["refresh_token"] = secrets.token_urlsafe(24)
            self.server.refresh_tokens.add(str(value["refresh_token"]))
        self._answer(200, value)

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedRegistry:
    """`localhost:PORT` of a docker-registry, and the token server that it sends everybody to."""

    host: str
    tokens: TokenServer


@contextmanager
def guarded_registry(program: str, openssl: str, place: Path, *, lifetime: int = 300) -> Iterator[GuardedRegistry]:
    """Both of them, as long as the `with` lasts; `program` is docker-registry's path, `openssl` that of openssl."""
    place.mkdir(parents=True, exist_ok=True)
    with TokenServer(openssl, place, lifetime) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with registry(program, place, auth=server.auth()) as host:
                yield GuardedRegistry(host=host, tokens=server)
        finally:
            server.shutdown()
            thread.join()


def _packed(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
