"""Settings: where and how fast, never what. Flag > `OCIBUILD_*` > config file > the host's own files > default.

Law: with `builder.cli` the only place that reads the environment. No setting may change the bytes of an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rootfs.errors import UsageError

if TYPE_CHECKING:
    from builder.registry.access import Access
    from builder.registry.accounts import Given, GivenFile

ETC = Path("/etc")
APT = ETC / "apt"
PIP = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
_PREFIX = "OCIBUILD_"
_DEFAULTS: Mapping[str, str] = {
    "mirror": "https://ftp.debian.org/debian",
    "security_mirror": "https://security.debian.org/debian-security",
    "pypi": "",
}

COMMON_PROXIES = ("PKG_PROXY", "HTTPS_PROXY, HTTP_PROXY")
"""Origins of a proxy that is meant for every program: what is on this machine is not asked for by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value and where it comes from."""

    value: str
    origin: str

    @property
    def listed(self) -> list[str]:
        """The value as a list: what stands between its commas."""
        return [entry.strip() for entry in self.value.split(",") if entry.strip()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `store` is a directory, mirrors are base URLs, `jobs` a number.

    `pypi` is the URL of a package index (PEP 503). `proxy` (URL), `no_proxy` (a list with commas), `ca_bundle` (a file
    of PEM certificates) and `trusted_realms` (token servers that may be told a registry's password, with commas: `HOST`
    for every registry, `REGISTRY=HOST` for one) may be empty, and so may `cache`, the repository where results of steps
    are kept for other machines."""

    store: Setting
    mirror: Setting
    security_mirror: Setting
    pypi: Setting
    jobs: Setting
    proxy: Setting
    no_proxy: Setting
    ca_bundle: Setting
    trusted_realms: Setting
    cache: Setting

    def items(self) -> Iterator[tuple[str, Setting]]:
        """Name and setting, in order."""
        return ((name, getattr(self, name)) for name in self.__slots__)

    @property
    def mirrors(self) -> dict[str, str]:
        """Base URL by archive, as `rootfs.suite.from_mirror` wants it, and the index as `builder.python.pip` does."""
        return {"debian": self.mirror.value, "debian-security": self.security_mirror.value, "pypi": self.pypi.value}


def read_settings(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] | None = None,
    apt: Path = APT,
    pip: Sequence[Path] = PIP,
) -> Settings:
    """The settings in force; UsageError when the config file or a value is not as it must be.

    `apt` is the directory of the host's apt sources, `pip` the host's config files of pip, the best first.
    """
    environment = os.environ if environment is None else environment
    config_file = _config_home(os.environ) / "ocibuild/config.toml"
    config = _config(config_file)
    fallbacks = _fallbacks(environment, apt, pip)
    chosen = {}
    for name in Settings.__slots__:
        candidates = [
            *_found(str(flags.get(name) or ""), f"--{name.replace('_', '-')}"),
            *_found(environment.get(_PREFIX + name.upper()), _PREFIX + name.upper()),
            *_found(config.get(name), str(config_file)),
            *fallbacks.get(name, []),
            Setting(value=_DEFAULTS.get(name, ""), origin="default"),
        ]
        chosen[name] = candidates[0]
    _check(chosen)
    return Settings(**chosen)


def _fallbacks(environment: Mapping[str, str], apt: Path, pip: Sequence[Path]) -> dict[str, list[Setting]]:
    """What other programs' variables and files on this host say, by setting."""
    hosts = _apt_mirrors(apt)
    proxy = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or environment.get("http_proxy")
    return {
        "store": [Setting(value=str(_home(os.environ, "XDG_CACHE_HOME", ".cache") / "ocibuild"), origin="default")],
        "mirror": _found(hosts.get("debian"), f"{apt}"),
        "security_mirror": _found(hosts.get("debian-security"), f"{apt}"),
        "pypi": _pip_index(environment, pip),
        "jobs": [Setting(value=str(len(os.sched_getaffinity(0))), origin="this machine's cores")],
        "proxy": [
            *_found(environment.get("PKG_PROXY"), COMMON_PROXIES[0]),
            *_found(proxy or environment.get("HTTP_PROXY"), COMMON_PROXIES[1]),
        ],
        "no_proxy": _found(environment.get("no_proxy") or environment.get("NO_PROXY"), "NO_PROXY"),
        "ca_bundle": [
            *_found(environment.get("REQUESTS_CA_BUNDLE"), "REQUESTS_CA_BUNDLE"),
            *_found(environment.get("SSL_CERT_FILE"), "SSL_CERT_FILE"),
        ],
    }


