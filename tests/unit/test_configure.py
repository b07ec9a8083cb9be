"""The handlers, each on a small tree; ldconfig, openssl and update-alternatives as oracles where they are installed."""

from __future__ import annotations

import base64
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.configure import accounts, alternatives, basefiles, certificates, files, ldsocache, pam, shells
from rootfs.configure.elf import read_shared_object
from rootfs.configure.ldsocache import Library
from rootfs.configure.root import Handler, Root
from rootfs.configure.script import TRIPLET, Script
from rootfs.errors import BuildError, HostError
from rootfs.tree import FileEntry, Kind, Slice, Tree, directory, file, symlink
from tests.fakes.store import MemoryStore

EPOCH = 1_700_000_000
AMD64 = Architecture.parse("amd64")


def root_of(*entries: FileEntry, architecture: Architecture = AMD64) -> Root:
    return Root(tree=Tree(entries).with_parents(), store=MemoryStore(), epoch=EPOCH, architecture=architecture)


def run(handler: Handler, *entries: FileEntry, script: str = "") -> dict[str, FileEntry]:
    made = handler(root_of(*entries), Script(package="p", kind="postinst", text=script))
    return {entry.path: entry for entry in made}


def text(entry: FileEntry) -> str:
    assert isinstance(entry.content, bytes)
    return entry.content.decode()


GROUP = file("etc/group", b"root:*:0:\nmail:*:8:\nshadow:*:42:\nutmp:*:43:\n")
PASSWD = file("etc/passwd", b"root:*:0:0:root:/root:/bin/bash\nme:*:1:1::/:/bin/sh\n")


class TestFiles:
    def test_copy_keeps_mode_and_time_and_what_is_there(self) -> None:
        source = FileEntry(path="usr/s", kind=Kind.FILE, mode=0o600, mtime=5, content=b"1")
        made = run(files.copy("usr/s", "etc/t"), source)["etc/t"]
        assert (made.mode, made.mtime, made.content) == (0o600, 5, b"1")
        assert run(files.copy("usr/s", "etc/t"), source, file("etc/t", b"2")) == {}

    def test_write_takes_the_scripts_own_text(self) -> None:
        script = "cat > /etc/a <<EOF\n1\nEOF\ncat > /etc/b <<-EOF\n\t2\nEOF\n"
        made = run(files.write("etc/a", "etc/b"), script=script)
        assert {path: text(entry) for path, entry in made.items()} == {"etc/a": "1\n", "etc/b": "2\n"}

    def test_touch_link_directory(self) -> None:
        assert run(files.touch("x", 0o600))["x"].mode == 0o600
        assert run(files.touch("x"), file("x", b"1")) == {}
        assert run(files.link("x", "y"))["x"].link == "y"
        assert list(run(files.link(f"{TRIPLET}-x", "y"))) == ["x86_64-linux-gnu-x"]
        assert run(files.link_if_missing("x", "y"))["x"].link == "y"
        assert run(files.link_if_missing("bin/x", "y"), symlink("bin", "usr/bin"), file("usr/bin/x", b"")) == {}
        assert run(files.make_directory("x"))["x"].kind is Kind.DIRECTORY
        assert text(run(files.line("x", "Etc/UTC"), file("x", b"1"))["x"]) == "Etc/UTC\n"
        assert text(run(files.native_architecture("x"))["x"]) == "amd64\n"


class TestAccounts:
    def test_shadow(self) -> None:
        made = run(accounts.hide_passwords, GROUP, PASSWD)
        assert text(made["etc/passwd"]).splitlines()[0] == "root:x:0:0:root:/root:/bin/bash"
        assert text(made["etc/group"]).splitlines()[1] == "mail:x:8:"
        assert text(made["etc/shadow"]).splitlines()[1] == "me:*:19675:0:99999:7:::"
        assert text(made["etc/gshadow"]).splitlines()[2] == "shadow:*::"
        assert {(made[path].mode, made[path].gid) for path in ("etc/shadow", "etc/gshadow")} == {(0o640, 42)}

    @pytest.mark.parametrize(("version", "least"), [("1:4.17.4-2", "0"), ("1:4.20.0-1", "")])
    def test_shadow_has_a_least_age_until_it_was_given_up(self, version: str, least: str) -> None:
        script = Script(package="passwd", kind="postinst", text="", version=version)
        made = {entry.path: entry for entry in accounts.hide_passwords(root_of(GROUP, PASSWD), script)}
        assert text(made["etc/shadow"]).splitlines()[1] == f"me:*:19675:{least}:99999:7:::"

    def test_a_system_user_gets_the_first_free_number(self) -> None:
        group = file("etc/group", b"nogroup:*:65534:\n")
        users = file("etc/passwd", b"root:*:0:0:root:/root:/bin/bash\nx:*:100:1::/:/bin/sh\n")
        made = run(accounts.add_system_user("_apt"), group, users)
        assert text(made["etc/passwd"]).splitlines()[2] == "_apt:*:101:65534::/nonexistent:/usr/sbin/nologin"
        assert run(accounts.add_system_user("x"), group, users) == {}


