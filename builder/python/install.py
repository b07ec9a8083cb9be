"""From what `make install` made to two Trees: CPython without what images leave out, and pip.

Law: knows the layout of an installed CPython; runs it only through the workshop. Modes are 0755 or 0644, whatever the
umask of the machine was.

Kept unless the recipe says otherwise: the headers and `python3-config` (2 MB), because in an image with a shell
`apt-get install gcc` followed by `pip install` of an sdist must work, and no Debian package has this version's headers.
What cannot be imported on Linux goes, and pip's own certificates: it trusts those that the image trusts.
pip is there once: the wheel that `python -m venv` installs from (1.8 MB, and incompressible) is made from the installed
pip when it is wanted (`builder.python.rewheel`), where ensurepip has a place for that: from 3.13 on.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from builder.python.cleaning import clean_sysconfig
from builder.python.lines import Line, line_of
from builder.python.verify import Check, failures, module_checks, program
from builder.python.versions import PythonRelease
from builder.python.workshop import Workshop
from rootfs.collect import collect
from rootfs.digest import Digest
from rootfs.errors import BuildError, RecipeError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Tree, symlink

_BUNDLED = "ensurepip/_bundled"
_REWHEEL = """

# ocibuild: this image holds pip once, in site-packages; the wheel that ensurepip installs is made from there.
from ensurepip._rewheel import pip_version as _get_pip_version, pip_wheel as _get_pip_whl_path_ctx
"""
_TK = ("lib-tk", "tkinter", "turtle.py", "turtledemo")

# Paths below lib/python3.*/. config*/ holds the Makefile and the objects to relink an interpreter: sysconfig reads
# _sysconfigdata instead. `make install` writes .pyc files whose mode depends on the environment.
_LEFT_OUT = (
    "**/__pycache__",
    "**/*.py[co]",
    "config",
    "config-*",
    _BUNDLED,
    "idlelib",
    "test",
    "*/test",
    "*/tests",
    "lib-dynload/_test*",
    "lib-dynload/_ctypes_test*",
    "lib-dynload/_xx*",
    "lib-dynload/xx*",
    "lib-dynload/nis.*",  # up to 3.12; it would want libnsl2
    "_ios_support.py",
    "asyncio/windows_*.py",
    "encodings/mbcs.py",
    "encodings/oem.py",
    "multiprocessing/popen_spawn_win32.py",
)
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_HEADERS = ("bin/python*-config", "include", "lib/pkgconfig")
_ASKED_FOR = {"tkinter": Check(name="tkinter", code="import _tkinter", wants="tk-dev")}
_LEFT_OUT_OF_PREFIX = ("bin/idle*", "bin/2to3*", "bin/smtpd*.py", "lib/libpython*.a", "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a recipe says of what is installed: the names are the keys of its `[python]`."""

    modules: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    headers: bool = True
    pyc: Literal["unchecked-hash", "none"] = "unchecked-hash"
    pip: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """CPython below usr/local, and pip below the same (an empty Tree when it was not asked for)."""

    python: Tree
    pip: Tree


def install(
    workshop: Workshop,
    compiled: Tree,
    *,
    release: PythonRelease,
    contents: Contents,
    wheel: Digest | None,
    epoch: int,
    store: Store,
) -> Installed:
    """Check what was compiled, and make of it what images carry. `wheel` is pip's in the store (None: the bundled one).

    Raises BuildError when a module is missing or broken, RecipeError for a module in `without` that is not there.
    """
    workshop.open(store, out=compiled)
    line = line_of(release.version)
    library = _library(workshop.prefix, release)
    if wheel is not None:
        _take_wheel(wheel, library, workshop, store)
    _check_modules(workshop, release, contents)
    if contents.pip:
        _install_pip(workshop, release, line, library)
    with workshop.writing():
        prune(workshop.prefix, library, contents)
        clean_sysconfig(library)
        if not contents.headers:
            _forget_headers(library)
    if contents.pyc != "none":
        _byte_compile(workshop, line, library, epoch, pip=contents.pip)
    return Installed(python=_python_tree(workshop, store), pip=_normalised(collect(workshop.pip, store)))


def _library(prefix: Path, release: PythonRelease) -> Path:
    """lib/python3.14, or lib/python3.14t of a free-threaded build."""
    found = [path.parent for path in (prefix / "lib").glob(f"python{release.line}*/os.py")]
    if len(found) != 1:
        raise BuildError(f"compile: make install left {len(found)} libraries below {prefix}/lib, not one")
    return found[0]


