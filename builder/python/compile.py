"""Compile CPython: a source tarball and a toolchain root in, two Trees out.

Law: the order of the steps and nothing else; what each is made of lies in `flags`, `verify` and `install`. Nothing
but source, options, toolchain and epoch may change a byte of the result: not the user, the number of jobs, the host.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.python.flags import configure_command, environment, install_command, make_command
from builder.python.install import byte_compile, install_pip, pip_tree, prune, python_tree
from builder.python.verify import failures, module_checks, program
from builder.python.versions import PythonRelease
from builder.python.workshop import Workshop
from rootfs.digest import Digest
from rootfs.errors import BuildError, IntegrityError
from rootfs.ports import Reporter, Sandbox, Store
from rootfs.tree import Tree, normalise


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonOptions:
    """What a recipe may say about a compile.

    `variant` is plain, optimized or optimized-lto; `configure_args` are put last; `pyc` says whether modules are
    byte-compiled (unchecked-hash, PEP 552) or left to every start of the image; `pip` whether pip is installed.
    """

    variant: str = "plain"
    configure_args: tuple[str, ...] = ()
    pyc: Literal["unchecked-hash", "none"] = "unchecked-hash"
    pip: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """CPython below usr/local, and pip below the same (an empty Tree when it was not asked for)."""

    python: Tree
    pip: Tree


def compile_python(
    *,
    release: PythonRelease,
    source: Digest,
    options: PythonOptions,
    toolchain: Path,
    work: Path,
    epoch: int,
    jobs: int,
    store: Store,
    sandbox: Sandbox,
    reporter: Reporter,
) -> Compiled:
    """Compile `source`, the store's tarball of `release`, in `toolchain` (a root with `flags.TOOLCHAIN_PACKAGES`).

    `work` is emptied first and keeps logs and objects until the next compile; `epoch` is SOURCE_DATE_EPOCH in seconds.
    Raises RecipeError for options that cannot be built, BuildError when a step or a module check fails.
    """
    configure = configure_command(options.variant, options.configure_args)
    workshop = Workshop(
        toolchain=toolchain, work=work, environment=environment(epoch), sandbox=sandbox, reporter=reporter
    )
    workshop.clear()
    _unpack(source, workshop, store)
    workshop.run("configure", configure, hint=f"configure's own log is {workshop.build / 'config.log'}")
    workshop.run("make", make_command(jobs))
    workshop.run("make install", install_command())
    _check_modules(workshop, release)
    with workshop.writing():
        prune(workshop.prefix)
    if options.pip:
        install_pip(workshop, release)
    if options.pyc != "none":
        byte_compile(workshop, release, pip=options.pip)
    return Compiled(python=python_tree(workshop, store), pip=pip_tree(workshop, store))


def _unpack(source: Digest, workshop: Workshop, store: Store) -> None:
    """Write the tarball below build/ without its top directory; times are kept, so that make regenerates nothing."""
    workshop.reporter.begin("compile: unpack", unit="files")
    try:
        with store.open(source) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive, workshop.writing():
            for member in archive:
                _unpack_member(archive, member, workshop.build)
                workshop.reporter.advance("compile: unpack", 1)
    except tarfile.TarError as error:
        raise IntegrityError(f"not a source tarball: {source}", because=str(error)) from error
    finally:
        workshop.reporter.finish("compile: unpack")


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, build: Path) -> None:
    target = build / normalise(member.name).partition("/")[2]
    content = archive.extractfile(member) if member.isfile() else None
    if content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        os.utime(target, (member.mtime, member.mtime))
    elif not member.isdir():
        raise IntegrityError("CPython's source holds only files and directories", at=member.name)


def _check_modules(workshop: Workshop, release: PythonRelease) -> None:
    """BuildError unless every module that the toolchain's libraries allow was built: make itself only warns."""
    checks = module_checks(release.numbers)
    python = f"/usr/local/bin/python{release.line}"
    outcome, output = workshop.attempt("check modules", (python, "-I", "-B", "-c", program(checks)), cwd="/")
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
