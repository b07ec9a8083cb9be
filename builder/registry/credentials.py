"""The files in which tools keep their accounts: docker's config.json and podman's auth.json (containers-auth.json(5)).

Law: pure; bytes in, values and bytes out, and whatever else such a file holds stays in it. A key is a registry's host,
or a host and the beginning of a repository; the longest that fits wins. Neither this module nor its errors show what
is secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from builder.registry.auth import TOKEN_USER, Credentials
from builder.registry.reference import Reference, common_host
from rootfs.errors import TransferError, UsageError

HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an account is for: a registry's host, or only what lies below a path (a namespace or repository) there."""

    host: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read `registry.example.org:5000[/namespace]`, as a user types it; UsageError for anything else."""
        bare = text.removeprefix("https://").removesuffix("/")
        host, _, path = bare.partition("/")
        hint = "write the host alone, as in registry.example.org or localhost:5000"
        if "@" in text:
            raise UsageError("a registry's host holds no user and no password", hint="say --username NAME")
        if bare.startswith("http://"):
            raise UsageError(f"not a registry's host: {text!r:.100}", hint=f"{hint}, and --plain-http if it must be")
        if not (host == "localhost" or "." in host or ":" in host):
            raise UsageError(f"not a registry's host: {text!r:.100}", hint=hint)
        Reference(host=host, repository=path or "x")
        return cls(host=common_host(host), path=path)

    @classmethod
    def of(cls, reference: Reference) -> Place:
        """The repository of a reference."""
        return cls(host=common_host(reference.host), path=reference.repository)

    @classmethod
    def of_key(cls, key: str) -> Place:
        """A key of `auths`: `https://host/v1/` and `host` are one."""
        bare = re.sub(r"/(v[12])?/?\Z", "", key.partition("://")[2] or key)
        host, _, path = bare.partition("/")
        return cls(host=common_host(host), path=path)

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" if self.path else self.host

    def outwards(self) -> Iterator[Place]:
        """This place and all it lies in, the nearest first."""
        parts = self.path.split("/") if self.path else []
        for length in range(len(parts), -1, -1):
            yield Place(host=self.host, path="/".join(parts[:length]))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthFile:
    """Such a file's content; `name` is where it came from, for messages."""

    name: str
    _value: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, data: bytes, name: str) -> AuthFile:
        """TransferError when it is not a JSON object of this kind; nothing but space is an empty one."""
        try:
            value = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError):
            value = None
        tables = ("auths", "credHelpers")
        if not isinstance(value, dict) or not all(isinstance(value.get(name) or {}, dict) for name in tables):
            raise _unreadable(name, "it is not docker's config.json, nor podman's auth.json")
        return cls(name=name, _value=value)

    def to_bytes(self) -> bytes:
        """As docker and podman write it."""
        return json.dumps(self._value, indent="\t", ensure_ascii=False).encode() + b"\n"

    def credentials(self, place: Place) -> Credentials | None:
        """The account that is written in it for a place; TransferError when that entry cannot be read."""
        entries = {Place.of_key(key): entry for key, entry in self._table("auths").items()}
        for outer in place.outwards():
            if found := self._credentials(entries.get(outer), outer):
                return found
        return None

    def helper(self, host: str) -> str | None:
        """The credential helper that keeps this host's account, by `credHelpers`."""
        helpers = {Place.of_key(key).host: name for key, name in self._table("credHelpers").items()}
        return self._helper(helpers.get(host))

    def store(self) -> str | None:
        """The credential helper that keeps every account, by `credsStore`."""
        return self._helper(self._value.get("credsStore"))

    def written(self) -> list[Place]:
        """What it has entries for, whether or not they hold the secret."""
        return [Place.of_key(key) for key in self._table("auths")]

    def helped(self) -> list[Place]:
        """The hosts whose accounts are with helpers of their own."""
        return [Place.of_key(key) for key in self._table("credHelpers")]

    def keeping(self, place: Place, credentials: Credentials | None) -> Self:
        """With this account for the place; None leaves an empty entry, docker's sign that `credsStore` has it."""
        kept = self.without(place)
        entry = {} if credentials is None else _entry(credentials)
        return kept._with_auths({**kept._table("auths"), self.key(place): entry})  # noqa: SLF001 (of our own class)

    def without(self, place: Place) -> Self:
        """Without the accounts that are written in it for exactly this place."""
        kept = {key: entry for key, entry in self._table("auths").items() if Place.of_key(key) != place}
        return self._with_auths(kept)

    def key(self, place: Place) -> str:
        """The key under which the program whose file it is looks for a place."""
        docker = self.name.endswith("config.json")
        return HUB_KEY if docker and str(place) == "docker.io" else str(place)

    def _with_auths(self, auths: Mapping[str, Any]) -> Self:
        return replace(self, _value={**self._value, "auths": auths})

    def _table(self, name: str) -> Mapping[str, Any]:
        return self._value.get(name) or {}

    def _helper(self, name: Any) -> str | None:
        if not name:
            return None
        if not isinstance(name, str) or not _HELPER.match(name):
            raise _unreadable(self.name, "it names a credential helper that is no program's name")
        return name

    def _credentials(self, entry: Any, place: Place) -> Credentials | None:
        """An entry of `auths`; one without any secret is none."""
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise _unreadable(self.name, f"its entry for {place} is not an object")
        username, password = entry.get("username"), entry.get("password")
        if entry.get("auth"):
            try:
                username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (ValueError, TypeError, binascii.Error):
                raise _unreadable(self.name, f"`auth` of {place} is not base64 of user:password") from None
        token = entry.get("identitytoken")
        if token:
            username, password = TOKEN_USER, token
        if not username and not password:
            return None
        if not isinstance(username, str) or not isinstance(password, str):
            raise _unreadable(self.name, f"its entry for {place} has no user and password")
        return Credentials.of(username, password.rstrip("\0"), self.name)


def parse_helper(data: bytes, name: str) -> Credentials | None:
    """What a credential helper answers to `get`: a JSON object with Username and Secret."""
    try:
        value = json.loads(data)
        username, secret = value.get("Username"), value.get("Secret")
    except (ValueError, AttributeError, RecursionError):
        username = secret = None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _unreadable(name, "its answer is not an object with Username and Secret")
    return Credentials.of(username, secret, name) if secret else None


def helper_input(server: str, credentials: Credentials) -> bytes:
    """What a credential helper wants to read for `store`."""
    secret = credentials.identity_token or credentials.password
    value = {"ServerURL": server, "Username": credentials.username, "Secret": secret.reveal()}
    return json.dumps(value).encode()


def _entry(credentials: Credentials) -> dict[str, str]:
    if token := credentials.identity_token:
        nobody = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
        return {"auth": nobody, "identitytoken": token.reveal()}
    pair = f"{credentials.username}:{credentials.password.reveal()}"
    return {"auth": base64.b64encode(pair.encode()).decode()}


def _unreadable(name: str, because: str) -> TransferError:
    return TransferError(
        "the registry's credentials cannot be read",
        at=name,
        because=because,
        hint="log in again (`ocibuild login REGISTRY`), or mend the file",
    )
