"""The floors of the house: which module may import which (design: one law, imports go down only).

FLOORS below is the whole rule. It is read from top to bottom: a module may import what stands above it, on a lower
floor or earlier on its own, and nothing else of ours. So there are no cycles, and `rootfs` never sees `builder`.
A new module needs its name here, as low as it can stand. `pure` rows may not reach for the effects in EFFECTS.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rootfs", "builder")

FLOORS = """
F0 pure    rootfs.errors rootfs.digest rootfs.architecture rootfs.url rootfs.tree rootfs.ports
F1 pure    rootfs.debian.control rootfs.debian.version rootfs.debian.relation rootfs.debian.package
F1 pure    rootfs.debian.index
F1 pure    rootfs.debian.release rootfs.debian.tar rootfs.debian.deb rootfs.debian.dpkg
F2 pure    rootfs.debian.offers rootfs.debian.search rootfs.debian.marking
F2 pure    rootfs.debian.solve rootfs.debian.batches rootfs.slimrules rootfs.slim rootfs.sizes
F3 effects rootfs.files rootfs.store rootfs.holdings rootfs.prune rootfs.scrub rootfs.hosts rootfs.body rootfs.tls
F3 effects rootfs.proxied rootfs.connections rootfs.transport rootfs.keyring rootfs.extract
F3 effects rootfs.collect rootfs.hosttree rootfs.tarstream
F3 effects rootfs.sandbox.mounts rootfs.sandbox.child rootfs.sandbox.ids rootfs.sandbox.probe
F3 effects rootfs.sandbox.namespaces rootfs.readback
F4 effects rootfs.suite rootfs.archive
F4 pure    rootfs.configure.script rootfs.configure.elf rootfs.configure.merge rootfs.configure.root
F4 pure    rootfs.configure.accounts rootfs.configure.alternatives rootfs.configure.basefiles
F4 pure    rootfs.configure.certificates rootfs.configure.files rootfs.configure.ldsocache
F4 pure    rootfs.configure.pam rootfs.configure.shells rootfs.configure.table rootfs.configure.scripts
F4 effects rootfs.bootstrap rootfs.conventional

