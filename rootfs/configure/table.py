"""The table: which maintainer scripts are known, and what stands for each of them.

Law: data only. A row is the sha256 of a script's hand-written part (`rootfs.configure.script`) and its effects on a
first installation in a tree where no service runs: a handler, a diversion, or nothing and why. Digests are Debian 13's
(trixie and its updates); several rows for one script are its versions or its architectures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rootfs.configure.accounts import hide_passwords
from rootfs.configure.alternatives import install, register
from rootfs.configure.basefiles import lay_out
from rootfs.configure.certificates import trust
from rootfs.configure.files import copy, link, make_directory, touch, write
from rootfs.configure.ldsocache import write_cache
from rootfs.configure.pam import enable_profiles
from rootfs.configure.root import Handler
from rootfs.configure.shells import list_shells
from rootfs.debian.dpkg import Diversion


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """A script that does nothing to a new tree, and why."""

    because: str


Effect = Handler | Diversion | Nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A known script."""

    kind: str
    sha256: str
    effects: tuple[Effect, ...]


def _preinst(sha256: str, *effects: Effect) -> Row:
    return Row(kind="preinst", sha256=sha256, effects=effects)


def _postinst(sha256: str, *effects: Effect) -> Row:
    return Row(kind="postinst", sha256=sha256, effects=effects)


def _links(*names: str) -> tuple[Diversion, ...]:
    """base-files: protective diversions of links at the top that are not there (DEP 17, M4)."""
    return tuple(Diversion(path=f"/{name}", to=f"/.{name}.usr-is-merged", by="base-files") for name in names)


def _loader(path: str) -> Diversion:
    """libc6: protective diversion of the dynamic loader (DEP 17, M8)."""
    return Diversion(path=path, to=f"{path}.usr-is-merged", by="libc6")


def _readline(triplet: str) -> tuple[Diversion, ...]:
    """libreadline8t64: protective diversions of its libraries below /lib (DEP 17, P1)."""
    names = ("libhistory.so.8", "libhistory.so.8.2", "libreadline.so.8", "libreadline.so.8.2")
    paths = (f"/lib/{triplet}/{name}" for name in names)
    return tuple(Diversion(path=path, to=f"{path}.usr-is-merged", by="libreadline8t64") for path in paths)


def _lzma() -> str:
    """xz-utils: the one call its script puts together with a shell function."""
    names = {"lzma.1.gz": "xz.1.gz", "unlzma": "unxz", "unlzma.1.gz": "unxz.1.gz"}
    for tool in ("cat", "more", "less", "diff", "cmp", "grep", "egrep", "fgrep"):
        names |= {f"lz{tool}": f"xz{tool}", f"lz{tool}.1.gz": f"xz{tool}.1.gz"}
    places = {name: "/usr/share/man/man1" if name.endswith(".gz") else "/usr/bin" for name in names}
    slaves = (f"--slave {places[name]}/{name} {name} {places[name]}/{target}" for name, target in names.items())
    return " ".join(("--install /usr/bin/lzma lzma /usr/bin/xz 20", *slaves))


_FONTS = "/usr/share/fontconfig/conf.avail"
_UPGRADES = Nothing(because="it only mends what earlier versions left")
_RESTARTS = Nothing(because="it only restarts services after an upgrade")
_LIB64 = _links("lib32", "libo32", "libx32")
_NO_LIB64 = _links("lib32", "lib64", "libo32", "libx32")

