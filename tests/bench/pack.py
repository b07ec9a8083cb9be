"""`ocibuild pack` beside umoci, buildah and `tar | zstd`, in one run: `python -m tests.bench.pack [ROUNDS] [TREE]`.

As root. Without TREE, a directory of 60,000 files and 2 GB is made of copies of what lies in /usr, so ratios depend on
the machine, but they are of real files; its size is printed. What a peer needs before (an empty image, a container that
has the files already) is not timed. buildah keeps its storage in the place, with overlay, and writes an image layout.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bench.registry import BUILT
from tests.bench.timing import Contender, Measured, compare, machine, table

TOOL = str(Path(sys.executable).with_name("ocibuild"))
FILES, BYTES = 60_000, 2_000_000_000
SPARSE = 20 << 30


def main(rounds: int, tree: Path | None) -> None:
    """Measure a big tree with zstd and with gzip, and a sparse file."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    try:
        with ProcessPoolExecutor(1) as aside:  # this process stays small: it is counted in the size of what it starts
            tree = tree or aside.submit(make_tree, place / "tree").result()
            names, size = aside.submit(_measure, tree).result()
        print(machine(), f"\n{names} files, {size / 1e9:.2f} GB")
        for title, base, contenders in (
            (
                "zstd",
                "tar, zstd -3 -T0",
                [pipe("zstd -3 -T0 -q"), *ours("zstd", "zstd:3"), umoci(), *umoci_zstd(), buildah("zstd")],
            ),
            ("gzip", "umoci", [*ours("gzip", "gzip:6"), umoci(), buildah("gzip")]),
        ):
            places = {one: place / f"{title}-{number}" for number, one in enumerate(contenders)}
            listed = [one(tree, where) for one, where in places.items()]
            compare(listed, rounds=1)  # reads the tree into memory
            results = compare(listed, rounds=rounds)
            print(f"\n{title}, {rounds} rounds\n\n{table(results, base=base)}\n")
            for contender, where in zip(listed, places.values(), strict=True):
                print(f"{contender.name}: {_largest(where) / 1e6:.0f} MB")
        print(f"\n{sparse(place, rounds)}")
    finally:
        subprocess.run(["umount", "--recursive", "--quiet", str(place / "storage")], check=False)
        shutil.rmtree(place, ignore_errors=True)


Make = Callable[[Path, Path], Contender]


def pipe(compress: str) -> Make:
    """GNU tar into a compressor: no digests, nothing synced."""

    def make(tree: Path, where: Path) -> Contender:
        command = f"tar -cf - -C {shlex.quote(str(tree))} . | {compress} -c > {shlex.quote(str(where))}/layer"
        return Contender(name=f"tar, {compress.removesuffix(' -q')}", argv=["sh", "-c", command], before=_fresh(where))

    return make


def ours(*compressions: str) -> list[Make]:
    """`ocibuild pack` into an empty store and a new layout."""

    def made(compression: str) -> Make:
        def make(tree: Path, where: Path) -> Contender:
            out = ["--compression", compression, "--output", f"oci:{where}/image:x", "--store", f"{where}/store"]
            name = f"ocibuild pack, {compression}"
            return Contender(name=name, argv=[TOOL, "pack", str(tree), *out], before=_fresh(where))

        return make

    return [made(compression) for compression in compressions]


def umoci(program: str = "umoci", *options: str) -> Make:
    """`umoci insert` of the directory into an empty image; Debian's knows gzip alone."""

    def make(tree: Path, where: Path) -> Contender:
        def before() -> None:
            _fresh(where)()
            _run(program, "init", "--layout", f"{where}/image")
            _run(program, "new", "--image", f"{where}/image:x")

        argv = [program, "insert", *options, "--image", f"{where}/image:x", str(tree), "/"]
        return Contender(name=" ".join(["umoci", *options]), argv=argv, before=before)

    return make


def umoci_zstd() -> list[Make]:
    """The same by what tests/peers/build built, which knows zstd; nothing where it is not."""
    found = sorted(BUILT.glob("umoci-v*"))
    return [umoci(str(found[-1]), "--compress=zstd")] if found else []


def buildah(compression: str) -> Make:
    """`buildah commit` of a container that has the files. With zstd a push is the second step: buildah 1.28's commit
    writes gzip or plain tar.
    """

    def make(tree: Path, where: Path) -> Contender:
        storage = where.parent / "storage"
        call = ["buildah", "--root", f"{storage}/root", "--runroot", f"{storage}/run", "--storage-driver", "overlay"]

        def before() -> None:
            _fresh(where)()
            if not storage.exists():
                _run(*call, "from", "--name", "bench", "scratch")
                _run(*call, "add", "--quiet", "bench", str(tree), "/")
            _run(*call, "rmi", "--all")  # the image of the last round: each is as big as the tree

        commit = [*call, "commit", "--quiet", "--format", "oci", "--timestamp", "0"]
        if compression == "gzip":
            argv = [*commit, "--disable-compression=false", "bench", f"oci:{where}/image:x"]
        else:
            push = [*call, "push", "--quiet", "--compression-format", "zstd", "--format", "oci"]
            words = " ".join(map(shlex.quote, [*commit, "bench", "bench:x"]))
            argv = ["sh", "-c", f"{words} && {' '.join(map(shlex.quote, [*push, 'bench:x', f'oci:{where}/image:x']))}"]
        return Contender(name=f"buildah, {compression}", argv=argv, before=before)

    return make


def sparse(place: Path, rounds: int) -> str:
    """A file of 20 GiB with nothing in it."""
    (place / "sparse").mkdir()
    with (place / "sparse/disk").open("wb") as stream:
        stream.truncate(SPARSE)
    contender = ours("zstd")[0](place / "sparse", place / "sparse-out")
    measured: Measured = compare([contender], rounds=rounds)[contender.name]
    return f"a sparse file of {SPARSE >> 30} GiB: {measured.median:.1f} s, peak {measured.peak / 1e6:.0f} MB"


def make_tree(target: Path) -> Path:
    """FILES files of BYTES in all, copied from /usr in a shuffled but fixed order; the directory."""
    known = [(path, path.lstat()) for path in sorted(_paths(Path("/usr")))]
    files = [(path, status.st_size) for path, status in known if stat.S_ISREG(status.st_mode) and status.st_size < 4e7]
    random.Random(1).shuffle(files)
    number = total = turn = 0
    while number < FILES:
        for path, size in files:
            left = BYTES - total
            if number < FILES and (size < 2000 or size < left - (FILES - number) * 500):
                copy = target / str(turn) / path.relative_to("/usr")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
                number, total = number + 1, total + size
        turn += 1
    return target


def _measure(tree: Path) -> tuple[int, int]:
    """How many files, and their bytes."""
    names = sum(len(files) for _, _, files in os.walk(tree))
    return names, sum(s.st_size for s in map(os.lstat, _paths(tree)) if stat.S_ISREG(s.st_mode))


def _paths(place: Path) -> list[Path]:
    return [Path(above, name) for above, _, names in os.walk(place) for name in names]


def _largest(where: Path) -> int:
    return max(path.lstat().st_size for path in _paths(where))


def _fresh(where: Path) -> Callable[[], None]:
    def before() -> None:
        if where.exists():
            where.rename(f"{where}.{time.monotonic_ns()}")
            for old in where.parent.glob(f"{where.name}.*"):
                shutil.rmtree(old)
        where.mkdir()
        os.sync()

    return before


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
