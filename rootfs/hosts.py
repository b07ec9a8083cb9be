"""Hosts: what all requests to one host share: the slots they take, the pause it asked for, the retries it is worth.

Law: knows clocks and locks, never HTTP. One host's trouble does not touch another's. Nobody who holds a slot waits for
another slot of the same kind, so slots cannot lock up: an upload may be fed by a download, never the other way round.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_WAIT = 300.0
PARALLEL = 8
BUDGET = 64.0
_SPREAD = 0.5
_NEAR = 0.01


def by_chance() -> float:
    """From 0 to 1: what spreads those who wait, lest all come at once."""
    import random  # noqa: PLC0415 (who need not wait does without)

    return random.random()  # noqa: S311 (no secret)


class Host:
    """One origin's share of a transport; thread-safe. Times are seconds of `clock`.

    `parallel` requests are under way at a time, from their beginning to the head of their answer, and as many uploads.
    `budget` retries are worth making beside what succeeds: each retry takes one, each answer that is none of a failing
    server gives one back. A host that is down is so left alone soon, by however many threads.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
        parallel: int = PARALLEL,
        budget: float = BUDGET,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._slots = {kind: threading.BoundedSemaphore(parallel) for kind in (False, True)}
        self._budget = self._left = budget
        self._until = 0.0
        self.retries = 0
        self._lock = threading.Lock()

    @contextmanager
    def slot(self, *, upload: bool) -> Iterator[None]:
        """A place among the requests under way; not before the pause is over."""
        with self._slots[upload]:
            self._wait()
            yield

    def pause(self, seconds: float) -> None:
        """Hold back every request to this host for so long; a longer pause that is on stays."""
        with self._lock:
            self._until = max(self._until, self._clock() + min(seconds, MAX_WAIT))

    def spend(self) -> bool:
        """Take one retry; False when there is none left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            self.retries += 1
            return True

    def prosper(self) -> None:
        """Something was answered as it should be."""
        with self._lock:
            self._left = min(self._budget, self._left + 1)

    def _wait(self) -> None:
        """Until the pause is over. Who waited comes a little later than the end, lest all come at once."""
        while True:
            with self._lock:
                left = min(self._until - self._clock(), MAX_WAIT)
            if left <= _NEAR:
                return
            self._sleep(left + _SPREAD * self._jitter())


class Hosts:
    """A Host for each origin, made when it is first asked for."""

    def __init__(self, make: Callable[[], Host]) -> None:
        self._make = make
        self._hosts: dict[tuple[str, str, int], Host] = {}
        self._lock = threading.Lock()

    @property
    def retries(self) -> int:
        """How many retries there were in all."""
        with self._lock:
            return sum(host.retries for host in self._hosts.values())

    def at(self, origin: tuple[str, str, int]) -> Host:
        """The Host of a scheme, host and port."""
        with self._lock:
            if origin not in self._hosts:
                self._hosts[origin] = self._make()
            return self._hosts[origin]