class TestBaseFiles:
    SCRIPT = "  install_local_dir /usr/local/src\n  ensure_file_owner_mode /var/log/btmp root:utmp 660\n"

    def test_owners_and_links(self) -> None:
        made = run(basefiles.lay_out, GROUP, directory("var/run"), directory("media", 0o700), script=self.SCRIPT)
        assert (made["var/mail"].mode, made["var/mail"].gid) == (0o2775, 8)
        assert (made["run/lock"].mode, made["var/run"].link, made["var/lock"].link) == (0o1777, "/run", "/run/lock")
        assert (made["var/log/btmp"].mode, made["var/log/btmp"].gid) == (0o660, 43)
        assert "media" not in made

    def test_what_the_script_does_not_name_is_not_made(self) -> None:
        made = run(basefiles.lay_out, GROUP, script=self.SCRIPT)
        assert {path for path in made if path.startswith(("usr/local/", "var/log/"))} == {
            "usr/local/src",
            "usr/local/man",
            "var/log/btmp",
        }

    def test_links_for_foreign_libraries_only_beside_their_directory(self) -> None:
        made = run(basefiles.lay_out, GROUP, directory("usr/lib32"))
        assert made["lib32"].link == "usr/lib32"
        assert "libx32" not in made

    def test_without_groups_it_says_so(self) -> None:
        with pytest.raises(BuildError, match="not in the tree"):
            run(basefiles.lay_out)


class TestShells:
    def test_every_shell_also_under_its_real_path(self) -> None:
        made = run(
            shells.list_shells,
            file("usr/share/debianutils/shells", b"# valid\n/bin/sh\n"),
            file("usr/share/debianutils/shells.d/zsh", b"/bin/zsh # z\n/bin/sh\n"),
            symlink("bin", "usr/bin"),
        )
        assert text(made["etc/shells"]) == "# valid\n/bin/sh\n/usr/bin/sh\n/bin/zsh \n/usr/bin/zsh \n"
        assert text(made["var/lib/shells.state"]).splitlines()[:2] == ["/bin/sh", "/usr/bin/sh"]

    def test_shells_are_added_once_and_only_to_a_list(self) -> None:
        made = run(shells.add_shells("/bin/sh", "/bin/dash"), file("etc/shells", b"# valid\n/bin/sh"))
        assert text(made["etc/shells"]) == "# valid\n/bin/sh\n/bin/dash\n"
        assert run(shells.add_shells("/bin/dash")) == {}

    def test_usrmerge_puts_those_in_usr_last(self) -> None:
        made = run(shells.shells_in_usr_last, file("etc/shells", b"# valid\n/bin/sh\n/usr/bin/sh\n/bin/dash\n"))
        assert text(made["etc/shells"]) == "# valid\n/bin/sh\n/bin/dash\n/usr/bin/sh\n"


AWK = (
    "update-alternatives --install /usr/bin/awk awk /usr/bin/{0} {1} --slave /usr/share/awk.1 awk.1 /usr/share/{0}.1\n"
)


