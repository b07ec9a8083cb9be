"""Prune: what a kept root leads to stays, all else goes; and builds that run meanwhile never notice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from rootfs.digest import Digest
from rootfs.errors import HostError
from rootfs.extract import remove
from rootfs.holdings import Reach, holdings
from rootfs.ports import Origin
from rootfs.prune import Place, Swept, Wish, choose, forecast, pruning, sweep
from rootfs.store import DiskStore, Link, bring_back, in_use, trash_of

NOW = 2_000_000_000.0
DAY = 86400.0
ALL = float("inf")


def put(store: DiskStore, text: str, names: Iterable[Digest] = (), *, age: float = 100 * DAY) -> Digest:
    """A blob that leads to others, last used so long ago."""
    digest = store.put([json.dumps([text, *map(str, names)]).encode()]).digest
    os.utime(path_of(store, digest), (NOW - age, NOW - age))
    return digest


def link(store: DiskStore, name: str, target: Digest, *, age: float, origin: Origin | None = None) -> Digest:
    key = Digest.of(name.encode())
    store.link(key, target, origin)
    os.utime(store.root / "links" / key.hex, (NOW - age, NOW - age))
    return key


def path_of(store: DiskStore, digest: Digest) -> Path:
    return store.root / "blobs" / digest.algorithm / digest.hex


def prune(store: DiskStore, wish: Wish, *, young: float = NOW - 3600, places: Iterable[Place] = ()) -> Swept:
    doomed = choose(holdings(store.root), places, wish, young=young, now=NOW)
    said = forecast(doomed)
    swept = sweep(store.root, doomed, young=young, remove=remove)
    assert (said.numbers, said.freed, said.held) == (swept.numbers, swept.freed, swept.held)
    return swept


def left(store: DiskStore) -> set[Digest]:
    return set(holdings(store.root).blobs)


@given(
    graph=st.lists(st.tuples(st.sets(st.integers(0, 30)), st.booleans()), min_size=1, max_size=25),
    links=st.lists(
        st.tuples(st.integers(0, 24), st.floats(0, 40), st.booleans(), st.none() | st.integers(0, 24)), max_size=12
    ),
    days=st.integers(0, 40),
)
@settings(deadline=None, max_examples=60)
def test_what_a_kept_root_leads_to_stays_and_all_else_goes(
    graph: list[tuple[set[int], bool]], links: list[tuple[int, float, bool, int | None]], days: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = DiskStore(Path(place))
        digests: list[Digest] = []
        leads: dict[Digest, set[Digest]] = {}
        for number, (names, is_young) in enumerate(graph):
            named = {digests[name] for name in names if name < number}
            digests.append(put(store, str(number), named, age=0 if is_young else 90 * DAY))
            leads[digests[-1]] = named
        roots = {digest for digest, (_, is_young) in zip(digests, graph, strict=True) if is_young}
        keys, kept_keys = [], set()
        for number, (target, age, named, extra) in enumerate(links):
            blobs = () if extra is None else (digests[extra % len(digests)],)
            key = link(
                store,
                f"link {number}",
                digests[target % len(digests)],
                age=age * DAY,
                origin=Origin(kind="x", blobs=blobs) if blobs else None,
            )
            if named:
                keys.append(key)
            if named or age <= days or age * DAY <= 3600:
                roots |= {digests[target % len(digests)], *blobs}
                kept_keys.add(key.hex)
        prune(store, Wish(since=NOW - days * DAY, keys=frozenset(keys)))
        expected, todo = set(), list(roots)
        while todo:
            one = todo.pop()
            if one not in expected:
                expected.add(one)
                todo += leads[one]
        assert left(store) == expected
        assert {path.name for path in (store.root / "links").glob("*")} == kept_keys
        assert not list((store.root / "trash").iterdir())


def test_a_blob_is_reached_through_every_document(tmp_path: Path) -> None:
    """And not through what only looks like one: it must be JSON."""
    store = DiskStore(tmp_path)
    content = store.put([b"content"]).digest
    tree = put(store, "tree", [content])
    manifest = put(store, "manifest", [tree])
    bare = store.put([b"text that names " + str(manifest).encode()]).digest
    reach = Reach(holdings(tmp_path).blobs)
    assert reach.closure([manifest]) == {manifest, tree, content}
    assert reach.closure([manifest], {tree}) == {manifest}
    assert reach.closure([bare]) == {bare}


def test_what_was_used_last_stays_when_not_all_may(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    blobs = [store.put([bytes([number]) * 100_000]).digest for number in range(4)]
    for number, blob in enumerate(blobs):
        os.utime(path_of(store, blob), (NOW - DAY * 50, NOW - DAY * 50))
        link(store, str(number), blob, age=(number + 1) * DAY)
    size = sum(held.size for held in holdings(tmp_path).blobs.values())
    prune(store, Wish(since=-ALL, size=size // 2))
    assert left(store) == set(blobs[:2])


def test_a_size_never_costs_what_was_used_within_the_hour(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    kept = put(store, "used a moment ago")
    link(store, "young", kept, age=60)
    lost = put(store, "used today")
    link(store, "today", lost, age=7200)
    prune(store, Wish(since=-ALL, size=0))
    assert left(store) == {kept}


def test_a_blob_in_a_layout_is_not_counted_as_freed(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "store")
    mine, shared = put(store, "mine"), put(store, "shared")
    (tmp_path / "layout").hardlink_to(path_of(store, shared))
    swept = prune(store, Wish(since=ALL))
    assert left(store) == set()
    assert swept.freed == swept.held > 0
    assert swept.numbers == {"blobs": 2}
    assert (tmp_path / "layout").exists()
    assert mine != shared


def test_a_place_goes_with_its_lock_unless_somebody_is_in_it(tmp_path: Path) -> None:
    places = []
    for name in ("free", "busy"):
        path = tmp_path / "work" / name
        (path / "below").mkdir(parents=True)
        lock = path.with_suffix(".lock")
        lock.touch()
        os.utime(lock, (NOW - 90 * DAY, NOW - 90 * DAY))
        places.append(Place(kind="work", path=path, size=1, used=NOW - 90 * DAY, lock=lock))
    with FileLock(places[1].lock or ""):
        swept = sweep(
            tmp_path,
            choose(holdings(tmp_path), places, Wish(since=NOW), young=NOW, now=NOW),
            young=NOW,
            remove=remove,
        )
    assert swept.numbers == {"work": 1}
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["busy", "busy.lock"]


def test_a_place_that_was_used_since_it_was_looked_at_stays(tmp_path: Path) -> None:
    path = tmp_path / "work" / "root"
    path.mkdir(parents=True)
    path.with_suffix(".lock").touch()
    place = Place(kind="work", path=path, size=1, used=0, lock=path.with_suffix(".lock"))
    doomed = choose(holdings(tmp_path), [place], Wish(since=ALL), young=time.time() - 60, now=time.time())
    assert doomed.places == [place]
    assert sweep(tmp_path, doomed, young=time.time() - 60, remove=remove).numbers == {}
    assert path.is_dir()


def test_what_is_found_after_it_was_chosen_stays(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    found, lost = put(store, "found"), put(store, "lost")
    key = link(store, "key", found, age=90 * DAY)
    for path in (path_of(store, found), path_of(store, lost), tmp_path / "links" / key.hex):
        os.utime(path, (1, 1))
    young = time.time() - 60
    doomed = choose(holdings(tmp_path), [], Wish(since=ALL), young=young, now=time.time())
    assert {blob.digest for blob in doomed.blobs} == {found, lost}
    assert store.lookup(key) == found
    sweep(tmp_path, doomed, young=young, remove=remove)
    assert (store.lookup(key), left(store)) == (found, {found})


def test_who_looks_for_what_lies_in_the_trash_has_it_back(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    digest = put(store, "x")
    key = link(store, "key", digest, age=0)
    (tmp_path / "trash").mkdir()
    blob, linked = path_of(store, digest), tmp_path / "links" / key.hex
    blob.rename(trash_of(tmp_path, blob))
    assert store.exists(digest)
    blob.rename(trash_of(tmp_path, blob))
    store.open(digest).close()
    for path in (blob, linked):
        path.rename(trash_of(tmp_path, path))
    assert store.lookup(key) == digest
    assert not list((tmp_path / "trash").iterdir())


def test_what_comes_back_takes_nobodys_place(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    old, new = put(store, "old"), put(store, "new")
    key = link(store, "key", old, age=0)
    path = tmp_path / "links" / key.hex
    (tmp_path / "trash").mkdir()
    path.rename(trash_of(tmp_path, path))
    store.link(key, new)
    assert bring_back(tmp_path, path)
    assert store.lookup(key) == new


def test_a_killed_prunes_trash_is_emptied_by_the_next(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    old, used = put(store, "old"), put(store, "used", age=0)
    (tmp_path / "trash" / "work+roots+abc" / "below").mkdir(parents=True)
    for digest in (old, used):
        path_of(store, digest).rename(trash_of(tmp_path, path_of(store, digest)))
    prune(store, Wish(since=-ALL))
    assert left(store) == {used}
    assert not list((tmp_path / "trash").iterdir())


def test_a_link_says_what_it_is_and_old_ones_are_still_read(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    target, deb = put(store, "a"), put(store, "b")
    key, origin = Digest.of(b"key"), Origin(kind="fragment", title="unpack a", blobs=(deb,))
    store.link(key, target, origin)
    assert store.lookup(key) == target
    assert holdings(tmp_path).links[0].link == Link(target=target, origin=origin)
    for text in (f"{target}", f"{target}\nnonsense", f'{target}\n{{"kind":"x","blobs":["no"]}}'):
        path = tmp_path / "links" / key.hex
        path.unlink()
        path.write_text(text)
        assert store.lookup(key) == target
        assert holdings(tmp_path).links[0].link == Link(target=target)


def test_only_one_prune_at_a_time_and_it_knows_who_works(tmp_path: Path) -> None:
    with pruning(tmp_path, alone=False) as idle:
        assert idle
        with in_use(tmp_path), pytest.raises(HostError, match="another prune"), pruning(tmp_path, alone=False):
            pass
    with in_use(tmp_path), in_use(tmp_path), pruning(tmp_path, alone=True) as idle:
        assert not idle


def test_who_comes_while_all_is_pruned_waits_and_is_told(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from rootfs.store import in_use\n"
    program += "with in_use(Path(sys.argv[1]), lambda: print('waits', flush=True)): print('in', flush=True)"
    with pruning(tmp_path, alone=True) as idle:
        assert idle
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
    with process:
        assert process.stdout.readline() == "in\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(HostError) as caught, pruning(tmp_path, alone=False):
        pass
    assert "--store" in (caught.value.hint or "")


_BUILDS = textwrap.dedent(
    """
    import os, random, sys
    from pathlib import Path
    import rootfs.store
    from rootfs.digest import Digest
    from rootfs.store import DiskStore

    rootfs.store.FRESH = 0.0
    store, rounds = DiskStore(Path(sys.argv[1])), int(sys.argv[2])
    chance = random.Random(int(sys.argv[3]))
    found = made = 0
    for _ in range(rounds):
        number = chance.randrange(12)
        key = Digest.of(b"step %d" % number)
        parts = [Digest.of(b"part %d" % (number + more)) for more in range(3)]
        target = store.lookup(key)
        if target is not None and all(store.exists(part) for part in parts):
            found += 1
        else:
            for more in range(3):
                store.put([b"part %d" % (number + more)])
            target = store.put([("[" + ",".join(f'"{part}"' for part in parts) + "]").encode()]).digest
            store.link(key, target)
            made += 1
        for _ in range(3):
            assert store.lookup(key) == target, "a result that was found is gone"
            for more, part in enumerate(parts):
                with store.open(part) as stream:
                    assert stream.read() == b"part %d" % (number + more)
        for path in (store._link(key), store._blob(target), *map(store._blob, parts)):
            try:
                os.utime(path, (1, 1))  # long ago: prune may have it
            except FileNotFoundError:
                pass
    print(found, made)
    """
)


@pytest.mark.parametrize("seed", range(2))
def test_builds_and_prunes_in_two_processes(tmp_path: Path, seed: int) -> None:
    """Whatever a build found it can read, though all of it counted as old a moment before."""
    (tmp_path / "links").mkdir()
    argv = [sys.executable, "-c", _BUILDS, str(tmp_path), "1500", str(seed)]
    builds = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    gone = 0
    while builds.poll() is None:
        young = time.time() - 3600
        doomed = choose(holdings(tmp_path), [], Wish(since=ALL), young=young, now=time.time())
        gone += sum(sweep(tmp_path, doomed, young=young, remove=remove).numbers.values())
        time.sleep(random.Random(gone).random() / 200)
    out, err = builds.communicate()
    assert builds.returncode == 0, err
    found, made = map(int, out.split())
    assert gone > 50
    assert found > 50
    assert made > 50


_PRUNES = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from rootfs.extract import remove
    from rootfs.holdings import holdings
    from rootfs.prune import Wish, choose, sweep

    root = Path(sys.argv[1])
    doomed = choose(holdings(root), [], Wish(since=float("inf")), young=float("inf"), now=time.time())
    print("begins", flush=True)
    sweep(root, doomed, young=float("inf"), remove=remove)
    """
)


def test_a_prune_that_is_killed_leaves_a_whole_store(tmp_path: Path) -> None:
    chance = random.Random(1)
    store = DiskStore(tmp_path)
    for _ in range(5):
        for number in range(300):
            store.link(Digest.of(b"%d" % number), store.put([b"blob %d" % number]).digest)
        process = subprocess.Popen([sys.executable, "-c", _PRUNES, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.random() / 50)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for number in range(300):
            found = store.lookup(Digest.of(b"%d" % number))
            if found is not None:
                with store.open(found) as stream:
                    assert stream.read() == b"blob %d" % number
    prune(store, Wish(since=ALL), young=ALL)
    assert left(store) == set()
