"""pip of an exact version: its wheel, found in a package index (PEP 503, PEP 691, PEP 700) and fetched by digest.

Law: asks the index once for the lock, and again only where it is a mirror. What is written down is PyPI's own URL of
the file, which follows from the file's bytes; which index stands in for PyPI is a setting.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from builder.lock import LockedSource
from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError, RecipeError, TransferError
from rootfs.ports import Reporter, Request, Store, Transport, read_blob
from rootfs.url import join, redact

PYPI = "pypi"
"""The package index among the mirrors; empty where the settings name none: then it is the one that pip knows."""

_JSON = "application/vnd.pypi.simple.v1+json"
_LIMIT = 32 << 20
_AT_LEAST = re.compile(r">=\s*(\d+(?:\.\d+)*)")


def public_index() -> tuple[str, str]:
    """The URLs of the index that pip uses by itself, and of the place its files lie, as the pip beside us has them.

    HostError when there is no pip beside us.
    """
    try:
        from pip._internal.models.index import PyPI as Known  # noqa: PLC0415 - rarely needed
    except ImportError as error:
        raise HostError("no package index is known", because="there is no pip here", hint="set --pypi") from error
    return Known.simple_url, f"https://{Known.file_storage_domain}/packages"


class _File(Struct, frozen=True, rename="kebab"):
    """A file of a project, as the index describes it; `size` in bytes (PEP 700)."""

    filename: str
    url: str
    hashes: dict[str, str]
    requires_python: str | None = None
    size: int | None = None


class _Project(Struct, frozen=True):
    files: tuple[_File, ...]


def lock_pip(
    version: str,
    python: tuple[int, ...],
    transport: Transport,
    store: Store,
    mirrors: Mapping[str, str],
    reporter: Reporter,
) -> LockedSource:
    """The wheel of pip `version` for a CPython (3, 14, 7), with the URL that PyPI itself serves it under.

    RecipeError when the index has no such version, or it does not run on this CPython.
    """
    index, files = _read_index(transport, mirrors)
    file = _wheel(version, files)
    needed = _AT_LEAST.search(file.requires_python or "")
    if needed and python < tuple(int(part) for part in needed[1].split(".")):
        raise RecipeError(
            f"pip {version} does not run on CPython {'.'.join(str(part) for part in python)}",
            because=f"it wants Python {file.requires_python}",
            hint="leave python.pip at true: then it is one that does",
        )
    try:
        digest = Digest("sha256", file.hashes.get("sha256", ""))
    except IntegrityError as error:
        raise TransferError("the package index gives no sha256 of pip", at=redact(index)) from error
    url, size = file.url, file.size
    if not url.startswith(public_index()[1]) or size is None:
        _fetch(join(index, file.url), digest, size, transport, store, reporter)
        data = read_blob(store, digest)
        url, size = _canonical_url(data, file.filename), len(data)
    reporter.note(f"pip {version} from {redact(index)}")
    return LockedSource(
        name="pip", version=version, urls=(url,), size=size, sha256=digest.hex, vouched=("sha256 of the package index",)
    )


def fetch_pip(
    source: LockedSource, transport: Transport, store: Store, mirrors: Mapping[str, str], reporter: Reporter
) -> Digest:
    """Put the locked wheel into the store, unless it is there; from a mirror by looking its digest up in the index."""
    digest = Digest("sha256", source.sha256)
    if not store.exists(digest):
        url = _on_mirror(source, transport, mirrors) if _is_mirrored(mirrors) else source.urls[0]
        _fetch(url, digest, source.size, transport, store, reporter)
    return digest


def _is_mirrored(mirrors: Mapping[str, str]) -> bool:
    named = mirrors.get(PYPI, "")
    return bool(named) and named.rstrip("/") != public_index()[0]


def _on_mirror(source: LockedSource, transport: Transport, mirrors: Mapping[str, str]) -> str:
    index, files = _read_index(transport, mirrors)
    for file in files:
        if file.hashes.get("sha256") == source.sha256:
            return join(index, file.url)
    raise TransferError(
        f"the package index has no pip {source.version} of the digest in the lock",
        at=redact(index),
        hint="check --pypi",
    )


def _read_index(transport: Transport, mirrors: Mapping[str, str]) -> tuple[str, tuple[_File, ...]]:
    """The URL of the project's page, and its files."""
    url = f"{(mirrors.get(PYPI) or public_index()[0]).rstrip('/')}/pip/"
    with transport.send(Request(method="GET", url=url, headers={"Accept": _JSON})) as response:
        if response.status != 200:
            raise TransferError(f"the package index answered {response.status}", at=redact(url), hint="check --pypi")
        data = response.read(_LIMIT)
    try:
        return url, msgspec.json.decode(data, type=_Project).files
    except msgspec.DecodeError as error:
        raise TransferError(
            "the package index cannot be read",
            at=redact(url),
            because=str(error),
            hint="it must speak JSON (PEP 691); set --pypi to one that does",
        ) from error


def _wheel(version: str, files: tuple[_File, ...]) -> _File:
    wheels = {file.filename.split("-")[1]: file for file in files if file.filename.endswith("-none-any.whl")}
    if version not in wheels:
        near = difflib.get_close_matches(version, wheels, n=5, cutoff=0)
        raise RecipeError(f"there is no pip {version}", hint=f"near: {', '.join(near)}" if near else None)
    return wheels[version]


def _canonical_url(data: bytes, name: str) -> str:
    """Where PyPI serves a file: below the digest of its bytes, BLAKE2b with 256 bits."""
    hex_ = hashlib.blake2b(data, digest_size=32).hexdigest()
    return f"{public_index()[1]}/{hex_[:2]}/{hex_[2:4]}/{hex_[4:]}/{name}"


def _fetch(url: str, digest: Digest, size: int | None, transport: Transport, store: Store, reporter: Reporter) -> None:
    task = "fetch pip"
    with transport.send(Request(method="GET", url=url)) as response:
        if response.status != 200:
            raise TransferError(f"pip's wheel: answered {response.status}", at=redact(url))
        reporter.begin(task, size)
        result = "failed"
        try:
            store.put(response.chunks, expect=digest, size=size)
            result = "done"
        finally:
            reporter.finish(task, result)
