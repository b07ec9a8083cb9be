"""Execute: a plan -> results in the Store. A step whose key is there is skipped; independent ones run in parallel.

Law: knows how each kind of step is done by handing it to the module whose work it is; every effect goes through the
ports. A result is linked to its key only when it is whole, so whatever stops a run, the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import Any

from builder.compiling import KINDS as COMPILING
from builder.compiling import run_stage
from builder.layering import installed_parts, layers_from_bytes, one_layer, package_layers
from builder.oci.annotations import CREATED, VERSION
from builder.oci.check import check_image
from builder.oci.config import ImageConfig, rfc3339
from builder.oci.descriptor import Descriptor, Platform
from builder.oci.image import assemble
from builder.oci.layer import Layer, pack
from builder.oci.manifest import Manifest
from builder.oci.tar import archive
from builder.plan import Step, rules_of
from builder.python.acceptance import LEFT_OUT
from builder.tools import StepCache, Tools
from builder.work import Trees, alone, place_of, result, result_tree
from rootfs.architecture import Architecture
from rootfs.archive import Download, fetching
from rootfs.bootstrap import bootstrap
from rootfs.configure.ldsocache import renewed_cache
from rootfs.configure.root import Root
from rootfs.configure.scripts import UnknownScriptError
from rootfs.conventional import conventional
from rootfs.debian.deb import Unpacked, unpack
from rootfs.digest import Digest
from rootfs.ports import Origin, Store, read_blob
from rootfs.slim import slim
from rootfs.tree import Tree, blobs_of, directory, file

MOUNT_POINTS = ("build", "pip")
_TAKEN = ("deb", "source", "profile", "wheel")  # parameters that are digests of files
_UNPACK = "unpack .debs"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def execute(plan: Step, tools: Tools) -> Digest:
    """Have the result of this step, and of all it rests on, in the store; the result's digest."""
    steps = missing(plan, tools.store, tools.cache)
    for step in plan.walk():  # what the result rests on is of use as long as the result is: prune lets it be
        tools.store.lookup(step.key)
    if steps and tools.ahead is not None:
        tools.ahead.begins()
        tools.ahead.packed(_packed(plan, steps, tools.store))
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
    if tools.cache is not None:
        for step in plan.walk():
            if step.kind != "fragment" and _is_whole(step, tools.store):
                tools.cache.offer(step)
    return result(plan, tools.store)


def _packed(plan: Step, steps: Iterable[Step], store: Store) -> list[Descriptor]:
    """An image's layers that are there before any of these steps is run."""
    there = [step for step in plan.inputs if step.kind in ("layer", "layers") and step not in steps]
    return [layer.descriptor for step in there for layer in _made(step, store)]


def _downloads(steps: Iterable[Step]) -> list[Download]:
    return [download for step in steps for download in step.downloads]


def missing(plan: Step, store: Store, cache: StepCache | None = None) -> list[Step]:
    """The steps to run, inputs first: those without a whole result that something to be run needs, and that the cache
    does not give."""
    needed: dict[Digest, Step] = {}

    def visit(step: Step) -> None:
        if step.key in needed or _is_whole(step, store) or (cache is not None and cache.take(step)):
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
    return all(store.exists(digest) for digest in references(step.kind, read_blob(store, result), store))


def references(kind: str, data: bytes, store: Store) -> Iterator[Digest]:
    """The blobs a result refers to; a blob is only read after it was yielded, and so found to be there."""
    match kind:
        case "image":
            for child in Manifest.parse(data).children:
                yield child.digest
        case "layer":
            yield Layer.from_bytes(data).descriptor.digest
        case "layers":
            for layer in layers_from_bytes(data):
                yield layer.descriptor.digest
        case "train" | "count":  # counters, in one blob
            pass
        case "install":
            for digest in installed_parts(data).values():
                yield digest
                yield from blobs_of(read_blob(store, digest))
        case _:  # a Tree, or a fragment, which ends in one
            yield from blobs_of(data)


