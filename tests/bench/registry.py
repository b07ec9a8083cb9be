"""Push and pull beside crane, skopeo, regctl and oras: `python -m tests.bench.registry --help`.

LAYOUT is wee-lto's (`ocibuild recipe wee-lto --output DIR`; DIR/wee-lto). The same layouts; docker-registry at the far
end of `tests.bench.link`, docker-registry and olareg on the loopback; each tool once a round, in turns, each round
another one first; medians of wall and processor seconds count. Before the first round each tool has run once.

Cold push: the registry's storage is empty. Cold pull: into a new layout. What a tool keeps between runs (our store and
journal, skopeo's blob cache) is new for both, and as the first push left it for the one that has nothing to do. Before
each run all that is to be written is written (sync), and what is read is in memory. Ours syncs what it pulls; the peers
do not. Table "tls" is the link with TLS 1.3, where peers written in Go may speak HTTP/2; without it crane and skopeo
try TLS all the same, and first (two round trips of the link, in each run).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.images import NAME, REF_NAME, huge, layered
from tests.bench.link import FAR, Link, link, unavailable
from tests.bench.timing import machine, timed

TOOL = str(Path(sys.executable).with_name("ocibuild"))
OURS = "ocibuild"
HUGE = 5_000_000_000
TABLES = ("link", "tls", "docker-registry", "olareg", "memory")
IMAGES = ("wee-lto", "20", "200")
_LONG = ("200",)  # not over the link: minutes, and nothing but its speed
BUILT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocibuild-peers/bin"
_CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])))"
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
    """A registry: where clients reach it (`enter`: what brings them there), and where it keeps what `empty` removes."""

    host: str
    storage: Path
    enter: Sequence[str] = ()
    tls: bool = False

    def empty(self) -> None:
        """Remove all blobs and manifests; the names that were in use are not used again."""
        for path in self.storage.iterdir() if self.storage.exists() else ():
            shutil.rmtree(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Wall and processor (user and system) seconds of one tool's runs."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, argv: Sequence[str]) -> None:
        """Run it once more."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.wall.append(timed(argv)[0])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main(tables: Sequence[str], images: Sequence[str], rounds: int, wee: str | None) -> None:
    """The tables that were asked for."""
    place = Path(tempfile.mkdtemp(prefix="ocibuild-bench-"))
    clean_environment(place)
    try:
        print(machine(), flush=True)
        wanted = [name for name in images if name not in _LONG or set(tables) & {"docker-registry", "olareg"}]
        made = _images(place, wanted, wee) if set(tables) - {"memory"} else {}
        for name in tables:
            if name == "memory":
                with docker_registry(place / name) as server:
                    print(f"\n{memory(server, place)}")
            elif name in ("link", "tls") and (why := unavailable()):
                print(f"\nThe table {name} is left out: {why}")
            elif name in ("link", "tls"):
                with link() as line, docker_registry(place / name, line, tls=name == "tls") as server:
                    for title, image in made.items():
                        if image.name not in _LONG:
                            measure(f"{title}, docker-registry, {name}, {line}", server, image, place, rounds)
            else:
                start = {"docker-registry": docker_registry, "olareg": olareg}[name]
                with start(place / name) as server:
                    for title, image in made.items():
                        measure(f"{title}, {name}", server, image, place, rounds)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _images(place: Path, names: Sequence[str], wee: str | None) -> dict[str, Path]:
    """Layouts by what they are."""
    made: dict[str, Path] = {}
    for name in names:
        if name != "wee-lto":
            made[f"10 layers of {name} MB"] = place / name
            layered(place / name, layers=10, size=int(name) * 1_000_000)
        elif not wee:
            print("wee-lto is left out: its LAYOUT was not given")
        else:
            layout, _, tag = wee.partition(":")
            made[name] = alone(Path(layout), place / name, tag)
    return made


def measure(title: str, server: Server, image: Path, place: Path, rounds: int) -> None:
    """Print a table of medians: cold push, push of what is there, cold pull; and ours beside the best peer's."""
    print(f"\n{title}, {rounds} rounds\n", flush=True)
    known = peers(tls=server.tls)
    tiny = place / "tiny"
    if not tiny.exists():
        layered(tiny, layers=1, size=1000)
    for peer in known:
        once(peer, server, tiny, place)
    runs: dict[str, dict[str, Runs]] = {}
    for turn in range(rounds):
        for peer in known[turn % len(known) :] + known[: turn % len(known)]:
            once(peer, server, image, place, runs)
    server.empty()
    print(table({verb: {peer.name: one[peer.name] for peer in known} for verb, one in runs.items()}), flush=True)


