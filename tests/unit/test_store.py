"""The Store: one suite for the real one and its fake, and what only a disk can do wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from rootfs.digest import Digest
from rootfs.errors import HostError, IntegrityError
from rootfs.ports import Store, read_blob
from rootfs.store import DiskStore
from tests.fakes.store import MemoryStore


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return DiskStore(tmp_path / "store") if request.param == "disk" else MemoryStore()


def test_what_was_put_can_be_read(store: Store) -> None:
    stored = store.put([b"ab", b"", b"c"])
    assert (stored.digest, stored.size) == (Digest.of(b"abc"), 3)
    assert store.exists(stored.digest)
    assert read_blob(store, stored.digest) == b"abc"


def test_large_and_small_chunks_are_counted_in_order(store: Store) -> None:
    chunks = [bytes([number]) * size for number, size in enumerate([1, 1 << 20, 7, 1 << 18, (1 << 18) - 1, 1 << 19])]
    stored = store.put(iter(chunks))
    assert stored.digest == Digest.of(b"".join(chunks))
    with store.open(stored.digest) as stream:
        assert stream.read() == b"".join(chunks)


def test_what_was_not_put_is_not_there(store: Store) -> None:
    assert not store.exists(Digest.of(b"x"))
    with pytest.raises(IntegrityError):
        store.open(Digest.of(b"x"))


@pytest.mark.parametrize(("data", "size"), [(b"other", 4), (b"wrongs", None), (b"lon", 4), (b"longer", 4)])
def test_unexpected_bytes_are_discarded(store: Store, data: bytes, size: int | None) -> None:
    with pytest.raises(IntegrityError):
        store.put([data], expect=Digest.of(b"good"), size=size)
    assert not store.exists(Digest.of(data))
    assert not store.exists(Digest.of(b"good"))


def test_a_link_leads_to_its_blob_and_the_last_one_counts(store: Store) -> None:
    key = Digest.of(b"key")
    assert store.lookup(key) is None
    for data in (b"one", b"two"):
        store.link(key, store.put([data]).digest)
    assert store.lookup(key) == Digest.of(b"two")


def test_a_link_to_a_blob_that_is_gone_is_no_link(store: Store) -> None:
    store.link(Digest.of(b"key"), Digest.of(b"never put"))
    assert store.lookup(Digest.of(b"key")) is None


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    store = DiskStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.put(broken())
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not store.exists(Digest.of(b"half"))


def test_blobs_are_read_only_files_under_the_layouts_names(tmp_path: Path) -> None:
    digest = DiskStore(tmp_path).put([b"x"]).digest
    assert (tmp_path / "blobs" / "sha256" / digest.hex).stat().st_mode & 0o777 == 0o444


PUT = pytest.mark.parametrize("form", [list, iter])
"""Bytes that are at hand, and bytes as they come: what is here already is looked at in two ways."""


@PUT
@pytest.mark.parametrize("size", [7, 3_000_000])
@pytest.mark.parametrize("damage", ["byte", "length", "nothing left"])
def test_a_damaged_blob_is_replaced_when_it_is_put_again(
    tmp_path: Path, form: Callable[[list[bytes]], Iterable[bytes]], size: int, damage: str
) -> None:
    store = DiskStore(tmp_path)
    chunks = [bytes([1]) * size, b"", b"end"]
    digest = store.put(chunks).digest
    blob = tmp_path / "blobs" / "sha256" / digest.hex
    blob.chmod(0o644)
    whole = b"".join(chunks)
    blob.write_bytes({"byte": whole[:-2] + b"x" + whole[-1:], "length": whole + b"x", "nothing left": b""}[damage])
    assert store.put(form(chunks)).digest == digest
    assert blob.read_bytes() == whole
    assert blob.stat().st_mode & 0o777 == 0o444


@PUT
@pytest.mark.parametrize("size", [0, 7, 3_000_000])
def test_a_blob_that_is_here_whole_is_not_written_again(
    tmp_path: Path, form: Callable[[list[bytes]], Iterable[bytes]], size: int
) -> None:
    store = DiskStore(tmp_path)
    chunks = [b"x" * size]
    first = store.put(chunks)
    blob = tmp_path / "blobs" / "sha256" / first.digest.hex
    before = blob.stat()
    assert store.put(form(chunks)) == first
    assert blob.stat().st_ino == before.st_ino
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_at_hand_and_here_is_not_even_written_beside_it(tmp_path: Path) -> None:
    """On a disk that takes no more: the file that would be renamed is never made."""
    store = DiskStore(tmp_path)
    stored = store.put([b"ab", b"c"])
    (tmp_path / "tmp").rmdir()
    assert store.put((b"a", b"bc")) == stored
    assert not (tmp_path / "tmp").exists()


def test_a_damaged_link_is_no_link(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    key = Digest.of(b"key")
    store.link(key, store.put([b"x"]).digest)
    link = tmp_path / "links" / key.hex
    link.chmod(0o644)
    link.write_text("nonsense")
    assert store.lookup(key) is None


def test_a_directory_that_cannot_be_made_is_the_hosts_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError) as caught:
        DiskStore(tmp_path / "file" / "store").put([b"x"])
    assert caught.value.exit_code == 7
    assert "OCIBUILD_STORE" in (caught.value.hint or "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_the_hosts_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write goes to the kernel's own always-full device."""
    real = os.fdopen

    def full(descriptor: int, mode: str) -> object:
        os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
        return real(descriptor, mode)

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(HostError) as caught:
        DiskStore(tmp_path).put([b"x" * (1 << 20)])
    assert caught.value.because == os.strerror(28)
    assert "space" in (caught.value.hint or "")
