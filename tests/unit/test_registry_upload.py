"""The upload's ladder: every rung, every quirk, and every way back after something broke."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import BinaryIO, cast

import pytest

from builder.oci.descriptor import LAYER_TAR, Descriptor
from builder.registry import upload as ladder
from builder.registry.client import _hold
from builder.registry.quirks import MIB, Facts
from builder.registry.upload import Action, Pushed, Session, upload
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Upload
from tests.fakes.sessions import Sessions, broken
from tests.fakes.transport import FakeTransport, reply

DATA = bytes(range(256)) * 40 * 16  # ten steps of 16 KiB
STEP = 16 << 10
BLOB = Descriptor.of(LAYER_TAR, DATA)
BODY = Upload(open=lambda: cast(BinaryIO, io.BytesIO(DATA)), size=len(DATA))


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """MiB of the real ladder are KiB here."""
    for name, value in {"RESUMABLE": STEP * 2, "_SMALL": STEP, "_LARGEST": STEP * 4, "_SMALLEST": 1024}.items():
        monkeypatch.setattr(ladder, name, value)
    monkeypatch.setattr(ladder, "_USEFUL", STEP // 2)
    monkeypatch.setattr(ladder, "_CHUNKS", 100)


@dataclass
class Notes:
    """A Record in memory."""

    session: Session | None = None
    kept: list[int] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    missing: list[str] = field(default_factory=list)

    def resume(self) -> Session | None:
        return self.session

    def reached(self, session: Session) -> None:
        self.session = session
        self.kept.append(session.offset)

    def ended(self) -> None:
        self.session = None

    def learn(self, facts: Facts) -> None:
        self.facts = facts.over(self.facts)

    def not_in(self, repository: str) -> None:
        self.missing.append(repository)


@dataclass
class Pushing:
    """An upload of BLOB to a server, and what was seen of it."""

    server: Sessions
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.transport = FakeTransport(self.server)

    def __call__(self, *, chunked: bool = True, facts: Facts | None = None, mount_from: tuple[str, ...] = ()) -> Pushed:
        dialogue = upload(
            "https://r.example.org/v2/a",
            BLOB.digest,
            BODY,
            record=self.notes,
            facts=facts,
            mount_from=mount_from,
            chunked=chunked,
        )
        return _hold(dialogue, self.transport.send)

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.transport.requests]

    @property
    def posts(self) -> list[str]:
        urls = [request.url for request in self.transport.requests if request.method == "POST"]
        return [url.partition("/uploads/")[2].replace(str(BLOB.digest).replace(":", "%3A"), "D") for url in urls]

    def whole(self) -> None:
        assert self.server.blobs[str(BLOB.digest)] == DATA


def test_one_put_where_nothing_asks_for_chunks() -> None:
    pushing = Pushing(Sessions())
    assert pushing(chunked=False) == Pushed(action=Action.UPLOADED)
    assert pushing.methods == ["HEAD", "POST", "PUT"]
    assert "Content-Range" not in pushing.transport.requests[-1].headers
    assert pushing.notes.kept == []
    pushing.whole()


def test_a_blob_that_exists_ends_an_old_session() -> None:
    pushing = Pushing(Sessions(blobs={str(BLOB.digest): DATA}), Notes(Session(location="https://r.example.org/x")))
    assert pushing().action is Action.EXISTS
    assert pushing.methods == ["HEAD"]
    assert pushing.notes.session is None


@pytest.mark.parametrize("status", [201, 202, 204])
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("prefix", ["", "bytes="])
def test_chunks(status: int, absolute: bool, prefix: str) -> None:
    pushing = Pushing(Sessions(patch_status=status, absolute=absolute, range_prefix=prefix, strict=True))
    assert pushing().action is Action.UPLOADED
    assert pushing.methods == ["HEAD", "POST", *["PATCH"] * 9, "PUT"]
    ranges = [request.headers["Content-Range"] for request in pushing.transport.requests[2:]]
    assert ranges == [f"{start}-{start + STEP - 1}" for start in range(0, len(DATA), STEP)]
    assert pushing.notes.kept == list(range(0, len(DATA), STEP))
    assert pushing.notes.session is None
    assert pushing.notes.facts.chunks is True
    pushing.whole()


def test_the_registry_s_least_chunk() -> None:
    server = Sessions(minimum=STEP * 3)
    Pushing(server)()
    assert server.bodies == [("PATCH", STEP * 3)] * 3 + [("PUT", STEP)]


@pytest.mark.parametrize(
    ("facts", "bodies"),
    [
        (Facts(chunks=False), [("PUT", len(DATA))]),
        (Facts(max_chunk=100), [("PUT", len(DATA))]),
        (Facts(max_body=STEP * 4), [("PATCH", STEP * 4)] * 2 + [("PUT", STEP * 2)]),
        (Facts(max_body=len(DATA)), [("PUT", len(DATA))]),
    ],
)
def test_what_is_known_of_the_registry(facts: Facts, bodies: list[tuple[str, int]]) -> None:
    server = Sessions()
    Pushing(server)(facts=facts, chunked=False)
    assert server.bodies == bodies
    if facts.chunks is False or facts.max_chunk:
        server.blobs.clear()
        server.bodies.clear()
        Pushing(server)(facts=facts, chunked=True)
        assert server.bodies == bodies


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_at_every_decile(chunked: bool) -> None:
    server = Sessions(cuts=[len(DATA) * tenth // 10 + 77 for tenth in range(10)])
    pushing = Pushing(server)
    assert pushing(chunked=chunked).action is Action.UPLOADED
    assert server.cuts == []
    assert server.received == len(DATA)  # what came before a cut did not come again
    pushing.whole()


@pytest.mark.parametrize("server", [Sessions(strict=True), Sessions(keeps_cut=False)], ids=["2.8", "zot"])
def test_a_cut_at_every_decile_where_the_session_is_lost(server: Sessions) -> None:
    sent = 0
    for tenth in range(10):  # each upload begins anew, and gets a tenth further
        sent += len(DATA) * tenth // 10 + 77
        server.cuts.append(sent)
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    pushing.whole()
    assert server.cuts == []


def test_no_progress_ends() -> None:
    server = Sessions(put_status=0)
    pushing = Pushing(server)
    with pytest.raises(TransferError) as caught:
        pushing(facts=Facts(chunks=False))
    assert caught.value.retryable
    assert pushing.methods.count("PUT") == 6
    assert "DELETE" not in pushing.methods  # the next process may go on


def test_a_registry_that_drops_chunks() -> None:
    """Amazon ECR: Range stands still from the second chunk on."""
    server = Sessions(patch_status=201, drops_from=2)
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    assert server.bodies == [("PATCH", STEP)] * 2 + [("PUT", len(DATA))]
    assert server.cancelled == ["s1"]
    assert pushing.notes.facts.chunks is False
    pushing.whole()


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_registry_without_chunks(status: int) -> None:
    server = Sessions(first_patch=status)
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    assert server.bodies == [("PUT", len(DATA))]
    assert pushing.notes.facts.chunks is False
    assert pushing.notes.session is None


def test_chunks_that_are_too_large_and_answered_416() -> None:
    """GHCR: a PATCH over 4 MiB."""
    server = Sessions(patch_limit=STEP // 2)
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    assert server.bodies == [("PATCH", STEP), ("PUT", len(DATA))]
    assert pushing.notes.facts.chunks is False


@pytest.mark.parametrize("chunked", [True, False])
def test_a_limit_on_bodies(chunked: bool) -> None:
    """A proxy in front: 413 until the chunks are small enough."""
    server = Sessions(body_limit=5000)
    pushing = Pushing(server)
    assert pushing(chunked=chunked).action is Action.UPLOADED
    assert pushing.notes.facts.max_body == 4096
    assert all(size <= 5000 for _, size in server.bodies[-30:])
    pushing.whole()


def test_a_limit_that_breaks_the_connection() -> None:
    server = Sessions(body_limit=STEP + 10, limit_status=0)
    pushing = Pushing(server)
    assert pushing(chunked=False).action is Action.UPLOADED
    pushing.whole()


def test_a_limit_where_there_are_no_chunks() -> None:
    pushing = Pushing(Sessions(body_limit=5000))
    with pytest.raises(TransferError) as caught:
        pushing(facts=Facts(chunks=False))
    assert (caught.value.because or "").startswith("413")
    assert pushing.methods[-1] == "DELETE"


def test_out_of_step_is_put_right_by_asking() -> None:
    """Somebody else's bytes are there already: 416, GET Location, and on from there."""
    server = Sessions()
    pushing = Pushing(server)

    def ahead(request: Request) -> Response | None:
        if request.method == "PATCH" and server.patches == 2:
            server.patches += 1
            server.sessions["s1"] += DATA[2 * STEP : 2 * STEP + 100]
        return None

    server.fault = ahead
    assert pushing().action is Action.UPLOADED
    assert ("PATCH", STEP) in server.bodies
    assert "GET" in pushing.methods
    pushing.whole()


