"""What goes over the wire when an image is pushed and pulled: `python -m tests.bench.wire LAYOUT [TOOL ...]`.

Each tool once, over `tests.bench.link` to docker-registry, as `tests.bench.registry` calls it. For each: connections
with when each was opened and carried its last byte, and how many bytes; and when every request left and its answer came
(ms since the tool began); Mbit/s in each fifth of a second; all seen from the tool's end. It tells where time goes; a
single run says nothing of speed.
"""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.images import NAME
from tests.bench.link import NEAR, link, unavailable
from tests.bench.registry import Peer, Server, alone, clean_environment, docker_registry, forget, peers
from tests.bench.timing import timed

_METHODS = (b"GET", b"HEA", b"POS", b"PUT", b"PAT", b"DEL")


@dataclass(kw_only=True)
class Connection:
    """One TCP connection: seconds, payload bytes there and back, segments that came late or
    once more, and its requests and answers."""

    number: int
    began: float
    ended: float = 0.0
    up: int = 0
    down: int = 0
    again: int = 0
    moved: list[tuple[float, int]] = field(default_factory=list)
    ends: dict[bool, int] = field(default_factory=dict)  # the highest sequence number of each direction
    lines: list[tuple[float, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What is looked at of a TCP segment."""

    at: float
    up: bool
    port: int
    syn: bool
    sequence: int
    size: int
    start: bytes


def packets(trace: Path) -> Iterator[Packet]:
    """Of a pcap of IPv4 packets that begin without a link layer."""
    data = trace.read_bytes()
    position = 24
    while position + 16 <= len(data):
        seconds, micro, kept, length = struct.unpack_from("=IIII", data, position)
        packet = data[position + 16 : position + 16 + kept]
        position += 16 + kept
        if packet[0] >> 4 != 4 or packet[9] != 6:
            continue
        head = (packet[0] & 15) * 4
        source, target, sequence = struct.unpack_from("!HHI", packet, head)
        up = packet[12:16] == bytes(map(int, NEAR.split(".")))
        begin = head + (packet[head + 12] >> 4) * 4
        yield Packet(
            at=seconds + micro / 1e6,
            up=up,
            port=source if up else target,
            syn=bool(packet[head + 13] & 2),
            sequence=sequence,
            size=length - begin,
            start=packet[begin:],
        )


def connections(trace: Path, since: float) -> list[Connection]:
    """In the order in which they were opened, after `since` (time.monotonic)."""
    found: dict[int, Connection] = {}
    for packet in packets(trace):
        if packet.at < since:
            continue
        if packet.syn and packet.up:
            found[packet.port] = Connection(number=len(found) + 1, began=packet.at - since)
        if (one := found.get(packet.port)) is None or packet.syn or not packet.size:
            continue
        end = packet.sequence + packet.size & 0xFFFFFFFF
        if (end - one.ends.setdefault(packet.up, packet.sequence) & 0xFFFFFFFF) - 1 >= 1 << 31:
            one.again += 1
            continue
        one.ends[packet.up] = end
        one.ended = packet.at - since
        one.moved.append((one.ended, packet.size))
        if packet.up:
            one.up += packet.size
        else:
            one.down += packet.size
        if packet.start[:3] in _METHODS if packet.up else packet.start[:5] == b"HTTP/":
            line = packet.start.split(b"\r\n")[0].decode(errors="replace")
            one.lines.append((packet.at - since, line if packet.up else f"<- {line}"))
    return list(found.values())


def show(peer: Peer, server: Server, image: Path, place: Path, trace: Path) -> None:
    """Push, push again and pull, and print what was seen."""
    scratch = place / "scratch"
    server.empty()
    forget(scratch / "state")
    target = f"{server.host}/bench/{time.monotonic_ns()}:x"
    pushing = peer.push(image, NAME, target, scratch / "state")
    pulling = peer.pull(target, scratch / "layout", scratch / "new")
    for verb, argv in (("push", pushing), ("push again", pushing), ("pull", pulling)):
        if verb == "pull":
            forget(scratch / "new")
        since = time.monotonic()
        seconds, _ = timed([*server.enter, *argv])
        seen = connections(trace, since)
        sent, came, again = (sum(getattr(one, name) for one in seen) for name in ("up", "down", "again"))
        print(
            f"\n## {peer.name}, {verb}: {seconds * 1000:.0f} ms, {sent:,} bytes up, {came:,} down, {again} sent again"
        )
        for one in seen:
            span = f"{one.began * 1000:5.0f} to {one.ended * 1000:5.0f}"
            print(f"connection {one.number:2}: {span}, {one.up:10,} up, {one.down:10,} down")
        fifths = [0] * (int(seconds * 5) + 2)
        for at, size in (moved for one in seen for moved in one.moved):
            fifths[int(at * 5)] += size
        print("Mbit/s:", *(f"{size * 8 * 5 / 1e6:.0f}" for size in fifths))
        for at, number, line in sorted((at, one.number, line) for one in seen for at, line in one.lines):
            print(f"{at * 1000:7.0f} {number:3}: {line}", flush=True)
    shutil.rmtree(scratch)


def main(layout: str, names: list[str]) -> None:
    """All tools, or those that are named."""
    if why := unavailable():
        raise SystemExit(f"There can be no link: {why}")
    known = {peer.name: peer for peer in peers()}
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"{unknown} is none of {', '.join(known)}")
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    clean_environment(place)
    try:
        path, _, tag = layout.partition(":")
        image, trace = alone(Path(path), place / "image", tag), place / "trace"
        with link(trace) as line, docker_registry(place / "registry", line) as server:
            print(line)
            for name in names or known:
                show(known[name], server, image, place, trace)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit("python -m tests.bench.wire LAYOUT [TOOL ...]")
    main(sys.argv[1], sys.argv[2:])
