"""Base-files: the directories, links and logs its postinst makes on a first installation.

Law: one handler; owners and modes as the script's `install_directory` and `ensure_file_owner_mode` calls say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rootfs.configure.root import Root
from rootfs.configure.script import Script
from rootfs.tree import FileEntry, directory, file, symlink

_DIRECTORIES = ("mnt", "srv", "opt", "etc/opt", "var/opt", "media")
_LOCAL = ("", "/share", "/share/man", "/bin", "/games", "/lib", "/libexec", "/include", "/sbin", "/src", "/etc")
_DEFAULTS = (
    ("dot.profile", "root/.profile"),
    ("dot.bashrc", "root/.bashrc"),
    ("profile", "etc/profile"),
    ("motd", "etc/motd"),
    ("info.dir", "usr/share/info/dir"),
)
_LOGS = (("wtmp", 0o664), ("btmp", 0o660), ("lastlog", 0o664))


def lay_out(root: Root, script: Script) -> Iterable[FileEntry]:
    """What `configure` makes when there was no earlier version. Not every release makes each log and /usr/local/*."""
    made = [directory(path) for path in _DIRECTORIES]
    made += [directory(f"usr/local{path}") for path in _LOCAL if f"install_local_dir /usr/local{path}\n" in script.text]
    made += [directory("var/mail", 0o2775, gid=root.group("mail")), directory("run/lock", 0o1777)]
    yield from (entry for entry in made if entry.path not in root.tree)
    yield symlink("var/spool/mail", "../mail")
    yield symlink("var/run", "/run")
    yield symlink("var/lock", "/run/lock")
    yield symlink("usr/local/man", "share/man")
    yield symlink("etc/dpkg/origins/default", "debian")
    for name in ("lib32", "libo32", "libx32"):
        if f"usr/{name}" in root.tree and name not in root.tree:
            yield symlink(name, f"usr/{name}")
    for name, mode in _LOGS:
        if f"/var/log/{name} " in script.text:
            yield file(f"var/log/{name}", b"", mode, gid=root.group("utmp"))
    for name, target in _DEFAULTS:
        source = root.follow(f"usr/share/base-files/{name}")
        if source is not None and (target != "usr/share/info/dir" or "usr/share/info" in root.tree):
            yield replace(source, path=target)
