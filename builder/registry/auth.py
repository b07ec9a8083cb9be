"""Who we are to a registry: challenges, credentials and tokens (RFC 9110 section 11, RFC 7617, and distribution's
token authentication, docs/content/spec/auth/token.md).

Law: no I/O. The token dialogue is a generator that yields requests and receives responses; the caller reads files.
A secret belongs to one registry: it goes to that host, to a token server (realm) on that host, or to one that was
named as trusted. A realm is https, but for a registry that itself is asked for over plain http.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from builder.registry.reference import Reference
from builder.registry.refusal import refusal
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from rootfs.url import origin, redact, without_user

_TOKEN_LIMIT = 1 << 20
_TOKEN = re.compile(r"[!-~]+\Z")
_LIFETIME = 60.0  # seconds, when the token server does not say (token.md, `expires_in`)

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_NAME})(?:\s+|$|(?=,))(?!\s*=)")
_PARAMETER = re.compile(rf'\s*({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))\s*')

# Token servers that a registry is known to have on another host.
_KNOWN_REALMS = {"registry-1.docker.io": frozenset({"auth.docker.io"})}
# The names under which docker's config.json knows a host.
_CONFIG_NAMES = {"docker.io": ("index.docker.io", "registry-1.docker.io"), "index.docker.io": ("docker.io",)}


class Secret:
    """Text that shows neither in a repr, nor in a message, nor in a traceback."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the header it belongs in."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other.reveal()

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account at one registry."""

    username: str
    password: Secret

    def basic(self) -> str:
        """The Authorization header of the Basic scheme (RFC 7617)."""
        pair = f"{self.username}:{self.password.reveal()}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What an Authorization header holds, and for how many seconds it is good (None: for ever)."""

    header: Secret
    lifetime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way to authenticate that a 401 offers: scheme in lower case, parameters by lower-case name."""

    scheme: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, header: str) -> tuple[Challenge, ...]:
        """All challenges of a WWW-Authenticate header; what is malformed in it is skipped."""
        found: list[tuple[str, dict[str, str]]] = []
        rest = header
        while rest := rest.lstrip(" \t,"):
            if scheme := _SCHEME.match(rest):
                found.append((scheme[1].lower(), {}))
                rest = rest[scheme.end() :]
            elif found and (parameter := _PARAMETER.match(rest)):
                text = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2])
                found[-1][1].setdefault(parameter[1].lower(), text)
                rest = rest[parameter.end() :]
            else:
                rest = rest.partition(",")[2]
        return tuple(cls(scheme=scheme, parameters=parameters) for scheme, parameters in found)


def credentials_for(reference: Reference, config: bytes) -> Credentials | None:
    """The account for a repository in the bytes of docker's config.json or podman's auth.json; None when there is none.

    The longest key that is the host and the beginning of the repository wins (containers-auth.json.5).
    TransferError when the file, or the entry, cannot be read.
    """
    try:
        value = json.loads(config)
        accounts = value.get("auths") or {}
        entries = {_config_key(key): entry for key, entry in accounts.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _unreadable("it is not docker's config.json") from error
    parts = reference.repository.split("/")
    for host in (reference.host, *_CONFIG_NAMES.get(reference.host, ())):
        for length in range(len(parts), -1, -1):
            if entry := entries.get("/".join((host, *parts[:length]))):
                return _credentials(entry)
    return None


def _credentials(entry: Any) -> Credentials:
    if not isinstance(entry, dict):
        raise _unreadable("an entry of `auths` is not an object")
    if entry.get("identitytoken"):
        raise _unreadable("its identity token is of a kind ocibuild does not speak yet")
    username, password = entry.get("username"), entry.get("password")
    if entry.get("auth"):
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (ValueError, TypeError, binascii.Error):
            raise _unreadable("an `auth` in it is not base64 of user:password") from None
    if not isinstance(username, str) or not isinstance(password, str):
        raise _unreadable("an entry of `auths` has no user and password")
    return Credentials(username=username, password=Secret(password.rstrip("\0")))


def _unreadable(because: str) -> TransferError:
    return TransferError(
        "the registry's credentials cannot be read", because=because, hint="log in again, with a password or a token"
    )


def _config_key(key: str) -> str:
    """`https://host/v1/` and `host` are one key."""
    bare = key.partition("://")[2] or key
    return re.sub(r"/(v[12])?/?\Z", "", bare)


def authorize(
    challenges: Sequence[Challenge],
    *,
    registry: str,
    credentials: Credentials | None,
    trusted_realms: Iterable[str] = (),
) -> Generator[Request, Response, Token]:
    """The dialogue that answers a 401 of the registry at this URL: Bearer when offered, else Basic."""
    offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
    if bearer := offered.get("bearer"):
        return (yield from _bearer(bearer, registry, credentials, frozenset(trusted_realms)))
    if "basic" not in offered:
        names = ", ".join(challenge.scheme for challenge in challenges) or "none"
        raise TransferError(
            "no common way to log in", at=redact(registry), because=f"the registry offers: {names[:200]}"
        )
    if credentials is None:
        raise TransferError(
            "the registry wants a user and a password",
            at=redact(registry),
            because="there are none for this host",
            hint="log in to the registry: credentials come from docker's config.json",
        )
    return Token(header=Secret(credentials.basic()))


def _bearer(
    challenge: Challenge, registry: str, credentials: Credentials | None, trusted: frozenset[str]
) -> Generator[Request, Response, Token]:
    realm = without_user(challenge.parameters.get("realm", ""))
    _check_realm(realm, registry, credentials is not None, trusted)
    query = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
    query += [("scope", scope) for scope in challenge.parameters.get("scope", "").split()]
    url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
    headers = {"Authorization": credentials.basic()} if credentials else {}
    response = yield Request(method="GET", url=url, headers=headers)
    if response.status != 200:
        raise refusal(response, "a token")
    return _token(response)


def _check_realm(realm: str, registry: str, secret: bool, trusted: frozenset[str]) -> None:
    """Refuse a token server that may not be asked, or may not be told the password."""
    scheme, host, _ = origin(realm)
    own_scheme, own_host, _ = origin(registry)
    if scheme != "https" and not (own_scheme == "http" and host == own_host):
        raise TransferError(
            "the registry's token server is not safe to ask",
            at=redact(registry),
            because=f"{redact(realm)} is not https",
        )
    if secret and host not in {own_host, *trusted, *_KNOWN_REALMS.get(own_host, ())}:
        raise TransferError(
            "the password was not sent to another host",
            at=redact(registry),
            because=f"the registry wants it sent to its token server {redact(realm)}",
            hint=f"if that server belongs to the registry, add {host} to `trusted_realms` in the settings",
        )


def _token(response: Response) -> Token:
    try:
        value = json.loads(response.read(_TOKEN_LIMIT))
        text = value.get("token") or value.get("access_token")
        lifetime = float(value.get("expires_in") or _LIFETIME)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TransferError("the token server's answer cannot be read", at=redact(response.url)) from error
    if not isinstance(text, str) or not _TOKEN.match(text):
        raise TransferError("the token server's answer holds no token", at=redact(response.url))
    return Token(header=Secret(f"Bearer {text}"), lifetime=lifetime)
