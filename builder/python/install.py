"""From a finished `make install` to two Trees: CPython without what images leave out, and pip.

Law: knows the layout of an installed CPython; runs it only through the workshop. Modes are 0755 or 0644, whatever the
umask of the machine was.

Kept on purpose: the headers and `python3-config` (2.6 MB), because in an image with a shell `apt-get install gcc`
followed by `pip install` of an sdist must work, and no Debian package has this version's headers.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from builder.python.versions import PythonRelease
from builder.python.workshop import Workshop
from rootfs.collect import collect
from rootfs.errors import BuildError
from rootfs.ports import Store
from rootfs.tree import FileEntry, Kind, Tree, symlink

_BUNDLED = "ensurepip/_bundled"

# Paths below /usr/local. config-*/ holds the Makefile and the objects to relink an interpreter: sysconfig reads
# _sysconfigdata instead. turtle is Tk's. `make install` writes .pyc files whose mode depends on the environment.
_LEFT_OUT = (
    "bin/idle*",
    "lib/python3.*/**/__pycache__",
    "lib/python3.*/config-*",
    f"lib/python3.*/{_BUNDLED}",
    "lib/python3.*/idlelib",
    "lib/python3.*/test",
    "lib/python3.*/tkinter",
    "lib/python3.*/turtle.py",
    "lib/python3.*/turtledemo",
    "share",
)


def prune(prefix: Path) -> None:
    """Remove from an installed CPython what no image carries; `prefix` is its /usr/local on the host."""
    for pattern in _LEFT_OUT:
        for path in sorted(prefix.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def install_pip(workshop: Workshop, release: PythonRelease) -> None:
    """Install pip, from the wheel that CPython's own source bundles, below `workshop.pip`.

    The wheel comes with it: `python -m venv` installs from there.
    """
    bundled = f"Lib/{_BUNDLED}"
    wheels = sorted((workshop.build / bundled).glob("pip-*.whl"))
    if len(wheels) != 1:
        raise BuildError(f"compile: CPython {release.version} bundles {len(wheels)} pip wheels, not one")
    workshop.run(
        "install pip",
        (
            *(f"/usr/local/bin/python{release.line}", "-I", "-B", f"/build/{bundled}/{wheels[0].name}/pip"),
            *("install", "--isolated", "--no-cache-dir", "--no-compile", "--no-warn-script-location"),
            *("--root-user-action", "ignore", "--no-index", "--find-links", f"/build/{bundled}", "--root", "/pip"),
            "pip",
        ),
    )
    target = workshop.pip / "usr" / "local" / "lib" / f"python{release.line}" / _BUNDLED
    with workshop.writing():
        target.mkdir(parents=True)
        shutil.copyfile(wheels[0], target / wheels[0].name)


def byte_compile(workshop: Workshop, release: PythonRelease, *, pip: bool) -> None:
    """Write a .pyc for every module, pip's too if it is there. None is ever checked against its source (PEP 552).

    One process, in sorted order: what marshal writes depends on the constants a process has met before.
    """
    library = f"/usr/local/lib/python{release.line}"
    python = (f"/usr/local/bin/python{release.line}", "-I", "-B", "-m", "compileall", "-q")
    mode = ("--invalidation-mode", "unchecked-hash")
    workshop.run("byte-compile python", (*python, *mode, library))
    if pip:
        # Tracebacks name the path in the image, not the one below /pip.
        workshop.run("byte-compile pip", (*python, *mode, "-s", "/pip", "-p", "/", f"/pip{library}"))


def python_tree(workshop: Workshop, store: Store) -> Tree:
    """The interpreter's Tree, contents in the store; `python` is a link to `python3`."""
    tree = _normalised(collect(workshop.work / "out", store))
    return tree.with_entries([symlink("usr/local/bin/python", "python3")])


def pip_tree(workshop: Workshop, store: Store) -> Tree:
    """pip's Tree, contents in the store."""
    return _normalised(collect(workshop.pip, store))


def _normalised(tree: Tree) -> Tree:
    return Tree(replace(entry, mode=_mode(entry)) for entry in tree.values())


def _mode(entry: FileEntry) -> int:
    if entry.kind is Kind.SYMLINK:
        return 0o777
    return 0o755 if entry.kind is Kind.DIRECTORY or entry.mode & 0o100 else 0o644
