"""Push and pull beside crane, skopeo, regctl and oras: `python -m tests.bench.registry [ROUNDS] [LAYOUT[:NAME]]`.

LAYOUT is wee-lto's (`ocibuild recipe wee-lto --output DIR`; DIR/wee-lto). The same layouts, docker-registry and olareg
on the loopback and docker-registry behind `tests.bench.link`; each tool once a round, in turns; medians count.

Cold push: the registry's storage is empty. Cold pull: into a new layout. What a tool keeps between runs (our store and
journal, skopeo's blob cache) is new for both, and as the first push left it for the one that has nothing to do. Before
each run all that is to be written is written (sync), and what is read is in memory. Ours syncs what it pulls; the peers
do not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.images import NAME, REF_NAME, huge, layered
from tests.bench.timing import machine, timed

TOOL = str(Path(sys.executable).with_name("ocibuild"))
OURS = "ocibuild"
HUGE = 5_000_000_000
_BUILT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocibuild-peers/bin"
_OUTER = "import resource, subprocess, sys; status = subprocess.call(sys.argv[2:]); "
_OUTER += "open(sys.argv[1], 'w').write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)); sys.exit(status)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A client: argv of a push of `layout:name`, and of a pull into a new layout. `state` is what it keeps."""

    name: str
    push: Callable[[Path, str, str, Path], Sequence[str]]
    pull: Callable[[str, Path, Path], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A registry: where clients reach it, and where it keeps what `empty` removes."""

    host: str
    storage: Path

    def empty(self) -> None:
        """Remove all blobs and manifests; the names that were in use are not used again."""
        for path in self.storage.iterdir() if self.storage.exists() else ():
            shutil.rmtree(path)


def main(rounds: int, wee: str | None) -> None:
    """Everything that issue 6 wants to know."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    _environment(place)
    try:
        print(machine())
        big, small, sparse = place / "big", place / "small", place / "huge"
        layered(small, layers=10, size=20_000_000)
        images = [("10 layers of 20 MB", small, NAME)]
        if wee:
            layout, _, name = wee.partition(":")
            images.insert(0, ("wee-lto", alone(Path(layout), place / "wee", name), NAME))
        with docker_registry(place / "far") as far, link(far) as thin:
            for title, image, name in images:
                measure(f"{title}, docker-registry, 50 ms and 100 Mbit/s", thin, image, name, place, rounds)
        layered(big, layers=10, size=200_000_000)
        images.append(("10 layers of 200 MB", big, NAME))
        for start in (docker_registry, olareg):
            with start(place / start.__name__) as server:
                for title, image, name in images:
                    measure(f"{title}, {start.__name__}", server, image, name, place, rounds)
                server.empty()
        huge(sparse, size=HUGE)
        with docker_registry(place / "memory") as server:
            print(f"\n{memory(server, sparse, place)}")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def measure(title: str, server: Server, image: Path, name: str, place: Path, rounds: int) -> None:
    """Print a table of medians: cold push, push of what is there, cold pull; and our times beside the best peer's."""
    print(f"\n{title}, {rounds} rounds\n")
    runs: dict[str, dict[str, list[float]]] = {verb: {} for verb in ("cold push", "no-op push", "cold pull")}
    for _ in range(rounds):
        for peer in peers():
            with _scratch(place) as scratch:
                server.empty()
                state, target = scratch / "state", f"{server.host}/bench/{time.monotonic_ns()}:x"
                _forget(state)
                steps = {
                    "cold push": peer.push(image, name, target, state),
                    "no-op push": peer.push(image, name, target, state),
                    "cold pull": peer.pull(target, scratch / "layout", scratch / "new"),
                }
                for verb, argv in steps.items():
                    os.sync()
                    if verb == "cold pull":
                        _forget(scratch / "new")
                    runs[verb].setdefault(peer.name, []).append(timed(argv)[0])
    print(table(runs), flush=True)


def table(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: medians and ranges in seconds, and our median divided by the best peer's."""
    rows = [f"| | {' | '.join(f'{verb}, s' for verb in runs)} |", "|---" * (len(runs) + 1) + "|"]
    for name in next(iter(runs.values())):
        each = [one[name] for one in runs.values()]
        cells = [f"{statistics.median(one):.3f} ({min(one):.3f} to {max(one):.3f})" for one in each]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    ratios = []
    for one in runs.values():
        best = min((statistics.median(seconds), name) for name, seconds in one.items() if OURS not in name)
        ratios.append(f"{statistics.median(one[OURS]) / best[0]:.2f} of {best[1]}" if OURS in one else "")
    return "\n".join([*rows, f"| ours beside the fastest | {' | '.join(ratios)} |"])


def memory(server: Server, image: Path, place: Path) -> str:
    """Markdown: the most memory each had while it pushed and pulled one blob of HUGE bytes."""
    rows = [f"| one blob of {HUGE / 1e9:.0f} GB | push, MB | pull, MB |", "|---|---|---|"]
    for peer in peers():
        with _scratch(place) as scratch:
            server.empty()
            target, found = f"{server.host}/bench/{time.monotonic_ns()}:x", []
            for argv in (
                peer.push(image, NAME, target, scratch / "state"),
                peer.pull(target, scratch / "layout", scratch / "new"),
            ):
                _forget(scratch / "state")
                _forget(scratch / "new")
                timed([sys.executable, "-S", "-E", "-c", _OUTER, str(scratch / "peak"), *argv])
                found.append(int((scratch / "peak").read_text()) * 1024 / 1e6)
            rows.append(f"| {peer.name} | {found[0]:.0f} | {found[1]:.0f} |")
        server.empty()
    return "\n".join(rows)


def peers() -> list[Peer]:
    """Ourselves, and the peers that are installed."""
    known = [ours(OURS, "--no-referrers", "--plain-http"), ours(f"{OURS}, referrers too", "--plain-http")]
    if crane := program("crane"):
        known.append(
            Peer(
                name="crane",
                push=lambda layout, _, to, __: [crane, "push", str(layout), to],
                pull=lambda of, layout, _: [crane, "pull", "--format=oci", of, str(layout)],
            )
        )
    if skopeo := program("skopeo"):
        copy = [skopeo, "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]
        known.append(
            Peer(
                name="skopeo",
                push=lambda layout, name, to, _: [*copy, f"oci:{layout}:{name}", f"docker://{to}"],
                pull=lambda of, layout, _: [*copy, f"docker://{of}", f"oci:{layout}:x"],
            )
        )
    if regctl := program("regctl"):
        known.append(_regctl(regctl))
    if oras := program("oras"):
        copy_of, from_layout = [oras, "cp", "--no-tty"], ["--from-oci-layout"]
        known.append(
            Peer(
                name="oras",
                push=lambda layout, name, to, _: [*copy_of, *from_layout, f"{layout}:{name}", "--to-plain-http", to],
                pull=lambda of, layout, _: [*copy_of, "--from-plain-http", of, "--to-oci-layout", f"{layout}:x"],
            )
        )
    return known


def _regctl(program: str) -> Peer:
    def copy(host: str, source: str, target: str) -> list[str]:
        return [program, "--host", f"reg={host},tls=disabled", "image", "copy", source, target]

    return Peer(
        name="regctl",
        push=lambda layout, name, to, _: copy(to.partition("/")[0], f"ocidir://{layout}:{name}", to),
        pull=lambda of, layout, _: copy(of.partition("/")[0], of, f"ocidir://{layout}:x"),
    )


def ours(name: str, *more: str) -> Peer:
    """`ocibuild`, by default and as the peers do it: they leave behind what refers to an image."""
    return Peer(
        name=name,
        push=lambda layout, name, to, state: [TOOL, "push", f"oci:{layout}:{name}", to, "--store", str(state), *more],
        pull=lambda of, layout, state: [TOOL, "pull", of, f"oci:{layout}:x", "--store", str(state), *more],
    )


def alone(layout: Path, target: Path, name: str) -> Path:
    """A layout with the image of that name (or the first one) by itself: crane pushes only such."""
    shutil.copytree(layout, target)
    index = json.loads((target / "index.json").read_text())
    names = [one.get("annotations", {}).get(REF_NAME, "") for one in index["manifests"]]
    image = index["manifests"][names.index(name) if name else 0]
    image["annotations"] = {REF_NAME: NAME}
    (target / "index.json").write_text(json.dumps({**index, "manifests": [image]}))
    return target


def program(name: str) -> str | None:
    """The path of a peer: what tests/peers/build built, or what the system has."""
    found = sorted(_BUILT.glob(f"{name}-v*"))
    return str(found[-1]) if found else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def docker_registry(place: Path) -> Iterator[Server]:
    """A docker-registry with its own storage, no cache, no log of requests."""
    port, storage = _free_port(), place / "storage"
    place.mkdir(parents=True)
    value = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (place / "config.json").write_text(json.dumps(value))
    with _running([_needed("docker-registry"), "serve", str(place / "config.json")], port):
        yield Server(host=f"localhost:{port}", storage=storage)


@contextmanager
def olareg(place: Path) -> Iterator[Server]:
    """An olareg with its own directory."""
    port, storage = _free_port(), place / "storage"
    storage.mkdir(parents=True)
    argv = [_needed("olareg"), "serve", "--addr", "127.0.0.1", "--port", str(port), "--dir", str(storage)]
    with _running([*argv, "--gc-frequency=-1s"], port):
        yield Server(host=f"localhost:{port}", storage=storage)


@contextmanager
def link(server: Server) -> Iterator[Server]:
    """The server behind a long, thin link."""
    port = _free_port()
    argv = [sys.executable, "-m", "tests.bench.link", str(port), server.host.rpartition(":")[2]]
    with _running(argv, port):
        yield Server(host=f"localhost:{port}", storage=server.storage)


@contextmanager
def _running(argv: Sequence[str], port: int) -> Iterator[None]:
    with ExitStack() as stack:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        process = subprocess.Popen(argv, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    yield
                    return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise SystemExit(f"{argv} does not serve")


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(dir=place))
    yield scratch
    shutil.rmtree(scratch)


def _forget(state: Path) -> None:
    """What a tool that runs next keeps of its own is in this directory, which is new; skopeo takes it from here."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    os.environ["XDG_DATA_HOME"] = str(state)


def _environment(place: Path) -> None:
    """Nobody has an account, a configuration or a proxy; skopeo keeps its blob cache as it does for who is not root."""
    for name in [name for name in os.environ if name.startswith(("OCIBUILD_", "REGISTRY_")) or "proxy" in name.lower()]:
        del os.environ[name]
    (place / "home").mkdir()
    (place / "auth.json").write_text("{}")
    os.environ |= {
        "HOME": str(place / "home"),
        "XDG_CONFIG_HOME": str(place / "home"),
        "XDG_CACHE_HOME": str(place / "home"),
        "DOCKER_CONFIG": str(place / "home"),
        "REGISTRY_AUTH_FILE": str(place / "auth.json"),
        "_CONTAINERS_ROOTLESS_UID": str(os.getuid() or 1000),
    }


def _needed(name: str) -> str:
    found = program(name)
    if found is None:
        raise SystemExit(f"{name} is not installed: run tests/peers/install")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else None)
