"""A profile on its way to another machine: through a real registry, read by other tools; and GCC's own counters."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import zstandard

from builder.artifact import ARTIFACT
from builder.cli import run
from builder.lock import Lock
from builder.oci.descriptor import CONFIG, MANIFEST, Descriptor
from builder.oci.manifest import Manifest
from builder.plan import commands_of
from builder.python.counters import compare
from builder.python.profile import profile_for
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push
from rootfs.digest import Digest
from rootfs.store import DiskStore
from rootfs.transport import HttpTransport
from tests.fakes.profile import SMALL, profile, recipe_in
from tests.fakes.reporter import ListReporter
from tests.peers.registry import registry

pytestmark = pytest.mark.peer

MERGED = """
#include <stdlib.h>
static int one(int x) { return x + 1; }
static int two(int x) { return x * 2; }
static int (*table[])(int) = {one, two};
int main(int argc, char **argv) {
    int sum = 0, which = atoi(argv[1]);
    for (int i = 0; i < 1000; i++) sum += table[which](i) / (which + 1);
    return sum == 0;
}
"""


@pytest.fixture(scope="module")
def host(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry")) as host:
        yield host


def machine(place: Path, *, pinned: bytes | None) -> list[str]:
    """A machine of its own: a recipe with its lock, a store, and the words that name both."""
    place.mkdir()
    found, lock = recipe_in(place)
    if pinned is not None:
        DiskStore(place / "store").put([pinned])
        said = commands_of(found.recipe, lock.python.version)
        lock = msgspec.structs.replace(lock, profile=profile_for(Digest.of(pinned), said, lock))
        found.lock_path.write_bytes(lock.to_bytes())
    return [str(found.path), "--store", str(place / "store")]


def test_pushed_here_and_pulled_there(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = machine(tmp_path / "here", pinned=SMALL), machine(tmp_path / "there", pinned=None)
    name = f"{host}/team/profiles"
    assert run(["profile", "push", *here, name, "--plain-http"]) == 0
    pushed = capsys.readouterr().out.strip()
    assert pushed.startswith(f"{name}@sha256:")
    for reference in (name, pushed, f"{name}:3.14.7-fast-profile"):
        assert run(["profile", "pull", *there, reference, "--plain-http"]) == 0
        assert capsys.readouterr().out == f"{Digest.of(SMALL)}\n"
    assert DiskStore(tmp_path / "there/store").exists(Digest.of(SMALL))
    locks = [Lock.parse((tmp_path / place / "fast.lock.toml").read_bytes(), at=place) for place in ("here", "there")]
    assert locks[0].profile == locks[1].profile is not None


def test_other_tools_read_what_was_pushed_and_exported(
    host: str, peer: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skopeo = peer("skopeo")
    here = machine(tmp_path / "here", pinned=SMALL)
    assert run(["profile", "push", *here, f"{host}/read:x", "--plain-http"]) == 0
    digest = capsys.readouterr().out.strip().rpartition("@")[2]
    assert run(["profile", "export", *here, str(tmp_path / "x.profile")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/x.profile@{digest}\n"
    for source in (f"docker://{host}/read:x", f"oci-archive:{tmp_path}/x.profile"):
        copy = tmp_path / source.partition(":")[0]
        done = subprocess.run(
            [skopeo, "copy", "--src-tls-verify=false", "--preserve-digests", source, f"dir:{copy}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        data = (copy / "manifest.json").read_bytes()
        assert str(Digest.of(data)) == digest
        manifest = json.loads(data)
        assert manifest["artifactType"] == ARTIFACT
        layer = (copy / manifest["layers"][0]["digest"].removeprefix("sha256:")).read_bytes()
        assert zstandard.ZstdDecompressor().decompress(layer) == SMALL


def test_an_image_is_no_profile(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = DiskStore(tmp_path / "images")
    config = store.put([b"{}"])
    manifest = Manifest(config=Descriptor(media_type=CONFIG, digest=config.digest, size=2), layers=()).to_bytes()
    store.put([manifest])
    with HttpTransport() as transport:
        target = Registry(transport, Reference.parse(f"{host}/image"), plain_http=True)
        push(store, Descriptor.of(MANIFEST, manifest), target, ["x"], ListReporter())
    there = machine(tmp_path / "there", pinned=None)
    assert run(["profile", "pull", *there, f"{host}/image:x", "--plain-http"]) == 5
    assert f"error: not a profile\n  at {host}/image@sha256:" in capsys.readouterr().err
    assert run(["profile", "pull", *there, f"{host}/image:none", "--plain-http"]) == 6


def counted(compiler: str, place: Path, runs: Sequence[str]) -> bytes:
    """The profile of a program that was run once for each of these arguments, in this order."""
    place.mkdir()
    (place / "a.c").write_text(MERGED)
    for argv in (
        [compiler, "-O2", "-fprofile-generate", "-frandom-seed=x", "-c", "a.c"],
        [compiler, "-fprofile-generate", "-o", "a", "a.o"],
        *(["./a", argument] for argument in runs),
    ):
        subprocess.run(argv, cwd=place, check=True)
    return profile({"a.gcda": (place / "a.gcda").read_bytes()})


def test_the_order_of_runs_changes_the_bytes_but_no_counter(peer: Callable[[str], str], tmp_path: Path) -> None:
    compiler = peer("gcc")
    one, two, three = (counted(compiler, tmp_path / runs, runs) for runs in ("01", "10", "00"))
    assert compare(one, two).differing == ("a.gcda",)
    assert compare(one, two).counters > 5
    assert compare(one, two).counters_differing == 0
    assert compare(one, three).kinds["arcs"][1] > 0
    assert compare(one, three).kinds["indirect call"] == (1, 1)


def test_gcov_reads_the_same_counters(peer: Callable[[str], str], tmp_path: Path) -> None:
    dump = peer("gcov-dump")
    counters = compare(*[counted(peer("gcc"), tmp_path / "p", "01")] * 2)
    printed = subprocess.run([dump, "a.gcda"], cwd=tmp_path / "p", capture_output=True, text=True, check=True).stdout
    plain = [
        line for line in printed.splitlines() if "COUNTERS" in line and "topn" not in line and "indirect" not in line
    ]
    lists = [
        line for line in printed.splitlines() if "COUNTERS" in line and line not in plain and " 0 counts" not in line
    ]
    assert counters.counters == sum(int(line.split("counts")[0].split()[-1]) for line in plain) + len(lists)