def registry_access(settings: Settings, environment: Mapping[str, str] | None = None) -> Access:
    """What this user and host say about registries (docs/reference/credentials.md); UsageError when that is unclear."""
    from builder.registry.access import Access  # noqa: PLC0415 (nothing but a registry needs it)

    environment = os.environ if environment is None else environment
    containers = _config_home(environment) / "containers"
    files = auth_files(environment)
    return Access(
        sources=(*_named_account(environment), *_auth_text(environment), *files, *_ci_accounts(environment)),
        named_file=files[0] if environment.get("REGISTRY_AUTH_FILE") else None,
        files=tuple(files),
        login_file=_login_file(files, environment),
        trusted_realms=tuple(settings.trusted_realms.listed),
        realms_file=_config_home(environment) / "ocibuild" / "realms.json",
        certificates=tuple(certs_directories(environment)),
        registries=tuple(_registries_conf(containers, environment)),
    )


def auth_files(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where the user's registry credentials may lie, best first (containers-auth.json(5), docker's config.json)."""
    environment = os.environ if environment is None else environment
    named = environment.get("REGISTRY_AUTH_FILE")
    if named:
        return [Path(named)]
    runtime = environment.get("XDG_RUNTIME_DIR")
    primary = Path(runtime) / "containers" if runtime else Path("/run/containers") / str(os.getuid())
    docker = environment.get("DOCKER_CONFIG")
    return [
        primary / "auth.json",
        _config_home(environment) / "containers/auth.json",
        (Path(docker) if docker else Path.home() / ".docker") / "config.json",
    ]


def certs_directories(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where a registry's certificates may lie, best first (containers-certs.d(5), and the same of docker)."""
    environment = os.environ if environment is None else environment
    return [place / name / "certs.d" for place in (_config_home(environment), ETC) for name in ("containers", "docker")]


def _config_home(environment: Mapping[str, str]) -> Path:
    return _home(environment, "XDG_CONFIG_HOME", ".config")


def _home(environment: Mapping[str, str], name: str, usual: str) -> Path:
    """One of the user's base directories (XDG Base Directory Specification)."""
    named = environment.get(name)
    return Path(named) if named else Path.home() / usual


def _login_file(files: Sequence[Path], environment: Mapping[str, str]) -> Path:
    """Where `login` keeps an account: the first file there is, else one that podman reads and that can be made."""
    makeable = files[0] if len(files) == 1 or environment.get("XDG_RUNTIME_DIR") else files[1]
    return next((path for path in files if os.access(path, os.F_OK)), makeable)


def _registries_conf(containers: Path, environment: Mapping[str, str]) -> list[Path]:
    """registries.conf(5) and what is dropped beside it, the best last."""
    own = containers / "registries.conf"
    named = environment.get("CONTAINERS_REGISTRIES_CONF")
    main = Path(named) if named else own if os.access(own, os.R_OK) else ETC / "containers/registries.conf"
    places = (ETC / "containers/registries.conf.d", containers / "registries.conf.d")
    return [main, *(path for place in places for path in sorted(place.glob("*.conf")))]


def _named_account(environment: Mapping[str, str]) -> list[Given]:
    """OCIBUILD_REGISTRY with its user and password."""
    names = ("OCIBUILD_REGISTRY", "OCIBUILD_REGISTRY_USER", "OCIBUILD_REGISTRY_PASSWORD")
    host, user, password = (environment.get(name, "") for name in names)
    if not user and not password:
        return []
    if not host or not user or not password:
        missing = next(name for name in names if not environment.get(name))
        raise UsageError(f"{missing} is not set", hint=f"set all three: {', '.join(names)}")
    return [_given(host, user, password, names[2])]


def _auth_text(environment: Mapping[str, str]) -> list[GivenFile]:
    text = environment.get("DOCKER_AUTH_CONFIG")
    if not text:
        return []
    from builder.registry.accounts import GivenFile  # noqa: PLC0415

    return [GivenFile(name="DOCKER_AUTH_CONFIG", text=text)]


