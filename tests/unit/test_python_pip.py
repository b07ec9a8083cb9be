"""pip of an exact version: from PyPI, and from a mirror that lays its files out otherwise."""

from __future__ import annotations

import json
from hashlib import blake2b, sha256
from typing import Any

import pytest

from builder.lock import LockedSource
from builder.python.pip import PYPI, fetch_pip, lock_pip, public_index
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, RecipeError, TransferError
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import FakeTransport, pages

WHEEL = b"the wheel of pip 25.2"
NAME = "pip-25.2-py3-none-any.whl"
HEX = blake2b(WHEEL, digest_size=32).hexdigest()
SIMPLE, FILES = public_index()
CANONICAL = f"{FILES}/{HEX[:2]}/{HEX[2:4]}/{HEX[4:]}/{NAME}"
INDEX = f"{SIMPLE}/pip/"
MIRROR = {PYPI: "https://mirror.test/root/simple/"}
MIRRORED = "https://mirror.test/root/+f/6d2/" + NAME


def file(url: str = CANONICAL, **changes: Any) -> dict[str, Any]:
    """A file as an index describes it."""
    known = {"filename": NAME, "url": url, "hashes": {"sha256": sha256(WHEEL).hexdigest()}, "size": len(WHEEL)}
    return {**known, "requires-python": ">=3.9", "yanked": False, **changes}


def project(*files: dict[str, Any]) -> bytes:
    return json.dumps({"meta": {"api-version": "1.1"}, "name": "pip", "files": files}).encode()


ON_PYPI = {INDEX: project(file()), CANONICAL: WHEEL}
ON_MIRROR = {"https://mirror.test/root/simple/pip/": project(file("../../+f/6d2/" + NAME)), MIRRORED: WHEEL}


def lock(
    transport: FakeTransport, mirrors: dict[str, str] | None = None, python: tuple[int, ...] = (3, 14, 7)
) -> LockedSource:
    return lock_pip("25.2", python, transport, MemoryStore(), mirrors or {}, ListReporter())


def test_the_wheel_is_found_with_its_url_size_and_digest() -> None:
    transport = pages(ON_PYPI)
    locked = lock(transport)
    assert (locked.name, locked.version, locked.urls, locked.size) == ("pip", "25.2", (CANONICAL,), len(WHEEL))
    assert locked.sha256 == sha256(WHEEL).hexdigest()
    assert [request.url for request in transport.requests] == [INDEX]
    assert transport.requests[0].headers["Accept"] == "application/vnd.pypi.simple.v1+json"


def test_a_mirror_gives_the_same_lock() -> None:
    assert lock(pages(ON_MIRROR), MIRROR) == lock(pages(ON_PYPI))
    without_size = {**ON_MIRROR, "https://mirror.test/root/simple/pip/": project(file(MIRRORED, size=None))}
    assert lock(pages(without_size), MIRROR) == lock(pages(ON_PYPI))


def test_the_locked_wheel_is_fetched_from_where_the_settings_say() -> None:
    locked = lock(pages(ON_PYPI))
    for web, mirrors in ((ON_PYPI, {}), (ON_PYPI, {PYPI: ""}), (ON_PYPI, {PYPI: SIMPLE + "/"}), (ON_MIRROR, MIRROR)):
        store = MemoryStore()
        assert fetch_pip(locked, pages(web), store, mirrors, ListReporter()) == Digest.of(WHEEL)
        assert store.blobs == {Digest.of(WHEEL): WHEEL}
        assert fetch_pip(locked, pages({}), store, mirrors, ListReporter()) == Digest.of(WHEEL)


@pytest.mark.parametrize(
    ("web", "error"),
    [
        ({**ON_PYPI, CANONICAL: WHEEL + b"!"}, IntegrityError),
        ({INDEX: project(file())}, TransferError),
    ],
)
def test_other_bytes_are_never_kept(web: dict[str, bytes], error: type[OcibuildError]) -> None:
    store = MemoryStore()
    with pytest.raises(error):
        fetch_pip(lock(pages(ON_PYPI)), pages(web), store, {}, ListReporter())
    assert store.blobs == {}


def test_a_mirror_without_the_locked_file_says_so() -> None:
    web = {"https://mirror.test/root/simple/pip/": project(file(MIRRORED, hashes={"sha256": "0" * 64}))}
    with pytest.raises(TransferError, match="of the digest in the lock"):
        fetch_pip(lock(pages(ON_PYPI)), pages(web), MemoryStore(), MIRROR, ListReporter())


def test_a_version_that_there_is_not_names_some_there_are() -> None:
    web = {INDEX: project(file(), file(filename="pip-25.2.tar.gz"), file(filename="pip-25.1-py3-none-any.whl"))}
    with pytest.raises(RecipeError, match=r"there is no pip 25\.3") as caught:
        lock_pip("25.3", (3, 14, 7), pages(web), MemoryStore(), {}, ListReporter())
    assert caught.value.hint == "near: 25.2, 25.1"


@pytest.mark.parametrize(
    ("needed", "python", "runs"),
    [
        (">=3.9", (3, 8, 20), False),
        (">=3.9", (3, 9, 0), True),
        (">=2.7,!=3.0.*,!=3.1.*", (2, 7, 18), True),
        (">= 3.10", (3, 9, 25), False),
        (None, (2, 7, 18), True),
    ],
)
def test_pip_must_run_on_the_cpython_it_is_for(needed: str | None, python: tuple[int, ...], *, runs: bool) -> None:
    web = pages({INDEX: project(file(**{"requires-python": needed}))})
    if runs:
        assert lock(web, python=python).version == "25.2"
    else:
        with pytest.raises(RecipeError, match="does not run on CPython"):
            lock(web, python=python)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (b"<html>", "cannot be read"),
        (b"{}", "cannot be read"),
        (b'{"files": [{}]}', "cannot be read"),
        (project(file(hashes={})), "gives no sha256"),
        (None, "answered 404"),
    ],
)
def test_an_index_that_is_none_is_a_transfer_error_with_a_hint(page: bytes | None, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        lock(pages({} if page is None else {INDEX: page}))