def once(peer: Peer, server: Server, image: Path, place: Path, runs: dict[str, dict[str, Runs]] | None = None) -> None:
    """All that is measured, one time each; `runs` gets what it took."""
    runs = {} if runs is None else runs
    with _scratch(place) as scratch:
        server.empty()
        state, target = scratch / "state", f"{server.host}/bench/{time.monotonic_ns()}:x"
        forget(state)
        steps = {
            "cold push": peer.push(image, NAME, target, state),
            "no-op push": peer.push(image, NAME, target, state),
            "cold pull": peer.pull(target, scratch / "layout", scratch / "new"),
        }
        for verb, argv in steps.items():
            os.sync()
            if verb == "cold pull":
                forget(scratch / "new")
            runs.setdefault(verb, {}).setdefault(peer.name, Runs()).add([*server.enter, *argv])


def table(runs: Mapping[str, Mapping[str, Runs]]) -> str:
    """Markdown: medians (and ranges) of wall seconds, medians of processor seconds, ours divided by the best peer's."""
    rows = [f"| | {' | '.join(f'{verb}, s | cpu, s' for verb in runs)} |", "|---" * (2 * len(runs) + 1) + "|"]
    for name in next(iter(runs.values())):
        cells = []
        for each in runs.values():
            wall, cpu = each[name].wall, statistics.median(each[name].cpu)
            cells.append(f"{statistics.median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f}) | {cpu:.3f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    ratios = []
    for each in runs.values():
        for kind in ("wall", "cpu"):
            medians = {name: statistics.median(getattr(one, kind)) for name, one in each.items()}
            best = min((median, name) for name, median in medians.items() if OURS not in name)
            ratios.append(f"{medians[OURS] / best[0]:.2f} of {best[1]}")
    return "\n".join([*rows, f"| ours beside the least | {' | '.join(ratios)} |"])


def memory(server: Server, place: Path) -> str:
    """Markdown: the most memory each had while it pushed and pulled one blob of HUGE bytes."""
    image = place / "huge"
    huge(image, size=HUGE)
    rows = [f"| one blob of {HUGE / 1e9:.0f} GB | push, MB | pull, MB |", "|---|---|---|"]
    for peer in peers():
        with _scratch(place) as scratch:
            server.empty()
            target, found = f"{server.host}/bench/{time.monotonic_ns()}:x", []
            for argv in (
                peer.push(image, NAME, target, scratch / "state"),
                peer.pull(target, scratch / "layout", scratch / "new"),
            ):
                forget(scratch / "state")
                forget(scratch / "new")
                timed([sys.executable, "-S", "-E", "-c", _OUTER, str(scratch / "peak"), *argv])
                found.append(int((scratch / "peak").read_text()) * 1024 / 1e6)
            rows.append(f"| {peer.name} | {found[0]:.0f} | {found[1]:.0f} |")
        server.empty()
    return "\n".join(rows)


def peers(*, tls: bool = False) -> list[Peer]:
    """Ourselves, and the peers that are installed."""

    def plain(*flags: str) -> Sequence[str]:
        return () if tls else flags

    known = [
        ours(OURS, "--no-referrers", *plain("--plain-http")),
        ours(f"{OURS}, referrers too", *plain("--plain-http")),
    ]
    if crane := program("crane"):
        known.append(
            Peer(
                name="crane",
                push=lambda layout, _, to, __: [crane, "push", str(layout), to],
                pull=lambda of, layout, _: [crane, "pull", "--format=oci", of, str(layout)],
            )
        )
    if skopeo := program("skopeo"):
        copy = [skopeo, "copy", "--quiet", "--insecure-policy"]
        copy += plain("--src-tls-verify=false", "--dest-tls-verify=false")
        known.append(
            Peer(
                name="skopeo",
                push=lambda layout, name, to, _: [*copy, f"oci:{layout}:{name}", f"docker://{to}"],
                pull=lambda of, layout, _: [*copy, f"docker://{of}", f"oci:{layout}:x"],
            )
        )
    if regctl := program("regctl"):
        known.append(_regctl(regctl, "enabled" if tls else "disabled"))
    if oras := program("oras"):
        push, pull = [oras, "cp", "--no-tty", "--from-oci-layout"], [oras, "cp", "--no-tty", "--to-oci-layout"]
        push, pull = [*push, *plain("--to-plain-http")], [*pull, *plain("--from-plain-http")]
        known.append(
            Peer(
                name="oras",
                push=lambda layout, name, to, _: [*push, f"{layout}:{name}", to],
                pull=lambda of, layout, _: [*pull, of, f"{layout}:x"],
            )
        )
    return known


def _regctl(program: str, tls: str) -> Peer:
    def copy(host: str, source: str, target: str) -> list[str]:
        return [program, "--host", f"reg={host},tls={tls}", "image", "copy", source, target]

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
    found = sorted(BUILT.glob(f"{name}-v*"))
    return str(found[-1]) if found else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def docker_registry(place: Path, line: Link | None = None, *, tls: bool = False) -> Iterator[Server]:
    """A docker-registry with its own storage, no cache, no log of requests; on the loopback, or a line's far end."""
    port, storage, host = _free_port(), place / "storage", FAR if line else "127.0.0.1"
    place.mkdir(parents=True)
    value = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}},
        "http": {"addr": f"{host}:{port}", **({"tls": _certificate(place, host)} if tls else {})},
    }
    (place / "config.json").write_text(json.dumps(value))
    far, near = (line.far, line.near) if line else ((), ())
    argv = [*far, _needed("docker-registry"), "serve", str(place / "config.json")]
    try:
        with _running(argv, host, port, near):
            yield Server(host=f"{FAR if line else 'localhost'}:{port}", storage=storage, enter=near, tls=tls)
    finally:
        if tls:
            del os.environ["SSL_CERT_FILE"]