F5 pure    builder.version builder.oci.descriptor builder.oci.config builder.oci.mediatypes builder.oci.manifest
F5 pure    builder.oci.tar builder.oci.annotations builder.oci.edit builder.oci.rebase
F5 pure    builder.oci.toc builder.oci.tarsplit builder.oci.estargz builder.oci.zstdchunked
F5 effects builder.oci.behind builder.oci.seekable
F5 effects builder.oci.layer builder.oci.stream builder.oci.image builder.oci.layout builder.oci.flatten
F5 pure    builder.oci.changes builder.oci.stack
F5 effects builder.oci.listing builder.oci.recompress builder.oci.walk builder.oci.check
F5 pure    builder.oci.docker builder.oci.bundle
F5 effects builder.oci.archive builder.oci.dockerarchive
F6 pure    builder.python.lines builder.python.packages builder.python.versions builder.python.flags
F6 pure    builder.python.layout builder.python.verify builder.python.counters builder.python.ldconfig
F6 pure    builder.python.register
F6 pure    builder.python.acceptance_build builder.python.acceptance
F6 pure    builder.python.anatomy
F6 pure    builder.recipe builder.lock builder.budget
F6 effects builder.suites builder.plan
F6 pure    builder.registry.reference builder.registry.refusal builder.registry.auth
F6 pure    builder.registry.quirks builder.registry.advice builder.registry.upload builder.registry.probe
F6 pure    builder.registry.credentials
F6 effects builder.registry.helpers builder.registry.accounts builder.registry.certs builder.registry.base
F6 effects builder.registry.access
F6 effects builder.registry.journal builder.registry.download builder.registry.opening
F6 pure    builder.registry.listing
F6 effects builder.registry.client builder.registry.referrers builder.registry.source builder.registry.survey
F6 effects builder.registry.transfer builder.registry.receipt builder.registry.ahead
F6 effects builder.python.pip builder.python.sigstore builder.python.wheels
F6 pure    builder.python.profile
F6 effects builder.python.rewheel builder.python.source builder.python.workshop builder.python.cleaning
F6 effects builder.python.workloads builder.python.stages builder.python.install
F7 effects builder.artifact builder.tools builder.vouch builder.resolve builder.work builder.compiling
F7 effects builder.layering
F7 effects builder.execute builder.finding builder.multi builder.images builder.verify
F7 pure    builder.trust.identity builder.trust.contents builder.trust.licences builder.trust.survey
F7 pure    builder.trust.spdx builder.trust.cyclonedx builder.trust.provenance
F7 effects builder.trust.attach builder.trust.attest
F7 pure    builder.target
F7 effects builder.asfiles builder.places builder.change.pack builder.narrow builder.sources builder.transit
F7 effects builder.removal
F7 effects builder.remote
F7 pure    builder.look.tables
F7 effects builder.look.costs builder.look.inspect builder.look.installed builder.look.listed builder.look.contents
F7 effects builder.look.takeout
F7 effects builder.change.relayer builder.change.restack builder.change.mutate builder.look.compare
F7 effects builder.look.differences builder.look.soundness
F7 pure    builder.bench.suite
F7 effects builder.bench.stats builder.bench.wheels builder.bench.worker builder.bench.run
F7 pure    builder.bench.report builder.bench.plot
F7 effects builder.bench.subject builder.bench.session
F7 effects builder.reach
F8 effects builder.settings builder.progress builder.login builder.wiring builder.app builder.profiles builder.forms
F8 effects builder.standalone builder.cache
F8 effects builder.cli.options builder.cli.start builder.cli.said builder.cli.deliver
F8 effects builder.cli.sending builder.cli.push builder.cli.pull builder.cli.tags builder.cli.delete
F8 effects builder.cli.caching
F8 effects builder.cli.index builder.cli.pack builder.cli.mutate builder.cli.base builder.cli.bench
F8 effects builder.cli.explain
F8 effects builder.cli.login builder.cli.logout
F8 effects builder.cli.lock builder.cli.profile builder.cli.cache builder.cli.recipe builder.cli.registry
F8 effects builder.cli.rootfs builder.cli.settings
F8 effects builder.cli.sbom builder.cli.referrers
F8 effects builder.cli.looking builder.cli.diff builder.cli.extract builder.cli.check builder.cli.inspect
F8 effects builder.cli.verify builder.cli.copy builder.cli builder.__main__
"""

EFFECTS = frozenset(
    {"os", "socket", "subprocess", "http", "time", "random", "tempfile", "logging", "shutil", "requests", "urllib3"}
)

Row = tuple[int, bool]


def _table(text: str) -> dict[str, Row]:
    """module -> its place from the bottom, and whether it stands in a pure row."""
    rows = [line.split() for line in text.split("\n") if line]
    names = [(name, kind == "pure") for _, kind, *modules in rows for name in modules]
    return {name: (place, pure) for place, (name, pure) in enumerate(names)}


def _sources() -> dict[str, str]:
    """module -> source text of everything in the two packages."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_module(path): path.read_text() for path in files}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_bare(source: str) -> bool:
    """Whether a module is nothing but a docstring: such a package needs no floor and has nothing to import."""
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in ast.parse(source).body)