class TestAlternatives:
    BINARIES = tuple(file(f"usr/{path}", b"") for path in ("bin/mawk", "bin/gawk", "share/gawk.1"))

    def both(self, *calls: tuple[str, int]) -> tuple[Tree, str]:
        tree = Tree(self.BINARIES).with_parents()
        for name, priority in calls:
            root = Root(tree=tree, store=MemoryStore(), epoch=EPOCH, architecture=AMD64)
            script = Script(package=name, kind="postinst", text=AWK.format(name, priority))
            tree = tree.with_entries(alternatives.register(root, script))
        return tree, text(tree["var/lib/dpkg/alternatives/awk"])

    def test_the_higher_priority_wins_in_any_order(self) -> None:
        one, other = self.both(("mawk", 5), ("gawk", 10)), self.both(("gawk", 10), ("mawk", 5))
        assert one[1] == other[1]
        for tree, _ in (one, other):
            assert tree["etc/alternatives/awk"].link == "/usr/bin/gawk"
            assert tree["usr/share/awk.1"].link == "/etc/alternatives/awk.1"

    def test_a_slave_that_is_not_there_has_no_link(self) -> None:
        tree, admin = self.both(("mawk", 5))
        assert "usr/share/awk.1" not in tree
        assert "/usr/share/mawk.1" in admin

    def test_a_real_file_stays(self) -> None:
        made = run(alternatives.register, *self.BINARIES, file("usr/bin/awk", b"mine"), script=AWK.format("mawk", 5))
        assert "usr/bin/awk" not in made

    def test_the_admin_file_is_read_back(self) -> None:
        _, admin = self.both(("mawk", 5), ("gawk", 10))
        assert alternatives.Group.parse("awk", admin.encode()).to_bytes().decode() == admin

    def test_a_call_that_cannot_be_read_stops(self) -> None:
        with pytest.raises(BuildError, match="cannot read"):
            run(alternatives.register, script="update-alternatives --install $a $b\n")

    @pytest.mark.peer
    def test_the_admin_file_is_what_update_alternatives_writes(
        self, tmp_path: Path, peer: Callable[[str], str]
    ) -> None:
        tree = Tree(self.BINARIES).with_parents()
        for entry in tree.values():
            place = tmp_path / entry.path
            place.mkdir() if entry.kind is Kind.DIRECTORY else place.touch()
        for name in ("admin", "links", "log"):
            (tmp_path / name).mkdir()
        for name, priority in (("gawk", 10), ("mawk", 5)):
            words = AWK.format(name, priority).replace(" /", f" {tmp_path}/").split()[1:]
            tool = peer("update-alternatives")
            options = (
                "--quiet",
                "--altdir",
                tmp_path / "links",
                "--admindir",
                tmp_path / "admin",
                "--log",
                "/dev/null",
            )
            subprocess.run([tool, *options, *words], check=True, capture_output=True)
        written = (tmp_path / "admin/awk").read_text().replace(f"{tmp_path}/", "/")
        assert written == self.both(("mawk", 5), ("gawk", 10))[1]


UNIX = b"""Name: Unix authentication
Default: yes
Priority: 256
Auth-Type: Primary
Auth:
	[success=end default=ignore]	pam_unix.so nullok try_first_pass
Auth-Initial:
	[success=end default=ignore]	pam_unix.so nullok
Session-Type: Additional
Session:
	required	pam_unix.so
"""
OTHER = (
    b"Name: O\nDefault: yes\nPriority: 300\nAuth-Type: Primary\nAuth:\n [success=end default=ignore] pam_o.so a  b\n"
)
OFF = b"Name: Off\nDefault: no\nPriority: 900\nAuth-Type: Primary\nAuth:\n required pam_off.so\n"


class TestPam:
    def enable(self, **profiles: bytes) -> dict[str, FileEntry]:
        template = (
            b'# head\n# here are the per-package modules (the "Primary" block)\n$x_primary\n'
            b"# here's the fallback if no module succeeds\n# and here are more per-package modules"
            b' (the "Additional" block)\n$x_additional\n# end of pam-auth-update config\n'
        )
        kinds = ("auth", "account", "password", "session", "session-noninteractive")
        templates = [file(f"usr/share/pam/common-{kind}", template) for kind in kinds]
        return run(
            pam.enable_profiles, *templates, *(file(f"usr/share/pam-configs/{n}", t) for n, t in profiles.items())
        )

    def lines(self, entry: FileEntry) -> list[str]:
        return [line for line in text(entry).splitlines() if not line.startswith("#")]

    def test_one_profile(self) -> None:
        made = self.enable(unix=UNIX)
        assert self.lines(made["etc/pam.d/common-auth"]) == ["auth\t[success=1 default=ignore]\tpam_unix.so nullok"]
        assert self.lines(made["etc/pam.d/common-session-noninteractive"]) == [
            "session\t[default=1]\t\t\tpam_permit.so",
            "session\trequired\tpam_unix.so ",
        ]
        assert text(made["var/lib/pam/session"]).startswith(
            "Module: null\n[default=1]\t\t\tpam_permit.so\nModule: unix\n"
        )

    def test_jumps_count_what_follows_and_only_the_first_is_initial(self) -> None:
        made = self.enable(unix=UNIX, other=OTHER, off=OFF)
        assert self.lines(made["etc/pam.d/common-auth"]) == [
            "auth\t[success=2 default=ignore] pam_o.so a b",
            "auth\t[success=1 default=ignore]\tpam_unix.so nullok try_first_pass",
        ]
        assert text(made["var/lib/pam/seen"]) == "off\nother\nunix\n"

    def test_a_template_without_marks_stops(self) -> None:
        with pytest.raises(BuildError, match="lacks its marks"):
            run(pam.enable_profiles, *(file(f"usr/share/pam/common-{k}", b"x") for k in ("auth",)))


