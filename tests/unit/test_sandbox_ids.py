"""Ranges of ids, from files that look like subuid(5) and /proc/self/uid_map."""

from __future__ import annotations

import pytest

from rootfs.errors import HostError
from rootfs.sandbox.ids import check_identity, subordinate


def of_alice(text: str) -> tuple[tuple[int, int, int], ...]:
    return subordinate(text, name="alice", uid=1001, own=1001, kind="uid")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("alice:100000:65536\n", [(1, 100000, 65535)]),
        ("1001:100000:65536", [(1, 100000, 65535)]),
        ("bob:100000:65536\nalice:165536:70000\n", [(1, 165536, 65535)]),
        ("alice:100000:1000\n1001:200000:65536\n", [(1, 100000, 1000), (1001, 200000, 64535)]),
        ("alice:100000:65536\nalice:100000:65536\n", [(1, 100000, 65535)]),
        ("alice:100000:40000\nalice:120000:65536\nalice:300000:65536", [(1, 100000, 40000), (40001, 300000, 25535)]),
        ("alice:500:1000\nalice:100000:65536\n", [(1, 100000, 65535)]),
        ("# comment\n\nalice:x:y\nalice:1\nalice:100000:65536\n", [(1, 100000, 65535)]),
    ],
)
def test_the_user_is_root_and_the_ranges_follow(text: str, lines: list[tuple[int, int, int]]) -> None:
    assert of_alice(text) == ((0, 1001, 1), *lines)


def test_no_entry_says_how_to_have_one() -> None:
    with pytest.raises(HostError) as caught:
        of_alice("bob:100000:65536\n")
    assert caught.value.at == "/etc/subuid"
    assert "no entry" in (caught.value.because or "")
    assert "usermod --add-subuids 100000-165535 alice" in (caught.value.hint or "")


def test_a_range_that_is_too_small() -> None:
    with pytest.raises(HostError) as caught:
        subordinate("alice:100000:1000\n", name="alice", uid=1001, own=100, kind="gid")
    assert caught.value.at == "/etc/subgid"
    assert "1000 ids are not enough: 65535 are needed" in (caught.value.because or "")
    assert "--add-subgids" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "text", ["         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n", "0 100000 40000\n40000 200000 25536\n"]
)
def test_a_root_with_all_ids(text: str) -> None:
    check_identity(text, "uid")


@pytest.mark.parametrize(("text", "have"), [("0 1000 1\n", 1), ("", 0), ("0 0 1\n100000 5 65536\n", 1)])
def test_a_root_without_them(text: str, have: int) -> None:
    with pytest.raises(HostError) as caught:
        check_identity(text, "gid")
    assert f"has {have} of 65536 gids" in (caught.value.because or "")
