"""Sandboxes on this kernel: one suite for the real one and its fake, then what only the real one can show.

The root is an empty directory with the host's /usr bound into it, so nothing is downloaded or extracted.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rootfs.errors import BuildError, HostError
from rootfs.ports import Bind, Command, Outcome, Sandbox
from rootfs.sandbox.namespaces import NamespaceSandbox
from tests.conftest import OrdinaryUser
from tests.fakes.sandbox import Played, ScriptedSandbox

REPOSITORY = Path(__file__).parents[2]
USR = Bind(source=Path("/usr"), target="/usr")
Run = Callable[..., tuple[Outcome, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    for name in ("usr", "proc", "dev", "tmp", "etc", "build"):
        (top / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (top / name).symlink_to(f"usr/{name}")
    return top


@pytest.fixture
def command(root: Path, tmp_path: Path) -> Command:
    """A command that does nothing, to be changed by the test."""
    environment = {"PATH": "/usr/bin:/bin"}
    log = tmp_path / "logs/deep/run.log"
    return Command(root=root, argv=("true",), environment=environment, binds=(USR,), log=log)


@pytest.fixture
def real(command: Command) -> Sandbox:
    if platform.system() != "Linux":
        pytest.skip("namespaces are Linux's")
    try:
        NamespaceSandbox().run(command)
    except HostError as error:
        pytest.skip(f"no sandbox on this machine: {error.render()}")
    return NamespaceSandbox()


@pytest.fixture
def run(real: Sandbox, command: Command) -> Run:
    """Run a shell script in the real sandbox: how it ended, and its output."""

    def _run(script: str, **changes: object) -> tuple[Outcome, str]:
        outcome = real.run(replace(command, argv=("sh", "-c", script), **changes))  # type: ignore[arg-type]
        return outcome, outcome.log.read_text(errors="replace")

    return _run


@pytest.fixture(params=["real", "fake"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "fake":
        return ScriptedSandbox(lambda command: Played(output="one\ntwo\nlast", exit=3))
    real: Sandbox = request.getfixturevalue("real")
    return real


TALKS = ("sh", "-c", "echo one; echo two >&2; printf last; exit 3")


def test_output_goes_to_the_log_and_line_by_line_to_the_caller(sandbox: Sandbox, command: Command) -> None:
    lines: list[str] = []
    outcome = sandbox.run(replace(command, argv=TALKS, on_line=lines.append))
    assert outcome.exit == 3
    assert outcome.log == command.log
    assert outcome.seconds >= 0
    assert lines == ["one", "two", "last"]
    assert command.log.read_bytes() == b"one\ntwo\nlast"


def test_a_log_is_begun_anew(sandbox: Sandbox, command: Command) -> None:
    for _ in range(2):
        sandbox.run(replace(command, argv=TALKS))
    assert command.log.read_bytes() == b"one\ntwo\nlast"


def test_what_a_listener_raises_reaches_the_caller(sandbox: Sandbox, command: Command) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sandbox.run(replace(command, argv=TALKS, on_line=stop))


def test_the_program_is_root_of_a_host_of_its_own(run: Run) -> None:
    outcome, text = run("id -u; id -g; hostname; umask; pwd; readlink /proc/self/fd/0; cat /proc/sys/kernel/hostname")
    assert outcome.exit == 0
    assert text.split() == ["0", "0", "ocibuild", "0022", "/", "/dev/null", "ocibuild"]


def test_the_environment_is_complete_and_nothing_of_ours_is_seen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    _, text = run("env; cat /proc/1/environ /proc/self/environ 2>&1; ls /proc/self/fd", environment={"A": "b c"})
    assert "A=b c" in text.splitlines()
    assert "s3cret" not in text
    assert "HOME=" not in text


def test_only_the_sandboxs_processes_are_seen(run: Run) -> None:
    _, text = run("echo $$; ls /proc | grep -c '^[0-9]'")
    shell, seen = text.split()
    assert shell == "2"
    assert int(seen) <= 4


def test_signals_are_at_their_defaults(run: Run) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        _, text = run("grep -E '^Sig(Blk|Ign):' /proc/self/status; kill -INT $$; echo still here")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGINT, before)
    _, blocked, _, ignored = text.split()
    assert int(blocked, 16) == 0
    own = 0b11 << 31  # 32 and 33 are the C library's: it lets nobody set them, and some parents leave 32 ignored
    assert int(ignored, 16) & ~own == 0


def test_death_by_a_signal_is_128_and_its_number(run: Run) -> None:
    assert run("kill -TERM $$")[0].exit == 128 + signal.SIGTERM


def test_there_is_no_network_but_loopback(run: Run) -> None:
    _, text = run("tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/fib_trie | grep -c 'host LOCAL'")
    assert text.split()[0] == "lo"
    assert "eth" not in text
    assert int(text.split()[-1]) >= 1  # 127.0.0.1: the interface is up


def test_the_root_and_plain_binds_are_read_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    binds = (
        USR,
        Bind(source=tmp_path / "out", target="/build", writable=True),
        Bind(source=tmp_path / "in", target="/etc"),
        Bind(source=tmp_path / "in", target="/tmp/made/deep"),
    )
    script = (
        "for d in / /usr /etc /proc/sys /tmp/made/deep /build /tmp /dev/shm; do touch $d/x 2>/dev/null && echo $d; done"
    )
    _, text = run(script, binds=binds, cwd="/build")
    assert text.split() == ["/build", "/tmp", "/dev/shm"]
    assert (tmp_path / "out/x").stat().st_uid == os.getuid()
    assert not (tmp_path / "in/x").exists()


def test_a_writable_root_is_changed_and_its_other_binds_are_not(run: Run, root: Path) -> None:
    _, text = run("touch /etc/new; for d in /usr /proc/sys; do touch $d/x 2>/dev/null && echo $d; done", writable=True)
    assert text == ""
    assert (root / "etc/new").stat().st_uid == os.getuid()


LEAVE = """
    cd /build && mkdir -p others/deep && touch others/deep/file root && ln -s /nowhere link
    chown 65534:42 root && chown -R 42:43 others && chmod -R 0700 others && chmod 4755 root
    stat -c '%u:%g %a' root others/deep; setpriv --reuid=42 --regid=43 --clear-groups cat others/deep/file && echo read
