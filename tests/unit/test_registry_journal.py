"""The journal: what it keeps, for how long, from whom, and what it survives."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from builder.registry.journal import BLOBS_LIFE, FACTS_LIFE, SESSION_LIFE, Journal
from builder.registry.quirks import Facts
from builder.registry.upload import Session
from rootfs.digest import Digest
from tests.peers.misbehaving import Clock

HERE = "https://r.example.org"
BLOB = Digest.of(b"a blob")
SESSION = Session(location="https://r.example.org/v2/a/x?sig=hush", offset=7)


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = time.time()
    return clock


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Journal:
    return Journal(tmp_path / "registries", clock=lambda: clock.now)


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "registries").rglob("*.json"))


def test_a_session_is_kept_until_it_ended(journal: Journal, tmp_path: Path) -> None:
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        assert entry.resume() is None
        entry.reached(SESSION)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "registries").rglob("*.*")} == {0o600}
    with journal.session(HERE, "b", BLOB) as other:
        assert other
        assert other.resume() is None
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        assert entry.resume() == SESSION
        entry.ended()
        assert entry.resume() is None
    assert files(tmp_path) == []


def test_a_session_gets_old(journal: Journal, clock: Clock) -> None:
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        entry.reached(SESSION)
        clock.now += SESSION_LIFE + 1
        assert entry.resume() is None


def test_what_is_old_is_swept(journal: Journal, tmp_path: Path, clock: Clock) -> None:
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        entry.reached(SESSION)
    for path in files(tmp_path):
        os.utime(path, (1, 1))
    with journal.session(HERE, "b", BLOB):
        pass
    assert files(tmp_path) == []


def test_two_processes_do_not_share_a_session(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "registries").session(HERE, "a", BLOB) as one,
        Journal(tmp_path / "registries").session(HERE, "a", BLOB) as two,
    ):
        assert one
        assert two is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"when": "x"}', '{"when": 4e9}', '{"when":4e9,"location":1,"offset":2}']
)
def test_what_is_damaged_is_as_if_it_had_never_been(journal: Journal, tmp_path: Path, text: str) -> None:
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        entry.reached(SESSION)
        journal.learn(HERE, Facts(chunks=True))
        journal.seen(HERE, BLOB, "a")
        for path in (tmp_path / "registries").rglob("*.json"):
            path.write_text(text)
        assert entry.resume() is None
    assert journal.facts(HERE) == Facts()
    assert journal.repositories(HERE, BLOB) == ()


def test_repositories_of_a_blob(journal: Journal, clock: Clock) -> None:
    for name in ("a", "b", "c", "d", "b"):
        journal.seen(HERE, BLOB, name)
    assert journal.repositories(HERE, BLOB) == ("b", "d", "c")
    assert journal.repositories("https://other.example.org", BLOB) == ()
    journal.not_seen(HERE, BLOB, "d")
    assert journal.repositories(HERE, BLOB) == ("b", "c")
    clock.now += BLOBS_LIFE + 1
    assert journal.repositories(HERE, BLOB) == ()


def test_facts(journal: Journal, clock: Clock) -> None:
    journal.learn(HERE, Facts(chunks=False, max_body=100))
    journal.learn(HERE, Facts(chunks=True, mount=False))
    assert journal.facts(HERE) == Facts(chunks=True, max_body=100, mount=False)
    clock.now += FACTS_LIFE + 1
    assert journal.facts(HERE) == Facts()


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "registries")
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry is None
    journal.learn(HERE, Facts(chunks=True))
    journal.seen(HERE, BLOB, "a")
    assert journal.facts(HERE) == Facts()


def test_nothing_but_what_it_is_for(journal: Journal, tmp_path: Path) -> None:
    with journal.session(HERE, "a", BLOB) as entry:
        assert entry
        entry.reached(SESSION)
        found = [json.loads(path.read_bytes()) for path in files(tmp_path) if path.suffix == ".json"]
    assert [sorted(value) for value in found] == [["location", "offset", "registry", "repository", "when"]]
