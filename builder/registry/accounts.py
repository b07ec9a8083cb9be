"""Accounts: finding the one for a repository, and keeping, finding again and forgetting them (login, logout).

Law: reads the sources it is given in their order and runs the helper of one host only, when a registry has asked for
an account; what of that fails for reasons outside the file is a note, since the registry may do without. Files are
replaced whole, with mode 0600, under a lock on their directory.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.registry import helpers
from builder.registry.auth import Credentials
from builder.registry.credentials import HUB_KEY, AuthFile, Place
from rootfs.errors import HostError, TransferError, UsageError
from rootfs.files import host_error, replacing

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An account that variables name, for one host."""

    host: str
    credentials: Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFile:
    """The text of an auth file, from a variable."""

    name: str
    text: str = field(repr=False)


Source = Given | GivenFile | Path


def find(place: Place, sources: Sequence[Source], note: Note) -> Credentials | None:
    """The account for a place from the first source that has one."""
    for source in sources:
        if isinstance(source, Given):
            credentials = source.credentials if source.host == place.host else None
        else:
            file = _parsed(source, note)
            credentials = None if file is None else _in_file(file, place, note)
        if credentials is not None:
            return credentials
    return None


def _parsed(source: GivenFile | Path, note: Note | None = None) -> AuthFile | None:
    """None when there is no such file, or in a directory that is closed to us (/run/containers may be root's alone);
    with `note`, which is told, also when it is not ours to read.
    """
    if isinstance(source, GivenFile):
        return AuthFile.parse(source.text.encode(), source.name)
    try:
        return AuthFile.parse(source.read_bytes(), str(source))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if isinstance(error, PermissionError) and not os.path.lexists(source):
            return None
        if note is not None and isinstance(error, PermissionError):
            note(f"{source}: not ours to read, so what it holds is left alone")
            return None
        raise HostError("cannot read the credentials", at=str(source), because=error.strerror or str(error)) from error


def _in_file(file: AuthFile, place: Place, note: Note) -> Credentials | None:
    """What the helper of this host has, else what is written, else what the helper of all hosts has."""
    if name := file.helper(place.host):
        return _asked(name, file, place, note)
    if written := file.credentials(place):
        return written
    return _asked(name, file, place, note) if (name := file.store()) else None


def _asked(name: str, file: AuthFile, place: Place, note: Note) -> Credentials | None:
    for server in _servers(place.host):
        try:
            credentials = helpers.fetch(name, server)
        except (HostError, TransferError) as error:
            because = f" ({error.because})" if error.because else ""
            note(f"{file.name}: {error.message}{because}; going on without")
            return None
        if credentials is not None:
            return credentials
    return None


def _servers(host: str) -> tuple[str, ...]:
    """The names under which a helper may know a host."""
    return (HUB_KEY, host) if host == "docker.io" else (host,)


def keep(path: Path, place: Place, credentials: Credentials) -> str:
    """Keep an account in a file, or with the helper that the file names; says where it is now."""
    with _rewriting(path) as (file, write):
        name = file.helper(place.host) or file.store()
        if name is None:
            write(file.keeping(place, credentials))
            return str(path)
        if place.path:
            because = f"docker-credential-{name} keeps its accounts, and helpers know hosts only"
            raise UsageError(f"cannot keep an account for {place}", at=str(path), because=because)
        helpers.keep(name, _servers(place.host)[0], credentials)
        if file.helper(place.host) is None:
            write(file.keeping(place, None))
        return f"docker-credential-{name}"


def forget(path: Path, place: Place, note: Note) -> bool:
    """Take an account out of a file and out of the helper it names; whether there was anything to forget."""
    if _parsed(path, note) is None:
        return False
    with _rewriting(path) as (file, write):
        name = file.helper(place.host) or file.store()
        known = place in file.written()
        if known:
            write(file.without(place))
        if name is not None and not place.path:
            for server in _servers(place.host):
                if helpers.fetch(name, server) is not None:
                    helpers.erase(name, server)
                    known = True
        return known


def places(path: Path, note: Note) -> list[Place]:
    """What a file has accounts for."""
    file = _parsed(path, note)
    return [] if file is None else [*file.written(), *file.helped()]


@contextmanager
def _rewriting(path: Path) -> Iterator[tuple[AuthFile, Callable[[AuthFile], None]]]:
    """A file's content and how to replace it; nobody else of us is at it meanwhile, and a link stays a link."""
    target = path.resolve()

    def write(file: AuthFile) -> None:
        with replacing(target, 0o600) as stream:
            stream.write(file.to_bytes())

    with _locked(target.parent):
        yield _parsed(path) or AuthFile(name=str(path)), write


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise host_error(error, directory) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_realms(path: Path) -> dict[str, list[str]]:
    """The hosts of token servers that a login has trusted, by registry; HostError when the file cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        return {str(host): [str(realm) for realm in realms] for host, realms in value.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostError("cannot read the trusted realms", at=str(path), because=error.strerror) from error
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        hint = "delete it, and log in again with --realm"
        raise HostError("cannot read the trusted realms", at=str(path), hint=hint) from error


def write_realms(path: Path, host: str, realms: Sequence[str]) -> None:
    """Trust exactly these token servers with the accounts of a registry."""
    with _locked(path.parent):
        value = {**read_realms(path), host: sorted(set(realms))}
        kept = {key: value[key] for key in sorted(value) if value[key]}
        with replacing(path, 0o600) as stream:
            stream.write(json.dumps(kept, indent=2).encode() + b"\n")