"""


def ranged(real: Sandbox, command: Command, script: str) -> str:
    """Run with a range of ids and a writable root; skip where this user has no range."""
    argv = ("sh", "-eu", "-c", script)
    try:
        outcome = real.run(replace(command, argv=argv, writable=True, ids="range"))
    except HostError as error:
        pytest.skip(f"no range of ids for this user: {error.render()}")
    text = outcome.log.read_text(errors="replace")
    assert outcome.exit == 0, text
    return text


def test_with_a_range_of_ids_files_can_be_anybodys(real: Sandbox, command: Command, root: Path) -> None:
    text = ranged(real, command, f"id -u; id -G; cat /proc/self/setgroups; {LEAVE}")
    assert text.split() == ["0", "0", "allow", "65534:42", "4755", "42:43", "700", "read"]
    real.remove(root)
    assert not root.exists()


def test_removing_what_is_not_there_is_no_trouble(real: Sandbox, tmp_path: Path) -> None:
    real.remove(tmp_path / "nothing")


def test_removing_leaves_what_links_lead_to(real: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "kept")
    real.remove(tmp_path / "top")
    assert (tmp_path / "kept").is_dir()


AS_SOMEBODY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from rootfs.errors import OcibuildError
from rootfs.ports import Bind, Command
from rootfs.sandbox.namespaces import NamespaceSandbox
root = Path("root").absolute()
for name in ("usr", "proc", "dev", "tmp", "build"):
    (root / name).mkdir(parents=True)
for name in ("bin", "lib", "lib64"):
    (root / name).symlink_to(f"usr/{name}")
sandbox = NamespaceSandbox()
try:
    sandbox.run(Command(
        root=root, argv=("sh", "-eu", "-c", sys.argv[2]), environment={"PATH": "/usr/bin:/bin"},
        binds=(Bind(source=Path("/usr"), target="/usr"),), log=Path("log"), on_line=print, writable=True, ids="range"))
    status = (root / "build/others").stat()
    print(status.st_uid > 65535, status.st_gid > 65535, (root / "build").stat().st_uid)
    sandbox.remove(root)
    print("there" if root.exists() else "gone")
except OcibuildError as error:
    print(error.exit_code, error.render())
"""


