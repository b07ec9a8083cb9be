"""Settings: which source wins, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.settings import auth_files, read_settings, source_date_epoch
from rootfs.errors import UsageError

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
        "pypi": "",
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
    assert auth_files({"XDG_RUNTIME_DIR": "/r", "DOCKER_CONFIG": "/d"}) == [
        Path("/r/containers/auth.json"),
        Path("/d/config.json"),
    ]


def test_source_date_epoch_is_a_number_or_nothing() -> None:
    assert source_date_epoch({"SOURCE_DATE_EPOCH": "7"}) == 7
    assert source_date_epoch({}) is None
    with pytest.raises(UsageError):
        source_date_epoch({"SOURCE_DATE_EPOCH": "yesterday"})