def _ci_accounts(environment: Mapping[str, str]) -> list[Given]:
    """The account of a CI job at the registry of its own server (GitLab's, GitHub's)."""
    found = []
    host, token = environment.get("CI_REGISTRY"), environment.get("CI_JOB_TOKEN")
    password = environment.get("CI_REGISTRY_PASSWORD")
    user = environment.get("CI_REGISTRY_USER") if password else "gitlab-ci-token"
    if environment.get("GITLAB_CI") and host and user and (password or token):
        name = "CI_REGISTRY_PASSWORD" if password else "CI_JOB_TOKEN"
        server = frozenset(filter(None, [environment.get("CI_SERVER_HOST")]))  # its token server (GitLab's /jwt/auth)
        found.append(_given(host, user, password or token or "", name, realms=server))
    actor, token = environment.get("GITHUB_ACTOR"), environment.get("GITHUB_TOKEN")
    if environment.get("GITHUB_ACTIONS") and actor and token:
        found.append(_given("ghcr.io", actor, token, "GITHUB_TOKEN"))
    return found


def _given(host: str, user: str, password: str, source: str, *, realms: frozenset[str] = frozenset()) -> Given:
    from builder.registry.accounts import Given  # noqa: PLC0415
    from builder.registry.auth import Credentials  # noqa: PLC0415
    from builder.registry.credentials import Place  # noqa: PLC0415

    credentials = replace(Credentials.of(user, password, source), realms=realms)
    return Given(host=Place.parse(host).host, credentials=credentials)


def source_date_epoch(environment: Mapping[str, str] | None = None) -> int | None:
    """SOURCE_DATE_EPOCH (reproducible-builds.org), for the lock alone; UsageError when it is not a number."""
    environment = os.environ if environment is None else environment
    text = environment.get("SOURCE_DATE_EPOCH")
    if text and not text.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is not a number of seconds: {text}")
    return int(text) if text else None


def _found(value: str | None, origin: str) -> list[Setting]:
    return [Setting(value=value, origin=origin)] if value else []


def _check(settings: Mapping[str, Setting]) -> None:
    for name in ("mirror", "security_mirror", "pypi", "proxy"):
        value = settings[name].value
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise UsageError(
                f"{name} is not a URL: {value}", at=settings[name].origin, hint="it begins with http:// or https://"
            )
    if not settings["jobs"].value.isdecimal() or int(settings["jobs"].value) < 1:
        raise UsageError(f"jobs is not a number above 0: {settings['jobs'].value}", at=settings["jobs"].origin)


def _config(path: Path) -> dict[str, str]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the config file cannot be read", at=str(path), because=str(error)) from error
    import tomllib  # noqa: PLC0415 (most users have no such file)

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the config file cannot be read", at=str(path), because=str(error)) from error
    unknown = sorted(set(table) - set(Settings.__slots__))
    if unknown:
        known = ", ".join(Settings.__slots__)
        raise UsageError(f"unknown setting `{unknown[0]}`", at=str(path), hint=f"known: {known}")
    return {name: str(value) for name, value in table.items()}


def _apt_mirrors(apt: Path) -> dict[str, str]:
    """The Debian mirrors this host's apt uses, by archive; empty on a host that is not Debian."""
    uris: list[str] = []
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))]:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if path.suffix == ".sources":
            uris += [uri for line in re.findall(r"(?mi)^URIs:(.*)$", text) for uri in line.split()]
        else:
            uris += re.findall(r"(?m)^deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text)
    mirrors: dict[str, str] = {}
    for uri in uris:
        archive = uri.rstrip("/").rpartition("/")[2]
        if uri.startswith(("http://", "https://")) and archive in ("debian", "debian-security"):
            mirrors.setdefault(archive, uri.rstrip("/"))
    return mirrors


def _pip_index(environment: Mapping[str, str], host: Sequence[Path]) -> list[Setting]:
    """The package index this user's pip uses: its variable, then its files, the user's own before the host's."""
    named = environment.get("PIP_INDEX_URL")
    chosen = environment.get("PIP_CONFIG_FILE")
    user = [_config_home(os.environ) / "pip/pip.conf", Path.home() / ".pip" / "pip.conf"]
    for path in [] if named else [*([Path(chosen)] if chosen else []), *user, *host]:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if found := _index_url(text):
            return [Setting(value=found, origin=str(path))]
    return _found(named, "PIP_INDEX_URL")


def _index_url(text: str) -> str:
    """The index that a config file of pip names; empty when it names none, or cannot be read."""
    import configparser  # noqa: PLC0415 (most users have no such file)

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return ""
    return parser.get("global", "index-url", fallback="").strip()