class TestCache:
    def test_development_links_sonames_and_what_is_no_library(self) -> None:
        names = {"libz.so.1", "libz.so", "libz.so.1.3", "libc.so", "README.so", "libz.a"}
        entries = [file(f"usr/lib/{name}", b"no library") for name in names]
        assert list(ldsocache._scan(root_of(*entries), "/usr/lib")) == []

    def test_order_numbers_above_letters_and_newest_first(self) -> None:
        names = [b"libx.so.9", b"libx.so.10", b"libx.so", b"libx-2.so", b"liba.so.1"]
        made = sorted(names, key=ldsocache._loader_order, reverse=True)
        assert made == [b"libx.so.10", b"libx.so.9", b"libx.so", b"libx-2.so", b"liba.so.1"]

    def test_strings_share_their_ends(self) -> None:
        offsets, table = ldsocache._string_table([b"libz.so.1", b"/lib/libz.so.1", b"liby.so.1"])
        assert table.count(b"libz.so.1") == 1
        for string, at in offsets.items():
            assert table[at : table.index(b"\0", at)] == string

    def test_the_older_form_spells_every_text_and_holds_the_least_kernel(self) -> None:
        """The bytes as a whole are held against bullseye's ldconfig by the sweep."""
        libraries = [Library(name=b"libz.so.1", path=b"/lib/libz.so.1", os_version=0x030200)]
        libraries += [Library(name=b"libz.so.2", path=b"/lib/libz.so.2")]
        data = ldsocache.to_old_bytes(libraries, ldsocache.Form.of(AMD64))
        assert struct.unpack_from("<20sIIB", data) == (b"glibc-ld.so.cache1.1", 2, 50, 2)
        entries = [struct.unpack_from("<iIIIQ", data, at) for at in (48, 72)]
        assert [entry[3] for entry in entries] == [0, 0x030200]
        assert [data[entry[1] : data.index(b"\0", entry[1])] for entry in entries] == [b"libz.so.2", b"libz.so.1"]
        assert data.endswith(b"\0libz.so.1\0/lib/libz.so.1\0")

    def test_a_library_says_its_name_and_its_least_kernel(self) -> None:
        architecture = _host()
        libc = Path("/usr/lib") / architecture.triplet / "libc.so.6"
        if not libc.exists():
            pytest.skip(f"this machine has no {libc}")
        shared = read_shared_object(libc.read_bytes(), architecture)
        assert shared is not None
        assert shared.soname == "libc.so.6"
        assert 0x020600 <= shared.os_version < 0x100000

    def test_little_of_a_library_is_read(self) -> None:
        """Wherever it lies; and of one that is cut somewhere nothing is made up."""
        architecture = _host()
        found = Path("/usr/lib") / architecture.triplet / "libc.so.6"
        if not found.exists():
            pytest.skip(f"this machine has no {found}")
        data = found.read_bytes()
        store = MemoryStore()
        blob = store.put([b"before" + data + b"\x7fELF after"]).digest
        root = Root(tree=Tree(), store=store, epoch=EPOCH, architecture=architecture)
        pieces: list[int] = []
        for content in (data, Slice(blob=blob, offset=6, size=len(data))):
            entry = FileEntry(path="libc.so.6", kind=Kind.FILE, content=content)
            with root.reading(entry) as read:
                assert read(len(data) - 2, 9) == data[-2:]
                assert read(len(data) + 5, 9) == b""
                shared = read_shared_object(self._counted(read, pieces), architecture)
            assert shared is not None
            assert shared == read_shared_object(data, architecture)
        assert sum(pieces) < len(data) // 100
        for size in (0, 3, 63, 64, 200, 1000, len(data) // 2):
            cut = read_shared_object(data[:size], architecture)
            assert cut is None or cut == read_shared_object(data, architecture)

    @staticmethod
    def _counted(read: Callable[[int, int], bytes], sizes: list[int]) -> Callable[[int, int], bytes]:
        def counted(at: int, size: int) -> bytes:
            sizes.append(size)
            return read(at, size)

        return counted

    @pytest.mark.peer
    @pytest.mark.skipif(os.geteuid() != 0, reason="ldconfig -r needs root")
    def test_the_bytes_are_ldconfigs(self, tmp_path: Path, peer: Callable[[str], str]) -> None:
        architecture = _host()
        host = Path("/usr/lib") / architecture.triplet
        place = tmp_path / "usr/lib" / architecture.triplet
        place.mkdir(parents=True)
        for source in sorted(host.glob("lib*.so*"))[:150]:
            if source.is_file() and not source.resolve().is_relative_to("/etc"):
                target = source.resolve()
                shutil.copy(target, place / target.name)
                if source.name != target.name:
                    (place / source.name).symlink_to(target.name)
        assert len(self._cache_as_ldconfig_writes_it(tmp_path, peer, architecture)) > 5000

    @pytest.mark.peer
    @pytest.mark.skipif(os.geteuid() != 0, reason="ldconfig -r needs root")
    @pytest.mark.parametrize("used", [True, False])
    def test_the_bytes_are_ldconfigs_with_libraries_for_newer_processors(
        self, tmp_path: Path, peer: Callable[[str], str], *, used: bool
    ) -> None:
        """A library in three levels, one in two directories, one that names the level it needs; an empty level."""
        architecture = _host()
        place = tmp_path / "usr/lib" / architecture.triplet
        other = tmp_path / "usr/local/lib"
        for top in (place, other):
            for level in ("", "x86-64-v3", "x86-64-v2", "zz-empty"):
                (top / "glibc-hwcaps" / level if level else top).mkdir(parents=True, exist_ok=True)
        wanted = {"": (), "glibc-hwcaps/x86-64-v2": (), "glibc-hwcaps/x86-64-v3": ("-Wl,-z,x86-64-v3",)}
        for directory_, options in wanted.items() if used else [("", ())]:
            for name, tops in {"libone.so.1": (place, other), "libtwo.so.2": (place,)}.items():
                for top in tops:
                    self._compile(top / directory_ / name, peer("gcc"), *(options if architecture == AMD64 else ()))
        cache = self._cache_as_ldconfig_writes_it(tmp_path, peer, architecture)
        assert cache.count(b"x86-64-v3/libone") == (2 if used else 0)

    @staticmethod
    def _compile(target: Path, gcc: str, *options: str) -> None:
        argv = [gcc, "-shared", "-nostdlib", f"-Wl,-soname,{target.name}", *options, "-o", target, "-x", "c", "-"]
        subprocess.run(argv, input=b"int one(void) { return 1; }", check=True, capture_output=True)

    @staticmethod
    def _cache_as_ldconfig_writes_it(top: Path, peer: Callable[[str], str], architecture: Architecture) -> bytes:
        """Both caches of the directory, which must be equal."""
        ldconfig = Path(peer("ldconfig")).resolve()
        if ldconfig.read_bytes()[:4] != b"\x7fELF":
            pytest.skip("this machine's ldconfig is a script")
        (top / "lib").symlink_to("usr/lib")
        (top / "etc/ld.so.conf.d").mkdir(parents=True)
        (top / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
        (top / "etc/ld.so.conf.d/a.conf").write_text(f"# c\n/lib/{architecture.triplet}/\n/usr/local/lib\n")
        subprocess.run([ldconfig, "-r", top, "-X"], check=True, capture_output=True)
        (top / "usr/sbin").mkdir()
        shutil.copy(ldconfig, top / "usr/sbin/ldconfig")
        root = root_of(*_tree(top), architecture=architecture)
        (entry,) = ldsocache.write_cache(root, Script(package="libc-bin", kind="postinst", text=""))
        expected = (top / "etc/ld.so.cache").read_bytes()
        assert entry.content == expected
        gone = _library_without_link(top)
        gone.unlink()
        subprocess.run([ldconfig, "-r", top, "-X"], check=True, capture_output=True)
        (top / "usr/sbin/ldconfig").unlink()
        left = root_of(*_tree(top), entry, architecture=architecture)
        renewed = ldsocache.renewed_cache(left)
        assert renewed is not None
        assert renewed.content == (top / "etc/ld.so.cache").read_bytes() != expected
        return expected


def _library_without_link(top: Path) -> Path:
    """A library that no link leads to."""
    links = {path.resolve() for path in top.rglob("*") if path.is_symlink()}
    return next(path for path in sorted(top.rglob("lib*.so.*")) if path.is_file() and path.resolve() not in links)


def _host() -> Architecture:
    try:
        return Architecture.host()
    except HostError as error:
        pytest.skip(error.message)


def _tree(top: Path) -> list[FileEntry]:
    entries = []
    for path in sorted(top.rglob("*")):
        name = path.relative_to(top).as_posix()
        if path.is_symlink():
            entries.append(symlink(name, str(path.readlink())))
        elif path.is_dir():
            entries.append(directory(name))
        else:
            entries.append(file(name, path.read_bytes()))
    return entries


SUBJECTS = (
    "/C=DE/O=Plain Name/CN=Root CA 1",
    "/O=  Two   Blanks  and TAB\t /CN=UPPER lower",
    "/O=T\u00dcRKTRUST \u0130\u015f/CN=\u00c9mile\u00a0X",
    "/description=" + "long " * 60 + "/CN=x",
    "/O=multi+CN=valued+OU=rdn",
    "/emailAddress=CA@Example.ORG/CN=mail",
)


class TestCertificates:
    CONF = "cat > /etc/ca-certificates.conf <<EOF\n# head\nEOF\n"

    def make(self, tmp_path: Path, openssl: str, subject: str, *options: str) -> bytes:
        key, out = tmp_path / "key.pem", tmp_path / "cert.pem"
        argv = [openssl, "req", "-x509", "-utf8", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        argv += ["-keyout", str(key), "-out", str(out), "-subj", subject, "-days", "9", *options]
        subprocess.run(argv, check=True, capture_output=True)
        return out.read_bytes()

    @pytest.mark.peer
    @pytest.mark.parametrize("subject", SUBJECTS)
    @pytest.mark.parametrize("encoding", ["utf8only", "pkix", "default"])
    def test_the_hash_is_openssls(
        self, subject: str, encoding: str, tmp_path: Path, peer: Callable[[str], str]
    ) -> None:
        openssl = peer("openssl")
        config = tmp_path / "c.cnf"
        config.write_text(f"[req]\nstring_mask={encoding}\ndistinguished_name=dn\n[dn]\n")
        extra = ("-multivalue-rdn",) if "multi" in subject else ()
        pem = self.make(tmp_path, openssl, subject, "-config", str(config), *extra)
        argv = [openssl, "x509", "-noout", "-subject_hash"]
        expected = subprocess.run(argv, input=pem, check=True, capture_output=True).stdout.decode().strip()
        der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
        assert f"{certificates.subject_hash(der):08x}" == expected

    @pytest.mark.peer
    def test_one_subject_twice_gets_two_links_and_one_certificate_twice_gets_one(
        self, tmp_path: Path, peer: Callable[[str], str]
    ) -> None:
        openssl = peer("openssl")
        one, two = (self.make(tmp_path, openssl, "/CN=same") for _ in range(2))
        start = "usr/share/ca-certificates/mozilla"
        contents = {"B (x),y z": one, "a": two.rstrip(b"\n"), "c": one}
        entries = [file(f"{start}/{name}.crt", content) for name, content in contents.items()]
        made = run(certificates.trust, *entries, script=self.CONF)
        links = {path.rpartition("/")[2]: entry.link for path, entry in made.items() if entry.kind is Kind.SYMLINK}
        number = next(name for name in links if name.endswith(".0"))[:8]
        assert (links[f"{number}.0"], links[f"{number}.1"]) == ("B_=x=_y_z.pem", "a.pem")
        assert f"{number}.2" not in links
        assert links["a.pem"] == f"/{start}/a.crt"
        assert text(made["etc/ca-certificates.conf"]) == "# head\n" + "".join(
            f"mozilla/{name}.crt\n" for name in contents
        )
        assert made["etc/ssl/certs/ca-certificates.crt"].content == one + two + one

    @pytest.mark.parametrize("body", [b"AAAA", b"MIIB", b"!"])
    def test_what_is_no_certificate_stops_and_is_named(self, body: bytes) -> None:
        pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
        with pytest.raises(BuildError, match="not a certificate") as caught:
            run(certificates.trust, file("usr/share/ca-certificates/x.crt", pem), script=self.CONF)
        assert caught.value.at == "/etc/ssl/certs/x.pem"