def _run_all(steps: list[Step], tools: Tools, arriving: Mapping[Digest, Future[None]]) -> None:
    """Run the steps as their inputs come in. What runs programs stays in this thread: Ctrl-C reaches it alone.

    It comes when nothing else is left to run: a compile takes minutes, and layers can be on their way meanwhile.
    """
    by_key = {step.key: step for step in steps}
    sorter = TopologicalSorter({key: [i.key for i in step.inputs if i.key in by_key] for key, step in by_key.items()})
    sorter.prepare()
    running: dict[Future[Tree | None], Digest] = {}
    trees: Trees = {}
    fragments = {step.key for step in steps if step.kind == "fragment"}
    if fragments:
        tools.reporter.begin(_UNPACK, total=len(fragments), unit="packages")
    pool = ThreadPoolExecutor(max_workers=tools.jobs + 2, thread_name_prefix="step")  # two may wait for the disk
    try:
        inline: list[Step] = []
        while sorter.is_active():
            ready = [by_key[key] for key in sorter.get_ready()]
            for step in sorted(ready, key=lambda step: -sum(download.size for download in step.downloads)):
                if _runs_programs(step):
                    inline.append(step)
                else:
                    running[pool.submit(_run, step, tools, arriving, trees)] = step.key
            if running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                made = {running.pop(future): future.result() for future in finished}
            else:
                step = inline.pop(0)
                made = {step.key: _run(step, tools, arriving, trees)}
            trees = {key: tree for key, tree in made.items() if tree is not None}  # for the steps that are ready now
            for key in made:
                sorter.done(key)
                if fragments and not (fragments := fragments - {key}):
                    tools.reporter.finish(_UNPACK)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _runs_programs(step: Step) -> bool:
    return step.kind in COMPILING or step.parameters.get("scripts", "native") != "native"


def _run(step: Step, tools: Tools, arriving: Mapping[Digest, Future[None]], at_hand: Trees) -> Tree | None:
    """Run one step when its files are there, and link its result; the Tree where it is one that others go on from.

    Some steps tell of their progress themselves.
    """
    tree = None
    for download in step.downloads:
        if download.digest in arriving:
            arriving[download.digest].result()
    if step.kind == "fragment":
        _keep(step, _fragment(step, tools), tools.store)
        tools.reporter.advance(_UNPACK, 1)
    elif step.kind in COMPILING:
        with alone(place_of(step, tools), tools.reporter):
            if not _is_whole(step, tools.store):  # the other build may have made it
                _keep(step, run_stage(step, tools), tools.store)
    else:
        tools.reporter.begin(step.title)
        if step.kind in _TREES:
            tree = _TREES[step.kind](step, tools, at_hand)
            made = tools.store.put([tree.to_bytes()]).digest
        else:
            made = _WORK[step.kind](step, tools, at_hand)
        _keep(step, made, tools.store)
        tools.reporter.finish(step.title)
    if tools.cache is not None:
        tools.cache.offer(step)
    return tree


def _keep(step: Step, made: Digest, store: Store) -> None:
    """Link a step's result. The files it took from elsewhere stay as long as that does: they may be gone there."""
    taken = tuple(Digest.parse(step.parameters[name]) for name in _TAKEN if step.parameters.get(name))
    store.link(step.key, made, Origin(kind=step.kind, title=step.title, blobs=taken))


def _fragment(step: Step, tools: Tools) -> Digest:
    with tools.store.open(Digest.parse(step.parameters["deb"])) as stream:
        unpacked = unpack(stream, tools.store, step.parameters["name"])
    return tools.store.put([unpacked.to_bytes()]).digest


def _rootfs(step: Step, tools: Tools, _at_hand: Trees) -> Tree:
    parameters = step.parameters
    tree = _configured(step, tools)
    if parameters["set"] == "toolchain":
        tree = tree.with_entries(directory(name) for name in MOUNT_POINTS if name not in tree)
    else:
        sources = file("etc/apt/sources.list.d/debian.sources", parameters["sources"].encode())
        tree = tree.with_entries([sources]).with_parents()
    return tree.clamped(parameters["epoch"])


