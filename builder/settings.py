"""Settings: where and how fast, never what. Flag > `OCIBUILD_*` > config file > the host's own files > default.

Law: with `builder.cli` the only place that reads the environment. No setting may change the bytes of an image.
"""

from __future__ import annotations

import configparser
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_config_path

from builder.python.pip import PYPI
from rootfs.errors import UsageError

APT = Path("/etc/apt")
PIP = (Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"))
_PREFIX = "OCIBUILD_"
_DEFAULTS: Mapping[str, str] = {
    "mirror": "https://ftp.debian.org/debian",
    "security_mirror": "https://security.debian.org/debian-security",
    "pypi": "",
}


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
    of PEM certificates) and `trusted_realms` (the hosts of token servers that may be told a registry's password, with
    commas) may be empty."""

    store: Setting
    mirror: Setting
    security_mirror: Setting
    pypi: Setting
    jobs: Setting
    proxy: Setting
    no_proxy: Setting
    ca_bundle: Setting
    trusted_realms: Setting

    def items(self) -> Iterator[tuple[str, Setting]]:
        """Name and setting, in order."""
        return ((name, getattr(self, name)) for name in self.__slots__)

    @property
    def mirrors(self) -> dict[str, str]:
        """Base URL by archive, as `rootfs.suite.from_mirror` wants it."""
        return {"debian": self.mirror.value, "debian-security": self.security_mirror.value, PYPI: self.pypi.value}


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
    config_file = user_config_path("ocibuild") / "config.toml"
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
        "store": [Setting(value=str(user_cache_path("ocibuild")), origin="default")],
        "mirror": _found(hosts.get("debian"), f"{apt}"),
        "security_mirror": _found(hosts.get("debian-security"), f"{apt}"),
        "pypi": _pip_index(environment, pip),
        "jobs": [Setting(value=str(len(os.sched_getaffinity(0))), origin="this machine's cores")],
        "proxy": [
            *_found(environment.get("PKG_PROXY"), "PKG_PROXY"),
            *_found(proxy or environment.get("HTTP_PROXY"), "HTTPS_PROXY, HTTP_PROXY"),
        ],
        "no_proxy": _found(environment.get("no_proxy") or environment.get("NO_PROXY"), "NO_PROXY"),
        "ca_bundle": [
            *_found(environment.get("REQUESTS_CA_BUNDLE"), "REQUESTS_CA_BUNDLE"),
            *_found(environment.get("SSL_CERT_FILE"), "SSL_CERT_FILE"),
        ],
    }


def auth_files(environment: Mapping[str, str] | None = None) -> list[Path]:
    """Where the user's registry credentials may lie, best first (containers-auth.json(5), docker's config.json)."""
    environment = os.environ if environment is None else environment
    named = environment.get("REGISTRY_AUTH_FILE")
    if named:
        return [Path(named)]
    runtime = environment.get("XDG_RUNTIME_DIR")
    containers = [Path(runtime) / "containers/auth.json"] if runtime else []
    docker = environment.get("DOCKER_CONFIG")
    return [*containers, (Path(docker) if docker else Path.home() / ".docker") / "config.json"]


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
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    user = [user_config_path("pip") / "pip.conf", Path.home() / ".pip" / "pip.conf"]
    for path in [] if named else [*([Path(chosen)] if chosen else []), *user, *host]:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text())
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        if found := parser.get("global", "index-url", fallback="").strip():
            return [Setting(value=found, origin=str(path))]
    return _found(named, "PIP_INDEX_URL")
