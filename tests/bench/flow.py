"""Is `tests.bench.link` the link that it says it is? `python -m tests.bench.flow` measures it by plain sockets.

Round trips (TCP connect), the speed of one and of four connections that download at once, how it rises (Mbit/s in each
tenth of a second), what was sent again, and how much of a processor the wire takes.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.bench.link import FAR, Link, link, unavailable

_PORT = 9000
_PIECE = 1 << 16
_WEE_LTO = 29_200_000  # the bytes of its layers: no client can have them sooner than a plain socket


def main() -> None:
    """Print what was measured."""
    if why := unavailable():
        raise SystemExit(f"There can be no link: {why}")
    with link() as line:
        print(line)
        here, argv = Path(__file__).parents[2], [sys.executable, "-m", "tests.bench.flow"]
        server = subprocess.Popen([*line.far, *argv, "serve"], cwd=here, stdout=subprocess.PIPE)
        try:
            assert server.stdout
            server.stdout.readline()
            for asked in (
                "connect",
                *(f"{count} {size}" for size in (3_000_000, _WEE_LTO, 50_000_000) for count in (1, 4)),
            ):
                again, cpu, began = _sent_again(line), line.processor(), time.monotonic()
                subprocess.run([*line.near, *argv, *asked.split()], cwd=here, check=True)
                share = (line.processor() - cpu) / (time.monotonic() - began)
                print(f"  {_sent_again(line) - again} segments sent again, the wire took {share:.0%} of a processor")
        finally:
            server.terminate()
            server.wait()


def _sent_again(line: Link) -> int:
    counters = subprocess.run([*line.far, "cat", "/proc/net/snmp"], check=True, capture_output=True, text=True).stdout
    names, values = (row.split() for row in counters.splitlines() if row.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def serve() -> None:
    """To each connection the number of bytes that it asks for."""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            left = int(connection.recv(100) or 0)
            while left:
                left -= connection.send(bytes(min(left, _PIECE)))

    with socket.create_server((FAR, _PORT)) as server, ThreadPoolExecutor(64) as pool:
        print("ready", flush=True)
        while True:
            pool.submit(answer, server.accept()[0])


def connect(times: int) -> None:
    """Print how long it takes."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        with socket.create_connection((FAR, _PORT)):
            took.append((time.perf_counter() - began) * 1000)
    print(f"connect: median {statistics.median(took):.1f} ms, {min(took):.1f} to {max(took):.1f}")


def download(flows: int, size: int) -> None:
    """Print how fast so many connections got so many bytes together."""
    came: list[tuple[float, int]] = []
    began = time.perf_counter()

    def one(_: int) -> str:
        with socket.create_connection((FAR, _PORT)) as connection:
            connection.sendall(b"%d" % (size // flows))
            while piece := connection.recv(_PIECE):
                came.append((time.perf_counter() - began, len(piece)))
            return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()

    with ThreadPoolExecutor(flows) as pool:
        (congestion,) = set(pool.map(one, range(flows)))
    seconds = came[-1][0]
    tenths = [0] * (int(seconds * 10) + 1)
    for at, length in came:
        tenths[int(at * 10)] += length
    speed = size * 8 / 1e6 / seconds
    print(f"{flows} x {size // flows:,} bytes, {congestion}: {seconds:.2f} s, {speed:.1f} Mbit/s:", end=" ")
    print(*(f"{length * 80 / 1e6:.0f}" for length in tenths))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["serve"]:
            serve()
        case ["connect"]:
            connect(20)
        case [flows, size]:
            download(int(flows), int(size))
        case _:
            raise SystemExit("python -m tests.bench.flow")