def _imports(source: str, modules: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """(line, module) for each import wherever it stands: at the top, in a function, under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in modules else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, name) for name in _dynamic(node, modules))


def _dynamic(call: ast.Call, modules: Mapping[str, str]) -> list[str]:
    """The modules `import_module(...)` may load: the one it names, or for f"package.{name}" all of that package."""
    match call.args[:1]:
        case [ast.Constant(value=str(name))]:
            return [name]
        case [ast.JoinedStr(values=[ast.Constant(value=str(prefix)), *_])] if prefix.endswith("."):
            return [name for name in modules if name.startswith(prefix)]
        case _:
            return [ast.unparse(call)]


def _offence(importer: str, target: str, floors: Mapping[str, Row]) -> str | None:
    """Why this import is not allowed, or None."""
    place, pure = floors[importer]
    top = target.partition(".")[0]
    if top not in (*PACKAGES, "tests") and top.isidentifier():
        return f"pure modules may not use {top}" if pure and top in EFFECTS else None
    if target in PACKAGES:
        return "nobody imports a package root"
    if target not in floors:
        return "not a module of the table"
    return None if floors[target][0] < place else "imports go down only"


def _offences(table: str, modules: Mapping[str, str]) -> list[str]:
    """Every breach of the table, one a line: `module:line imports target: reason`."""
    floors = _table(table)
    found = [
        f"{name}: stands on no floor" for name in sorted(modules) if name not in floors and not _is_bare(modules[name])
    ]
    for importer in sorted(set(modules) & set(floors)):
        for line, target in sorted(set(_imports(modules[importer], modules))):
            reason = _offence(importer, target, floors)
            if reason is not None:
                found.append(f"{importer}:{line} imports {target}: {reason}")
    return found


def test_imports_go_down_only() -> None:
    found = _offences(FLOORS, _sources())
    assert not found, "\n".join(found)


def test_the_table_names_no_module_twice_and_none_that_is_gone() -> None:
    names = [name for line in FLOORS.split("\n") for name in line.split()[2:]]
    assert len(names) == len(set(names))
    gone = sorted(set(names) - set(_sources()))
    assert not gone, "in the table, not in the house: " + " ".join(gone)


def test_rootfs_lies_below_builder() -> None:
    floors = _table(FLOORS)
    highest = max(place for name, (place, _) in floors.items() if name.startswith("rootfs."))
    lowest = min(place for name, (place, _) in floors.items() if name.startswith("builder."))
    assert highest < lowest


HOUSE = """
F0 pure    rootfs.low rootfs.mid
F3 effects rootfs.work
F8 effects builder.top
"""


@pytest.mark.parametrize(
    ("module", "source", "because"),
    [
        ("rootfs.low", "from rootfs.mid import x", "rootfs.low:1 imports rootfs.mid: imports go down only"),
        ("rootfs.low", "from rootfs import mid", "rootfs.low:1 imports rootfs.mid: imports go down only"),
        ("rootfs.low", "import rootfs.low", "rootfs.low:1 imports rootfs.low: imports go down only"),
        ("rootfs.work", "\nfrom builder.top import x", "rootfs.work:2 imports builder.top: imports go down only"),
        (
            "rootfs.mid",
            "if TYPE_CHECKING:\n    from rootfs.work import W",
            "rootfs.mid:2 imports rootfs.work: imports go down only",
        ),
        (
            "rootfs.mid",
            "def f():\n    import rootfs.work as w",
            "rootfs.mid:2 imports rootfs.work: imports go down only",
        ),
        (
            "rootfs.mid",
            "importlib.import_module('rootfs.work')",
            "rootfs.mid:1 imports rootfs.work: imports go down only",
        ),
        (
            "rootfs.mid",
            "import_module(name)",
            "rootfs.mid:1 imports import_module(name): not a module of the table",
        ),
        (
            "rootfs.mid",
            "import_module(f'builder.{name}')",
            "rootfs.mid:1 imports builder.top: imports go down only",
        ),
        ("builder.top", "import rootfs", "builder.top:1 imports rootfs: nobody imports a package root"),
        ("builder.top", "from rootfs import VERSION", "builder.top:1 imports rootfs: nobody imports a package root"),
        ("builder.top", "import rootfs.gone", "builder.top:1 imports rootfs.gone: not a module of the table"),
        ("builder.top", "from . import x", "builder.top:1 imports .: not a module of the table"),
        ("builder.top", "import tests.fakes", "builder.top:1 imports tests.fakes: not a module of the table"),
        ("rootfs.low", "import os.path", "rootfs.low:1 imports os.path: pure modules may not use os"),
        ("rootfs.low", "from http.client import X", "rootfs.low:1 imports http.client: pure modules may not use http"),
        ("rootfs.new", "x = 1", "rootfs.new: stands on no floor"),
    ],
)
def test_the_check_finds(module: str, source: str, because: str) -> None:
    house = dict.fromkeys(("rootfs", "builder", "rootfs.low", "rootfs.mid", "rootfs.work", "builder.top"), "")
    assert _offences(HOUSE, {**house, module: source}) == [because]


def test_the_check_lets_pass_what_goes_down() -> None:
    house = {
        "rootfs": '"""Only a docstring."""',
        "rootfs.low": "import json\nfrom pathlib import Path",
        "rootfs.mid": "from rootfs.low import x",
        "rootfs.work": "import os\nimport rootfs.mid",
        "builder.top": "from rootfs import low, work\nimport subprocess",
    }
    assert _offences(HOUSE, house) == []
