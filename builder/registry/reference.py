"""Reference: where an image is, `host/repository[:tag][@digest]` (distribution-spec 1.1, "Pulling manifests").

Law: pure; guesses neither a host nor a tag, because what is pushed goes where the user said, and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from rootfs.digest import Digest
from rootfs.errors import IntegrityError, UsageError

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?\Z")
_LONGEST_NAME = 255
_LAST_PORT = 65535
_ACCOUNT = re.compile(r"(?:[a-z]+://)?[^/@:]+:.*@(?!sha(?:256|512):)(?P<host>localhost|[^/@]*[.:][^/@]*)/")
_SCHEMES = ("https:", "http:", "oci:")  # of other programs, which write host and repository after them

SCHEME = "docker://"
"""What skopeo and podman write before a reference: it says nothing more than that it is one."""

# Hosts whose API answers under another name.
_API_HOSTS = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def common_host(host: str) -> str:
    """The host's name in lower case, and one name for the several that Docker's Hub has."""
    return _HUB[0] if host.lower() in _HUB else host.lower()


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    bare = host[1:].partition("]")[0] if host.startswith("[") else host
    name = bare if bare.count(":") > 1 else bare.partition(":")[0]
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def refuse_account(text: str) -> None:
    """UsageError for `user:password@host/repository`, as which no reference is written; it does not repeat them."""
    if found := _ACCOUNT.match(text):
        hint = f"leave them out, and log in: `ocibuild login {found['host']}`"
        raise UsageError("a reference holds no user and no password", hint=hint)


def _names_host(text: str) -> bool:
    """Whether what is before the first slash is meant as a host, and not as a directory or a part of a repository."""
    return text == "localhost" or ":" in text or ("." in text and bool(text.strip(".")))


def _missing(name: str) -> str:
    """What to write where no host was found, or a host alone."""
    if not name or name.startswith(("/", ".")):
        return "write host/repository:tag, as in registry.example.org/python:3.14"
    if _HOST.match(name) and "/" not in name and (name == "localhost" or ":" in name):
        return f"write a repository after the host, as in {name}/python"
    return f"write its host before the repository, as in registry.example.org/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A repository of a registry, and perhaps a tag and a digest in it; UsageError when a part is not allowed."""

    host: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _HOST.match(self.host):
            scheme = self.host in _SCHEMES and self.repository.startswith("/")
            hint = "leave out what is before the host: registry.example.org/python:3.14" if scheme else None
            raise UsageError(f"not a registry's host: {self.host!r:.100}", hint=hint)
        port = self.host.rpartition(":")[2]
        if port.isdecimal() and not 0 < int(port) <= _LAST_PORT:
            raise UsageError(f"not a port: {port}", at=self.host)
        if not _REPOSITORY.match(self.repository) or len(self.name) > _LONGEST_NAME:
            hint = "lower-case letters and digits, with . _ or - between them, and / between parts"
            raise UsageError(f"not a repository: {self.repository!r:.100}", at=str(self)[:200], hint=hint)
        if self.tag is not None and not _TAG.match(self.tag):
            hint = "a tag is at most 128 letters, digits, _ . or -, and begins with neither . nor -"
            raise UsageError(f"not a tag: {self.tag!r:.140}", hint=hint)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[docker://]registry.example.org:5000/python:3.14@sha256:...`; UsageError for anything else."""
        refuse_account(text)
        name, at, digest = text.removeprefix(SCHEME).partition("@")
        host, slash, path = name.partition("/")
        if not slash or not _names_host(host):
            raise UsageError(f"no registry in the reference: {text!r:.200}", hint=_missing(name)[:200])
        repository, colon, tag = path.partition(":")
        try:
            return cls(
                host=host,
                repository=repository,
                tag=tag if colon else None,
                digest=Digest.parse(digest) if at else None,
            )
        except IntegrityError as error:
            raise UsageError(error.message, at=text[:300], hint=error.hint) from error

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    @property
    def api_host(self) -> str:
        """The host (and port) that answers the registry's API."""
        return _API_HOSTS.get(self.host, self.host)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
