"""Execute: a plan -> results in the Store. A step whose key is there is skipped; independent ones run in parallel.

Law: knows how each kind of step is done by handing it to the module whose work it is; every effect goes through the
ports. A result is linked to its key only when it is whole, so whatever stops a run, the next one goes on from there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path

from filelock import FileLock, Timeout

from builder.oci.check import check_image
from builder.oci.config import ImageConfig, rfc3339
from builder.oci.descriptor import Platform
from builder.oci.image import assemble
from builder.oci.layer import Layer, pack
from builder.oci.manifest import Manifest
from builder.oci.tar import archive
from builder.plan import Step, rules_of
from builder.python.compile import PythonOptions, compile_python
from builder.python.source import fetch_source
from builder.python.versions import find
from builder.tools import Tools
from rootfs.architecture import Architecture
from rootfs.archive import Download, fetching
from rootfs.bootstrap import bootstrap
from rootfs.configure.scripts import UnknownScriptError
from rootfs.conventional import conventional
from rootfs.debian.deb import Unpacked, unpack
from rootfs.digest import Digest, canonical_json
from rootfs.errors import LockError
from rootfs.extract import extract
from rootfs.files import host_error
from rootfs.ports import Reporter, Store, read_blob
from rootfs.slim import slim
from rootfs.suite import CANONICAL
from rootfs.tree import Tree, blobs_of, directory, file

MOUNT_POINTS = ("build", "pip")
_UNPACK = "unpack .debs"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def execute(plan: Step, tools: Tools) -> Digest:
    """Have the result of this step, and of all it rests on, in the store; the result's digest."""
    steps = _missing(plan, tools.store)
    if steps:
        with fetching(
            sorted(_downloads(steps), key=lambda download: -download.size),  # the longest to unpack begin first
            transport=tools.transport,
            store=tools.store,
            mirrors=tools.mirrors,
            reporter=tools.reporter,
            task="fetch .debs",
        ) as arriving:
            _run_all(steps, tools, arriving)
    return _result(plan, tools.store)


def _downloads(steps: Iterable[Step]) -> list[Download]:
    return [download for step in steps for download in step.downloads]


def _missing(plan: Step, store: Store) -> list[Step]:
    """The steps to run, inputs first: those without a whole result that something to be run needs."""
    needed: dict[Digest, Step] = {}

    def visit(step: Step) -> None:
        if step.key in needed or _is_whole(step, store):
            return
        for before in step.inputs:
            visit(before)
        needed[step.key] = step

    visit(plan)
    return list(needed.values())


def _is_whole(step: Step, store: Store) -> bool:
    """Whether the step's result is in the store with every blob that it refers to."""
    result = store.lookup(step.key)
    if result is None or step.kind == "archive":  # an archive refers to nothing, and is large
        return result is not None
    return all(store.exists(digest) for digest in _references(step.kind, read_blob(store, result), store))


def _references(kind: str, data: bytes, store: Store) -> Iterator[Digest]:
    """The blobs a result refers to; a blob is only read after it was yielded, and so found to be there."""
    match kind:
        case "image":
            for child in Manifest.parse(data).children:
                yield child.digest
        case "layer":
            yield Layer.from_bytes(data).descriptor.digest
        case "compile":
            for digest in _parts(data).values():
                yield digest
                yield from blobs_of(read_blob(store, digest))
        case _:  # a Tree, or a fragment, which ends in one
            yield from blobs_of(data)


def _parts(data: bytes) -> dict[str, Digest]:
    """What a compile made: the digest of each part's Tree, by name."""
    return {name: Digest.parse(text) for name, text in json.loads(data).items()}


def _run_all(steps: list[Step], tools: Tools, arriving: Mapping[Digest, Future[None]]) -> None:
    """Run the steps as their inputs come in. What runs programs stays in this thread: Ctrl-C reaches it alone."""
    by_key = {step.key: step for step in steps}
    sorter = TopologicalSorter({key: [i.key for i in step.inputs if i.key in by_key] for key, step in by_key.items()})
    sorter.prepare()
    running: dict[Future[None], Digest] = {}
    fragments = {step.key for step in steps if step.kind == "fragment"}
    if fragments:
        tools.reporter.begin(_UNPACK, total=len(fragments), unit="packages")
    pool = ThreadPoolExecutor(max_workers=tools.jobs + 2, thread_name_prefix="step")  # two may wait for the disk
    try:
        while sorter.is_active():
            inline: list[Step] = []
            ready = [by_key[key] for key in sorter.get_ready()]
            for step in sorted(ready, key=lambda step: -sum(download.size for download in step.downloads)):
                if _runs_programs(step):
                    inline.append(step)
                else:
                    running[pool.submit(_run, step, tools, arriving)] = step.key
            for step in inline:
                _run(step, tools, arriving)
                sorter.done(step.key)
            if running and not inline:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    key = running.pop(future)
                    sorter.done(key)
                    if fragments and not (fragments := fragments - {key}):
                        tools.reporter.finish(_UNPACK)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _runs_programs(step: Step) -> bool:
    return step.kind == "compile" or step.parameters.get("scripts", "native") != "native"


