"""Logging in to a registry and out again.

Law: an account is tried at the registry before it is kept; what is kept lies where docker and podman look for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.registry.access import Access
from builder.registry.accounts import Note, find, forget, keep, places, read_realms, write_realms
from builder.registry.auth import Credentials
from builder.registry.base import check
from builder.registry.credentials import Place
from builder.registry.reference import Reference
from rootfs.ports import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """What a login did: whose account it is, and where it lies."""

    username: str
    kept: str


def known_account(place: Place, access: Access, note: Note) -> Credentials | None:
    """The account this user has already for a place."""
    return find(place, access.sources, note)


def log_in(
    place: Place,
    credentials: Credentials,
    access: Access,
    transport: Transport,
    note: Note,
    *,
    realms: Sequence[str] = (),
    plain_http: bool = False,
) -> LoggedIn:
    """Try an account, keep it unless it was found (it has a `source`), and trust these token servers with it."""
    hosts = [Reference(host=realm, repository="x").host.lower() for realm in realms]
    reference = Reference(host=place.host, repository=place.path or "x")
    plain = access.plain_http(reference, transport, asked=plain_http)
    trusted = (*access.realms(place.host), *hosts)
    if not check(transport, reference, credentials, plain_http=plain, trusted_realms=trusted):
        note(f"{place.host} asked for no account, so it is not known whether it takes this one")
    kept = credentials.source or keep(access.login_file, place, credentials)
    if hosts:
        known = read_realms(access.realms_file).get(place.host, [])
        write_realms(access.realms_file, place.host, [*known, *hosts])
    return LoggedIn(username=credentials.username, kept=kept)


def log_out(place: Place, access: Access, note: Note) -> list[Path]:
    """Forget the account for a place in every file that is ours to read; the files that had it."""
    had = [path for path in access.files if forget(path, place, note)]
    if not place.path and place.host in read_realms(access.realms_file):
        write_realms(access.realms_file, place.host, [])
    return had


def all_places(access: Access, note: Note) -> list[Place]:
    """Every place that the files have an account for."""
    return list(dict.fromkeys(place for path in access.files for place in places(path, note)))
