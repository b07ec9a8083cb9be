"""What requests to one host share: slots, pauses, a budget."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rootfs.hosts import MAX_WAIT, Host, Hosts
from tests.peers.misbehaving import Clock


def host(clock: Clock, **options: int) -> Host:
    return Host(clock=lambda: clock.now, sleep=clock.sleep, jitter=lambda: 1.0, **options)


def test_a_pause_holds_back_who_comes_and_a_longer_one_stays() -> None:
    clock = Clock()
    here = host(clock)
    here.pause(20)
    here.pause(5)
    with here.slot(upload=False):
        assert clock.naps == [20.5]  # half a second later than who caused it
    with here.slot(upload=True):
        assert len(clock.naps) == 1


def test_a_pause_has_an_end() -> None:
    clock = Clock()
    here = host(clock)
    here.pause(1e9)
    with here.slot(upload=False):
        assert clock.naps == [MAX_WAIT + 0.5]


def test_one_host_s_pause_is_not_another_s() -> None:
    clock = Clock()
    hosts = Hosts(lambda: host(clock))
    one, two = ("https", "a", 443), ("https", "b", 443)
    assert hosts.at(one) is hosts.at(one)
    hosts.at(one).pause(20)
    with hosts.at(two).slot(upload=False):
        assert clock.naps == []


def test_the_budget_is_spent_and_earned() -> None:
    here = host(Clock(), budget=2)
    assert [here.spend() for _ in range(3)] == [True, True, False]
    here.prosper()
    assert [here.spend() for _ in range(2)] == [True, False]
    for _ in range(9):
        here.prosper()
    assert [here.spend() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("upload", [True, False])
def test_so_many_at_a_time(upload: bool) -> None:
    here = host(Clock(), parallel=2)
    most = under_way = 0
    lock = threading.Lock()

    def work(_: int) -> None:
        nonlocal most, under_way
        with here.slot(upload=upload):
            with lock:
                under_way += 1
                most = max(most, under_way)
            time.sleep(0.01)
            with lock:
                under_way -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert most == 2


def test_an_upload_may_be_fed_by_a_download_of_the_same_host() -> None:
    here = host(Clock(), parallel=1)
    with here.slot(upload=True), here.slot(upload=False):
        pass
