"""Access: what this user and this host say about getting into registries, as one value.

Law: a value, and the three questions it answers for one repository: which account, which token servers, which scheme.
"""

# ruff: noqa: PLC0415 (where each of the questions leads is imported when it is asked, and most need no answer)

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.registry.reference import Reference, common_host, is_loopback
from rootfs.ports import Transport
from rootfs.url import origin

if TYPE_CHECKING:
    from builder.registry.accounts import Note, Source
    from builder.registry.auth import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Sources of accounts, best first; the file among them that a variable names, all files among them, and the one a
    login writes; whom to tell a secret.

    `trusted_realms` are `HOST` or `REGISTRY=HOST`; `realms_file` is what logins added to them. `certificates` are the
    directories of certs.d, `registries` the files of registries.conf, the best last.
    """

    sources: tuple[Source, ...] = ()
    named_file: Path | None = None
    files: tuple[Path, ...] = ()
    login_file: Path = Path("auth.json")
    trusted_realms: tuple[str, ...] = ()
    realms_file: Path = Path("realms.json")
    certificates: tuple[Path, ...] = ()
    registries: tuple[Path, ...] = ()

    def account(self, reference: Reference, note: Note) -> Callable[[], Credentials | None]:
        """How to find the account for a repository; it is looked for at the first call, and remembered; thread-safe."""
        found: list[Credentials | None] = []
        lock = threading.Lock()

        def once() -> Credentials | None:
            from builder.registry.accounts import find
            from builder.registry.credentials import Place

            with lock:
                if not found:
                    if self.named_file and not os.path.exists(self.named_file):  # noqa: PTH110 (which raises for a closed directory)
                        note(f"{self.named_file}, which REGISTRY_AUTH_FILE names, is not there; going on without")
                    found.append(find(Place.of(reference), self.sources, note))
                return found[0]

        return once

    def realms(self, host: str) -> tuple[str, ...]:
        """The hosts of token servers that may be told the secrets of a registry, beside its own."""
        pairs = [entry.rpartition("=") for entry in self.trusted_realms]
        named = [realm for registry, _, realm in pairs if not registry or common_host(registry) == common_host(host)]
        if self.realms_file.exists():
            from builder.registry.accounts import read_realms

            named += read_realms(self.realms_file).get(common_host(host), [])
        return tuple(named)

    def plain_http(self, reference: Reference, transport: Transport, *, asked: bool) -> bool:
        """Whether to speak plain http: when asked for, or allowed for this host and nothing else is spoken there.

        It is allowed on the loopback, and where registries.conf says `insecure = true`.
        """
        if asked:
            return True
        from builder.registry.base import speaks_plain_http
        from builder.registry.certs import allows_plain_http, certificates

        _, host, port = origin(f"https://{reference.api_host}/")
        if certificates(f"[{host}]" if ":" in host else host, port, self.certificates) is not None:
            return False
        allowed = is_loopback(reference.host) or allows_plain_http(reference, self.registries)
        return allowed and speaks_plain_http(transport, reference)
