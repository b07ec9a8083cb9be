"""Conventional: unpacked packages to a configured Tree by real dpkg and the packages' own maintainer scripts.

Law: everything a package brings runs in the sandbox, in a root directory of its own, without a network; what comes out
is a Tree, as from `rootfs.bootstrap`. For packages whose scripts that one knows, both give the same, but for the order
of lines in some of dpkg's files. The way is mmdebstrap's: the Essential packages are extracted, so that there is a dpkg
to run, then dpkg installs them over themselves, then the others.
"""

from __future__ import annotations

import shlex
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rootfs.architecture import Architecture
from rootfs.configure.merge import links_at_the_top, merge
from rootfs.debian.batches import batches
from rootfs.debian.deb import Unpacked
from rootfs.digest import Digest
from rootfs.errors import BuildError
from rootfs.extract import extract
from rootfs.files import host_error
from rootfs.ports import Bind, Command, Reporter, Sandbox, Store
from rootfs.readback import read_back
from rootfs.tree import FileEntry, Kind, Tree, directory, file

_TASK = "configure with dpkg"
_TAIL = 20
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
}
_DEBS, _OUT = "/tmp/debs", "/tmp/out"  # noqa: S108 - the sandbox's, not the host's
_NO_SERVICES = file("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n", 0o755)
# dpkg syncs each file otherwise; what is thrown away when it fails needs no sync.
_DPKG = ("dpkg", "--force-depends", "--force-unsafe-io")
_TAR = ("tar", "--create", f"--file={_OUT}/root.tar", "--format=pax", "--pax-option=delete=atime,delete=ctime",
        "--numeric-owner", "--sort=name", "--one-file-system", "--xattrs", "--xattrs-include=security.capability",
        "--xattrs-include=user.*", "--directory=/", ".")  # fmt: skip


def conventional(
    unpacked: Sequence[Unpacked],
    debs: Mapping[str, Digest],
    *,
    store: Store,
    sandbox: Sandbox,
    work: Path,
    epoch: int,
    architecture: Architecture,
    reporter: Reporter | None = None,
) -> Tree:
    """Install a complete selection with dpkg, and read it back.

    `debs` names the stored .deb of each package; `work` is a directory of ours, emptied first, of which only `log/`
    stays, and that only when it fails. `epoch` is in seconds. BuildError when there is no dpkg among the packages or
    dpkg or a script fails; HostError when this machine allows no sandbox with a range of ids.
    """
    names = {one.package.name for one in unpacked}
    if len(names) != len(unpacked):
        raise BuildError("a package comes twice", because="a root file system holds one version of each")
    if "dpkg" not in names:
        raise BuildError(
            "cannot configure with dpkg: there is no dpkg among the packages",
            because="it runs in the root file system it configures",
            hint="take the variant `essential` or a larger one, or let ocibuild configure",
        )
    workshop = _Workshop(work=work, sandbox=sandbox, epoch=epoch, reporter=reporter)
    order = list(batches([one.package for one in unpacked]))
    with workshop.opened():
        first = _first_tree(unpacked, set(order[0]), architecture)
        extract(first, store, workshop.root)
        workshop.take_debs(debs, names, store)
        workshop.run("own", ("sh", "-eu", "-c", _owner_script(first)))
        for number, batch in enumerate(order, 1):
            workshop.run(f"install-{number}", (*_DPKG, "--install", *(f"{_DEBS}/{name}.deb" for name in batch)))
        workshop.run("configure", (*_DPKG, "--configure", "--pending"))
        workshop.run("audit", ("sh", "-c", 'found=$(dpkg --audit) && test -z "$found" || { echo "$found"; exit 1; }'))
        workshop.run("pack", _TAR)
        with (workshop.out / "root.tar").open("rb") as stream:
            return read_back(stream, store, [one.tree for one in unpacked], epoch=epoch)


def _first_tree(unpacked: Sequence[Unpacked], names: set[str], architecture: Architecture) -> Tree:
    """What is there before dpkg runs: the first packages, and what debootstrap and its kin lay out."""
    chosen = [one for one in unpacked if one.package.name in names]
    usr_is_merged = any(one.package.name in ("usr-is-merged", "usrmerge") for one in unpacked)
    tree = merge(chosen, links=links_at_the_top(unpacked) if usr_is_merged else ()).tree
    made = [file("var/lib/dpkg/arch", f"{architecture.debian}\n".encode()), file("var/lib/dpkg/status", b"")]
    mounts = (directory(path) for path in ("dev", "proc", "tmp"))
    wanted: list[FileEntry] = [*made, *mounts, _NO_SERVICES]
    return tree.with_entries(entry for entry in wanted if tree.resolve(entry.path) not in tree)


def _owner_script(tree: Tree) -> str:
    """Owners and special modes of directories: dpkg gives files to their owners, but takes a directory as it is."""
    lines = []
    for entry in tree.values():
        if entry.kind is Kind.DIRECTORY and (entry.uid or entry.gid or entry.mode > 0o777):
            place = shlex.quote(f"/{entry.path}")
            lines += [f"chown {entry.uid}:{entry.gid} {place}", f"chmod {entry.mode:o} {place}"]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workshop:
    """The directory and the sandbox of one run. Only its owner may enter: there are setuid programs in it."""

    work: Path
    sandbox: Sandbox
    epoch: int
    reporter: Reporter | None

    @property
    def root(self) -> Path:
        return self.work / "root"

    @property
    def debs(self) -> Path:
        return self.work / "debs"

    @property
    def out(self) -> Path:
        return self.work / "out"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """An empty directory, of which nothing stays unless something fails, and then the logs."""
        self.sandbox.remove(self.work)
        if self.reporter:
            self.reporter.begin(_TASK, unit="lines")
        result = "failed"
        try:
            self.work.mkdir(mode=0o700, parents=True)
            for path in (self.debs, self.out, self.work / "log"):
                path.mkdir()
            yield
            result = "done"
        except OSError as error:
            raise host_error(error, self.work) from error
        finally:
            for path in (self.root, self.debs, self.out) if result == "failed" else (self.work,):
                self.sandbox.remove(path)
            if self.reporter:
                self.reporter.finish(_TASK, result)

    def take_debs(self, debs: Mapping[str, Digest], names: set[str], store: Store) -> None:
        """The .deb files, for dpkg in the sandbox to read."""
        for name in names:
            with store.open(debs[name]) as source, (self.debs / f"{name}.deb").open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def run(self, step: str, argv: tuple[str, ...]) -> None:
        """Run a program of the root as its root; BuildError with the end of its log when it fails."""
        tail: deque[str] = deque(maxlen=_TAIL)

        def on_line(line: str) -> None:
            tail.append(line)
            if self.reporter:
                self.reporter.advance(_TASK, 1)

        command = Command(
            root=self.root,
            argv=argv,
            environment={**_ENVIRONMENT, "SOURCE_DATE_EPOCH": str(self.epoch)},
            binds=(
                Bind(source=self.debs, target=_DEBS),
                Bind(source=self.out, target=_OUT, writable=True),
            ),
            log=self.work / "log" / f"{step}.log",
            on_line=on_line,
            writable=True,
            ids="range",
        )
        outcome = self.sandbox.run(command)
        if outcome.exit:
            raise BuildError(
                f"configuring with dpkg: {step} exited {outcome.exit}",
                at=str(outcome.log),
                because="\n".join(tail),
                hint="the log holds every line; it stays until the next run",
            )
