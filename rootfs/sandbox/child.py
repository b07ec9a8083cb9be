"""The program that becomes the sandbox: run alone, `python -I -S child.py REPORT_FD`, orders as JSON on stdin.

Law: standard library only, imports nothing of ours, and everything it needs before the old root is gone. Three
processes: this one waits; its child is process 1 of the namespaces, mounts and reaps; that one's child becomes the
command. A fourth, left in the old user namespace, maps a range of ids and is gone. Orders to `remove` a directory need
no more than that. A step that fails before the exec is written to REPORT_FD as `[stage, errno, target]`, and nothing
else is.

user_namespaces(7), pid_namespaces(7), mount(2), pivot_root(2), capabilities(7).
"""

# os.path throughout: pathlib would be one more import in every start.
# ruff: noqa: PTH103, PTH106, PTH108, PTH110, PTH112, PTH114, PTH118, PTH120, PTH123, PTH211

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
# statvfs(3) flag -> mount(2) flag. A user namespace may not take away any of these from a mount it was given.
LOCKED_FLAGS = {1: MS_RDONLY, 2: MS_NOSUID, 4: MS_NODEV, 8: MS_NOEXEC, 0x400: 0x400, 0x800: 0x800, 0x1000: 1 << 21}

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 1, 24, 38, 47, 4
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, setfcap: what
# programs that expect to be root in a container have everywhere. Mounting and making devices are not among them.
KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31})
LAST_CAPABILITY = 63

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
LIBC.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)

Orders = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - the kernel refused; nothing here erred
    """A step the kernel refused: its stage, errno and what it was about."""

    def __init__(self, stage: str, number: int, target: str) -> None:
        super().__init__(stage, number, target)


@contextmanager
def step(stage: str, target: str = "") -> Iterator[None]:
    """Name what is being done, for the report."""
    try:
        yield
    except OSError as error:
        raise Refusal(stage, error.errno or 0, target) from error


def check(result: int) -> None:
    """OSError when a C function says -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def prctl(option: int, first: int = 0) -> None:
    check(LIBC.prctl(option, first, 0, 0, 0))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [os.fsencode(text) if text is not None else None for text in (source, target, kind, data)]
    check(LIBC.mount(texts[0], texts[1], texts[2], flags, texts[3]))


def main() -> NoReturn:
    report = int(sys.argv[1])
    os.set_inheritable(report, False)  # noqa: FBT003 - the standard library's own signature
    guarded(report, lambda: launch(report, json.load(sys.stdin)))


def guarded(report: int, work: Callable[[], int]) -> NoReturn:
    """Run to the end of this process; a failure goes to the report, never further up the (forked) stack."""
    try:
        status = work()
    except Refusal as refusal:
        os.write(report, json.dumps(refusal.args).encode())
        status = 1
    except BaseException as error:  # noqa: BLE001 - two processes must not run the same stack
        os.write(report, json.dumps(["internal", 0, repr(error)]).encode())
        status = 1
    os._exit(status)


def launch(report: int, orders: Orders) -> int:
    """The outer process: new namespaces, then wait for their process 1."""
    reset_signals()
    os.umask(0o022)
    if not isolate(report, orders["ids"]):
        return 1
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != orders["parent"]:  # it died before it could be noticed
        return 1
    if "remove" in orders:
        remove(orders["remove"])
        return 0
    alive, held = os.pipe()  # `held` is open in this process only: its end is how process 1 sees this one die
    pid = os.fork()
    if pid == 0:
        os.close(held)
        guarded(report, lambda: first_process(report, orders, alive))
    os.close(alive)
    return exit_status(os.waitpid(pid, 0)[1])


def first_process(report: int, orders: Orders, alive: int) -> int:
    """Process 1 of the sandbox: build the file system, start the command, reap until it ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        return 1
    configure_network()
    with step("hostname"):
        socket.sethostname("ocibuild")
        check(LIBC.setdomainname(b"(none)", 6))
    build_root(os.path.realpath(orders["root"]), orders["mounts"], writable=orders["writable"])
    command = os.fork()
    if command == 0:
        guarded(report, lambda: execute(orders))
    while True:
        pid, status = os.wait()
        if pid == command:
            return exit_status(status)


def exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def reset_signals() -> None:
    """Every disposition to its default: a parent that ignores SIGINT breaks CPython's own tests."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def isolate(report: int, ids: Orders | None) -> bool:
    """New namespaces with this user as root in them; without a user namespace only for who is root already.

    False when the range of ids could not be mapped, which is reported by then.
    """
    uid, gid = os.geteuid(), os.getegid()
    finish_map = start_mapper(report, ids) if ids else None
    try:
        check(LIBC.unshare(CLONE_NEWUSER | NAMESPACES))
    except OSError as error:
        if uid == 0 and LIBC.unshare(NAMESPACES) == 0:
            become_plain_root()
            return True
        raise Refusal("unshare", error.errno or 0, "") from error
    if finish_map:
        return finish_map()
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        path = f"/proc/self/{name}"
        with step("id-map", path), open(path, "w") as stream:
            stream.write(text)
    return True


def start_mapper(report: int, ids: Orders) -> Callable[[], bool]:
    """A process that stays in this user namespace, as the one who maps a range must; call the result after unshare."""
    target = os.getpid()
    waiting, go = os.pipe()
    mapper = os.fork()
    if mapper == 0:
        os.close(go)
        guarded(report, lambda: map_range(target, ids) if os.read(waiting, 1) else 0)
    os.close(waiting)

    def finish() -> bool:
        os.write(go, b"!")
        if os.waitpid(mapper, 0)[1]:
            return False
        os.setgroups([])
        return True

    return finish


def map_range(target: int, ids: Orders) -> int:
    """Map the ids of process `target`: by itself when this is root, else with the setuid programs for it."""
    for kind in ("uid", "gid"):
        lines = ids[kind]
        if ids["helpers"]:
            numbers = [str(number) for line in lines for number in line]
            run_mapper([ids["helpers"][kind], str(target), *numbers])
        else:
            path = f"/proc/{target}/{kind}_map"
            with step("id-range", path), open(path, "w") as stream:
                stream.write("".join("{} {} {}\n".format(*line) for line in lines))
    return 0


def run_mapper(argv: list[str]) -> None:
    """newuidmap(1) or newgidmap(1); what it says is what the refusal is about."""
    reading, writing = os.pipe()
    with step("id-range", argv[0]):
        pid = os.posix_spawn(argv[0], argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 2)])
    os.close(writing)
    with open(reading, errors="replace") as stream:
        said = stream.read().strip()
    if exit_status(os.waitpid(pid, 0)[1]):
        raise Refusal("id-range", errno.EPERM, said or argv[0])


def become_plain_root() -> None:
    with step("id-map", "setresuid"):
        with suppress(PermissionError):  # the user namespace this root lives in may deny it
            os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def remove(top: str) -> None:
    """Remove a directory and all below it; root of the user namespace may, whoever of it they belong to."""
    with step("remove", top):
        for directory, folders, files in os.walk(top, topdown=False, onerror=raise_error):
            for name in files:
                os.unlink(os.path.join(directory, name))
            for name in folders:
                path = os.path.join(directory, name)
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    os.rmdir(path)
        os.rmdir(top)


def raise_error(error: OSError) -> NoReturn:
    raise error


def configure_network() -> None:
    """Loopback up: the only interface there is (netdevice(7))."""
    with step("loopback"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def build_root(root: str, mounts: list[Orders], *, writable: bool) -> None:
    """Mount everything below `root`, then make it the only file system there is."""
    with step("private"):
        mount(None, "/", None, MS_REC | MS_PRIVATE)
    with step("root", root):
        mount(root, root, None, MS_BIND | MS_REC)
        restrict(root, (0 if writable else MS_RDONLY) | MS_NOSUID | MS_NODEV)
    for order in mounts:
        place(root, order)
    with step("pivot", root):
        os.chdir(root)
        check(LIBC.pivot_root(b".", b"."))  # the old root now lies on the new one: pivot_root(2), NOTES
        check(LIBC.umount2(b".", MNT_DETACH))
        os.chdir("/")


def place(root: str, order: Orders) -> None:
    target, source = root + order["target"], order.get("source", "")
    if order["kind"] == "readonly" and not os.path.lexists(target):
        return
    if order.get("optional") and not os.path.exists(source):
        return
    with step("mount-point", order["target"]):
        prepare_point(target, order)
    with step("mount", f"{source} at {order['target']}" if source else order["target"]):
        PLACERS[order["kind"]](target, order)


def prepare_point(target: str, order: Orders) -> None:
    """Make the mount point if it lies on our tmpfs; it must be no link, which would lead out of the new root."""
    if order["kind"] == "symlink":
        return
    if order["make"]:
        if order["kind"] == "bindmount" and not os.path.isdir(order["source"]):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        else:
            os.makedirs(target, exist_ok=True)
    if os.path.realpath(target) != target:
        raise OSError(errno.ELOOP, "the mount point is a symbolic link")
    os.lstat(target)


def place_bind(target: str, order: Orders) -> None:
    mount(order["source"], target, None, MS_BIND | MS_REC)
    read_only = 0 if order["writable"] else MS_RDONLY
    restrict(target, read_only | MS_NOSUID | (0 if order["device"] else MS_NODEV))


def place_read_only(target: str, _: Orders) -> None:
    mount(target, target, None, MS_BIND | MS_REC)
    restrict(target, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def place_tmpfs(target: str, order: Orders) -> None:
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={order['mode']:o}")


def place_proc(target: str, _: Orders) -> None:
    mount("proc", target, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def place_devpts(target: str, _: Orders) -> None:
    mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def place_symlink(target: str, order: Orders) -> None:
    os.symlink(order["link"], target)


PLACERS: dict[str, Callable[[str, Orders], None]] = {
    "bindmount": place_bind,
    "readonly": place_read_only,
    "tmpfs": place_tmpfs,
    "proc": place_proc,
    "devpts": place_devpts,
    "symlink": place_symlink,
}


def restrict(target: str, flags: int) -> None:
    """Add mount flags to the bind at `target` and to every mount that came along below it."""
    for point in mount_points(target):
        kept = os.statvfs(point).f_flag
        locked = sum(flag for seen, flag in LOCKED_FLAGS.items() if kept & seen)
        mount(None, point, None, MS_REMOUNT | MS_BIND | locked | flags)


def mount_points(target: str) -> list[str]:
    """The mount points at and below `target` (proc_pid_mountinfo(5), field 5, with its octal escapes)."""
    wanted = os.fsencode(target)
    with open("/proc/self/mountinfo", "rb") as stream:
        escaped = {line.split(b" ")[4] for line in stream}
    points = (text.decode("unicode_escape").encode("latin-1") for text in escaped)
    return sorted(os.fsdecode(point) for point in points if point == wanted or point.startswith(wanted + b"/"))


def execute(orders: Orders) -> NoReturn:
    """Become the command: session, limits, capabilities and working directory of its own, then exec."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    set_limits()
    drop_capabilities()
    with step("no-new-privileges"):
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    with step("cwd", orders["cwd"]):
        os.chdir(orders["cwd"])
    with step("exec", orders["argv"][0]):
        execute_from_path(orders["argv"], orders["environment"])


def execute_from_path(argv: list[str], environment: dict[str, str]) -> NoReturn:
    """As execvp(3): a directory of PATH without the program is passed over, one that may not be used is remembered."""
    name, refusal = argv[0], OSError(errno.ENOENT, "not found")
    directories = [""] if "/" in name else environment.get("PATH", "/usr/bin:/bin").split(":")
    for directory in directories:
        try:
            os.execve(os.path.join(directory, name), argv, environment)  # noqa: S606 - what this program is for
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refusal = error
    raise refusal


def set_limits() -> None:
    """No core files in a build; and few descriptors: Python 2.7 closes every one it might have, at each start."""
    for limit, wanted in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 4096)):
        soft, hard = resource.getrlimit(limit)
        if soft == resource.RLIM_INFINITY or soft > wanted:
            resource.setrlimit(limit, (wanted, hard))


def drop_capabilities() -> None:
    with step("capabilities"):
        check(LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        for capability in set(range(LAST_CAPABILITY + 1)) - KEPT_CAPABILITIES:
            try:
                prctl(PR_CAPBSET_DROP, capability)
            except OSError as error:
                if error.errno != errno.EINVAL:  # a capability this kernel does not know
                    raise


if __name__ == "__main__":
    main()
