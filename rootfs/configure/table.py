"""The table: which maintainer scripts are known, and what stands for each of them.

Law: data only. A row is the sha256 of a script's hand-written part (`rootfs.configure.script`) and its effects on a
first installation in a tree where no service runs: a handler, a diversion, merged-/usr, or nothing and why. Digests are
those of trixie and its updates, bookworm, bullseye and sid; several rows for one script are its releases, or its
architectures where they differ in more than the triplet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rootfs.configure.accounts import add_system_user, hide_passwords
from rootfs.configure.alternatives import install, register
from rootfs.configure.basefiles import lay_out
from rootfs.configure.certificates import trust
from rootfs.configure.files import (
    copy,
    line,
    link,
    link_if_missing,
    make_directory,
    native_architecture,
    touch,
    write,
)
from rootfs.configure.ldsocache import write_cache, write_old_cache
from rootfs.configure.pam import enable_profiles
from rootfs.configure.root import Handler
from rootfs.configure.script import TRIPLET
from rootfs.configure.shells import add_shells, list_shells, shells_in_usr_last
from rootfs.debian.dpkg import Diversion


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """A script that does nothing to a new tree, and why."""

    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedUsr:
    """The tree is a merged one: /bin and its like are links into /usr before anything is unpacked."""


Effect = Handler | Diversion | MergedUsr | Nothing


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


def _loader(path: str, *sha256: str) -> Iterator[Row]:
    """libc6: protective diversion of an architecture's dynamic loader (DEP 17, M8)."""
    for digest in sha256:
        yield _preinst(digest, Diversion(path=path, to=f"{path}.usr-is-merged", by="libc6"))


def _diverted_by_dash(path: str, to: str) -> Diversion:
    """dash: it holds /bin/sh against bash by diverting it (until bookworm)."""
    return Diversion(path=path, to=to, by="dash")


def _readline() -> tuple[Diversion, ...]:
    """libreadline8t64: protective diversions of its libraries below /lib (DEP 17, P1)."""
    names = ("libhistory.so.8", "libhistory.so.8.2", "libreadline.so.8", "libreadline.so.8.2")
    paths = (f"/lib/{TRIPLET}/{name}" for name in names)
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
_BASH_SH = Nothing(because="dash's /bin/sh is there, and no older bash holds one")
_ASKED = Nothing(because="debconf makes its database when it is first asked")
_CHECKS = Nothing(because="it only checks the kernel and what an upgrade needs")
_RESTARTS = Nothing(because="it only restarts services after an upgrade")
_BINFMT = Nothing(because="there is no update-binfmts to tell of LLVM's bitcode")
_SH = (
    _diverted_by_dash("/bin/sh", "/bin/sh.distrib"),
    _diverted_by_dash("/usr/share/man/man1/sh.1.gz", "/usr/share/man/man1/sh.distrib.1.gz"),
)
_LOGIN = (touch("var/log/faillog"), touch("etc/subuid"), touch("etc/subgid"))
_PAM_FILES = (touch("etc/security/opasswd", 0o600), touch("etc/environment"))
_UTC = link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
_LIB64 = _links("lib32", "libo32", "libx32")
_NO_LIB64 = _links("lib32", "lib64", "libo32", "libx32")

