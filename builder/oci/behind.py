"""Behind: a digest that is counted in another thread, while this one goes on.

Law: the same digest as counted here; a bounded number of bytes waits. What need not be seen here is not even read here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

_BATCH = 1 << 20  # bytes handed over at once
_WAITING = 8


class Behind:
    """sha256 over what `update` is given, in order; see `hashing`."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._hasher = hashlib.sha256()
        self._batch: list[bytes] = []
        self._size = 0
        self._running: deque[Future[None]] = deque()
        self._followed: list[Future[None]] = []  # these hold no bytes: any number may wait

    def update(self, data: bytes) -> None:
        """Take more bytes; waits when the other thread is far behind."""
        self._batch.append(data)
        self._size += len(data)
        if self._size >= _BATCH:
            self._submit()

    def follow(self, pieces: Iterable[bytes]) -> None:
        """Take what these will be: the other thread iterates; what that raises, `hexdigest` raises."""
        self._submit()
        self._followed.append(self._pool.submit(self._count, pieces))

    def _submit(self) -> None:
        if not self._batch:
            return
        batch, self._batch, self._size = self._batch, [], 0
        self._running.append(self._pool.submit(self._count, batch))
        if len(self._running) > _WAITING:
            self._running.popleft().result()

    def _count(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self._hasher.update(piece)

    def hexdigest(self) -> str:
        """Of all bytes so far."""
        self._submit()
        for future in (*self._running, *self._followed):
            future.result()
        return self._hasher.hexdigest()


@contextmanager
def hashing() -> Iterator[Behind]:
    """A digest whose thread ends with the block, whatever there is left to count."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
    try:
        yield Behind(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