@pytest.mark.peer
def test_an_ordinary_user_has_the_ids_of_etc_subuid(
    ordinary_user: OrdinaryUser, ordinary_clone: Path, ordinary_python: Path
) -> None:
    place = ordinary_user.home / "range"
    place.mkdir()
    os.chown(place, ordinary_user.uid, ordinary_user.gid)
    answer = ordinary_user.run([ordinary_python, "-c", AS_SOMEBODY, ordinary_clone, LEAVE], cwd=place)
    if answer.stdout.startswith("7 "):
        pytest.skip(f"no range of ids for {ordinary_user.name}: {answer.stdout}")
    assert answer.stdout.split() == (
        ["65534:42", "4755", "42:43", "700", "read", "True", "True", str(ordinary_user.uid), "gone"]
    ), answer.stderr


@pytest.mark.peer
def test_setuid_programs_without_effect_are_named(
    ordinary_user: OrdinaryUser, ordinary_clone: Path, ordinary_python: Path, peer: Callable[[str], str]
) -> None:
    """As in a container that was started with --security-opt no-new-privileges."""
    place = ordinary_user.home / "no-new-privileges"
    place.mkdir()
    os.chown(place, ordinary_user.uid, ordinary_user.gid)
    program = [ordinary_python, "-c", AS_SOMEBODY, ordinary_clone, LEAVE]
    answer = ordinary_user.run([peer("setpriv"), "--no-new-privs", *program], cwd=place)
    if "cannot map a range of ids" not in answer.stdout:
        pytest.skip(f"no range of ids for {ordinary_user.name}: {answer.stdout}")
    assert "no_new_privs" in answer.stdout
    assert "hint: start the container without: --security-opt no-new-privileges" in answer.stdout


@pytest.mark.peer
def test_a_root_with_one_id_is_told_so(real: Sandbox, peer: Callable[[str], str], tmp_path: Path) -> None:
    program = [sys.executable, "-c", AS_SOMEBODY, str(REPOSITORY), LEAVE]
    outer = [peer("unshare"), "--user", "--map-root-user", *program]
    (tmp_path / "one").mkdir()
    text = subprocess.run(outer, capture_output=True, text=True, check=True, cwd=tmp_path / "one").stdout
    assert text.startswith("7 error: this root has no range of uids for a sandbox")
    assert "has 1 of 65536 uids" in text