def prune(prefix: Path, library: Path, contents: Contents) -> None:
    """Remove from an installed CPython what no image carries, and what this one does not want."""
    tk = () if "tkinter" in contents.modules else (*_TK, "lib-dynload/_tkinter*")
    for name in contents.without:
        _leave_out(name, library)
    unwanted = () if contents.headers else _HEADERS
    for base, patterns in ((prefix, (*_LEFT_OUT_OF_PREFIX, *unwanted)), (library, (*_LEFT_OUT, *tk))):
        for pattern in patterns:
            for path in sorted(base.glob(pattern)):
                _remove(path)


def _forget_headers(library: Path) -> None:
    """Take what is for compilers out of build-details.json, which 3.14 and later have (PEP 739)."""
    path = library / "build-details.json"
    if path.exists():
        details = {name: value for name, value in json.loads(path.read_text()).items() if name != "c_api"}
        path.write_text(json.dumps(details, indent=2) + "\n")


def _leave_out(name: str, library: Path) -> None:
    """Remove a module or package, and the extension that does its work."""
    place = name.replace(".", "/")
    last = name.rpartition(".")[2]
    own = (place, f"{place}.py", f"lib-dynload/{place}.*")
    if not any(True for pattern in own for _ in library.glob(pattern)):
        raise RecipeError(
            f"there is no module {name} to leave out",
            hint="python.without names modules of the library; what is linked into the interpreter stays in it",
        )
    for pattern in (*own, f"lib-dynload/_{last}.*", f"lib-dynload/_{last}_*"):
        for path in sorted(library.glob(pattern)):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _take_wheel(wheel: Digest, library: Path, workshop: Workshop, store: Store) -> None:
    """Have another pip in place of the bundled one, for ensurepip, too: virtual environments get what the image has."""
    with workshop.writing():
        old = _bundled_pip(library)
        version = old.name.split("-")[1]
        new = wheel_version(wheel, store)
        old.unlink()
        target = library / _BUNDLED / old.name.replace(f"pip-{version}-", f"pip-{new}-")
        with store.open(wheel) as source, target.open("wb") as stream:
            shutil.copyfileobj(source, stream)
        module = library / "ensurepip" / "__init__.py"
        text, said = module.read_text(), f'_PIP_VERSION = "{version}"'
        if said not in text:
            raise BuildError(
                f"pip {new} cannot take the place of the bundled one",
                at=f"{library.name}/ensurepip/__init__.py",
                because=f"there is no line {said}",
                hint="pip = true takes the bundled one",
            )
        module.write_text(text.replace(said, f'_PIP_VERSION = "{new}"'))


def _bundled_pip(library: Path) -> Path:
    found = list((library / _BUNDLED).glob("pip-*.whl"))
    if len(found) != 1:
        raise BuildError(f"compile: {library.name} bundles {len(found)} pip wheels, not one")
    return found[0]


def wheel_version(wheel: Digest, store: Store) -> str:
    """The version of the pip in a wheel."""
    import zipfile  # noqa: PLC0415 - rarely needed, and slow to import

    try:
        with store.open(wheel) as stream, zipfile.ZipFile(stream) as archive:
            for name in archive.namelist():
                if name.startswith("pip-") and name.endswith(".dist-info/METADATA"):
                    return name.partition("/")[0].removeprefix("pip-").removesuffix(".dist-info")
    except zipfile.BadZipFile as error:
        raise BuildError(f"not a wheel of pip: {wheel}", because=str(error)) from error
    raise BuildError(f"not a wheel of pip: {wheel}")


def _install_pip(workshop: Workshop, release: PythonRelease, line: Line, library: Path) -> None:
    """Install pip, and setuptools where it is needed beside it, from the wheels that ensurepip has."""
    wheels, pip = sorted((library / _BUNDLED).glob("*.whl")), _bundled_pip(library)
    bundled = f"/usr/local/lib/{library.name}/{_BUNDLED}"
    workshop.run(
        "install pip",
        (
            *(f"/usr/local/bin/python{release.line}", "-E", "-s", "-B", f"{bundled}/{pip.name}/pip"),
            *("install", "--isolated", "--no-cache-dir", "--no-compile", "--no-warn-script-location"),
            *(("--root-user-action", "ignore") if line.numbers >= (3, 10) else ()),
            *("--no-index", "--find-links", bundled, "--root", "/pip", "pip"),
            *(("setuptools",) if line.has_setuptools else ()),
        ),
        cwd="/",
    )
    place = workshop.pip / "usr" / "local" / "lib" / library.name
    with workshop.writing():
        _without_launchers(place / "site-packages")
        _trust_the_image(place / "site-packages")
        if not _makes_wheel(library / "ensurepip"):
            (place / _BUNDLED).mkdir(parents=True)
            for path in (*wheels, *(library / _BUNDLED).glob("__init__.py")):  # up to 3.9 a package
                shutil.copyfile(path, place / _BUNDLED / path.name)