# By package, in the order the handlers run: accounts and directories come first.
TABLE: Mapping[str, tuple[Row, ...]] = {
    "base-passwd": (
        _preinst("47f6f8ee55faa32f7ff23337772c05bfcc7c01aa0804e1ffeffd71ebff0e21b9", write("etc/passwd", "etc/group")),
        _postinst(
            "1cff0ea9b8dd12bcb4f6da505bdbd225c905df423f89f4a1be871667ab40c7c6", touch("etc/subuid"), touch("etc/subgid")
        ),
    ),
    "base-files": (
        _preinst("ea7cc8bb5d68c608ed80b05fe92ab146cd5ae33337e9357ed0b9e996c67e0226", *_LIB64),  # amd64
        _preinst("2b01c7a469417606a21eb6e49092bb9253d2400d974ef2c1fd20647aace9b728", *_LIB64),  # ppc64el
        _preinst("1aef19a7963d60cd61baf9626384877758c2dc04eaaa6070ffaf532785d50007", *_NO_LIB64),  # arm64
        _preinst("7dae1eca3e23e4b75129f8eab031f696922525b8f6e81f02e4a95ba322f2e84c", *_NO_LIB64),  # armhf
        _preinst("845de83f478fbb1aee72dbe9359b1f3bf89bb89455866519a7e540df9eea43ad", *_NO_LIB64),  # riscv64
        _preinst("2056590c30fe81bf58c437e260b5acb0e7683c5325ea9298f5ba52b647ed1941", *_NO_LIB64),  # s390x
        _postinst("c713b49b015d06e1bc3350a7c49b08fe234db40fa21ee73a1bc9bbd0abb3d4a0", lay_out),
        _postinst("287eee1a814311b397cd7047879b6dbe69368831f868f8ba5636f3819a3ac533", lay_out),  # without /lib64
    ),
    "adduser": (_preinst("2fb0d60b0f468278d8e04918c287177bb5bd024fe5e504b70ca2cb5536e19ee9", _UPGRADES),),
    "apt": (
        _postinst(
            "92b7de7234450bd31f9fdec8b93dbae7a794d0e4760fd10c8e1780a3bc991e1f",
            Nothing(because="the user _apt is in base-passwd's list"),
        ),
    ),
    "bash": (_postinst("654942f4ecb648f1ab24519ffc05dacdd867a48d0a0f1318f042e760aab248c8", register),),
    "binutils": (_preinst("296be23f9c41deb5114c6fba7a03cc9ba8358a667ed3f3dd858f1f2ab5480394", _UPGRADES),),
    "ca-certificates": (_postinst("f4434729a611744cbe39e2c20675d50bcbb88a766922e2d5b3d1edc9c8cda930", trust),),
    "cpp": (_postinst("a770ebfee17ea2ea85b9a9af2ae133a971233983fca0ebf6709f71196af2742d", register),),
    "dash": (
        _preinst("07dfa54d9a3f59a86e1e04705ceaa2596a05fc00a08bb964792dc8e8dc517108", _UPGRADES),
        _postinst("e6163a439aed801c26e9eb9a532ed2be504b247c86e55cdab0867eccf013dc01", _UPGRADES),
    ),
    "debconf": (
        _postinst(
            "5a2e9dd3174db7116b8baca7479df372bc898a04cf9136ebefca3c98de959f3c",
            Nothing(because="debconf makes its database when it is first asked"),
        ),
    ),
    "debian-archive-keyring": (
        _postinst("46f1303e7929a944049ca420b2d715ea30443593c1e615ce5587183edae7f846", _UPGRADES),
    ),
    "debianutils": (
        _postinst("fc16074692705c688f666132c5dcd98a866f176e4e367dee2e40475a9702c504", list_shells, register),
    ),
    "dpkg": (
        _postinst(
            "869d32504f705fd0fe09fd397463dcac8e3202b99f15c1891d378f141ed59dd6",
            Nothing(because="the native architecture is written with the database"),
        ),
    ),
    "fontconfig-config": (
        _postinst(
            "d734ac83d53a323cd45e24a2f472fa2d146cc23bf46b61c400107aeb43150c35",
            link("etc/fonts/conf.d/10-hinting-slight.conf", f"{_FONTS}/10-hinting-slight.conf"),
            link("etc/fonts/conf.d/10-sub-pixel-none.conf", f"{_FONTS}/10-sub-pixel-none.conf"),
            link("etc/fonts/conf.d/70-no-bitmaps-except-emoji.conf", f"{_FONTS}/70-no-bitmaps-except-emoji.conf"),
            make_directory("usr/local/share/fonts"),
        ),
    ),
    "g++": (_postinst("3f30a71243d28a15290c94c67305fd2ca6ab8482a4e376ad46c756c9338ec830", register),),
    "gawk": (_postinst("cc70104cc843e726f8243523e48a003d527e7d706b226fe05ee7b8ec7f280374", register),),
    "git": (_preinst("18fbd42dab43f8f46838fa55b85d00361d8b6cd20eca7a42bca6399ced65790e", _UPGRADES),),
    "gcc": (_postinst("18bb49fb1cc9cf342c531baf05991d8c6f4c445ad980a2bd757154912055d16d", register),),
    "gzip": (
        _preinst("0d2afd42bca4a2447407a47ee568032957e13c0d3fce6b022f99b1ea47325189", _UPGRADES),
        _postinst("9cd5648a3e5d1cff7ceb555720a8fd3d069429e833c959691ec429c993712ea6", _UPGRADES),
    ),
    "init-system-helpers": (_postinst("f29faab4016476fba44a06c13f8a3f8e83fee0b4d193e3b623ba52ba61432c20", _UPGRADES),),
    "less": (
        _preinst("c72b2f152d56cae58b8f39efe22e6f0d85d676c4ac3060f40cfe0c463f1f8d94", _UPGRADES),
        _postinst("a33a1e6ef5a22e63a66e42853fc0bcff3107b4653d7b5cea891354a5f28db6c4", register),
    ),
    "libc-bin": (
        _postinst(
            "444f5bf78e9a98050a99a8f1648ba1601e085dac020d9aacff353755223d33cc",
            copy("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
            write_cache,
        ),
    ),
    "libc6": (
        _preinst(
            "964a417b9c330f80213fe8aebb1f44eaea307203962aecb0de493742583bb454",
            _loader("/lib64/ld-linux-x86-64.so.2"),
        ),
        _preinst(
            "47f047126448416b1f94d48a9bb9c26d39b7806c3a1aedbd3f24ccbc64b45eb6", _loader("/lib/ld-linux-aarch64.so.1")
        ),
        _preinst(
            "1f0082fa7dfdc121b80c04da9fbb2dd438aa54e8f50338c8a8b4e92909b73bc2", _loader("/lib/ld-linux-armhf.so.3")
        ),
        _preinst("30b23884e5bcc7955926dee81e8c0b094b7c0ef6522b8bf98c3ad6b92275bcd4", _loader("/lib64/ld64.so.2")),
        _preinst(
            "1edf1cba43b88829a5497b00a235fc4765c8807633101185864b3940717ed6bf",
            _loader("/lib/ld-linux-riscv64-lp64d.so.1"),
        ),
        _preinst("e7f9b34511ede9947ab4f8973702be746879148646756814092df28ade802130", _loader("/lib/ld64.so.1")),
        _postinst("ff2a3a7a0e74ceac331ca5ad22e7ef57c974a7b891a9b1e7f3def4377ec6f1b5", _RESTARTS),
    ),
    "libgcrypt20": (
        _postinst("006aa63c9f8dc487c0f353e706b61e79b027e80c78c2372effbe2bb245cbd449", _UPGRADES),
        _postinst("0363811b9448fbb67b52589c2e948e4ccc459f8dcce379f2983730ef4e4aae5d", _UPGRADES),
        _postinst("ece905ed128da0bf5abccffa8626db2815f319f19f9d8c40c14c0bc03486994c", _UPGRADES),
        _postinst("88aae954710f4c90338702cb271f193db4805b1ef46e7050ec456a680996727b", _UPGRADES),
        _postinst("15c2ff25b4bbc3f8c82b45626d852560ce00ea193bf814f9b421f4c0b69fd1d8", _UPGRADES),
        _postinst("01ca6053c9a9bc57aee1446291ee2dd96630a79258ed626c711e512d710319ce", _UPGRADES),
    ),
    "libgssapi-krb5-2": (_postinst("e4281cab5316aa28177447f8c8c5ee6e17cfdcad3edca77c81fc77670fe0a5f4", _UPGRADES),),
    "libpam-modules": (
        _preinst("32abddebe2587d7b9cd8c0fca3eec38ff2d60122c73bc1012fb26d2c907fcc21", _UPGRADES),
        _postinst(
            "47e96136d7eebf7844ae582562c8c232537938918fce72e66b398fb5bb1f484e",
            touch("etc/security/opasswd", 0o600),
            touch("etc/environment"),
        ),
    ),
    "libpam-runtime": (_postinst("a8d9474d7fcc3848b4f7129756b44b56c06a52919a75180744e8fe7f5965f8c6", enable_profiles),),
    "libpam0g": (_postinst("757bcd69c0f941a21d5a6aaccf1e74f651114563b69d80b44318edeee2ede30c", _RESTARTS),),
    "libreadline8t64": (
        _preinst("3e80595cce09408210cd772572b7ebcfba3d04f21a882bd6863b9eac27eba75b", *_readline("x86_64-linux-gnu")),
        _preinst("fea700302799cebcee124ff0b506f9dd261c19fe0284adeea681ec5d8cbed631", *_readline("aarch64-linux-gnu")),
        _preinst("67adc9ffc8c40b2e3fcaef3ad5162f1f15309e59d37f8bfd046d2c13d62f2d39", *_readline("arm-linux-gnueabihf")),
        _preinst(
            "c1480c03fe3794927f3a5b428c6af1e553bf835b741597ccbff98dbf2dc31515", *_readline("powerpc64le-linux-gnu")
        ),
        _preinst("6d071afc3fbc9e126960a0ed1eb1c92b9c64a19f833460feca91752821d33817", *_readline("riscv64-linux-gnu")),
        _preinst("83b063ae61551836eed41bb1f3f2d412cfcc7a8d323a97db85c3a19daccf9417", *_readline("s390x-linux-gnu")),
    ),
    "libselinux1": (_postinst("907f02eca98a8670cf5408e49fd300229c1cc094182d86a80aa30c6d89980c16", _UPGRADES),),
    "login.defs": (_postinst("0e4eb25077959beed0e499d3da8009986be8f7f84444a55acf88f1234d900aa2", _UPGRADES),),
    "nano": (_postinst("eaed072f41cc3327990e54d769dc670b3f6781297a6c52aa9787ee391dd4b3dc", register),),
    "netbase": (
        _postinst(
            "23143d94b4b923b00d9222cc871f10df0fdbb3f0c17d06a10e18e1bd51a4d3fd", write("etc/hosts", "etc/networks")
        ),
    ),
    "openssl": (
        _postinst(
            "037e00b519c9493ab60b6e1f47c0645a8013cfa40c95c29c2f16f8433af12075",
            Nothing(because="/usr/lib/ssl is in the package"),
        ),
    ),
    "passwd": (_postinst("de89411200d9642f9fd647a4badf421bd88b457a1e6de45eadb8f9776490e4ac", hide_passwords),),
    "perl": (_postinst("cebad2b86e1823e6c3cc40d3eae6e4a4dad67177b7c3a47bb5b1fa7df3ba4337", _UPGRADES),),
    "pkgconf": (_preinst("308d356c67c2134065b5e14caf6192d49491dc568e26baecba02d60bc06dd0bc", _UPGRADES),),
    "pkgconf-bin": (
        _postinst(
            "c2367d7a69e3c2bdcd0d82394c643799b45370683d4d1b6ae66008bc1aa7a6ab", make_directory("usr/lib/pkgconfig")
        ),
    ),
    "procps": (
        _postinst(
            "4ccbee334d2381cc1db0b6556e42df8a9d53a120e76d9d76b2f424c10742165c",
            Nothing(because="it only applies sysctls when a file in /usr/lib/sysctl.d changes"),
        ),
    ),
    "readline-common": (
        _postinst(
            "f126e393580cc34ad42848e10d3dd8d8ce7007fc03d96e028023a161271bec21",
            copy("usr/share/readline/inputrc", "etc/inputrc"),
        ),
    ),
    "tar": (_postinst("753c4f5430264bb4204a71372ea8c8537b354ff045c150f058edc921492c0a76", register),),
    "tcl": (_preinst("8c8541d748768f2f0626957fa74cd4ac90063138b1424fac65a4c5821975498f", _UPGRADES),),
    "tk": (_preinst("1518d84287726502fdd8a02e6c65f66cf1cec7d8e31c923f6e74dcbf582ea250", _UPGRADES),),
    "tzdata": (
        _postinst(
            "555ed6cfc95b70d0e209ffcbfbcef31670cf50bea5e9ff686f6f9c456acb0f46",
            link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
        ),
    ),
    "util-linux": (_postinst("1ee26d95a0a741024a36c1ab0f308c4c8b3619e07fe6679482e936b7a9eb5d6b", register),),
    "x11-common": (
        _postinst(
            "0027cf2d262f50a1eb7efd2b55c780e55629249752d82309f3c1e6b1e84bee3d",
            Nothing(because="it only purges what earlier versions left in debconf"),
        ),
    ),
    "xz-utils": (_postinst("631a6b0732ab22c0bb3785cc76bd59cb08bb516751b0e0fb742365877076b349", install(_lzma())),),
}