# By package, in the order the handlers run: accounts and directories come first, then what others add to.
TABLE: Mapping[str, tuple[Row, ...]] = {
    "base-passwd": (
        _preinst("47f6f8ee55faa32f7ff23337772c05bfcc7c01aa0804e1ffeffd71ebff0e21b9", write("etc/passwd", "etc/group")),
        _postinst(
            "1cff0ea9b8dd12bcb4f6da505bdbd225c905df423f89f4a1be871667ab40c7c6", touch("etc/subuid"), touch("etc/subgid")
        ),
        _postinst("c372532e5cba8abf8fd60fba244ddb537fef4807ce0624698dafb4d21866710c", _UPGRADES),  # bookworm
        _preinst("e531304673c0da593a77da5c18411edc52d64f46c49a20fb6e828dee09b58852", write("etc/passwd", "etc/group")),
        _postinst("6cab1dc39f90b7346c168c4c927e419b0a802393a5dff898e2a6509ee61d79b4", _UPGRADES),
    ),
    "base-files": (
        _preinst("a475b7cc60273be4e08f88d5f230da8d1ca54f8953b42811410bb73fab95844f", *_LIB64),
        _preinst("b92016fd41824e305793d843ecf1b8a5b4607600b5ab78d6764ec7d4ebaf5f14", *_NO_LIB64),
        _postinst("c713b49b015d06e1bc3350a7c49b08fe234db40fa21ee73a1bc9bbd0abb3d4a0", lay_out),
        _postinst("287eee1a814311b397cd7047879b6dbe69368831f868f8ba5636f3819a3ac533", lay_out),  # without /lib64
        _postinst("12ba327647a9900a3f2315128dba4edfb650bde4d83528b4283d769ac14dfeaf", lay_out),  # sid
        _postinst("c0c1525c8ffd6f621065ba34f85230077e9b03547a93bc6ac682faf6d114439b", lay_out),  # sid, without /lib64
        _postinst("9d835f80f3815b5e5f49034027e9126e40d74c725e11cd37d4ae95dc490d209f", lay_out),  # bookworm
        _postinst("642d2dd5915d0662fa69e59a7c5d4b171daf3221482c6121ba70e5c4312b52b2", lay_out),  # bullseye
    ),
    "login": (
        _postinst("783fc571d1379667fbb09d11c491f1b040b3cfdda5e941ea19c3411145d95fa3", *_LOGIN),
        _preinst("6a142b6edab175790f50938977756980c9768d192f4e8cfd766137b98763ef32", _UPGRADES),
        _postinst("d3d6a386c8ceec9e72b145d9a7d854c23030ec88147f8b6a6cf17fa5c017240f", *_LOGIN),
    ),
    "debianutils": (
        _postinst("fc16074692705c688f666132c5dcd98a866f176e4e367dee2e40475a9702c504", list_shells, register),
        _postinst("a29569bd90a26a6eb8338afefbd7772b9dec3200379896a3d2d523fcc7a134d8", list_shells, register),
        _postinst(
            "b94aec3f203f9a3c388442a20cb4a4a9e3faa16ae3af6023beb500dc536a6d4a",
            copy("usr/share/debianutils/shells", "etc/shells"),
        ),
    ),
    "adduser": (
        _preinst("2fb0d60b0f468278d8e04918c287177bb5bd024fe5e504b70ca2cb5536e19ee9", _UPGRADES),
        _postinst(
            "4e31f0c054b254de52174c19f58559bbfae2d1dc29a3f2d629dd71edd16f3f04",
            copy("usr/share/adduser/adduser.conf", "etc/adduser.conf"),
        ),
    ),
    "apt": (
        _postinst(
            "92b7de7234450bd31f9fdec8b93dbae7a794d0e4760fd10c8e1780a3bc991e1f",
            Nothing(because="the user _apt is in base-passwd's list"),
        ),
        _postinst("f495d8ad704cf691372dfd7873652907f468b0d055a8adb9b7ae9843e0ed210d", add_system_user("_apt")),
    ),
    "bash": (
        _postinst("654942f4ecb648f1ab24519ffc05dacdd867a48d0a0f1318f042e760aab248c8", register),
        _preinst("2a63f1d8d2cf91a09411edbe49dc06ce8c2f0e1a33e617f8579b8956248ddf60", _BASH_SH),  # amd64, a program
        _preinst("b4641de32056c148fb10b3d53acaaa93b4d5729bbd69731f4f55160f9d3d2afd", _BASH_SH),  # arm64
        _preinst("18f3962be1515810e58fadf86d23b42ebbef22b562b904256dcf0ab083c8d162", _BASH_SH),  # armhf
        _postinst(
            "c65642d3d6e905970f4cec1de06e1dcc9b46fbbf8645e6a9077a711f17afd556",
            register,
            add_shells("/bin/bash", "/bin/rbash"),
        ),
    ),
    "binutils": (_preinst("296be23f9c41deb5114c6fba7a03cc9ba8358a667ed3f3dd858f1f2ab5480394", _UPGRADES),),
    "ca-certificates": (
        _postinst("f4434729a611744cbe39e2c20675d50bcbb88a766922e2d5b3d1edc9c8cda930", trust),
        _postinst("12e9598abfcae13be355510b9d6a73a7cd8e477b0a9bd657cc9f160d9419c908", trust),  # sid
    ),
    "coreutils": (
        _postinst(
            "ca7c54602ce0468989dbb22b481bc947bb7e8565da590513b82814d7d429f344",
            link_if_missing("usr/bin/touch", "/bin/touch"),
        ),
        _postinst(
            "a38191d37c1f95ce7b5bb824445e60e58a25c6505ad14684e0c8424131fc28af",
            link_if_missing("usr/bin/touch", "/bin/touch"),
        ),
    ),
    "cpp": (_postinst("a770ebfee17ea2ea85b9a9af2ae133a971233983fca0ebf6709f71196af2742d", register),),
    "dash": (
        _preinst("07dfa54d9a3f59a86e1e04705ceaa2596a05fc00a08bb964792dc8e8dc517108", _UPGRADES),
        _postinst("e6163a439aed801c26e9eb9a532ed2be504b247c86e55cdab0867eccf013dc01", _UPGRADES),
        _postinst("1141a7664d57ea1403153ee2d212c9a82837fdf0c1722e66e302c166f6a8b423", *_SH),  # bookworm
        _postinst(
            "bc9d1f525a542a4228b288b51ce42167c0153ee8b9a4ce75cf1ea736b84f76fd",
            *_SH,
            link("bin/sh", "dash"),
            link("usr/share/man/man1/sh.1.gz", "dash.1.gz"),
            add_shells("/bin/dash"),
        ),
    ),
    "debconf": (
        _postinst("5a2e9dd3174db7116b8baca7479df372bc898a04cf9136ebefca3c98de959f3c", _ASKED),
        _postinst("a68350a8b685d1389704e246bcd25b25efaadda846d188ec4cd2ef7870636c10", _ASKED),
        _postinst("2b8ac8e8cd37250346aca3f0374b4fbe6acc30ea07a3b3fdb359959edcc794df", _ASKED),
    ),
    "debian-archive-keyring": (
        _postinst("46f1303e7929a944049ca420b2d715ea30443593c1e615ce5587183edae7f846", _UPGRADES),
    ),
    "dpkg": (
        _postinst(
            "869d32504f705fd0fe09fd397463dcac8e3202b99f15c1891d378f141ed59dd6",
            native_architecture("var/lib/dpkg/arch-native"),
        ),
        _postinst(
            "a024baf91f957c8d6ca10cb0e627cd8ecab6716bf78d1a7de680ad11e2534743",
            native_architecture("var/lib/dpkg/arch-native"),
            link_if_missing("sbin/start-stop-daemon", "/usr/sbin/start-stop-daemon"),
        ),
        _postinst("61c4d6229b84a549ae9f2d19d29842a9233f976edde010c9a50bbf15b989f195", _UPGRADES),  # bookworm
    ),
    "e2fsprogs": (
        _preinst("0ac4873d936cbf6ea2c958b686aa5097f82306e1bd50fa6eff1b95337664dac1", _UPGRADES),
        _postinst(
            "7486689c8a616a46d521b5de473faea5f631710459dc01c2e7d247c1e4f109dc",
            Nothing(because="it only tells an initramfs"),
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
    "g++": (
        _postinst("3f30a71243d28a15290c94c67305fd2ca6ab8482a4e376ad46c756c9338ec830", register),
        _postinst("59d6af3a0b1d23aaac33a844f92a0203cb110987d177997c8bd3deb255446916", register),  # bullseye
    ),
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
        _postinst(
            "f927fb4dfc31cd15bad81be366f175056339b89328d407da8ba71bd45bfd31f9",
            copy("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
            write_old_cache,
        ),
    ),
    "libc6": (  # the loader's rows: trixie, sid
        *_loader(
            "/lib64/ld-linux-x86-64.so.2",
            "21ee7f19be2e69696507c6f30305adebaaedc3e3d91ab965a7a47ba6f7e69cf4",
            "02284d077f73dd6cc3d3e87b42f6f7e5e9ee4dcfe3d71802246856978248e8e4",
        ),
        *_loader(
            "/lib/ld-linux-aarch64.so.1",
            "1b2bee0531cc2bf756c7be0d9ba2420f38563e4c451c00a63016b946bddf7608",
            "1322539c824fd042a2981e8f0deb8659a5eeae00bf8aee0a7a3e1cfdfb84b0c8",
        ),
        *_loader(
            "/lib/ld-linux-armhf.so.3",
            "d2773e7a26b63d3725dc48bad7de54e4dfa302f23ec8480ff927d9fa4a031764",
            "6cd75abc084d78ffea4862766d3bf48128c7cd9299a6fe7a89b0f5fe2dab7659",
        ),
        *_loader(
            "/lib64/ld64.so.2",
            "7d8f407f77649290fc689ffa7075511f4596a095cad2d594f1a1a89578073f32",
            "37578ff96c6e0c8e6cad751e70dac5323baf666ee18fffeabb50ee6956f3ab99",
        ),
        *_loader(
            "/lib/ld-linux-riscv64-lp64d.so.1",
            "dcd5da65600859b09fc504d4b4f5d96e8ab58352d1db6cdda05ed50a6979bea8",
            "e0408b9ae39184a94ca1599f6024e23f3f963031463519f59e16b8835f265756",
        ),
        *_loader(
            "/lib/ld64.so.1",
            "69a87876434f9278c847d67929687f28da90eeedf4f7004c47b9df1ba2213168",
            "dbb7fddbfc5c39e989feb644c29688eb8069398c5ce2cfa1d074866b786e470e",
        ),
        _preinst("4b560c836ca6fb56307d067b56d6399cc0288bed1bfa2990f1d15cbd6baefb78", _CHECKS),  # bookworm
        _preinst("fcff32f2bd1e9765dc716d6bf0590caee467ec770fbbee04e51a0af923414dc2", _CHECKS),  # without /lib64
        _preinst("87a41d8e5df9e32507285acd049f54938ea03f6ecaa65bd5f2f1cc13cec8b2df", _CHECKS),  # bullseye
        _postinst("ff2a3a7a0e74ceac331ca5ad22e7ef57c974a7b891a9b1e7f3def4377ec6f1b5", _RESTARTS),
        _postinst("1ad334c35c5ac6d6bd7653eba6ffce53849c29c5401051f53b473fb434cfb22f", _RESTARTS),
        _postinst("457325703e976358f35bfe835e019ebcdd2ed168f1f921e2509d4dbf225ac96c", _RESTARTS),
        _postinst("8d9231cf7f90e5bbaf472bc1e6fe53c6f583dd417082dd20592ee56a3041bf89", _RESTARTS),
    ),
    "libgcrypt20": (_postinst("c37bce14cf49c2ccfc83244620ec4dd12efc684e31689a11b26c546614bcccb3", _UPGRADES),),
    "libglib2.0-0": (
        _postinst(
            "36295435001fdb75278935d594db097edcdb78567e93101d219d214fe2eb42a0",
            Nothing(because="no schema and no module of GIO is there yet"),
        ),
    ),
    "libgssapi-krb5-2": (_postinst("e4281cab5316aa28177447f8c8c5ee6e17cfdcad3edca77c81fc77670fe0a5f4", _UPGRADES),),
    "libpam-modules": (
        _preinst("32abddebe2587d7b9cd8c0fca3eec38ff2d60122c73bc1012fb26d2c907fcc21", _UPGRADES),
        _postinst(
            "47e96136d7eebf7844ae582562c8c232537938918fce72e66b398fb5bb1f484e",
            *_PAM_FILES,
        ),
        _preinst("c9c78632cb151cf49d8ead31dd76e0c8bedc1e99f7605a53416c958e9cf4f86b", _UPGRADES),
        _postinst("e85703f18e49788af58c1c7a23dfa43b7c187d49b5f08b8e3d7abf3ca260b528", *_PAM_FILES),
        _postinst("3be2ca752728722010666df6cbe85c7cf51039cdd97c1779f31b2b42dd37feb2", *_PAM_FILES),
        _preinst("52687ccf53a1a7afeb323703202f81cff4a096917d25cadbae3c19f7042864a2", _UPGRADES),
        _postinst("4a1c383f23eccbab65a82408946627a43ea35237a5409afb0c00770577859451", *_PAM_FILES),
    ),
    "libpam-runtime": (
        _postinst("a8d9474d7fcc3848b4f7129756b44b56c06a52919a75180744e8fe7f5965f8c6", enable_profiles),
        _postinst("6e51566bf54fce9c08e975833328c3953fca64ce2e422848785db5eee2789d91", enable_profiles),
        _postinst("7638bbe70179bb351b2f204f9ac6d04c34752ecd5f2adcad8e2ca016bd1a0ca7", enable_profiles),
    ),
    "libpam0g": (_postinst("757bcd69c0f941a21d5a6aaccf1e74f651114563b69d80b44318edeee2ede30c", _RESTARTS),),
    "libreadline8t64": (_preinst("f0a474db69935215063af5f57ebd04e09cb72d8f0f694af0db198d684b1cef08", *_readline()),),
    "libselinux1": (
        _postinst("907f02eca98a8670cf5408e49fd300229c1cc094182d86a80aa30c6d89980c16", _UPGRADES),
        _postinst(
            "c72d38a56da93a5b6743b84f08e0124d7ddfe50775a39cb4e325e2fa922587d0",
            Nothing(because="there is no SELinux policy to compile"),
        ),
    ),
    "libssl1.1": (_postinst("bd63b8506ce26760d26358c2a2f400b059eec2e0375900bf9e125652ecce2877", _RESTARTS),),
    "llvm-16-runtime": (_postinst("3861aaedeef6d245286edba4c7518003f27ce258cadaa55fc707d2a67b5f3bda", _BINFMT),),
    "llvm-19-runtime": (_postinst("fde6df1c107b427d72314f3e4f3d20ca02a4fadf1f9a5fcb3b2b367a61c9d1b5", _BINFMT),),
    "llvm-21-runtime": (_postinst("c7754974223a0a3647f6bffbd95f9da613972406fc32812c7a668e90d9476bcd", _BINFMT),),
    "login.defs": (_postinst("0e4eb25077959beed0e499d3da8009986be8f7f84444a55acf88f1234d900aa2", _UPGRADES),),
    "mawk": (_postinst("9145e8ba17bbe1aae4bcbe3cc5199c1b434b3222718a70851dba4c8aca15aa81", register),),
    "nano": (_postinst("eaed072f41cc3327990e54d769dc670b3f6781297a6c52aa9787ee391dd4b3dc", register),),
    "netbase": (
        _postinst(
            "23143d94b4b923b00d9222cc871f10df0fdbb3f0c17d06a10e18e1bd51a4d3fd", write("etc/hosts", "etc/networks")
        ),
        _postinst(
            "3ca297da9117cc93030f6695f675ed6f94f38e7aacc51304be65710b6008c282", write("etc/hosts", "etc/networks")
        ),
    ),
    "openssl": (
        _postinst(
            "037e00b519c9493ab60b6e1f47c0645a8013cfa40c95c29c2f16f8433af12075",
            Nothing(because="/usr/lib/ssl is in the package"),
        ),
    ),
    "passwd": (
        _postinst("de89411200d9642f9fd647a4badf421bd88b457a1e6de45eadb8f9776490e4ac", hide_passwords),
        _preinst("90ee10c2b0c4d443e60fe067ddedb606c17c249bd095e9190196b0e17cfed145", _UPGRADES),
        _postinst("7bf036d63c798a4ddffe1df903222638abeff7e973e6e9962f2e7af2edac29ca", hide_passwords),
    ),
    "perl": (
        _postinst("cebad2b86e1823e6c3cc40d3eae6e4a4dad67177b7c3a47bb5b1fa7df3ba4337", _UPGRADES),
        _postinst("f796677e899014d4dd0e3778508a52f4738ba41cd64d78bcdb6fa54d0b1e7a83", _UPGRADES),
        _postinst("874a92ca7d7a7781928213634c971562e379153bc8bd9588f4b7f95bf28c8b86", _UPGRADES),
    ),
    "pkg-config": (
        _preinst("aed86602af0e6c3121ffad3b340b5a498d2faedee3a8aed450464cd0cd6fd1d6", _UPGRADES),
        _postinst(
            "74499ed26a27ca440153d30c560c694cba88a32c762956965e53343796c1db5f",
            link(f"usr/bin/{TRIPLET}-pkg-config", "/usr/share/pkg-config-crosswrapper"),
        ),
    ),
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
        _postinst("555ed6cfc95b70d0e209ffcbfbcef31670cf50bea5e9ff686f6f9c456acb0f46", _UTC),
        _postinst("841d7098902ae567be91629073fb7ce972e922efa9ef304edde329a7875e181b", _UTC),
        _postinst(
            "0fb08c44d30797397ac35ef74bcfcda63726639dac8dbda5219884744827aefa", _UTC, line("etc/timezone", "Etc/UTC")
        ),
        _postinst(
            "d0b65a6ef298850b186a12b84cdeff63f79b272a259b2f4495aca6f3e14eed86", _UTC, line("etc/timezone", "Etc/UTC")
        ),
    ),
    "usr-is-merged": (
        _preinst("606429bfd461c205d2e34776eafecb3246ff07a4d942f6c373f8330c270ba7a9", MergedUsr()),
        _postinst("5f8e806a23c5efa684f53779a23cbfaee70e181a27b76c7090503543d15439ac", _UPGRADES),
    ),
    "usrmerge": (
        _preinst(
            "34fa7229f173b67e625a669c60df8089f77d0e48242cc7e7ad5e226a83c3b233",
            Nothing(because="it only refuses a /usr of its own without an initramfs"),
        ),
        _postinst("543c703948c9b24c0dd2e052cb6c0ef75ca073ee8d594423f39cabecc4521b51", MergedUsr(), shells_in_usr_last),
    ),
    "util-linux": (
        _postinst("1ee26d95a0a741024a36c1ab0f308c4c8b3619e07fe6679482e936b7a9eb5d6b", register),
        _postinst("0a34832342202681e9cfef1291657aab8d90e3e9019cf6745ce43b80b0a7a826", register),
        _postinst("428a710e25a38861481fdf436a4c3d0e1ff28ed00bd6d29768b7382f25b3697e", register),
        _postinst("ac83ca0e1a934cf1f911c0e60a41f13959ffde419d72aa87f55bebe24b95b909", register),
    ),
    "x11-common": (
        _postinst(
            "0027cf2d262f50a1eb7efd2b55c780e55629249752d82309f3c1e6b1e84bee3d",
            Nothing(because="it only purges what earlier versions left in debconf"),
        ),
    ),
    "xz-utils": (_postinst("631a6b0732ab22c0bb3785cc76bd59cb08bb516751b0e0fb742365877076b349", install(_lzma())),),
}
