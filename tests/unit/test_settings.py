"""Settings: which source wins, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.python.pip import PYPI
from builder.registry.access import Access
from builder.registry.accounts import Given, GivenFile
from builder.registry.auth import Credentials
from builder.settings import auth_files, read_settings, registry_access, source_date_epoch
from builder.wiring import around_proxy
from rootfs.errors import UsageError
from rootfs.url import bypasses

DEB822 = "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie\n\nTypes: deb\nURIs: http://sec.test/debian-security/\n"


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    return tmp_path / "apt"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "config" / "ocibuild").mkdir(parents=True)
    return tmp_path / "config" / "ocibuild" / "config.toml"


def test_without_anything_debians_own_hosts_are_used(apt: Path, config: Path) -> None:
    settings = read_settings({}, environment={}, apt=apt, pip=())
    assert settings.mirrors == {
        "debian": "https://ftp.debian.org/debian",
        "debian-security": "https://security.debian.org/debian-security",
        PYPI: "",
    }
    assert settings.mirror.origin == "default"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list.d/debian.sources", DEB822),
        (
            "sources.list",
            "deb [arch=amd64] http://mirror.test/debian/ trixie main\ndeb http://sec.test/debian-security x y\n",
        ),
    ],
)
def test_the_hosts_apt_sources_are_the_next_best(apt: Path, config: Path, name: str, text: str) -> None:
    (apt / name).write_text(text)
    settings = read_settings({}, environment={}, apt=apt)
    assert (settings.mirror.value, settings.security_mirror.value) == (
        "http://mirror.test/debian",
        "http://sec.test/debian-security",
    )


@pytest.mark.parametrize(
    "text", ["deb http://mirror.test/ubuntu noble main", "deb cdrom:[x]/debian x y", "# deb http://a/debian"]
)
def test_other_sources_of_apt_are_passed_over(apt: Path, config: Path, text: str) -> None:
    (apt / "sources.list").write_text(text)
    assert read_settings({}, environment={}, apt=apt).mirror.origin == "default"


def test_flag_beats_environment_beats_config_beats_apt(apt: Path, config: Path) -> None:
    (apt / "sources.list").write_text("deb http://apt.test/debian x y")
    config.write_text('mirror = "http://config.test/debian"\n')
    environment = {"OCIBUILD_MIRROR": "http://environment.test/debian"}
    flags = {"mirror": "http://flag.test/debian"}
    got = [
        read_settings(flags, environment=environment, apt=apt).mirror,
        read_settings({}, environment=environment, apt=apt).mirror,
        read_settings({}, environment={}, apt=apt).mirror,
    ]
    assert [setting.value for setting in got] == [
        "http://flag.test/debian",
        "http://environment.test/debian",
        "http://config.test/debian",
    ]
    assert [setting.origin for setting in got] == ["--mirror", "OCIBUILD_MIRROR", str(config)]


def test_the_predecessors_proxy_variable_is_honoured(apt: Path, config: Path) -> None:
    environment = {"PKG_PROXY": "http://pkg.test:3128", "https_proxy": "http://other.test", "NO_PROXY": "a,b"}
    settings = read_settings({}, environment=environment, apt=apt)
    assert (settings.proxy.value, settings.no_proxy.value) == ("http://pkg.test:3128", "a,b")


def test_the_index_is_pips_own_unless_ocibuild_is_told_another(apt: Path, config: Path, tmp_path: Path) -> None:
    def index(host: Path, flag: str | None = None, **environment: str) -> tuple[str, str]:
        got = read_settings({"pypi": flag}, environment=environment, apt=apt, pip=(host,)).pypi
        return got.value, got.origin

    host, named, user = tmp_path / "pip.conf", tmp_path / "named", tmp_path / "config/pip/pip.conf"
    assert index(host) == ("", "default")
    host.write_text("[global]\ntimeout = 9\nindex-url = http://host.test/100%/simple\n")
    assert index(host) == ("http://host.test/100%/simple", str(host))
    user.parent.mkdir()
    user.write_text("[global]\nindex-url = http://user.test/simple\n")
    assert index(host) == ("http://user.test/simple", str(user))
    named.write_text("[global]\nindex_url = x\n[install]\nindex-url = http://other.test/\n")
    assert index(host, PIP_CONFIG_FILE=str(named)) == ("http://user.test/simple", str(user))
    named.write_text("[global]\nindex-url = http://named.test/simple\n")
    assert index(host, PIP_CONFIG_FILE=str(named)) == ("http://named.test/simple", str(named))
    pip = {"PIP_INDEX_URL": "http://pip.test/simple", "PIP_CONFIG_FILE": str(named)}
    assert index(host, **pip) == ("http://pip.test/simple", "PIP_INDEX_URL")
    config.write_text("pypi = 'http://config.test/simple'\n")
    assert index(host, **pip) == ("http://config.test/simple", str(config))
    assert index(host, OCIBUILD_PYPI="http://own.test/simple", **pip)[1] == "OCIBUILD_PYPI"
    assert index(host, "http://flag.test/simple", OCIBUILD_PYPI="http://own.test/simple")[1] == "--pypi"


@pytest.mark.parametrize("text", ["index-url = x", "[global\n", "\xff"])
def test_a_file_of_pips_that_cannot_be_read_does_not_matter(apt: Path, config: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "pip.conf").write_bytes(text.encode("latin-1"))
    assert read_settings({}, environment={}, apt=apt, pip=(tmp_path / "pip.conf",)).pypi.origin == "default"


@pytest.mark.parametrize("name", ["mirror", "security_mirror", "pypi", "proxy"])
@pytest.mark.parametrize("value", ["ftp://x/debian", "x", "http://", "file:///srv"])
def test_what_is_no_url_is_refused(apt: Path, config: Path, name: str, value: str) -> None:
    with pytest.raises(UsageError):
        read_settings({name: value}, environment={}, apt=apt)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_jobs_is_refused(apt: Path, config: Path, value: str) -> None:
    with pytest.raises(UsageError):
        read_settings({}, environment={"OCIBUILD_JOBS": value}, apt=apt)


@pytest.mark.parametrize("text", ["= 1", "mirorr = 'x'\n"])
def test_a_bad_config_file_is_refused_with_its_path(apt: Path, config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_settings({}, environment={}, apt=apt)
    assert caught.value.at == str(config)


def test_credentials_are_looked_for_where_the_users_tools_keep_them() -> None:
    assert auth_files({"REGISTRY_AUTH_FILE": "/a"}) == [Path("/a")]
    assert auth_files({"XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d"}) == [
        Path("/r/containers/auth.json"),
        Path("/c/containers/auth.json"),
        Path("/d/config.json"),
    ]
    assert auth_files({}) == [
        Path(f"/run/containers/{os.getuid()}/auth.json"),
        Path.home() / ".config/containers/auth.json",
        Path.home() / ".docker/config.json",
    ]


def access(apt: Path, environment: dict[str, str]) -> Access:
    return registry_access(read_settings({}, environment=environment, apt=apt, pip=()), environment)


def test_a_login_writes_the_file_there_is_or_one_that_podman_reads(apt: Path, config: Path, tmp_path: Path) -> None:
    docker, runtime, home = tmp_path / "docker", tmp_path / "run", tmp_path / "c"
    base = {"XDG_CONFIG_HOME": str(home), "DOCKER_CONFIG": str(docker)}
    assert access(apt, base).login_file == home / "containers/auth.json"
    assert access(apt, {**base, "XDG_RUNTIME_DIR": str(runtime)}).login_file == runtime / "containers/auth.json"
    docker.mkdir()
    (docker / "config.json").write_text("{}")
    assert access(apt, {**base, "XDG_RUNTIME_DIR": str(runtime)}).login_file == docker / "config.json"
    assert access(apt, {**base, "REGISTRY_AUTH_FILE": "/a"}).login_file == Path("/a")


GITLAB = {"GITLAB_CI": "true", "CI_REGISTRY": "registry.example.org", "CI_SERVER_HOST": "gitlab.example.org"}
GITHUB = {"GITHUB_ACTIONS": "true", "GITHUB_ACTOR": "me", "GITHUB_TOKEN": "hush"}


@pytest.mark.parametrize(
    ("environment", "host", "user", "source"),
    [
        ({"CI_JOB_TOKEN": "hush", **GITLAB}, "registry.example.org", "gitlab-ci-token", "CI_JOB_TOKEN"),
        (
            {"CI_JOB_TOKEN": "x", "CI_REGISTRY_USER": "u", "CI_REGISTRY_PASSWORD": "hush", **GITLAB},
            "registry.example.org",
            "u",
            "CI_REGISTRY_PASSWORD",
        ),
        (GITHUB, "ghcr.io", "me", "GITHUB_TOKEN"),
        (
            {"OCIBUILD_REGISTRY": "R.example.org:5000", "OCIBUILD_REGISTRY_USER": "u"}
            | {"OCIBUILD_REGISTRY_PASSWORD": "hush", "DOCKER_AUTH_CONFIG": "{}"},
            "r.example.org:5000",
            "u",
            "OCIBUILD_REGISTRY_PASSWORD",
        ),
    ],
)
def test_accounts_of_variables(
    apt: Path, config: Path, environment: dict[str, str], host: str, user: str, source: str
) -> None:
    found = access(apt, environment)
    assert "hush" not in repr(found)
    given = next(one for one in found.sources if isinstance(one, Given))
    assert given == Given(host=host, credentials=Credentials.of(user, "hush"))
    assert given.credentials.source == source
    assert given.credentials.realms == ({"gitlab.example.org"} if "GITLAB_CI" in environment else set())


@pytest.mark.parametrize(
    "environment",
    [
        {**GITLAB},
        {**GITLAB, "CI_JOB_TOKEN": "x", "GITLAB_CI": ""},
        {**GITLAB, "CI_JOB_TOKEN": "x", "CI_REGISTRY": ""},
        {**GITHUB, "GITHUB_ACTIONS": ""},
        {**GITHUB, "GITHUB_TOKEN": ""},
        {"OCIBUILD_REGISTRY": "r.example.org"},
    ],
)
def test_variables_that_name_no_account(apt: Path, config: Path, environment: dict[str, str]) -> None:
    assert not [one for one in access(apt, environment).sources if isinstance(one, Given)]


def test_the_order_of_the_sources(apt: Path, config: Path) -> None:
    named = {f"OCIBUILD_REGISTRY{name}": "r.example.org" for name in ("", "_USER", "_PASSWORD")}
    own, text, *files, ci = access(apt, {**GITHUB, **named, "DOCKER_AUTH_CONFIG": '{"hush": 1}'}).sources
    assert isinstance(own, Given)
    assert text == GivenFile(name="DOCKER_AUTH_CONFIG", text='{"hush": 1}')
    assert "hush" not in repr(text)
    assert len(files) == 3
    assert all(isinstance(path, Path) for path in files)
    assert isinstance(ci, Given)
    assert ci.host == "ghcr.io"


def test_half_an_account_is_refused(apt: Path, config: Path) -> None:
    with pytest.raises(UsageError, match="OCIBUILD_REGISTRY is not set"):
        access(apt, {"OCIBUILD_REGISTRY_USER": "u", "OCIBUILD_REGISTRY_PASSWORD": "hush"})


def test_certificates_and_registries_of_the_user_go_before_the_hosts(apt: Path, config: Path, tmp_path: Path) -> None:
    home = tmp_path / "c"
    environment = {"XDG_CONFIG_HOME": str(home)}
    found = access(apt, environment)
    assert found.certificates == (
        home / "containers/certs.d",
        home / "docker/certs.d",
        Path("/etc/containers/certs.d"),
        Path("/etc/docker/certs.d"),
    )
    assert found.registries[0] == Path("/etc/containers/registries.conf")
    drop = home / "containers/registries.conf.d"
    drop.mkdir(parents=True)
    for name in ("b.conf", "a.conf", "c.txt"):
        (drop / name).touch()
    (home / "containers/registries.conf").touch()
    found = access(apt, environment)
    assert found.registries[0] == home / "containers/registries.conf"
    assert found.registries[-2:] == (drop / "a.conf", drop / "b.conf")
    assert access(apt, {**environment, "CONTAINERS_REGISTRIES_CONF": "/x"}).registries[0] == Path("/x")
    assert found.realms_file == home / "ocibuild/realms.json"


def test_source_date_epoch_is_a_number_or_nothing() -> None:
    assert source_date_epoch({"SOURCE_DATE_EPOCH": "7"}) == 7
    assert source_date_epoch({}) is None
    with pytest.raises(UsageError):
        source_date_epoch({"SOURCE_DATE_EPOCH": "yesterday"})


@pytest.mark.parametrize(
    ("environment", "around"),
    [
        ({"HTTPS_PROXY": "http://p.test"}, True),
        ({"PKG_PROXY": "http://p.test", "NO_PROXY": "a.test"}, True),
        ({"OCIBUILD_PROXY": "http://p.test", "HTTPS_PROXY": "http://p.test"}, False),
    ],
)
def test_a_proxy_for_every_program_is_not_asked_for_the_loopback(
    apt: Path, config: Path, environment: dict[str, str], around: bool
) -> None:
    hosts = around_proxy(read_settings({}, environment=environment, apt=apt))
    assert any(bypasses(pattern, "http://localhost:5000/v2/") for pattern in hosts) is around
    assert any(bypasses(pattern, "https://127.0.0.1/v2/") for pattern in hosts) is around
    assert any(bypasses(pattern, "https://[::1]:5000/v2/") for pattern in hosts) is around
    assert any(bypasses(pattern, "https://a.test/") for pattern in hosts) is ("NO_PROXY" in environment)
    assert not any(bypasses(pattern, "https://r.example.org/v2/") for pattern in hosts)
