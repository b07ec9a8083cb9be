"""The stages of a compile: configure, instrument, train, compile, count, arrange. A Tree in, what the stage made out.

Law: the order of commands within a stage and what becomes of their files; what the commands are is `flags`, which stage
follows which is the plan. Nothing but its inputs, commands, toolchain and epoch may change what a stage makes, save for
times and logs in the Trees of /build, which no image holds.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from builder.oci.tar import archive
from builder.python.counters import CLANG_PROFILE, SUFFIX, members
from builder.python.flags import Commands, with_jobs
from builder.python.layout import COUNTS, LayoutCommands, canonical, check
from builder.python.workshop import Workshop, failure
from rootfs.collect import collect
from rootfs.digest import Digest
from rootfs.errors import BuildError, IntegrityError
from rootfs.ports import Store, read_blob
from rootfs.tree import Tree, normalise

_OBJECTS = ("*.o", "*.a")

# What gcc and clang say of counters that are not of the sources they meet.
_MISFIT = ("coverage-mismatch", "profile-instr-out-of-date")

# What regrtest says of a test that failed, by version and by whether it ran in a process of its own. "env changed" is
# no failure to it.
_FAILED = re.compile(
    r"(?P<test>test_[\w.]+) (?:failed(?! \(env changed)|crashed|timed out|worker non-zero exit code|worker bug)"
)
_BEGUN = re.compile(r"\[ *\d+/\d+\] (?P<test>test_[\w.]+)")


def configure(workshop: Workshop, source: Digest, commands: Commands, jobs: int, store: Store) -> Tree:
    """/build as `configure` leaves it; with what the frozen modules are made by, where a profile is to come."""
    workshop.clear()
    _unpack(source, workshop, store)
    if commands.builtin:
        with workshop.writing():
            _build_in(commands.builtin, workshop.build / "Modules")
    workshop.run("configure", commands.configure, hint=f"configure's own log is {workshop.build / 'config.log'}")
    if commands.freeze:
        workshop.run("freeze modules", with_jobs(commands.freeze, jobs))
        with workshop.writing():
            for path in _found(workshop.build, *_OBJECTS):
                path.unlink()
    return collect(workshop.build, store, times=True)


def instrument(workshop: Workshop, configured: Tree, commands: Commands, jobs: int, store: Store) -> Tree:
    """/build with an interpreter that counts, and no counts yet: building runs it, and that is no training."""
    workshop.open(store, build=configured)
    workshop.run("instrument", with_jobs(commands.instrument, jobs))
    with workshop.writing():
        for path in _found(workshop.build, f"*{SUFFIX}", "*.profclangr", "default.profraw"):
            path.unlink()
    return collect(workshop.build, store, times=True, since=configured)


def train(workshop: Workshop, instrumented: Tree, commands: Commands, store: Store) -> Digest:
    """The profile: one canonical tar of the counters, each at its place below /build.

    BuildError with the names of the tests that failed, if that is why there is none.
    """
    workshop.open(store, build=instrumented)
    outcome, tail = workshop.attempt("train", commands.train)
    if outcome.exit:
        failed = failed_tests(outcome.log.read_text(errors="replace").splitlines())
        names = ", ".join(f'"{name}"' for name in failed)
        hint = f"what cannot pass here goes into python.train_without: {names}" if failed else None
        raise failure(f"train ({', '.join(failed)} failed)" if failed else "train", outcome, tail, hint=hint)
    if commands.practice:
        workshop.run("practice", commands.practice)
    if any(_found(workshop.build, "*.profclangr")):
        merge = ("sh", "-c", f"exec llvm-profdata merge -output={CLANG_PROFILE} *.profclangr")
        workshop.run("merge the profile", merge)
    counted = collect(workshop.build, store, since=instrumented)
    profile = counted.where(lambda entry: entry.path.endswith((SUFFIX, CLANG_PROFILE))).with_parents()
    if not profile:
        raise BuildError("compile: the training counted nothing", at=str(workshop.work / "log"))
    return store.put(archive(profile, store, epoch=0, lowest=True)).digest


def compile_(  # the field's word; the builtin is not meant
    workshop: Workshop, configured: Tree, profile: Digest | None, commands: Commands, jobs: int, store: Store
) -> Tree:
    """What `make install` puts below /usr/local, led by the profile if there is one."""
    workshop.open(store, build=configured)
    if profile is not None:
        _place(profile, workshop, store)
    outcome, tail = workshop.attempt("make", with_jobs(commands.compile, jobs))
    if outcome.exit:
        misfit = any(sign in line for line in tail for sign in _MISFIT)
        hint = "the profile was trained for other sources, flags or headers: train it anew" if misfit else None
        raise failure("make", outcome, tail, hint=hint)
    workshop.run("make install", commands.install)
    return collect(workshop.prefix, store, prefix="usr/local")


def count(
    workshop: Workshop, compiled: Tree, layout: LayoutCommands, practice: tuple[str, ...], store: Store
) -> Digest:
    """The counts by which an interpreter is laid out: how often it took which branch while it did the `practice`.

    The program that counts never leaves this stage.
    """
    workshop.open(store, out=compiled)
    workshop.run("equip to count", layout.equip)
    workshop.run("count", practice)
    workshop.run("gather the counts", layout.gather)
    with workshop.writing():
        gathered = (workshop.build / COUNTS).read_bytes()
    return store.put([canonical(gathered, at=str(workshop.work / "log"))]).digest


def arrange(workshop: Workshop, compiled: Tree, counts: Digest, layout: LayoutCommands, store: Store) -> Tree:
    """What was compiled, with the interpreter laid out by the counts, and all that is linked stripped."""
    workshop.open(store, out=compiled)
    data = read_blob(store, counts)
    check(data, at=str(counts))
    with workshop.writing():
        (workshop.build / COUNTS).write_bytes(data)
    hint = "counts of another interpreter are refused: `ocibuild profile train RECIPE` makes those that fit"
    workshop.run("lay out", layout.arrange, hint=hint)
    workshop.run("strip", layout.strip)
    with workshop.writing():
        (workshop.build / "python").replace(workshop.work / "out" / layout.arrange[1].lstrip("/"))
    return collect(workshop.prefix, store, prefix="usr/local")


def _build_in(names: tuple[str, ...], modules: Path) -> None:
    """Have makesetup link these modules into the interpreter; how each is compiled, Setup.stdlib.in says."""
    lines = re.findall(r"^@MODULE_\w+_TRUE@(\w+ .*)$", (modules / "Setup.stdlib.in").read_text(), re.MULTILINE)
    wanted = [line for line in lines if line.split()[0] in names]
    (modules / "Setup.local").write_text("\n".join(("*static*", *wanted, "")))


def _found(build: Path, *patterns: str) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(build.rglob(pattern))


def failed_tests(log: Iterable[str]) -> list[str]:
    """The tests that a log of regrtest says have failed; when none, the one begun last, in which it died itself."""
    failed: dict[str, None] = {}
    last = None
    for line in log:
        failed.update((found["test"], None) for found in _FAILED.finditer(line))
        begun = _BEGUN.search(line)
        last = begun["test"] if begun else None if line.startswith("Total duration") else last
    return list(failed) or ([last] if last else [])


def _place(profile: Digest, workshop: Workshop, store: Store) -> None:
    """Write each counter beside the object that will ask for it."""
    counters = members(read_blob(store, profile), at=str(profile))
    with workshop.writing():
        for path, data in counters.items():
            target = workshop.build / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _unpack(source: Digest, workshop: Workshop, store: Store) -> None:
    """Write the tarball below build/ without its top directory; times are kept, so that make regenerates nothing."""
    workshop.reporter.begin("compile: unpack", unit="files")
    try:
        with store.open(source) as stream, tarfile.open(fileobj=stream, mode="r|*") as members, workshop.writing():
            for member in members:
                _unpack_member(members, member, workshop.build)
                workshop.reporter.advance("compile: unpack", 1)
    except tarfile.TarError as error:
        raise IntegrityError(f"not a source tarball: {source}", because=str(error)) from error
    finally:
        workshop.reporter.finish("compile: unpack")


def _unpack_member(members: tarfile.TarFile, member: tarfile.TarInfo, build: Path) -> None:
    target = build / normalise(member.name).partition("/")[2]
    content = members.extractfile(member) if member.isfile() else None
    if content is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
        os.utime(target, (member.mtime, member.mtime))
    elif not member.isdir() and member.type != tarfile.XGLTYPE:
        raise IntegrityError("CPython's source holds only files and directories", at=member.name)