def test_the_mount_below_a_bind_is_read_only_too(run: Run, tmp_path: Path) -> None:
    """/dev/shm is a mount below /dev on nearly every host; a recursive bind must not leave it writable."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no mount at /dev/shm on this host")
    _, text = run("grep ' /etc/shm ' /proc/self/mountinfo", binds=(USR, Bind(source=Path("/dev"), target="/etc")))
    visible = text.splitlines()[-1]  # where mounts are stacked, the last hides the others
    assert visible.split()[5].split(",")[0] == "ro", text  # proc(5): the mount's own options


def test_the_devices_work(run: Run) -> None:
    script = """
        echo gone > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c
        echo x 2>/dev/null > /dev/full || echo full
        stat -c '%a %F' -L /dev/ptmx /dev/shm /tmp; echo to-fd > /dev/stderr; ls /dev/pts
    """
    _, text = run(script)
    lines = text.splitlines()
    assert lines[:3] == ["4", "4", "full"]
    assert lines[3:6] == ["666 character special file", "1777 directory", "1777 directory"]
    assert lines[6:] == ["to-fd", "ptmx"]


def test_a_pseudo_terminal_can_be_had(run: Run) -> None:
    if shutil.which("python3", path="/usr/bin") is None:
        pytest.skip("no /usr/bin/python3 on this host")
    outcome, text = run("python3 -c 'import os, pty; print(os.ttyname(pty.openpty()[1]))'")
    assert (outcome.exit, text) == (0, "/dev/pts/0\n")


def test_no_capability_over_the_kernel_and_no_new_privileges(run: Run) -> None:
    _, text = run("grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status | cut -f2")
    effective, bounding, no_new = text.split()
    assert effective == bounding
    cap_sys_admin, cap_mknod, cap_sys_ptrace, cap_chown = 21, 27, 19, 0
    assert not int(effective, 16) & (1 << cap_sys_admin | 1 << cap_mknod | 1 << cap_sys_ptrace)
    assert int(effective, 16) & 1 << cap_chown
    assert no_new == "1"


def test_orphans_are_reaped_and_die_with_the_command(run: Run) -> None:
    started = time.monotonic()
    outcome, text = run("(sleep 0.1 &) ; (setsid sleep 60 &); sleep 0.4; ps -o stat= -e 2>/dev/null | grep -c Z; true")
    assert outcome.exit == 0
    assert text.split() in (["0"], [])
    assert time.monotonic() - started < 20


@pytest.mark.peer
def test_flags_the_host_locked_stay(real: Sandbox, driver: Callable[[str], list[str]], tmp_path: Path) -> None:
    """A remount that forgets noexec is refused: mount_namespaces(7), "Restrictions on mount namespaces"."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    (tmp_path / "locked").mkdir()
    mount = f'mount -t tmpfs -o nosuid,nodev,noexec,noatime none {tmp_path}/locked && exec "$@"'
    inner = [*driver("grep ' /etc ' /proc/mounts"), str(tmp_path / "locked")]
    outer = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *inner]
    text = subprocess.run(outer, capture_output=True, text=True, check=True).stdout
    assert text.startswith("none /etc tmpfs ro,nosuid,nodev,noexec,noatime")


def _alive(mark: str) -> bool:
    found = subprocess.run(["pgrep", "-f", mark], capture_output=True, check=False)
    return found.returncode == 0