@pytest.mark.parametrize("told", ["0-999999999", "0-5"])
def test_a_registry_that_lost_count(told: str) -> None:
    server = Sessions()
    pushing = Pushing(server)
    lied: list[Request] = []

    def lie(request: Request) -> Response | None:
        if request.method == "PATCH" and server.patches == 1 and not lied:
            lied.append(request)
            return reply(request, 202, headers={"Location": "/v2/a/upload/s1?_state=0", "Range": told})
        return None

    server.fault = lie
    assert pushing().action is Action.UPLOADED
    assert server.cancelled == ["s1"]
    pushing.whole()


def test_a_range_of_the_chunk_alone_is_no_dropped_chunk() -> None:
    """zot 1.4.3: PATCH tells the chunk's own Range, GET that of all that came."""
    server = Sessions()
    pushing = Pushing(server)

    def own(request: Request) -> Response | None:
        if request.method != "PATCH":
            return None
        server.fault = lambda _: None
        answer = server(request)
        server.fault = own
        return reply(request, 202, headers={**answer.headers, "range": f"0-{STEP - 1}"})

    server.fault = own
    assert pushing().action is Action.UPLOADED
    assert server.bodies == [("PATCH", STEP)] * 9 + [("PUT", STEP)]
    assert pushing.notes.facts.chunks is True
    assert server.cancelled == []
    pushing.whole()