def _certificate(place: Path, address: str) -> Mapping[str, str]:
    """A new one, which all tools trust."""
    found = {"certificate": str(place / "certificate.pem"), "key": str(place / "key.pem")}
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=bench", "-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*argv, "-keyout", found["key"], "-out", found["certificate"]], check=True, capture_output=True)
    os.environ["SSL_CERT_FILE"] = found["certificate"]
    return found


@contextmanager
def olareg(place: Path) -> Iterator[Server]:
    """An olareg with its own directory."""
    port, storage = _free_port(), place / "storage"
    storage.mkdir(parents=True)
    argv = [_needed("olareg"), "serve", "--addr", "127.0.0.1", "--port", str(port), "--dir", str(storage)]
    with _running([*argv, "--gc-frequency=-1s"], "127.0.0.1", port):
        yield Server(host=f"localhost:{port}", storage=storage)


@contextmanager
def _running(argv: Sequence[str], host: str, port: int, enter: Sequence[str] = ()) -> Iterator[None]:
    connect = [*enter, sys.executable, "-S", "-E", "-c", _CONNECT, host, str(port)]
    with ExitStack() as stack:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        process = subprocess.Popen(argv, env=clean, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        for _ in range(200):
            if subprocess.call(connect, stderr=subprocess.DEVNULL) == 0:
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


def forget(state: Path) -> None:
    """What a tool that runs next keeps of its own is in this directory, which is new; skopeo takes it from here."""
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    os.environ["XDG_DATA_HOME"] = str(state)


def clean_environment(place: Path) -> None:
    """Nobody has an account, a configuration or a proxy; skopeo keeps its blob cache as it does for who is not root."""
    unwanted = ("OCIBUILD_", "REGISTRY_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_")
    for name in [name for name in os.environ if name.startswith(unwanted) or "proxy" in name.lower()]:
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


def _several(known: Sequence[str]) -> Callable[[str], Sequence[str]]:
    def parse(text: str) -> Sequence[str]:
        asked = text.split(",")
        if unknown := sorted(set(asked) - set(known)):
            raise argparse.ArgumentTypeError(f"{unknown} is none of {', '.join(known)}")
        return [name for name in known if name in asked]

    return parse


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.registry", description="Push and pull beside the peers."
    )
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("layout", nargs="?", metavar="LAYOUT[:NAME]", help="wee-lto's")
    parser.add_argument("--tables", type=_several(TABLES), default=TABLES, help=",".join(TABLES))
    parser.add_argument("--images", type=_several(IMAGES), default=IMAGES, help=",".join(IMAGES))
    said = parser.parse_args()
    main(said.tables, said.images, said.rounds, said.layout)
