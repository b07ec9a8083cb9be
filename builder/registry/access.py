"""Access: what this user and this host say about getting into registries, as one value.

Law: a value, and the three questions it answers for one repository: which account, which token servers, which scheme.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.registry.accounts import Note, Source, lookup, read_realms
from builder.registry.auth import Credentials
from builder.registry.base import speaks_plain_http
from builder.registry.certs import allows_plain_http, certificates
from builder.registry.credentials import Place
from builder.registry.reference import Reference, common_host, is_loopback
from rootfs.ports import Transport
from rootfs.url import origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Sources of accounts, best first; the files among them, and the one a login writes; whom to tell a secret.

    `trusted_realms` are `HOST` or `REGISTRY=HOST`; `realms_file` is what logins added to them. `certificates` are the
    directories of certs.d, `registries` the files of registries.conf, the best last.
    """

    sources: tuple[Source, ...] = ()
    files: tuple[Path, ...] = ()
    login_file: Path = Path("auth.json")
    trusted_realms: tuple[str, ...] = ()
    realms_file: Path = Path("realms.json")
    certificates: tuple[Path, ...] = ()
    registries: tuple[Path, ...] = ()

    def account(self, reference: Reference, note: Note) -> Callable[[], Credentials | None]:
        """How to find the account for a repository; nothing is read before it is called."""
        return lookup(Place.of(reference), self.sources, note)

    def realms(self, host: str) -> tuple[str, ...]:
        """The hosts of token servers that may be told the secrets of a registry, beside its own."""
        pairs = [entry.rpartition("=") for entry in self.trusted_realms]
        named = [realm for registry, _, realm in pairs if not registry or common_host(registry) == common_host(host)]
        return (*named, *read_realms(self.realms_file).get(common_host(host), ()))

    def plain_http(self, reference: Reference, transport: Transport, *, asked: bool) -> bool:
        """Whether to speak plain http: when asked for, or allowed for this host and nothing else is spoken there.

        It is allowed on the loopback, and where registries.conf says `insecure = true`.
        """
        if asked:
            return True
        _, host, port = origin(f"https://{reference.api_host}/")
        if certificates(f"[{host}]" if ":" in host else host, port, self.certificates) is not None:
            return False
        allowed = is_loopback(reference.host) or allows_plain_http(reference, self.registries)
        return allowed and speaks_plain_http(transport, reference)