def test_answers_without_range_and_location_are_believed() -> None:
    server = Sessions()

    def terse(request: Request) -> Response | None:
        if request.method == "PATCH":
            server.patches += 1
            server._take(request, "s1", server.sessions["s1"])
            return reply(request, 202)
        return None

    server.fault = terse
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    pushing.whole()


def test_a_session_that_is_lost_begins_anew() -> None:
    server = Sessions()
    lost: list[Request] = []

    def lose(request: Request) -> Response | None:
        if request.method == "PATCH" and server.patches == 3 and not lost:
            lost.append(request)
            server.sessions.clear()
        return None

    server.fault = lose
    pushing = Pushing(server)
    assert pushing().action is Action.UPLOADED
    assert pushing.posts == ["?mount=D", ""]
    pushing.whole()


def test_an_answer_that_was_lost_after_all_was_done() -> None:
    """The PUT arrived, its answer did not: the blob is looked for before it is sent again."""
    server = Sessions()

    def forget(request: Request) -> Response | None:
        if request.method == "PUT":
            server._put(request, "s1", server.sessions["s1"], str(BLOB.digest))
            raise broken()
        return None

    server.fault = forget
    pushing = Pushing(server)
    assert pushing(chunked=False).action is Action.UPLOADED
    assert pushing.methods == ["HEAD", "POST", "PUT", "GET", "HEAD"]