def _gone(mark: str) -> bool:
    deadline = time.monotonic() + 5
    while _alive(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _alive(mark)


def test_an_interrupted_run_leaves_nothing_behind(real: Sandbox, command: Command) -> None:
    mark = f"sleep 6{os.getpid()}"

    def stop(_: str) -> None:
        assert _alive(mark)
        raise KeyboardInterrupt

    script = f"(setsid {mark} &); sleep 0.3; echo go; {mark}"
    with pytest.raises(KeyboardInterrupt):
        real.run(replace(command, argv=("sh", "-c", script), on_line=stop))
    assert _gone(mark)


@pytest.fixture
def driver(root: Path, tmp_path: Path) -> Callable[[str], list[str]]:
    """The argument vector of a program that runs one shell script in a sandbox and prints what came of it.

    What follows the script is a directory to show at /etc.
    """
    program = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from rootfs.errors import OcibuildError
from rootfs.ports import Bind, Command
from rootfs.sandbox.namespaces import NamespaceSandbox
binds = [Bind(source=Path("/usr"), target="/usr"), *(Bind(source=Path(p), target="/etc") for p in sys.argv[2:])]
try:
    outcome = NamespaceSandbox().run(Command(
        root=Path({str(root)!r}), argv=("sh", "-c", sys.argv[1]), environment={{"PATH": "/usr/bin:/bin"}},
        binds=tuple(binds), log=Path({str(tmp_path / "driver.log")!r}), on_line=print))
    print("exit", outcome.exit)
except OcibuildError as error:
    print(error.exit_code, error.render())
"""
    return lambda script: [sys.executable, "-c", program, script]


def test_a_killed_parent_takes_the_sandbox_with_it(real: Sandbox, driver: Callable[[str], list[str]]) -> None:
    mark = f"sleep 7{os.getpid()}"
    with subprocess.Popen(driver(f"echo go; {mark}; true"), stdout=subprocess.DEVNULL) as parent:
        try:
            deadline = time.monotonic() + 10
            while not _alive(f"^{mark}") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert _alive(f"^{mark}")
        finally:
            parent.kill()
    assert _gone(f"^{mark}")


def _without_user_namespaces(*then: str) -> list[str]:
    """The truth of a machine with user namespaces off: user.max_user_namespaces counts in each user namespace."""
    for peer in ("unshare", "setpriv"):
        if shutil.which(peer) is None:
            pytest.skip(f"{peer} is not installed")
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *then]


@pytest.mark.peer
def test_namespaces_switched_off_are_named_with_the_fix(real: Sandbox, driver: Callable[[str], list[str]]) -> None:
    weak = _without_user_namespaces("setpriv", "--bounding-set=-all", "--inh-caps=-all", *driver("true"))
    text = subprocess.run(weak, capture_output=True, text=True, check=True).stdout
    assert text.startswith(f"{HostError.exit_code} error: cannot make the namespaces of a sandbox")
    assert "user.max_user_namespaces is 0" in text
    assert "hint: sudo sysctl -w user.max_user_namespaces=15000" in text


@pytest.mark.peer
def test_who_is_root_needs_no_user_namespace(real: Sandbox, driver: Callable[[str], list[str]]) -> None:
    root_still = _without_user_namespaces(*driver("id -u; hostname; touch /x 2>/dev/null || echo read-only"))
    text = subprocess.run(root_still, capture_output=True, text=True, check=True).stdout
    assert text.split() == ["0", "ocibuild", "read-only", "exit", "0"]


@pytest.mark.peer
def test_a_sandbox_with_covered_proc_says_so(real: Sandbox, driver: Callable[[str], list[str]]) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    masked = 'mount -t tmpfs none /proc/fs && exec "$@"'
    outer = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    container = [*outer, "sh", "-c", masked, "sh", *driver("true")]
    text = subprocess.run(container, capture_output=True, text=True, check=True).stdout
    assert text.startswith("7 error: cannot mount inside the sandbox: /proc")
    assert "/proc/fs" in text
    assert "unmask=ALL" in text


def test_a_command_that_is_not_there(real: Sandbox, command: Command) -> None:
    with pytest.raises(BuildError, match="nonesuch") as caught:
        real.run(replace(command, argv=("nonesuch",)))
    assert "No such file" in (caught.value.because or "")


def test_a_working_directory_that_is_not_there(real: Sandbox, command: Command) -> None:
    with pytest.raises(BuildError, match="/nowhere"):
        real.run(replace(command, cwd="/nowhere"))


@pytest.mark.parametrize(
    ("bind", "because"),
    [
        (Bind(source=Path("/usr"), target="/missing"), "the directory is missing"),
        (Bind(source=Path("/usr"), target="/lib/x"), "symbolic link"),
        (Bind(source=Path("/nowhere"), target="/etc"), "No such file or directory"),
    ],
)
def test_a_bind_that_cannot_be(real: Sandbox, command: Command, bind: Bind, because: str) -> None:
    with pytest.raises(HostError, match="mount") as caught:
        real.run(replace(command, binds=(USR, bind)))
    assert because in (caught.value.because or "")
    assert bind.target in caught.value.message


@pytest.mark.parametrize("name", ["proc", "dev", "tmp"])
def test_a_root_without_its_mount_points(real: Sandbox, command: Command, root: Path, name: str) -> None:
    (root / name).rmdir()
    with pytest.raises(HostError, match=f"/{name}"):
        real.run(command)


def test_a_log_that_cannot_be_written(real: Sandbox, command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError) as caught:
        real.run(replace(command, log=tmp_path / "file/run.log"))
    assert caught.value.at == str(tmp_path / "file/run.log")


def test_names_that_are_not_utf8_and_long_environments_pass(run: Run) -> None:
    odd = os.fsdecode(b"\xff\xe9")
    long = {f"V{number}": "x" * 1000 for number in range(200)}
    _, text = run('printf %s "$ODD" | od -An -tx1; echo ${#V199}', environment={"PATH": "/usr/bin", "ODD": odd, **long})
    assert text.split() == ["ff", "e9", "1000"]


def test_two_sandboxes_share_a_root_at_once(driver: Callable[[str], list[str]], real: Sandbox) -> None:
    both = [subprocess.Popen(driver("sleep 0.3; hostname"), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].split() for process in both] == [["ocibuild", "exit", "0"]] * 2