def _run(step: Step, tools: Tools, arriving: Mapping[Digest, Future[None]]) -> None:
    """Run one step when its files are there, and link its result. Some steps tell of their progress themselves."""
    for download in step.downloads:
        if download.digest in arriving:
            arriving[download.digest].result()
    work = _WORK[step.kind]
    if step.kind == "fragment":
        tools.store.link(step.key, work(step, tools))
        tools.reporter.advance(_UNPACK, 1)
    elif step.kind == "compile":
        with _alone(tools.work / step.key.hex[:16], tools.reporter):
            if not _is_whole(step, tools.store):  # the other build may have made it
                tools.store.link(step.key, work(step, tools))
    else:
        tools.reporter.begin(step.title)
        tools.store.link(step.key, work(step, tools))
        tools.reporter.finish(step.title)


@contextmanager
def _alone(place: Path, reporter: Reporter) -> Iterator[None]:
    """No other process is in this block for the same place: who comes second waits, and says so."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.note(f"another build is at work in {place}: waiting for it")
            lock.acquire()
    except OSError as error:
        raise host_error(error, place.parent) from error
    try:
        yield
    finally:
        lock.release()


def _result(step: Step, store: Store) -> Digest:
    result = store.lookup(step.key)
    assert result is not None, f"{step.title} has no result"
    return result


def _fragment(step: Step, tools: Tools) -> Digest:
    with tools.store.open(Digest.parse(step.parameters["deb"])) as stream:
        unpacked = unpack(stream, tools.store, step.parameters["name"])
    return tools.store.put([unpacked.to_bytes()]).digest


def _rootfs(step: Step, tools: Tools) -> Digest:
    store, parameters = tools.store, step.parameters
    tree = _configured(step, tools)
    if parameters["set"] == "toolchain":
        tree = tree.with_entries(directory(name) for name in MOUNT_POINTS if name not in tree)
    else:
        sources = file("etc/apt/sources.list.d/debian.sources", parameters["sources"].encode())
        tree = tree.with_entries([sources]).with_parents()
    return store.put([tree.clamped(parameters["epoch"]).to_bytes()]).digest


def _configured(step: Step, tools: Tools) -> Tree:
    """The packages' Tree, configured by handlers, or by dpkg where the recipe wants or allows it."""
    store, parameters = tools.store, step.parameters
    unpacked = [Unpacked.from_bytes(read_blob(store, _result(before, store))) for before in step.inputs]
    architecture, epoch = Architecture.parse(parameters["platform"]), parameters["epoch"]
    if parameters["scripts"] != "dpkg":
        try:
            return bootstrap(unpacked, store=store, epoch=epoch, architecture=architecture)
        except UnknownScriptError as error:
            if parameters["scripts"] != "run":
                raise
            tools.reporter.note(f"{error.message}: dpkg configures all packages")
    debs = {
        one.package.name: Digest.parse(before.parameters["deb"])
        for one, before in zip(unpacked, step.inputs, strict=True)
    }
    work = tools.work / step.key.hex[:16]
    with _alone(work, tools.reporter):
        return conventional(
            unpacked,
            debs,
            store=store,
            sandbox=tools.sandbox,
            work=work,
            epoch=epoch,
            architecture=architecture,
            reporter=tools.reporter,
        )


def _slim(step: Step, tools: Tools) -> Digest:
    tree = Tree.from_bytes(read_blob(tools.store, _result(step.inputs[0], tools.store)))
    return tools.store.put([slim(tree, rules_of(step.parameters)).tree.to_bytes()]).digest