def test_a_session_that_was_patched_together_wrongly_is_sent_in_one_go() -> None:
    server = Sessions()
    server.sessions["old"] = bytearray(b"x" * STEP)
    pushing = Pushing(server, Notes(Session(location="https://r.example.org/v2/a/upload/old?_state=0")))
    assert pushing() == Pushed(action=Action.UPLOADED, resumed=0)
    pushing.whole()


def test_a_wrong_digest_is_never_retried() -> None:
    pushing = Pushing(Sessions(put_status=400))
    with pytest.raises(TransferError):
        pushing(chunked=False)
    assert pushing.methods == ["HEAD", "POST", "PUT", "DELETE"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_cancels_and_ends(status: int) -> None:
    pushing = Pushing(Sessions(put_status=status))
    with pytest.raises(TransferError):
        pushing()
    assert pushing.methods[-2:] == ["PUT", "DELETE"]
    assert pushing.notes.session is None


def test_a_cancel_that_fails_hides_nothing() -> None:
    server = Sessions(put_status=403)

    def no_delete(request: Request) -> Response | None:
        if request.method == "DELETE":
            raise broken()
        return None

    server.fault = no_delete
    with pytest.raises(TransferError, match="refused: blob"):
        Pushing(server)()


def test_a_killed_process_is_followed_by_another() -> None:
    server = Sessions(cuts=[STEP * 4 + 100])
    first = Pushing(server)

    def die(request: Request) -> Response | None:
        if request.method == "GET" and not server.cuts and first.notes.kept:
            raise KeyboardInterrupt
        return None

    server.fault = die
    with pytest.raises(KeyboardInterrupt):
        first()
    server.fault = lambda _: None
    second = Pushing(server, first.notes)
    assert second() == Pushed(action=Action.UPLOADED, resumed=STEP * 4 + 100)
    assert server.received == len(DATA)
    second.whole()


@pytest.mark.parametrize("location", ["https://r.example.org/v2/a/upload/gone", "http://r.example.org/v2/a/upload/x"])
def test_a_journal_that_leads_nowhere(location: str) -> None:
    pushing = Pushing(Sessions(), Notes(Session(location=location, offset=7)))
    assert pushing() == Pushed(action=Action.UPLOADED)
    pushing.whole()


def test_a_session_is_not_taken_up_where_there_are_no_chunks() -> None:
    server = Sessions()
    server.sessions["old"] = bytearray(DATA[:STEP])
    pushing = Pushing(server, Notes(Session(location="https://r.example.org/v2/a/upload/old?_state=0")))
    assert pushing(facts=Facts(chunks=False)).resumed == 0
    pushing.whole()


def test_the_real_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = {31: None, 32: 16, 255: 51, 512: 64, 1024: 64, 5000: 64}
    assert {size: ladder._chunk(size * MIB, Facts(), chunked=True) for size in sizes} == {
        size: chunk and chunk * MIB for size, chunk in sizes.items()
    }
    assert ladder._chunk(5000 * MIB, Facts(max_body=100 * MIB), chunked=False) == 64 * MIB


def test_a_session_s_place_is_no_part_of_its_repr() -> None:
    assert "hush" not in repr(Session(location="https://r.example.org/x?sig=hush", offset=3))


def test_a_journal_survives_a_registry_in_trouble() -> None:
    server = Sessions()
    server.sessions["old"] = bytearray(DATA[:STEP])
    trouble: list[Request] = []

    def storm(request: Request) -> Response | None:
        if request.method == "GET" and len(trouble) < 3:
            trouble.append(request)
            return reply(request, 503)
        return None

    server.fault = storm
    location = f"https://r.example.org/v2/a/upload/old?_state={STEP}"
    assert Pushing(server, Notes(Session(location=location)))().resumed == STEP
    server.blobs.clear()
    server.fault = lambda request: reply(request, 503) if request.method == "GET" else None
    notes = Notes(Session(location=location))
    with pytest.raises(TransferError):
        Pushing(server, notes)()
    assert notes.session is not None  # for the next process
