"""`ocibuild cache`: what is listed, what goes, what is found damaged; as the user calls it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from builder.cache import list_cache
from builder.cli import run
from rootfs.digest import Digest
from rootfs.ports import Origin
from rootfs.store import DiskStore, in_use

OLD = time.time() - 100 * 86400


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    """A store with a fragment and its .deb, a tree, an extracted root, a failed step, leftovers; all old but one."""
    store = DiskStore(tmp_path / "store")
    deb, tar = store.put([b"!<arch> deb"]).digest, store.put([b"tar" * 9000]).digest
    tree = f'[{{"slice":["{tar}",0,1]}}]'.encode()
    store.link(Digest.of(b"1"), store.put([b"{}\n" + tree]).digest, Origin(kind="fragment", blobs=(deb,)))
    store.link(Digest.of(b"2"), store.put([tree]).digest, Origin(kind="rootfs", title="assemble"))
    store.link(Digest.of(b"3"), store.put([b"old"]).digest)
    store.put([b"nobody's"])
    for name in ("work/roots/abc/usr/bin", "work/def", "wheels/cp314", "bench", "registries/uploads", "work/log"):
        (store.root / name).mkdir(parents=True)
    for name in ("work/roots/abc.lock", "work/def.lock", "work/gone.lock", "tmp/.tmp-x", "registries/uploads/a.json"):
        (store.root / name).write_text("x" * 5000)
    for path in store.root.rglob("*"):
        os.utime(path, (OLD, OLD))
    return store


def ocibuild(capsys: pytest.CaptureFixture[str], store: DiskStore, *argv: str) -> tuple[int, str, str]:
    status = run(["cache", *argv, "--store", str(store.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_ls_counts_each_blob_once_by_what_makes_it(store: DiskStore, capsys: pytest.CaptureFixture[str]) -> None:
    (store.root.parent / "layout").hardlink_to(next((store.root / "blobs" / "sha256").iterdir()))
    listed = list_cache(store.root)
    rows = {row.kind: row for row in listed.rows}
    assert rows["fragment"].size > rows["rootfs"].size > 0
    assert {kind: row.number for kind, row in rows.items()} == {
        **dict.fromkeys(("fragment", "rootfs", "of no known kind", "blobs without a link"), 1),
        **dict.fromkeys(("benchmarks", "extracted trees", "failed steps", "locks"), 1),
        **dict.fromkeys(("registry notes", "unfinished files", "wheels"), 1),
    }
    assert rows["fragment"].used == pytest.approx(OLD)
    blobs = sum(path.stat().st_blocks * 512 for path in (store.root / "blobs" / "sha256").iterdir())
    kinds = ("fragment", "rootfs", "of no known kind", "blobs without a link")
    assert sum(rows[kind].size for kind in kinds) == blobs
    assert listed.shared > 0
    status, out, _ = ocibuild(capsys, store, "ls")
    assert status == 0
    assert "extracted trees" in out
    assert "in layouts, too" in out
    _, out, _ = ocibuild(capsys, store, "ls", "--json")
    assert json.loads(out)["size"] == listed.size


def test_a_tree_whose_lock_is_gone_is_as_old_as_its_directory(store: DiskStore) -> None:
    tree = store.root / "work/roots/abc"
    os.utime(tree, (0, 0))  # a Tree's own time
    tree.with_suffix(".lock").unlink()
    rows = {row.kind: row for row in list_cache(store.root).rows}
    assert rows["extracted trees"].used == tree.stat().st_ctime > OLD


def test_what_is_looked_at_is_not_used(store: DiskStore, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.lstat().st_mtime for path in store.root.rglob("*") if path.is_file()}
    ocibuild(capsys, store, "ls")
    ocibuild(capsys, store, "verify")
    assert {path: path.lstat().st_mtime for path in before} == before


def test_prune_takes_all_that_is_old(store: DiskStore, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ocibuild(capsys, store, "prune", "--dry-run")
    assert status == 0
    assert out.startswith("would go: 1 benchmarks, 6 blobs, 1 extracted trees, 1 failed steps, 3 links, 1 locks")
    assert store.lookup(Digest.of(b"2"))  # and is used by that
    status, out, _ = ocibuild(capsys, store, "prune", "--json")
    assert json.loads(out)["gone"]["links"] == 2
    assert store.lookup(Digest.of(b"2"))
    left = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith(("blobs", "links"))} == {"lock", "prune.lock"}
    assert len([name for name in left if name.startswith("blobs")]) == 2


def test_roots_stay_whatever_their_age(store: DiskStore, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old = Digest.of(b"old")
    tree = next(link for link in (store.root / "links").iterdir() if link.name == Digest.of(b"2").hex).read_text()
    (tmp_path / "layout").mkdir()
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"manifests": [{"digest": tree.partition("\n")[0]}]}))
    status, _, _ = ocibuild(capsys, store, "prune", "--root", str(old), "--root", str(tmp_path / "layout"))
    assert status == 0
    assert len(list((store.root / "blobs" / "sha256").iterdir())) == 3


def test_all_goes_when_nobody_is_at_work(store: DiskStore, capsys: pytest.CaptureFixture[str]) -> None:
    young = store.put([b"young"]).digest
    with in_use(store.root):
        status, _, err = ocibuild(capsys, store, "prune", "--all")
        assert status == 0
        assert "another ocibuild is at work" in err
        assert store.exists(young)
    ocibuild(capsys, store, "prune", "--all")
    assert not store.exists(young)
    assert {path.name for path in store.root.rglob("*") if path.is_file()} == {"lock", "prune.lock"}


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (("prune", "--older-than", "soon"), 2, "write 30m, 12h"),
        (("prune", "--keep-size", "much"), 2, "write 500MB"),
        (("prune", "--all", "--older-than", "1d"), 2, "--all takes no"),
        (("prune", "--root", "sha256:abc"), 5, "not a digest"),
        (("prune", "--root", "no-such-recipe"), 3, "no such recipe"),
    ],
)
def test_bad_words_are_refused(
    store: DiskStore, capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], status: int, said: str
) -> None:
    got, _, err = ocibuild(capsys, store, *argv)
    assert (got, said in err) == (status, True), err


def test_where_no_store_is_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = DiskStore(tmp_path / "nowhere")
    assert ocibuild(capsys, nowhere, "ls")[0] == 0
    assert ocibuild(capsys, nowhere, "verify")[0] == 0
    status, _, err = ocibuild(capsys, nowhere, "prune")
    assert (status, "there is no store" in err) == (7, True)
    assert not nowhere.root.exists()


def test_damage_is_found_and_repaired(store: DiskStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert ocibuild(capsys, store, "verify")[0] == 0
    blob = store.root / "blobs" / "sha256" / Digest.of(b"old").hex
    blob.chmod(0o644)
    blob.write_bytes(b"new")
    (store.root / "links" / ("0" * 64)).write_text("half")
    (store.root / "blobs" / "sha256" / "README").write_text("not ours")
    status, out, err = ocibuild(capsys, store, "verify")
    assert status == 5
    assert f"damage: blobs/sha256/{blob.name} holds other bytes: {Digest.of(b'new')}" in out
    assert "is no link" in out
    assert "leads to a damaged blob" in out
    assert "2 damaged" in out
    assert "--repair" in err
    status, out, _ = ocibuild(capsys, store, "verify", "--repair", "--json")
    assert status == 0
    assert json.loads(out)["repaired"]
    status, out, _ = ocibuild(capsys, store, "verify")
    assert status == 0
    assert "0 damaged" in out
    assert not blob.exists()
    assert (store.root / "blobs" / "sha256" / "README").exists()
    assert store.lookup(Digest.of(b"3")) is None
    assert store.put([b"old"]).digest == Digest.of(b"old")


def test_putting_what_is_damaged_heals_it(store: DiskStore) -> None:
    blob = store.root / "blobs" / "sha256" / Digest.of(b"old").hex
    blob.chmod(0o644)
    blob.write_bytes(b"new")
    store.put([b"old"])
    assert blob.read_bytes() == b"old"
