"""What this host says about TLS to a registry: certs.d (containers-certs.d(5)) and registries.conf(5).

Law: reads the directories and files it is given. A directory `HOST[:PORT]` below one of them holds authorities
(`*.crt`), trusted beside the usual ones, and a client's certificate (`*.cert`) with its key (`*.key`). The first
directory that is there counts. Of registries.conf only `insecure` is read, and it allows plain http, never TLS that is
not verified; mirrors and rewritten names are not followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from builder.registry.reference import Reference
from rootfs.errors import HostError
from rootfs.tls import TlsFiles


def certificates(host: str, port: int, directories: Sequence[Path]) -> TlsFiles | None:
    """The files for a host (an IPv6 address in brackets) and port; HostError when one of a pair is missing."""
    names = (f"{host}:{port}", host) if port == 443 else (f"{host}:{port}",)
    for directory in (place / name for place in directories for name in names):
        try:
            files = sorted(directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise HostError("cannot read the certificates", at=str(directory), because=error.strerror) from error
        pairs = {path.stem: path for path in files if path.suffix == ".cert"}
        keys = {path.stem: path for path in files if path.suffix == ".key"}
        for stem in sorted(pairs.keys() ^ keys.keys()):
            there, missing = (pairs[stem], ".key") if stem in pairs else (keys[stem], ".cert")
            raise HostError(f"no {missing} beside a client's {there.suffix}", at=str(there))
        stem = min(pairs, default="")
        return TlsFiles(
            authorities=tuple(path for path in files if path.suffix == ".crt"),
            certificate=pairs.get(stem),
            key=keys.get(stem),
        )
    return None


def allows_plain_http(reference: Reference, files: Iterable[Path]) -> bool:
    """Whether registries.conf says `insecure = true` of the longest prefix that fits a repository."""
    best, allowed = -1, False
    for path in files:
        for table in _registries(path):
            prefix = table.get("prefix") or table.get("location")
            if isinstance(prefix, str) and len(prefix) >= best and _fits(prefix, reference.name):
                best, allowed = len(prefix), table.get("insecure") is True
    return allowed


def _registries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError) as error:
        raise HostError("cannot read the registries' configuration", at=str(path), because=str(error)) from error
    import tomllib  # noqa: PLC0415 (most hosts have no such file)

    try:
        tables = tomllib.loads(text).get("registry", [])
    except tomllib.TOMLDecodeError as error:
        raise HostError("cannot read the registries' configuration", at=str(path), because=str(error)) from error
    yield from (table for table in tables if isinstance(table, dict))


def _fits(prefix: str, name: str) -> bool:
    """A prefix ends where a host, or a part of the path, ends; `*.example.org` stands for every host below."""
    if prefix.startswith("*."):
        return name.partition("/")[0].partition(":")[0].endswith(prefix[1:])
    return name == prefix or name.startswith(f"{prefix}/")
