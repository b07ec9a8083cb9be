"""A long, thin link to a server of the loopback, as a proxy: `python -m tests.bench.link PORT UPSTREAM_PORT`.

Half of ROUND_TRIP later each byte arrives, RATE bytes a second leave in each direction, all connections together, in
turns; a new connection costs one round trip more, its handshake. Losses and slow start are not modelled.
(toxiproxy's bandwidth is each connection's own, so it would pay to open many; tc netem is not in every kernel.)
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

ROUND_TRIP = 0.050
RATE = 100e6 / 8
_PIECE = 16 << 10
_WINDOW = 256  # pieces of a connection that may be on their way
_AHEAD = 0.01  # seconds of sending that wait in a queue, so that a late wake-up leaves no gap


class _Direction:
    """One way of the link: when what is given to it now has left, and when it arrives."""

    def __init__(self) -> None:
        self._free = 0.0

    def leave(self, size: int) -> float:
        self._free = max(self._free, time.monotonic()) + size / RATE
        return self._free


async def serve(port: int, upstream: int) -> None:
    """Listen until cancelled."""
    up, down = _Direction(), _Direction()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ROUND_TRIP)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", upstream, limit=_PIECE)
        await asyncio.gather(_carry(reader, far_writer, up), _carry(far_reader, writer, down))

    server = await asyncio.start_server(accept, "127.0.0.1", port, limit=_PIECE)
    async with server:
        await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Direction) -> None:
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW)
    delivering = asyncio.create_task(_deliver(under_way, writer))
    with suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            left = way.leave(len(piece))
            await under_way.put((left + ROUND_TRIP / 2, piece))
            await _until(left - _AHEAD)
    await under_way.put((time.monotonic() + ROUND_TRIP / 2, b""))
    await delivering


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while True:
            arrives, piece = await under_way.get()
            await _until(arrives)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _until(moment: float) -> None:
    if (left := moment - time.monotonic()) > 0:
        await asyncio.sleep(left)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
