"""Documents and answers made to hurt: refused with the member named, in bounded time and memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.oci.check import check_image
from builder.oci.config import ImageConfig
from builder.oci.descriptor import INDEX, LAYER_GZIP, MANIFEST, SIZE_LIMIT, Descriptor
from builder.oci.layout import closure, read_layout
from builder.oci.manifest import Index, Manifest
from builder.registry.auth import Challenge, authorize
from builder.registry.refusal import refusal
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, OcibuildError, TransferError
from rootfs.ports import Response
from tests.fakes.store import MemoryStore
from tests.fuzz.oci_targets import OCI_TARGETS
from tests.fuzz.test_fuzz import damaged

Parse = Callable[[bytes], object]
READERS = {"config": ImageConfig.parse, "manifest": Manifest.parse, "index": Index.parse}
SEEDS = {name: json.loads(OCI_TARGETS[name].seeds[0]) for name in READERS}
documents = pytest.mark.parametrize("name", READERS)


@documents
def test_the_seeds_are_read(name: str) -> None:
    READERS[name](json.dumps(SEEDS[name]).encode())


@documents
def test_a_member_given_twice_is_named_wherever_it_is(name: str) -> None:
    text = json.dumps(SEEDS[name])
    for member in ("digest", "schemaVersion", "diff_ids", "os", "architecture"):
        for quoted in {f'"{member}": '}:
            if quoted in text:
                with pytest.raises(IntegrityError) as caught:
                    READERS[name](text.replace(quoted, f'"{member}": null, "{member}": ', 1).encode())
                assert f"'{member}' is given twice" in str(caught.value.because)


@documents
def test_escapes_do_not_hide_a_second_member(name: str) -> None:
    text = json.dumps(SEEDS[name])
    member = "rootfs" if name == "config" else "schemaVersion"
    with pytest.raises(IntegrityError, match="cannot be read"):
        READERS[name](text.replace("{", f'{{"\\u{ord(member[0]):04x}{member[1:]}": 0, ', 1).encode())


@documents
@pytest.mark.parametrize("depth", [1_000, 100_000, 1_900_000])
@pytest.mark.parametrize("pair", ["[]", '{"a":}'])
def test_deep_nesting(name: str, depth: int, pair: str) -> None:
    opened, closed = pair[:-1] or "[", pair[-1]
    text = '{"x":' + opened * min(depth, SIZE_LIMIT // len(opened) // 2) + closed + "}"
    with pytest.raises(IntegrityError) as caught:
        READERS[name](text.encode())
    assert caught.value.at


@documents
def test_a_document_of_100_megabytes_is_not_even_decoded(name: str) -> None:
    data = b'{"a":"' + b"x" * 100_000_000 + b'"}'
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="too large"):
            READERS[name](data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


NO_DOCUMENTS = [
    *(b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{} {}", b"[]", b"null", b"", b'{"a":NaN}', b'{"a":"\\ud800"}'),
    b'{"schemaVersion":' + b"9" * 5000 + b"}",
]


@documents
@pytest.mark.parametrize("junk", NO_DOCUMENTS)
def test_what_is_no_document(name: str, junk: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        READERS[name](junk)
    assert caught.value.at


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@given(st.sampled_from(sorted(READERS)), st.data(), _JUNK)
@settings(max_examples=500, deadline=None)
def test_any_member_of_any_type_is_read_or_refused_with_its_place(name: str, data: st.DataObject, junk: Any) -> None:
    place = data.draw(st.sampled_from(sorted(places(SEEDS[name]), key=str)))
    try:
        read = READERS[name](json.dumps(replaced(SEEDS[name], place, junk)).encode())
    except IntegrityError as error:
        if not error.at:
            pytest.fail("it is not said where")
        return
    assert READERS[name](read.to_bytes()) == read


def of(media_type: str, value: object, store: MemoryStore) -> Descriptor:
    data = json.dumps(value).encode()
    store.put([data])
    return Descriptor.of(media_type, data)


def test_an_index_that_holds_itself_ends() -> None:
    """A digest cannot be foretold; but a store may lie about what it holds."""
    store = MemoryStore()
    fake = Digest.of(b"not this")
    index = Index(manifests=(Descriptor(media_type=INDEX, digest=fake, size=10),)).to_bytes()
    store.blobs[fake] = index
    descriptor = Descriptor(media_type=INDEX, digest=fake, size=len(index))
    with pytest.raises(OcibuildError) as caught:
        check_image(store, descriptor)
    assert str(fake) in f"{caught.value.at} {caught.value.because}"
    assert list(closure(store, descriptor)) == [descriptor]


def test_indexes_within_indexes_without_end() -> None:
    store = MemoryStore()
    inner = of(INDEX, {"schemaVersion": 2, "manifests": []}, store)
    for _ in range(1200):
        inner = of(INDEX, {"schemaVersion": 2, "manifests": [inner.to_dict()]}, store)
    with pytest.raises(OcibuildError):
        list(closure(store, inner))
    with pytest.raises(OcibuildError):
        check_image(store, inner)


def test_an_index_that_multiplies() -> None:
    """Each level names the one below ten times over: 10^12 documents in 5 kB."""
    store = MemoryStore()
    inner = of(INDEX, {"schemaVersion": 2, "manifests": []}, store)
    for _ in range(12):
        inner = of(INDEX, {"schemaVersion": 2, "manifests": [inner.to_dict()] * 10}, store)
    start = time.monotonic()
    for number, _ in enumerate(closure(store, inner)):
        if number > 100_000 or time.monotonic() - start > 10:
            pytest.fail("the same document is visited again and again")


def test_a_layouts_files_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for junk, message in (
        (b"[" * 100_000, "cannot be read"),
        (b'{"schemaVersion":2,"manifests":[{}]}', "mediaType"),
        (b'{"schemaVersion":2,"manifests":[],"manifests":[]}', "cannot be read"),
        (b'{"schemaVersion":2,"manifests":[],"layers":[]}', "layers"),
    ):
        (tmp_path / "index.json").write_bytes(junk)
        with pytest.raises(IntegrityError, match=message) as caught:
            read_layout(tmp_path)
        assert caught.value.at
    with (tmp_path / "index.json").open("wb") as stream:
        stream.truncate(10 << 30)
    with pytest.raises(IntegrityError, match="too large"):
        read_layout(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer " + 'a="' * 50_000,
        "Bearer " + "a=b," * 50_000,
        "," * 100_000,
        "Bearer realm=" + '"\\' * 50_000,
        "a " * 50_000,
        "Bearer a" + " " * 50_000 + "=",
        "Basic" + "\t " * 50_000 + "x",
        "!" * 100_000,
    ],
)
def test_a_challenge_is_read_in_linear_time(header: str) -> None:
    start = time.process_time()
    Challenge.parse(header)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "realm",
    ["", "x", "http://registry.example/t", "https://[::1/t", "https://", "file:///etc/passwd", "https://h:99999/t"],
)
def test_a_realm_that_is_no_safe_url(realm: str) -> None:
    challenge = Challenge(scheme="bearer", parameters={"realm": realm})
    with pytest.raises(TransferError):
        next(authorize([challenge], registry="https://registry.example/v2/", credentials=lambda: None))


@pytest.mark.parametrize(
    "body",
    [
        b'{"token":"t","expires_in":1' + b"0" * 400 + b"}",
        b"[" * 100_000,
        b'{"token":"a\\nb"}',
        b"{",
        b'{"token":1}',
        b"[]",
    ],
)
def test_a_token_servers_bad_answer(body: bytes) -> None:
    challenge = Challenge(scheme="bearer", parameters={"realm": "https://registry.example/t"})
    dialogue = authorize([challenge], registry="https://registry.example/v2/", credentials=lambda: None)
    request = next(dialogue)
    with pytest.raises(TransferError):
        dialogue.send(Response(status=200, url=request.url, headers={}, chunks=iter([body])))


def test_an_error_page_without_end() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b"\x1b[31m<script>" * 1000
        pytest.fail("read on")

    error = refusal(Response(status=500, url="https://x.example/", headers={}, chunks=endless()), "all of it")
    assert str(error.because).isprintable()
    assert len(str(error.because)) < 320


@given(st.sampled_from(sorted(OCI_TARGETS)), st.integers(0, 1 << 60))
@settings(max_examples=300, deadline=None)
def test_damaged_seeds(name: str, chance: int) -> None:
    """As the fuzzers do, but another few each time."""
    import random

    dice = random.Random(chance)
    for seed in OCI_TARGETS[name].seeds:
        OCI_TARGETS[name].run(damaged(seed, dice))


def test_layers_that_are_no_layers_are_told_by_check() -> None:
    store = MemoryStore()
    layer = of(LAYER_GZIP, "no gzip", store)
    config = of("application/vnd.oci.image.config.v1+json", SEEDS["config"], store)
    manifest = of(MANIFEST, {"schemaVersion": 2, "config": config.to_dict(), "layers": [layer.to_dict()]}, store)
    with pytest.raises(OcibuildError) as caught:
        check_image(store, manifest)
    assert f"{layer.digest} cannot be decompressed" in str(caught.value.because)
