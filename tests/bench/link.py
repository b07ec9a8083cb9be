"""A long, thin link of real packets between two network namespaces.

The kernels that run the bench have no netem, so this program is the wire. Each namespace has a TUN device; what one
sends waits in a queue, leaves at RATE (a packet's bytes, IP header included, one after the other) and comes out of the
other DELAY later. All else is the kernel's TCP: handshakes, slow start, windows, retransmissions, for each connection.

The queue holds QUEUE bytes, and what does not fit is dropped; nothing else is lost. 250 ms are what a home's or an
office's line has that nobody tuned: connections that fill it wait, they hardly lose anything. With 50 ms (one
bandwidth-delay product) slow start overflows it, and the same push takes 3 s or 9 s, by luck. Both ends use cubic, as
hosts do unless told otherwise, and remember nothing of earlier connections. `python -m tests.bench.flow` measures it.

A namespace lives as long as the wire's process, which ends when its standard input does: nothing is left behind.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import BinaryIO

DELAY = 0.025  # s, one way
RATE = 100e6 / 8  # bytes/s, each way
QUEUE = 3_125_000  # bytes, each way: 0.25 s of RATE
NEAR, FAR = "10.91.7.1", "10.91.7.2"  # private (RFC 1918), which crane wants of a registry without TLS
_MTU = 1500
_STEP = 0.0003  # s: packets are carried that often, as a network card's interrupts are
_TUN = Path("/dev/net/tun")
_CLONE_NEWNET, _TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000
_SNAP = 300  # bytes of each packet that a trace keeps: headers, and the first line of a request


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Two ends: what to put before a program's argv so that it runs there (costs it half a millisecond)."""

    near: tuple[str, ...]
    far: tuple[str, ...]
    congestion: str
    wire: int

    def processor(self) -> float:
        """Seconds of processor time that the wire has taken."""
        fields = Path(f"/proc/{self.wire}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __str__(self) -> str:
        rate, ms, queue = RATE * 8 / 1e6, 2 * DELAY * 1000, QUEUE / RATE * 1000
        return f"{ms:.0f} ms there and back, {rate:.0f} Mbit/s each way, a queue of {queue:.0f} ms, {self.congestion}"


def unavailable() -> str | None:
    """Why there can be no link here."""
    if missing := [name for name in ("ip", "nsenter", "unshare") if not shutil.which(name)]:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux)"
    if not _TUN.exists():
        return f"{_TUN} is missing: modprobe tun, or mknod {_TUN} c 10 200"
    tried = ["unshare", "--net", "ip", "tuntap", "add", "wire0", "mode", "tun"]
    found = subprocess.run(tried, check=False, capture_output=True, text=True)
    return f"no network namespace with a TUN device: {found.stderr.strip()}" if found.returncode else None


@contextmanager
def link(trace: Path | None = None) -> Iterator[Link]:
    """A link, up to the end of the block; `trace` gets how packets begin that pass the near end (pcap; seconds of
    time.monotonic)."""
    argv = [sys.executable, "-m", "tests.bench.link", "wire", *([str(trace)] if trace else [])]
    here = Path(__file__).parents[2]
    with subprocess.Popen(
        argv, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as wire:
        assert wire.stdin
        assert wire.stdout
        try:
            said = wire.stdout.readline().split()
            if len(said) != 3:
                raise SystemExit("the link could not be made: see above")
            enter = [("nsenter", f"--net=/proc/{wire.pid}/fd/{space}", "--") for space in said[:2]]
            yield Link(near=enter[0], far=enter[1], congestion=said[2], wire=wire.pid)
        finally:
            wire.terminate()


def _wire(trace: Path | None) -> None:
    """Make both ends, tell where they are, and carry packets until standard input ends."""
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    congestion = "cubic" if "cubic" in known else known[0]
    near, far = _end(NEAR, FAR, congestion), _end(FAR, NEAR, congestion)
    print(near[1], far[1], congestion, flush=True)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # a wire does not wait for a busy machine
    keep = _pcap(trace.open("wb", buffering=0)) if trace else None
    there, back = _Way(near[0], far[0], sent=keep), _Way(far[0], near[0], came=keep)
    while True:
        ready, _, _ = select.select([near[0], far[0], 0], [], [])
        if 0 in ready:  # whoever started this has ended
            return
        while there.turn() + back.turn():
            time.sleep(_STEP)


_Keep = Callable[[float, bytes], object]


class _Way:
    """One direction: packets in the order in which they arrive."""

    def __init__(self, source: int, target: int, *, sent: _Keep | None = None, came: _Keep | None = None) -> None:
        self._source, self._target, self._sent, self._came = source, target, sent, came
        self._free = 0.0  # when all that was sent has left
        self._under_way: deque[tuple[float, bytes]] = deque()

    def turn(self) -> int:
        """Take in what was sent, hand over what has arrived; packets that are under way."""
        now, under_way = time.monotonic(), self._under_way
        with suppress(BlockingIOError):
            while packet := os.read(self._source, _MTU):
                if self._sent:
                    self._sent(now, packet)
                start = max(self._free, now)
                if (start - now) * RATE + len(packet) <= QUEUE:
                    self._free = start + len(packet) / RATE
                    under_way.append((self._free + DELAY, packet))
        while under_way and under_way[0][0] <= now + _STEP / 2:
            packet = under_way.popleft()[1]
            if self._came:
                self._came(now, packet)
            os.write(self._target, packet)
        return len(under_way)


def _pcap(stream: BinaryIO) -> Callable[[float, bytes], None]:
    stream.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _SNAP, 101))  # LINKTYPE_RAW

    def keep(now: float, packet: bytes) -> None:
        head = struct.pack("=IIII", int(now), int(now % 1 * 1e6), min(len(packet), _SNAP), len(packet))
        stream.write(head + packet[:_SNAP])

    return keep


def _end(address: str, peer: str, congestion: str) -> tuple[int, int]:
    """Move into a new network namespace with a TUN device that is up; descriptors of both."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWNET):
        raise SystemExit("no new network namespace")
    space = os.open("/proc/self/ns/net", os.O_RDONLY)
    tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"wire0", _IFF_TUN | _IFF_NO_PI))
    Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
    for line in (
        "link set lo up",
        f"addr add {address} dev wire0",
        f"link set wire0 up mtu {_MTU} txqueuelen 5000",  # the queue that counts is ours
        f"route add {peer} dev wire0 src {address} congctl {congestion}",
    ):
        subprocess.run(["ip", *line.split()], check=True)
    return tun, space


if __name__ == "__main__":
    if sys.argv[1:2] == ["wire"]:
        _wire(Path(sys.argv[2]) if sys.argv[2:] else None)