def _archive(step: Step, tools: Tools) -> Digest:
    store, epoch, compression = tools.store, step.parameters["epoch"], step.parameters["compression"]
    tree = Tree.from_bytes(read_blob(store, _result(step.inputs[0], store)))
    if compression == "none":
        return store.put(archive(tree, store, epoch=epoch, lowest=True)).digest
    return pack(tree, store, created_by="", epoch=epoch, compression=compression, lowest=True).descriptor.digest


def _compile(step: Step, tools: Tools) -> Digest:
    parameters, store = step.parameters, tools.store
    release = find(parameters["version"])
    if f"sha256:{release.source.hex}" != parameters["source"]:
        raise LockError(
            f"the lock's CPython {release.version} is not the release of that name",
            because=f"expected {release.source}, the lock says {parameters['source']}",
            hint="make the lock anew with `ocibuild lock RECIPE`",
        )
    mirror = tools.mirrors.get("debian", CANONICAL["debian"])
    source = fetch_source(release, tools.transport, store, mirror, tools.reporter)
    options = parameters["options"]
    work = tools.work / step.key.hex[:16]
    compiled = compile_python(
        release=release,
        source=source,
        options=PythonOptions(
            variant=options["variant"],
            configure_args=tuple(options["configure"]),
            pyc=options["pyc"],
            pip=options["pip"],
        ),
        toolchain=toolchain_root(step.inputs[0], tools),
        work=work,
        epoch=parameters["epoch"],
        jobs=tools.jobs,
        store=store,
        sandbox=tools.sandbox,
        reporter=tools.reporter,
    )
    parts = {"python": compiled.python, "pip": compiled.pip}
    digests = {name: str(store.put([tree.to_bytes()]).digest) for name, tree in parts.items()}
    shutil.rmtree(work, ignore_errors=True)  # a failed compile's stays, for its logs
    return store.put([canonical_json(digests)]).digest


def toolchain_root(step: Step, tools: Tools) -> Path:
    """The directory of a toolchain whose step has run, extracted once for all compiles that use it."""
    tree = _result(step, tools.store)
    root = tools.work / "roots" / tree.hex[:16]
    with _alone(root, tools.reporter):
        if not root.exists():
            tools.reporter.begin("extract the toolchain")
            extract(Tree.from_bytes(read_blob(tools.store, tree)), tools.store, root)
            tools.reporter.finish("extract the toolchain")
    return root


def _layer(step: Step, tools: Tools) -> Digest:
    parameters, store = step.parameters, tools.store
    content = read_blob(store, _result(step.inputs[0], store))
    if step.inputs[0].kind == "compile":
        content = read_blob(store, _parts(content)[parameters["part"]])
    tree = Tree.from_bytes(content)
    if len(step.inputs) > 1:
        below = Tree.from_bytes(read_blob(store, _result(step.inputs[1], store)))
        tree = tree.dated(parameters["epoch"]).changes_since(below)
    layer = pack(
        tree,
        store,
        created_by=parameters["created_by"],
        epoch=parameters["epoch"],
        compression=parameters["compression"],
        lowest=len(step.inputs) == 1,
    )
    return store.put([layer.to_bytes()]).digest


def _image(step: Step, tools: Tools) -> Digest:
    parameters, store = step.parameters, tools.store
    said, epoch, version = parameters["image"], parameters["epoch"], parameters["python"]
    environment = {"PATH": DEFAULT_PATH, "PYTHON_VERSION": version} | said["env"]
    config = ImageConfig(
        platform=Platform.of(Architecture.parse(parameters["platform"])),
        created=epoch,
        env=tuple(f"{name}={value}" for name, value in sorted(environment.items())),
        entrypoint=tuple(said["entrypoint"]),
        cmd=tuple(said["cmd"]),
        user=said["user"],
        working_dir=said["workdir"],
        labels=said["labels"],
    )
    layers = [Layer.from_bytes(read_blob(store, _result(before, store))) for before in step.inputs]
    annotations = {
        "org.opencontainers.image.created": rfc3339(epoch),
        "org.opencontainers.image.version": version,
    }
    image = assemble(layers, config, annotations=annotations)
    store.put([image.config])
    manifest = store.put([image.manifest])
    check_image(store, image.descriptor)
    return manifest.digest


_WORK: Mapping[str, Callable[[Step, Tools], Digest]] = {
    "fragment": _fragment,
    "rootfs": _rootfs,
    "slim": _slim,
    "archive": _archive,
    "compile": _compile,
    "layer": _layer,
    "image": _image,
}
