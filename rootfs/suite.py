"""Suite: where packages come from, as a value: an archive, a suite of it, components, and who may sign it.

Law: users' words become suites here; nothing is fetched. URLs are the archives' own (a lock names them); which mirror
stands in for an archive is a setting. Sources: sources.list(5); Debian snapshots, "Machine-usable interface".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rootfs.debian.package import Package
from rootfs.errors import OcibuildError, RecipeError
from rootfs.keyring import read_certificates
from rootfs.url import split

CANONICAL = {
    "debian": "https://ftp.debian.org/debian",
    "debian-security": "https://security.debian.org/debian-security",
    "snapshot": "https://snapshot-cloudflare.debian.org/archive",
}
_ROLLING = frozenset({"sid", "unstable", "experimental"})
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~-]*(/[A-Za-z0-9][A-Za-z0-9.+_~-]*)*\Z")
_REPOSITORY = "a repository is written `URL SUITE COMPONENT... key=FILE`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite to read: the archive it lies in, its name there, the components wanted.

    `archive` is `debian`, `debian-security`, or the base URL of another repository, whose certificates `keys` holds
    (OpenPGP, armored or binary). `snapshot` is a timestamp of snapshot-cloudflare.debian.org, or empty.
    """

    archive: str
    name: str
    components: tuple[str, ...]
    keys: bytes = b""
    snapshot: str = ""

    @classmethod
    def parse(cls, name: str, components: Sequence[str] = ("main",), *, snapshot: str = "") -> Suite:
        """One of Debian's own suites, by its name in the archive: `trixie`, `trixie-security`, `sid`."""
        for word in (name, *components):
            _check_word(word)
        if snapshot:
            snapshot_time(snapshot)
        archive = "debian-security" if name.endswith("-security") else "debian"
        return cls(archive=archive, name=name, components=tuple(components), snapshot=snapshot)

    @property
    def canonical(self) -> str:
        """The archive's own URL, the one a lock records; without a slash at the end."""
        if self.snapshot:
            return f"{CANONICAL['snapshot']}/{self.archive}/{self.snapshot}"
        return CANONICAL.get(self.archive, self.archive)

    @property
    def directory(self) -> str:
        """The URL of the directory that the paths in its Release are relative to."""
        return f"{self.canonical}/dists/{self.name}"

    @property
    def at(self) -> int | None:
        """The snapshot's time in seconds since the epoch; None for an archive as it stands."""
        return snapshot_time(self.snapshot) if self.snapshot else None


def standard_suites(
    codename: str,
    components: Sequence[str],
    *,
    security: bool = True,
    updates: bool = False,
    backports: bool = False,
    snapshot: str = "",
) -> tuple[Suite, ...]:
    """A Debian release and what is added to it, in the order in which equal versions are preferred.

    sid and experimental have no security archive of their own; RecipeError when they are asked for updates or
    backports.
    """
    rolling = codename in _ROLLING
    if rolling and (updates or backports):
        raise RecipeError(f"{codename} has no updates and no backports", hint="they belong to releases, as trixie")
    parts = [("", True), ("-security", security and not rolling), ("-updates", updates), ("-backports", backports)]
    return tuple(Suite.parse(f"{codename}{part}", components, snapshot=snapshot) for part, wanted in parts if wanted)


def parse_repository(text: str, *, base: Path) -> Suite:
    """`URL SUITE COMPONENT... key=FILE`: a repository whose Release a key in FILE (relative to `base`) must sign."""
    words = [word for word in text.split() if not word.startswith("key=")]
    keys = [word.removeprefix("key=") for word in text.split() if word.startswith("key=")]
    if len(words) < 3 or len(keys) != 1:
        raise RecipeError(f"not a repository: {text}", hint=_REPOSITORY)
    url, name, *components = words
    return Suite(
        archive=_base_url(url),
        name=_check_word(name),
        components=tuple(_check_word(component) for component in components),
        keys=_read_keys(base / keys[0]),
    )


def _base_url(text: str) -> str:
    try:
        parts = split(text)
    except OcibuildError as error:
        raise RecipeError("a repository's URL begins with http:// or https://", hint=_REPOSITORY) from error
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RecipeError(
            "a repository's URL has no user, password, query or fragment",
            at=f"{parts.scheme}://{parts.hostname}",
            because="the URL is written into the lock",
            hint="map the repository to a mirror with the password in the settings",
        )
    url = urlsplit(text).geturl().rstrip("/")
    if url in CANONICAL.values():
        raise RecipeError(f"{url} is Debian's own archive, whose keys are pinned", hint="name its suite instead")
    return url


def _check_word(word: str) -> str:
    """A suite's or component's name; it becomes a part of URLs."""
    if not _WORD.match(word):
        raise RecipeError(f"not the name of a suite or component: {word}", hint="as in `trixie` or `main`")
    return word


def _read_keys(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        read_certificates(data)
    except OSError as error:
        raise RecipeError("the repository's key cannot be read", at=str(path), because=error.strerror) from error
    except RecipeError as error:
        error.at = str(path)
        raise
    return data


def snapshot_time(text: str) -> int:
    """`20260901T000000Z` in seconds since the epoch; RecipeError when it is no such timestamp."""
    try:
        if not re.fullmatch(r"\d{8}T\d{6}Z", text):
            raise ValueError
        return int(datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise RecipeError(f"not a snapshot: {text}", hint="a timestamp in UTC, as 20260901T000000Z") from error


def package_url(package: Package, suites: Iterable[Suite]) -> str:
    """The canonical URL of a package's .deb; `suites` are those its index was read from."""
    bases = {suite.archive: suite.canonical for suite in suites}
    return f"{bases[package.origin]}/{package.filename}"


def from_mirror(url: str, mirrors: Mapping[str, str]) -> str:
    """A canonical URL, turned to the mirror that stands in for its archive; other URLs as they are.

    The keys of `mirrors`: `debian`, `debian-security`, `snapshot`, or another repository's base URL.
    """
    for archive, mirror in mirrors.items():
        base = CANONICAL.get(archive, archive.rstrip("/"))
        if url.startswith(base + "/"):
            return mirror.rstrip("/") + url.removeprefix(base)
    return url


def sources_file(suites: Iterable[Suite]) -> str:
    """The suites as a file of sources.list.d (sources.list(5), deb822 style): what apt in a rootfs reads.

    A repository's key stands in the file itself; a snapshot's Releases have run out by their nature.
    """
    return "\n".join(
        f"Types: deb\nURIs: {suite.canonical}\nSuites: {suite.name}\nComponents: {' '.join(suite.components)}\n"
        + ("Check-Valid-Until: no\n" if suite.snapshot else "")
        + f"Signed-By:{_signed_by(suite)}\n"
        for suite in suites
    )


def _signed_by(suite: Suite) -> str:
    if not suite.keys:
        return " /usr/share/keyrings/debian-archive-keyring.gpg"
    lines = suite.keys.decode("ascii").strip().splitlines()
    return "".join(f"\n {line or '.'}" for line in lines)
