"""Downloads: ranges where the server proves it can, one stream where not, and nothing wrong in the Store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry import download as module
from builder.registry.download import download
from rootfs.errors import HostError, IntegrityError, TransferError
from rootfs.ports import Response, read_blob
from rootfs.store import DiskStore
from tests.fakes.store import MemoryStore

PART = 1000
DATA = bytes(range(256)) * 40  # 10240: ten parts and a rest
BLOB = Descriptor.of(LAYER_TAR, DATA)


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BIG", 2000)
    monkeypatch.setattr(module, "_PART", PART)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    return DiskStore(tmp_path)


@dataclass
class Blobs:
    """A GET of the blob, by a server with a character; `asked` is each Range."""

    data: bytes = DATA
    ranges: bool = True
    content_range: str = "bytes {first}-{last}/{size}"
    etags: Mapping[int, str] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    short: int = -1
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, headers: Mapping[str, str]) -> Response:
        told = headers.get("Range", "")
        with self.lock:
            self.asked.append(told)
        if not told or not self.ranges:
            return self._answer(200, self.data, {})
        first, last = map(int, told.removeprefix("bytes=").split("-"))
        if status := self.statuses.get(first):
            return self._answer(status, b"", {})
        described = self.content_range.format(first=first, last=last, size=len(self.data))
        body = self.data[first : last + 1][: self.short if first == self.short_at else None]
        return self._answer(206, body, {"Content-Range": described, "ETag": self.etags.get(first, '"v1"')})

    @property
    def short_at(self) -> int:
        return 3000 if self.short >= 0 else -1

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> Response:
        chunks = iter([body[at : at + 300] for at in range(0, len(body), 300)])
        return Response(status=status, url="https://r.example.org/b", headers=headers, chunks=chunks)


def test_ranges(store: DiskStore) -> None:
    get, told = Blobs(), []
    assert download(get, BLOB, store, told.append).size == len(DATA)
    assert read_blob(store, BLOB.digest) == DATA
    assert sum(told) == len(DATA)
    assert sorted(get.asked) == sorted(f"bytes={s}-{min(s + PART, len(DATA)) - 1}" for s in range(0, len(DATA), PART))
    assert list((store.root / "tmp").iterdir()) == []
    assert (store.root / "blobs/sha256" / BLOB.digest.hex).stat().st_mode & 0o777 == 0o444
    download(get, BLOB, store)
    assert len(get.asked) == 11  # what is here is not fetched


def test_all_ranges_are_asked_for_at_once(store: DiskStore) -> None:
    get, together = Blobs(), threading.Barrier(4, timeout=10)

    def wait(headers: Mapping[str, str]) -> Response:
        if headers["Range"] in [f"bytes={start}-{start + PART - 1}" for start in range(0, 4 * PART, PART)]:
            together.wait()
        return get(headers)

    download(wait, BLOB, store)
    assert read_blob(store, BLOB.digest) == DATA


@pytest.mark.parametrize(
    ("sizes", "ranges"),
    [
        ([18_467, 8_357, 2_386, 1], [5, 2, 1, 1]),
        ([5], [5]),
        ([0], [1]),
        ([7, 7], [4, 4]),
        ([7] * 10, [1] * 10),
        ([9, 1, 1, 1], [5, 1, 1, 1]),
    ],
)
def test_ranges_are_a_blob_s_share_of_all_bytes(sizes: list[int], ranges: list[int]) -> None:
    assert [module.ranges_for(size, sizes) for size in sizes] == ranges
    assert module.ranges_for(sizes[0], []) == (5 if sizes[0] else 1)


@pytest.mark.parametrize(
    "get",
    [
        Blobs(ranges=False),
        Blobs(content_range="bytes 0-1/{size}"),
        Blobs(content_range="bytes {first}-{last}/*"),
        Blobs(content_range=""),
        Blobs(etags={5000: '"v2"'}),
        Blobs(short=100),
    ],
    ids=["none", "wrong", "no size", "not told", "another version", "short"],
)
def test_one_stream_where_ranges_do_not_fit(store: DiskStore, get: Blobs) -> None:
    told: list[int] = []
    download(get, BLOB, store, told.append)
    assert read_blob(store, BLOB.digest) == DATA
    assert sum(told) == len(DATA)
    assert min(told) > 0


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_small_blobs_and_other_stores_take_one_stream(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    get, target = Blobs(), store if place == "disk" else MemoryStore()
    if place == "disk":
        monkeypatch.setattr(module, "BIG", len(DATA) + 1)
    download(get, BLOB, target)
    assert get.asked == [""]
    assert read_blob(target, BLOB.digest) == DATA


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("data", [DATA[::-1], DATA[:-1], DATA + b"x"])
def test_what_is_not_the_blob_is_thrown_away(store: DiskStore, ranges: bool, data: bytes) -> None:
    with pytest.raises(IntegrityError):
        download(Blobs(data=data, ranges=ranges), BLOB, store)
    assert not store.exists(BLOB.digest)
    download(Blobs(), BLOB, store)
    assert read_blob(store, BLOB.digest) == DATA


@pytest.mark.parametrize("first", [0, 7000])
def test_a_refusal_is_the_download_s(store: DiskStore, first: int) -> None:
    with pytest.raises(TransferError, match="refused: blob"):
        download(Blobs(statuses={first: 404}), BLOB, store)
    assert not store.exists(BLOB.digest)


def test_what_was_whole_is_not_fetched_again(store: DiskStore) -> None:
    with pytest.raises(TransferError):
        download(Blobs(statuses={4000: 403}), BLOB, store)
    note = store.root / f"tmp/part-sha256-{BLOB.digest.hex}.whole"
    note.write_text("4000")  # other parts may or may not have been under way
    get, told = Blobs(), []
    download(get, BLOB, store, told.append)
    assert min(int(asked.removeprefix("bytes=").partition("-")[0]) for asked in get.asked) == 4000
    assert (told[0], sum(told)) == (4000, len(DATA))
    assert read_blob(store, BLOB.digest) == DATA


@pytest.mark.parametrize("text", ["", "x", "-5", "99999999"])
def test_a_note_that_is_damaged(store: DiskStore, text: str) -> None:
    with pytest.raises(TransferError):
        download(Blobs(statuses={4000: 403}), BLOB, store)
    (store.root / f"tmp/part-sha256-{BLOB.digest.hex}.whole").write_text(text)
    download(Blobs(), BLOB, store)
    assert read_blob(store, BLOB.digest) == DATA


def test_a_full_disk(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwrite", full)
        with pytest.raises(HostError) as caught:
            download(Blobs(), BLOB, store)
    assert "free some space" in (caught.value.hint or "")
    download(Blobs(), BLOB, store)
    assert store.exists(BLOB.digest)


def test_two_processes_at_one_blob(store: DiskStore) -> None:
    with module._partial(store.root / "tmp", BLOB.digest) as other:
        assert other is not None
        get = Blobs()
        download(get, BLOB, store)
        assert get.asked == [""]
    assert read_blob(store, BLOB.digest) == DATA


def test_one_stream_where_many_blobs_come_at_once(store: DiskStore) -> None:
    get, told = Blobs(), []
    download(get, BLOB, store, told.append, ranges=1)
    assert get.asked == [""]
    assert read_blob(store, BLOB.digest) == DATA
    assert sum(told) == len(DATA)
    assert list((store.root / "tmp").iterdir()) == []


def test_one_stream_that_broke_is_gone_on_with(store: DiskStore) -> None:
    def breaking(_: Mapping[str, str]) -> Response:
        def chunks() -> Iterator[bytes]:
            yield from (DATA[at : at + 300] for at in range(0, 4200, 300))
            raise TransferError("the link is gone")

        return Response(status=200, url="https://r.example.org/b", headers={}, chunks=chunks())

    with pytest.raises(TransferError, match="the link is gone"):
        download(breaking, BLOB, store, ranges=1)
    get = Blobs()
    download(get, BLOB, store, ranges=1)
    assert min(int(one[6:].partition("-")[0]) for one in get.asked) >= 3600
    assert read_blob(store, BLOB.digest) == DATA