def _without_launchers(site: Path) -> None:
    """Take Windows programs out of the installed packages, and out of the lists of what they consist of."""
    for path in site.rglob("*.exe"):
        path.unlink()
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.partition(",")[0].endswith(".exe")))


def _trust_the_image(site: Path) -> None:
    """A link to Debian's bundle in place of the certificates that pip brings: a tenth of what pip takes."""
    path = site / "pip/_vendor/certifi/cacert.pem"
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        path.symlink_to(_BUNDLE)


def _makes_wheel(ensurepip: Path) -> bool:
    """Have ensurepip make the wheel it installs; False where it has no function for that."""
    module = ensurepip / "__init__.py"
    if "def _get_pip_whl_path_ctx()" not in module.read_text():
        return False
    (ensurepip / "_rewheel.py").write_bytes(files("builder.python").joinpath("rewheel.py").read_bytes())
    with module.open("a") as stream:
        stream.write(_REWHEEL)
    return True


def _byte_compile(workshop: Workshop, line: Line, library: Path, epoch: int, *, pip: bool) -> None:
    """Write a .pyc for every module, pip's too if it is there. None is ever checked against its source (PEP 552).

    Before 3.7 there is no such .pyc: the time of the source, which is the epoch in every layer, is written into them.
    One process, in sorted order: what marshal writes depends on the constants a process has met before.
    """
    if line.numbers < (3, 7):
        with workshop.writing():
            for path in [*library.rglob("*.py"), *workshop.pip.rglob("*.py")]:
                os.utime(path, (epoch, epoch))
    place = f"/usr/local/lib/{library.name}"
    python = (f"/usr/local/bin/python{line.name}", "-E", "-s", "-B", "-m", "compileall", "-q")
    mode = ("--invalidation-mode", "unchecked-hash") if line.numbers >= (3, 7) else ()
    workshop.run("byte-compile python", (*python, *mode, place), cwd="/")
    if pip:
        # Tracebacks name the path in the image, not the one below /pip.
        workshop.run("byte-compile pip", (*python, *mode, "-d", place, f"/pip{place}"), cwd="/")


def _check_modules(workshop: Workshop, release: PythonRelease, contents: Contents) -> None:
    """BuildError unless every module that the toolchain's libraries allow was built: make itself only warns."""
    checks = [*module_checks(release.numbers, contents.without), *(_ASKED_FOR[name] for name in contents.modules)]
    python = f"/usr/local/bin/python{release.line}"
    outcome, output = workshop.attempt("check modules", (python, "-E", "-s", "-B", "-c", program(checks)), cwd="/")
    if outcome.exit == 0:
        return
    failed = failures(checks, output)
    if not failed:
        raise BuildError("compile: the new interpreter does not run", at=str(outcome.log), because="\n".join(output))
    packages = sorted({check.wants for check, _ in failed if check.wants})
    raise BuildError(
        f"compile: modules missing or broken: {', '.join(check.name for check, _ in failed)}",
        at=str(outcome.log),
        because="\n".join(f"{check.name}: {error}" for check, error in failed),
        hint=f"the toolchain wants {', '.join(packages)}" if packages else None,
    )


def _python_tree(workshop: Workshop, store: Store) -> Tree:
    """The interpreter's Tree, contents in the store; `python` is a link to `python3` unless it is one to `python2`."""
    tree = _normalised(collect(workshop.work / "out", store))
    name = "usr/local/bin/python"
    return tree if name in tree else tree.with_entries([symlink(name, "python3")])


def _normalised(tree: Tree) -> Tree:
    return Tree(replace(entry, mode=_mode(entry)) for entry in tree.values())


def _mode(entry: FileEntry) -> int:
    if entry.kind is Kind.SYMLINK:
        return 0o777
    return 0o755 if entry.kind is Kind.DIRECTORY or entry.mode & 0o100 else 0o644
