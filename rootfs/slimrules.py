"""Slimming rules: what a small image leaves out, by name, and why nothing misses it.

Law: data, and their names and globs read; pure. `rootfs.slim` applies them. Of a rule's filters the last that matches
decides, and so it is among rules: what a later one keeps stays.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from rootfs.errors import RecipeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One line of dpkg's configuration: a glob over absolute paths in which `*` matches `/` too."""

    glob: str
    include: bool = False

    def __str__(self) -> str:
        return f"path-{'include' if self.include else 'exclude'}={self.glob}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something to leave out, and why that may be. `directories` are globs of those that stay, empty, since maintainer
    scripts expect them; `apt` is apt's configuration (apt.conf(5)) for what apt would leave behind.
    """

    name: str
    because: str = ""
    filters: tuple[Filter, ...] = ()
    directories: tuple[str, ...] = ()
    apt: str = ""


def _without(name: str, because: str, *globs: str, keep: Sequence[str] = (), directories: Sequence[str] = ()) -> Rule:
    filters = (*(Filter(glob=glob) for glob in globs), *(Filter(glob=glob, include=True) for glob in keep))
    return Rule(name=name, because=because, filters=filters, directories=tuple(directories))


def _in(directory: str, names: str) -> tuple[str, ...]:
    return tuple(f"{directory}/{name}" for name in names.split())


_RULES = (
    _without(
        "docs",
        "documentation is read elsewhere; copyright files stay",
        *("/usr/share/doc/*", "/usr/share/doc-base/*", "/usr/share/gtk-doc/*"),
    ),
    # bugs.debian.org/863199: packages fail to install where a section's directory is missing
    _without("man", "there is no man(1) to show them", "/usr/share/man/*", directories=["/usr/share/man/man[1-9]"]),
    _without("info", "there is no info(1) to show them", "/usr/share/info/*"),
    _without(
        "locale",
        "messages are English without them; C.UTF-8 is no translation and stays",
        "/usr/share/locale/*",
        keep=["/usr/share/locale/locale.alias"],
    ),
    _without("lintian", "only lintian(1) reads them", "/usr/share/lintian/*", "/usr/share/linda/*"),
    _without("bug", "only reportbug(1) reads them", "/usr/share/bug/*"),
    Rule(
        name="apt-cache",
        because="apt makes them anew when it needs them",
        apt='APT::Keep-Downloaded-Packages "false";\n'
        'Acquire::GzipIndexes "true";\nAcquire::Languages "none";\n'
        'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
    ),
    # What stays is what Fedora's glibc has without glibc-gconv-extra. What goes is spelled out: of "all but these" dpkg
    # would keep every directory and link below /usr/lib.
    _without(
        "gconv",
        "iconv(3)'s modules for old encodings; Unicode, Latin-1, Latin-9 and CP1252 stay, and Python has its own",
        *_in(
            "/usr/lib/*/gconv",
            "A[RS]* B* CP1[013-9]* CP125[013-9].so CP[2-9]* C[SW]* [DEGHJKLMNPRSTV]* IBM* IEC* INIS* ISIRI* ISO-* ISO_*"
            " ISO646.so ISO8859-[2-9]* ISO8859-1[0-46-9].so UHC.so lib*.so",
        ),
    ),
    _without(
        "terminfo",
        "terminals that no one has any more; those that are used today, and their kin, stay",
        *_in("/usr/share/terminfo", "E/* c/* h/* m/* p/* s/sun w/*"),
    ),
    _without(
        "zoneinfo",
        "the compiled zones are there once: not as posix/ and right/ (with leap seconds), too, nor as zic(8)'s source",
        *_in("/usr/share/zoneinfo", "posix/* right/* tzdata.zi leap-seconds.list leapseconds zonenow.tab"),
    ),
    _without(
        "machine",
        "programs for disks, terminal lines, clocks and boot: a container has none of these to itself",
        *_in(
            "/usr/sbin",
            "agetty blkdiscard blkid blkzone blockdev chcpu chmem findfs fsck* fsfreeze fstrim isosize ldattach mkfs*"
            " mkswap readprofile rtcwake sulogin swaplabel wipefs zramctl fstab-decode",
        ),
        *_in("/usr/bin", "dmesg lsblk lsmem partx setterm wdctl"),
        *("/usr/lib/systemd/*", "/etc/systemd/*", "/usr/lib/udev/*", "/usr/lib/tmpfiles.d/*"),
    ),
    _without(
        "completion",
        "for people at a prompt: completions, and how gdb(1) prints the types of libraries",
        *("/usr/share/bash-completion/*", "/usr/share/zsh/*", "/usr/share/fish/*"),
        *("/usr/share/gdb/*", "/usr/share/gcc/python/*"),
    ),
    _without(
        "perl-unicode",
        "tables for Unicode::UCD, which comes with perl-modules and has its own; perl itself has them compiled in",
        *_in("/usr/lib/*/perl-base/unicore", "lib/* To/*"),
    ),
    _without(
        "old-keys",
        "keys of releases that are no longer signed with them",
        "/usr/share/keyrings/debian-archive-removed-keys.*",
    ),
    _without(
        "libmvec",
        "vectors of sin, exp and their like for code that gcc -ffast-math made, which names it; CPython does not",
        "/usr/lib/*/libmvec.so.*",
    ),
    _without(
        "static",
        "what is linked later is linked dynamically; the little that a dynamic program takes from archives stays",
        *("/usr/lib/*.a", "/usr/lib/*.la"),
        keep=_in("/usr/lib/*", "*_nonshared.a libgcc*.a libdl.a libpthread.a librt.a libutil.a libm.a libm-*.a"),
    ),
    _without(
        "programs",
        "for images without a shell: of Debian's packages the libraries and the data are wanted, nothing that is run",
        *("/usr/bin/*", "/usr/sbin/*", "/usr/games/*", "/usr/lib/ssl/misc/*", "/etc/alternatives/*"),
        *("/usr/share/base-files/*", "/usr/share/base-passwd/*", "/usr/share/libc-bin/*", "/etc/update-motd.d/*"),
        *("/etc/apt/*", "/etc/skel/*", "/etc/profile*", "/etc/default/*", "/root/.bashrc", "/root/.profile"),
    ),
    _without(
        "spare-libraries",
        "beside the library that a package is wanted for: to debug, for old name services, for menus, engines",
        *_in(
            "/usr/lib/*",
            "libBrokenLocale.so.* libc_malloc_debug.so.* libexpatw.so.* libformw.so.* libhistory.so.* libmemusage.so"
            " libmenuw.so.* libnss_compat.so.* libnss_hesiod.so.* libpcprofile.so libthread_db.so.* libtic.so.*"
            " engines-3/*",
        ),
    ),
    _without(
        "certificates",
        "the bundle is what OpenSSL and Python read; the single files in it serve only to choose among them",
        *("/usr/share/ca-certificates/*", "/etc/ssl/certs/*", "/etc/ca-certificates*"),
        keep=["/etc/ssl/certs/ca-certificates.crt"],
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _RULES})
"""The rules that have a name."""


def named(text: str) -> Rule:
    """A rule by its name; `locale:de,pt_BR` keeps these languages. RecipeError for a name that is none."""
    name, colon, keep = text.partition(":")
    languages = [language.strip() for language in keep.split(",")] if colon else []
    if name not in RULES or (colon and name != "locale") or not all(map(_LANGUAGE.match, languages)):
        near = difflib.get_close_matches(name, RULES, n=1, cutoff=0.5)
        hint = f"did you mean `{near[0]}`?" if near and near[0] != name else f"known: {', '.join(RULES)}; locale:de,fr"
        raise RecipeError(f"no rule to slim by: {text}", hint=hint)
    rule = RULES[name]
    # no `de*`: it would keep `del` too
    kept = [f"/usr/share/locale/{language}{rest}" for language in languages for rest in ("", "/*", "_*", "@*")]
    return replace(rule, filters=(*rule.filters, *(Filter(glob=glob, include=True) for glob in kept)))


_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_.@-]*\Z")


def paths(*, exclude: Iterable[str] = (), include: Iterable[str] = ()) -> Rule:
    """A rule of free globs, as dpkg's path-exclude and path-include; what `include` matches stays.

    RecipeError for a glob that dpkg's configuration cannot hold, or that matches no absolute path.
    """
    rule = _without("paths", "the recipe says so", *exclude, keep=tuple(include))
    for one in rule.filters:
        if not one.glob.startswith(("/", "*")) or one.glob != one.glob.strip() or not one.glob.isprintable():
            raise RecipeError(
                f"not a glob over paths: {one.glob!r}", hint='write an absolute one, such as "/usr/share/games/*"'
            )
    return rule
