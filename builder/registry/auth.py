"""Who we are to a registry: challenges, credentials and tokens (RFC 9110 section 11, RFC 7617, and distribution's
token authentication, docs/content/spec/auth/token.md and oauth.md).

Law: no I/O. The token dialogue is a generator that yields requests and receives responses; an account is looked up by
the caller's function, and only when a registry has asked for one.
A secret belongs to one registry: it goes to that host, to a token server (realm) on that host, or to one that was
named as trusted for it. A realm is https, but for a registry that itself is asked for over plain http.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from builder.registry.reference import is_loopback
from builder.registry.refusal import login_command, refusal
from rootfs.errors import TransferError
from rootfs.ports import Request, Response
from rootfs.url import origin, redact, split, without_user

CLIENT = "ocibuild"
TOKEN_USER = "<token>"  # noqa: S105 (the user name by which docker marks an identity token)
_TOKEN_LIMIT = 1 << 20
_TOKEN = re.compile(r"[!-~]+\Z")
_LIFETIME = 60.0  # seconds, when the token server does not say (token.md, `expires_in`)
_NO_GET = (404, 405)

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_NAME})(?:\s++|$|(?=,))(?!\s*=)")
_PARAMETER = re.compile(rf'\s*({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))\s*')

# Token servers that a registry is known to have on another host.
_KNOWN_REALMS = {
    "registry-1.docker.io": frozenset({"auth.docker.io"}),
    "registry.gitlab.com": frozenset({"gitlab.com"}),
}


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

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other.reveal()

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An account at one registry: a user and a password, or an identity token (an OAuth2 refresh token).

    `source` says where they were found; `realms` are hosts of token servers that came with them as theirs.
    """

    username: str
    password: Secret
    identity_token: Secret | None = None
    source: str = field(default="", compare=False)
    realms: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def of(cls, username: str, secret: str, source: str = "") -> Credentials:
        """What docker's tools call a user name and a secret: the name `<token>` says that it is an identity token."""
        if username == TOKEN_USER:
            return cls(username=username, password=Secret(""), identity_token=Secret(secret), source=source)
        return cls(username=username, password=Secret(secret), source=source)

    def basic(self) -> Secret:
        """The Authorization header of the Basic scheme (RFC 7617)."""
        pair = f"{self.username}:{self.password.reveal()}".encode()
        return Secret(f"Basic {base64.b64encode(pair).decode()}")


Account = Credentials | Callable[[], Credentials | None] | None
"""The account at a registry, or how to look it up; it may turn out that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What an Authorization header holds, for how many seconds it is good (None: for ever), and whose it is."""

    header: Secret
    lifetime: float | None = None
    source: str = ""


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


def scope_of(repository: str, access: str) -> str:
    """What a token allows: `access` is `pull`, or `push`, which is to pull as well (token.md, "Resource Scope")."""
    return f"repository:{repository}:{'pull' if access == 'pull' else 'pull,push'}"


def authorize(
    challenges: Sequence[Challenge],
    *,
    registry: str,
    credentials: Account,
    trusted_realms: Iterable[str] = (),
    scopes: Iterable[str] = (),
) -> Generator[Request, Response, Token]:
    """The dialogue that answers a 401 of the registry at this URL: Bearer when offered, else Basic.

    `scopes` are wanted beside those the challenge names, so that one token does for a push that begins by looking what
    is there. TransferError when it fails, or would betray a secret.
    """
    offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
    if bearer := offered.get("bearer"):
        return (yield from _bearer(bearer, registry, credentials, frozenset(trusted_realms), scopes))
    if "basic" not in offered:
        names = ", ".join(challenge.scheme for challenge in challenges) or "none"
        raise TransferError(
            "no common way to log in", at=redact(registry), because=f"the registry offers: {names[:200]}"
        )
    account = _known(credentials)
    if account is None or account.identity_token:
        raise TransferError(
            "the registry wants a user and a password",
            at=redact(registry),
            because="there are none for this host" if account is None else f"{account.source} has an identity token",
            hint=f"log in to the registry: `{login_command(registry)}`",
        )
    return Token(header=account.basic(), source=account.source)


def _known(credentials: Account) -> Credentials | None:
    return credentials if credentials is None or isinstance(credentials, Credentials) else credentials()