def _configured(step: Step, tools: Tools) -> Tree:
    """The packages' Tree, configured by handlers, or by dpkg where the recipe wants or allows it."""
    store, parameters = tools.store, step.parameters
    unpacked = [Unpacked.from_bytes(read_blob(store, result(before, store))) for before in step.inputs]
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
    work = place_of(step, tools)
    with alone(work, tools.reporter):
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


def _slim(step: Step, tools: Tools, at_hand: Trees) -> Tree:
    tree = slim(result_tree(step.inputs[0], tools.store, at_hand), rules_of(step.parameters)).tree
    architecture = Architecture.parse(step.parameters["platform"])
    cache = renewed_cache(Root(tree=tree, store=tools.store, epoch=0, architecture=architecture))
    return tree if cache is None else tree.with_entries([cache])  # libraries may have gone that it names


def _archive(step: Step, tools: Tools, at_hand: Trees) -> Digest:
    store, epoch, compression = tools.store, step.parameters["epoch"], step.parameters["compression"]
    tree = result_tree(step.inputs[0], store, at_hand)
    if compression == "none":
        return store.put(archive(tree, store, epoch=epoch, lowest=True)).digest
    return pack(tree, store, created_by="", epoch=epoch, compression=compression, lowest=True).descriptor.digest


def _image(step: Step, tools: Tools, _at_hand: Trees) -> Digest:
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
        exposed_ports=tuple(sorted(said.get("expose", ()))),
        volumes=tuple(sorted(said.get("volumes", ()))),
        stop_signal=said.get("stop_signal", ""),
        healthcheck=_healthcheck(said.get("healthcheck")),
        labels={**({LEFT_OUT: ",".join(parameters["without"])} if parameters["without"] else {}), **said["labels"]},
    )
    annotations = {CREATED: rfc3339(epoch), VERSION: version} | said.get("annotations", {})
    layers = [layer for before in step.inputs for layer in _made(before, store)]
    image = assemble(layers, config, annotations=annotations)
    store.put([image.config])
    manifest = store.put([image.manifest])
    _check(image.descriptor, layers, store)
    return manifest.digest


def _check(image: Descriptor, layers: Iterable[Layer], store: Store) -> None:
    """Check an image that was made. That bytes of a digest unpack to those of another is found out once."""
    pairs = {(layer.descriptor.digest, layer.diff_id): _unpacks(layer) for layer in layers}
    known = {pair for pair, key in pairs.items() if store.lookup(key) == pair[0]}
    check_image(store, image, known=known)
    for pair in pairs.keys() - known:
        store.link(pairs[pair], pair[0], Origin(kind="checked"))


def _unpacks(layer: Layer) -> Digest:
    said = {"media_type": layer.descriptor.media_type, "layer": str(layer.descriptor.digest)}
    return Digest.of_value({"kind": "checked", "revision": 1, **said, "diff_id": str(layer.diff_id)})


def _healthcheck(said: Mapping[str, Any] | None) -> dict[str, Any]:
    """Docker's `Healthcheck`: its times are nanoseconds."""
    if said is None:
        return {}
    times = {"Interval": said["interval"], "Timeout": said["timeout"], "StartPeriod": said["start_period"]}
    value = {"Test": ["CMD", *said["test"]], "Retries": said["retries"]}
    return value | {name: seconds * 1_000_000_000 for name, seconds in times.items()}


def _made(step: Step, store: Store) -> list[Layer]:
    """The layers that a step has packed."""
    data = read_blob(store, result(step, store))
    return layers_from_bytes(data) if step.kind == "layers" else [Layer.from_bytes(data)]


_TREES: Mapping[str, Callable[[Step, Tools, Trees], Tree]] = {"rootfs": _rootfs, "slim": _slim}
_WORK: Mapping[str, Callable[[Step, Tools, Trees], Digest]] = {
    "archive": _archive,
    "layer": one_layer,
    "layers": package_layers,
    "image": _image,
}
