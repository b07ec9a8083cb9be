"""What programs do all day, as training for a profile: run by the instrumented interpreter itself, with `-c`.

Law: standard library only, imports nothing of ours, runs on CPython 3.8 and later, and does the same every time: no
clock, no thread, no file outside a temporary directory. regrtest's tests look into every corner once; here the usual
ways are walked often, so that the compiler lays them out straight. Nothing is taken from a benchmark suite.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import base64
import bisect
import collections
import configparser
import copy
import csv
import dataclasses
import datetime
import enum
import fractions
import functools
import hashlib
import heapq
import io
import itertools
import json
import logging
import math
import os
import pathlib
import pickle
import random
import re
import statistics
import string
import struct
import subprocess
import sys
import tempfile
import textwrap
import tokenize
import urllib.parse
import xml.etree.ElementTree as ET
import zlib

WORDS = "the way of the data is seen from names alone and nothing else is needed to read it at once".split()


class Shape:
    """A little hierarchy: attributes, methods, properties, super()."""

    kind = "shape"

    def __init__(self, name, size):
        self.name = name
        self.size = size
        self.neighbours = []

    def area(self):
        return 0.0

    @property
    def label(self):
        return f"{self.kind} {self.name}: {self.area():.2f}"

    def __lt__(self, other):
        return self.size < other.size

    def __eq__(self, other):
        return isinstance(other, Shape) and self.name == other.name

    def __hash__(self):
        return hash(self.name)


class Square(Shape):
    kind = "square"

    def area(self):
        return self.size * self.size


class Circle(Shape):
    __slots__ = ("extra",)
    kind = "circle"

    def __init__(self, name, size, *, extra=None):
        super().__init__(name, size)
        self.extra = extra

    def area(self):
        return math.pi * self.size**2


def objects():
    shapes = [(Square if n % 3 else Circle)(f"s{n}", n % 17) for n in range(400)]
    for _ in range(12):
        for one, other in zip(shapes, shapes[1:]):
            one.neighbours.append(other)
            if len(one.neighbours) > 4:
                del one.neighbours[0]
        total = sum(shape.area() for shape in shapes if shape.size > 3)
        labels = {shape: shape.label for shape in shapes}
        ordered = sorted(shapes)
        assert total and labels[ordered[0]] and isinstance(ordered[-1], Shape)


class State(enum.Enum):
    IDLE = 1
    RUN = 2
    WAIT = 3


@dataclasses.dataclass
class Job:
    ident: int
    priority: int
    state: State = State.IDLE
    log: list = dataclasses.field(default_factory=list)


def scheduler():
    jobs = [Job(ident=n, priority=(n * 7919) % 31) for n in range(60)]
    queue = [(job.priority, job.ident) for job in jobs]
    heapq.heapify(queue)
    for tick in range(4000):
        priority, ident = heapq.heappop(queue)
        job = jobs[ident]
        if job.state is State.IDLE:
            job.state = State.RUN
        elif job.state is State.RUN:
            job.state = State.WAIT if tick & 1 else State.IDLE
            job.log.append((tick, priority))
        else:
            job.state = State.IDLE
        heapq.heappush(queue, ((priority + tick) % 37, ident))


def numbers():
    bodies = [[random.random() for _ in range(7)] for _ in range(5)]
    pairs = list(itertools.combinations(bodies, 2))
    for _ in range(1500):
        for one, other in pairs:
            dx, dy, dz = one[0] - other[0], one[1] - other[1], one[2] - other[2]
            force = 0.001 / (dx * dx + dy * dy + dz * dz + 0.01) ** 1.5
            one[3] -= dx * other[6] * force
            one[4] -= dy * other[6] * force
            one[5] -= dz * other[6] * force
            other[3] += dx * one[6] * force
            other[4] += dy * one[6] * force
            other[5] += dz * one[6] * force
        for body in bodies:
            for axis in range(3):
                body[axis] += 0.001 * body[axis + 3]
    matrix = [[1.0 / ((i + j) * (i + j + 1) / 2 + i + 1) for j in range(60)] for i in range(60)]
    vector = [1.0] * 60
    for _ in range(25):
        vector = [sum(a * b for a, b in zip(row, vector)) for row in matrix]
    grid = [0.0] * 3600
    for sweep in range(30):
        for i in range(1, 59):
            row = i * 60
            for j in range(1, 59):
                k = row + j
                grid[k] = (grid[k - 1] + grid[k + 1] + grid[k - 60] + grid[k + 60] + sweep) * 0.25
    sieve = bytearray([1]) * 60000
    for n in range(2, 245):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, 60000, n)))
    value, digits = 1, []
    for n in range(1, 260):
        value = value * n + 7
        digits.append(value % 97)
    assert str(value) and int(str(value)) == value and pow(3, 12345, 10**9 + 7)
    assert sum(fractions.Fraction(1, n) for n in range(1, 60)) > 4
    assert statistics.stdev(digits) and statistics.median(digits)


@functools.lru_cache(maxsize=None)
def ways(n):
    return 1 if n < 2 else ways(n - 1) + ways(n - 2)


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def queens(size):
    found = 0
    for order in itertools.permutations(range(size)):
        if size == len({order[i] + i for i in range(size)}) == len({order[i] - i for i in range(size)}):
            found += 1
    return found


def recursion():
    ways.cache_clear()
    assert ways(300) and fibonacci(21) == 10946
    assert queens(7) == 40


class Node:
    __slots__ = ("left", "right", "value")

    def __init__(self, value):
        self.value, self.left, self.right = value, None, None

    def insert(self, value):
        node = self
        while True:
            side = "left" if value < node.value else "right"
            below = getattr(node, side)
            if below is None:
                setattr(node, side, Node(value))
                return
            node = below

    def __iter__(self):
        if self.left is not None:
            yield from self.left
        yield self.value
        if self.right is not None:
            yield from self.right


def structures():
    tree = Node(5000)
    for _ in range(1500):
        tree.insert(random.randrange(10000))
    assert list(tree) == sorted(tree)
    counts = collections.Counter(random.choice(WORDS) for _ in range(6000))
    groups = collections.defaultdict(list)
    for word, count in counts.most_common():
        groups[len(word)].append((word, count))
    table = {f"{word}-{n}": n for n in range(300) for word in WORDS}
    for key in list(table)[::3]:
        table.pop(key)
    merged = {**table, **{key: -value for key, value in table.items() if value % 2}}
    window = collections.deque(maxlen=50)
    for n in range(5000):
        window.append(n)
        if n % 10 == 0:
            window.rotate(3)
    order = sorted(range(4000), key=lambda n: (n * 7919) % 4001)
    points = []
    for n in order[:1500]:
        bisect.insort(points, n)
    rows = [(n % 13, str(n), n * 0.5) for n in range(3000)]
    rows.sort(key=lambda row: (row[0], -row[2]))
    first, *middle, last = rows
    assert merged and window and first and middle and last
    flags = {n for n in range(2000) if n % 3} & {n for n in range(2000) if n % 5} | {1, 2}
    assert len(flags) and copy.deepcopy(groups) == groups and copy.copy(rows) == rows
    state = {"a": [1, 2, {"b": (3, 4)}], "c": {"d": list(range(30)), "e": "text" * 10}}
    for _ in range(150):
        copy.deepcopy(state)


def generators():
    def counting(n):
        for value in range(n):
            received = yield value
            if received:
                yield received

    def chained(n):
        yield from counting(n)
        yield from (x * x for x in counting(n) if x % 2)

    for _ in range(25):
        assert sum(chained(800))
        list(itertools.islice(itertools.accumulate(itertools.cycle([1, 2, 3])), 500))
        dict(zip(map(str, range(300)), filter(None, range(300))))
        [x for row in ([y for y in range(20)] for _ in range(20)) for x in row if x & 1]
    talk = counting(500)
    next(talk)
    for value in range(400):
        talk.send(value % 3 == 0 and value)
    for n in range(4000):
        try:
            if n % 5 == 0:
                raise KeyError(n)
            {}[n] if n % 7 == 0 else None
        except KeyError as error:
            error.args
        except (ValueError, TypeError):
            raise
        finally:
            n += 1


async def leaf(delay):
    if delay:
        await asyncio.sleep(0)
    return delay


async def branch(depth):
    if depth == 0:
        return await leaf(True)
    if depth % 2:
        return sum([await branch(depth - 1) for _ in range(3)])
    return sum(await asyncio.gather(*(branch(depth - 1) for _ in range(3))))


async def pipeline():
    queue = asyncio.Queue(maxsize=8)

    async def produce():
        for n in range(1500):
            await queue.put(n)
        await queue.put(None)

    async def consume():
        total = 0
        while (item := await queue.get()) is not None:
            total += item
        return total

    lock = asyncio.Lock()

    async def guarded():
        async with lock:
            return await leaf(False)

    task = asyncio.ensure_future(produce())
    total = await consume()
    await task
    await asyncio.gather(*(guarded() for _ in range(300)))
    return total


def coroutines():
    for _ in range(3):
        asyncio.run(branch(6))
    asyncio.run(pipeline())


TEXT = (" ".join(WORDS) + ", 2026-11-21 user@example.org GET /a/b?c=d&e=f HTTP/1.1 200 1234 \u00e4\u00f6\u00fc\n") * 40


def texts():
    patterns = [
        r"(?P<user>[\w.]+)@(?P<host>[\w.-]+)",
        r"(\d{4})-(\d\d)-(\d\d)",
        r"\b(the|data|names?)\b",
        r"^(GET|POST) (\S+) HTTP/(\d\.\d)",
        r"[A-Za-z_][A-Za-z0-9_]*|\d+(?:\.\d*)?|\s+|.",
        r"(?i)(?:way|read)\s+(?!none)\w+",
    ]
    for round_ in range(6):
        re.purge()
        for pattern in patterns:
            compiled = re.compile(pattern)
            for match in compiled.finditer(TEXT):
                match.group(), match.groups(), match.span()
            compiled.sub("<>", TEXT)
        for line in TEXT.splitlines():
            words = line.strip().split()
            line.replace("the", "a").upper().lower().partition(",")
            " ".join(word.title() for word in words if word.isalpha() and not word.startswith("x"))
            "-".join(reversed(words)).encode("utf-8").decode("utf-8").center(200).find("names")
            f"{round_:>5}|{words[0]!r:<20}|{len(words) * 1.5:8.3f}|{round_:#x}"
            "%s %d %5.2f" % (words[1], round_, 2.5)
            "{0} {key:>10} {0!r}".format(*words[:1], key=words[2])
    textwrap.fill(TEXT, 72)
    string.Template("$a and ${b}").substitute(a=1, b=2)
    [urllib.parse.urlsplit(f"https://example.org:80/{w}?q={w}#f") for w in WORDS * 8]
    urllib.parse.parse_qs(urllib.parse.urlencode({w: n for n, w in enumerate(WORDS)}))


def template():
    source = ["def render(rows):", "    out = []", "    append = out.append", "    for row in rows:"]
    source += ["        append('<tr>')", "        for cell in row:"]
    source += ["            append('<td>%s</td>' % str(cell).replace('&', '&amp;').replace('<', '&lt;'))"]
    source += ["        append('</tr>')", "    return ''.join(out)"]
    space = {}
    exec(compile("\n".join(source), "<template>", "exec"), space)
    table = [[f"{x}<{y}" for x in range(12)] for y in range(150)]
    for _ in range(8):
        space["render"](table)


def formats():
    value = {
        "name": "value",
        "items": [
            {"id": n, "score": n * 1.25, "tags": WORDS[: n % 7], "ok": n % 2 == 0, "none": None} for n in range(150)
        ],
        "text": 'quote " and \u00e4 \u20ac',
    }
    for _ in range(12):
        data = json.dumps(value)
        assert json.loads(data) == value
        json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        for protocol in (2, pickle.HIGHEST_PROTOCOL):
            assert pickle.loads(pickle.dumps(value, protocol)) == value
        pickle._loads(pickle._dumps(value))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, ["id", "score", "ok"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(value["items"])
        buffer.seek(0)
        list(csv.DictReader(buffer))
        packed = b"".join(struct.pack("<IdH", n, n * 0.5, n & 0xFFFF) for n in range(300))
        list(struct.iter_unpack("<IdH", packed))
        zlib.decompress(zlib.compress(packed, 6))
        base64.b64decode(base64.b64encode(packed))
        (
            hashlib.sha256(packed).hexdigest(),
            hashlib.md5(packed, usedforsecurity=False).hexdigest() if sys.version_info >= (3, 9) else 0,
        )
    root = ET.Element("root")
    for n in range(250):
        child = ET.SubElement(root, "item", id=str(n), kind=WORDS[n % 7])
        ET.SubElement(child, "name").text = f"name {n} & more"
    for _ in range(3):
        parsed = ET.fromstring(ET.tostring(root))
        assert sum(1 for _ in parsed.iter("name")) == 250 and parsed.findall("./item[@kind='way']") is not None
    parser = configparser.ConfigParser()
    parser.read_string("\n".join(f"[s{n}]\na = {n}\nb = %(a)s x" for n in range(60)))
    [parser.get(section, "b") for section in parser.sections()]


def services():
    stream = io.StringIO()
    logger = logging.getLogger("training")
    logger.propagate = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    for n in range(1500):
        logger.debug("not shown %d", n)
        logger.info("shown %d of %s", n, "many")
    moment = datetime.datetime(2026, 11, 21, 12, 30, tzinfo=datetime.timezone.utc)
    for n in range(800):
        later = moment + datetime.timedelta(days=n, seconds=n * 37)
        datetime.datetime.fromisoformat(later.isoformat())
        later.strftime("%Y-%m-%d %H:%M:%S")
    for _ in range(15):
        datetime.datetime.strptime("2026-11-21 12:30:00", "%Y-%m-%d %H:%M:%S")
    for _ in range(12):
        parser = argparse.ArgumentParser(prog="training")
        parser.add_argument("--count", type=int, default=1)
        parser.add_argument("--name", choices=["a", "b"])
        parser.add_argument("files", nargs="*")
        parser.parse_args(["--count", "3", "--name", "a", "x", "y"])
        parser.format_help()


def files():
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        for n in range(60):
            (base / f"d{n % 5}").mkdir(exist_ok=True)
            (base / f"d{n % 5}" / f"f{n}.txt").write_text(TEXT[: n * 20], encoding="utf-8")
        for path in sorted(base.rglob("*.txt")):
            with path.open(encoding="utf-8") as lines:
                sum(len(line) for line in lines)
            path.relative_to(base).with_suffix(".bak").as_posix(), path.read_bytes(), path.stat()
        [os.path.join(*entry[:1], "x") for entry in os.walk(name)]


def compiling():
    for module in (textwrap, heapq, bisect, string, copy, base64, functools):
        path = pathlib.Path(module.__file__)
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        sum(1 for _ in ast.walk(tree))
        compile(tree, str(path), "exec")
        with path.open("rb") as stream:
            list(tokenize.tokenize(stream.readline))
    namespace = {}
    for n in range(60):
        exec(f"class C{n}:\n    def m(self, a, b={n}, *c, **d):\n        return [a, b, *c]\n", namespace)
        namespace[f"C{n}"]().m(1, 2, 3, x=4)


def starts():
    for code in ("pass", "import json, re, logging, asyncio, argparse, pathlib", "print(sum(range(1000)))"):
        for isolated in (["-I"], ["-S"], []):
            subprocess.run([sys.executable, *isolated, "-c", code], check=True, stdout=subprocess.DEVNULL)


def main():
    random.seed(20261121)
    for _ in range(6):
        for work in (objects, scheduler, numbers, recursion, structures, generators, coroutines, texts, template):
            work()
            work()
        for work in (formats, services, files, compiling):
            work()
    starts()


if __name__ == "__main__":
    main()