def _bearer(
    challenge: Challenge, registry: str, credentials: Account, trusted: frozenset[str], scopes: Iterable[str]
) -> Generator[Request, Response, Token]:
    realm = challenge.parameters.get("realm", "")
    _check_scheme(realm, registry)
    realm = without_user(realm)
    account = _known(credentials)
    if account is not None:
        _check_host(realm, registry, trusted | account.realms)
    service = [("service", challenge.parameters["service"])] if "service" in challenge.parameters else []
    wanted = _merged([*challenge.parameters.get("scope", "").split(), *scopes])
    if account is not None and account.identity_token:
        grant = {"grant_type": "refresh_token", "refresh_token": account.identity_token.reveal()}
        response = yield _oauth(realm, grant, service, wanted)
    else:
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode([*service, *(('scope', s) for s in wanted)])}"
        headers = {"Authorization": account.basic().reveal()} if account else {}
        response = yield Request(method="GET", url=url, headers=headers)
        if account is not None and response.status in _NO_GET:
            grant = {"grant_type": "password", "username": account.username, "password": account.password.reveal()}
            response = yield _oauth(realm, grant, service, wanted)
    if response.status != 200:
        raise _refused(response, registry, account)
    return _token(response, account.source if account else "")


def _merged(scopes: Iterable[str]) -> list[str]:
    """One scope for each resource, with all its actions."""
    resources: dict[str, dict[str, None]] = {}
    for scope in scopes:
        name, _, actions = scope.rpartition(":")
        resources.setdefault(name, {}).update(dict.fromkeys(actions.split(",")))
    return [f"{name}:{','.join(actions)}" for name, actions in resources.items()]


def _oauth(realm: str, grant: Mapping[str, str], service: list[tuple[str, str]], scopes: Sequence[str]) -> Request:
    """The form of an OAuth2 token request (oauth.md); the transport follows no redirect of a POST."""
    form = [*grant.items(), *service, ("client_id", CLIENT), *([("scope", " ".join(scopes))] if scopes else [])]
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(method="POST", url=realm, headers=headers, body=urlencode(form).encode())


def _refused(response: Response, registry: str, account: Credentials | None) -> TransferError:
    error = refusal(response, "a token")
    if response.status in (400, 401, 403):
        whose = "without an account" if account is None else f"with the account of {account.source or 'this registry'}"
        error.because = f"{error.because} ({whose})"
        error.hint = f"log in to the registry: `{login_command(registry)}`"
    return error


def _check_scheme(realm: str, registry: str) -> None:
    """Refuse a token server that may not be asked at all: others could read the answer."""
    scheme, host, _ = origin(realm)
    own_scheme, own_host, _ = origin(registry)
    same = host == own_host or (is_loopback(host) and is_loopback(own_host))
    if scheme != "https" and not (own_scheme == "http" and same):
        raise TransferError(
            "the registry's token server is not safe to ask",
            at=redact(registry),
            because=f"{redact(realm)} is not https",
        )


def _check_host(realm: str, registry: str, trusted: frozenset[str]) -> None:
    """Refuse a token server that may not be told the secret (a trusted one is `HOST`, or `HOST:PORT` for that port)."""
    _, host, port = origin(realm)
    _, own_host, _ = origin(registry)
    if host == own_host or (is_loopback(host) and is_loopback(own_host)):
        return
    if not {host, f"{host}:{port}"} & {*trusted, *_KNOWN_REALMS.get(own_host, ())}:
        named = host if split(realm).port is None else f"{host}:{port}"
        raise TransferError(
            "the password was not sent to another host",
            at=redact(registry),
            because=f"the registry wants it sent to its token server {redact(realm)}",
            hint=f"if that server belongs to the registry: `{login_command(registry, realm=named)}`",
        )


def _token(response: Response, source: str) -> Token:
    try:
        value = json.loads(response.read(_TOKEN_LIMIT))
        text = value.get("token") or value.get("access_token")
        lifetime = float(value.get("expires_in") or _LIFETIME)
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise TransferError("the token server's answer cannot be read", at=redact(response.url)) from error
    if not isinstance(text, str) or not _TOKEN.match(text):
        raise TransferError("the token server's answer holds no token", at=redact(response.url))
    lifetime = max(0.0, lifetime) if math.isfinite(lifetime) else _LIFETIME
    return Token(header=Secret(f"Bearer {text}"), lifetime=lifetime, source=source)
