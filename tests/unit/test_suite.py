"""Suites as values: users' words, snapshots, other repositories, and the mirrors that stand in for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootfs.architecture import Architecture
from rootfs.archive import Download, fetch, read_index, read_release
from rootfs.debian.package import Package
from rootfs.digest import Digest
from rootfs.errors import IntegrityError, RecipeError, ResolveError, TransferError
from rootfs.suite import CANONICAL, Suite, from_mirror, package_url, parse_repository, snapshot_time, standard_suites
from tests.fakes.archive import DATE, Signer, date, release
from tests.fakes.reporter import ListReporter
from tests.fakes.store import MemoryStore
from tests.fakes.transport import pages

SIGNER = Signer()
URL = "https://repo.example.org/apt"
SNAPSHOT = "20260201T000000Z"
NOW = snapshot_time("20270101T000000Z")
AMD64 = Architecture.parse("amd64")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "repo.asc"
    path.write_text(str(SIGNER.certificate))
    return path


def test_a_release_and_what_is_added_to_it() -> None:
    suites = standard_suites("trixie", ["main", "contrib"], updates=True, backports=True)
    assert [(suite.archive, suite.name) for suite in suites] == [
        ("debian", "trixie"),
        ("debian-security", "trixie-security"),
        ("debian", "trixie-updates"),
        ("debian", "trixie-backports"),
    ]
    assert {suite.components for suite in suites} == {("main", "contrib")}
    assert suites[1].directory == f"{CANONICAL['debian-security']}/dists/trixie-security"


def test_sid_stands_alone() -> None:
    assert [suite.name for suite in standard_suites("sid", ["main"])] == ["sid"]
    with pytest.raises(RecipeError, match="no updates"):
        standard_suites("unstable", ["main"], updates=True)


@pytest.mark.parametrize("word", ["", "..", "../x", "a b", "/x", "trixie/", "trixie?", "a//b", "tri\nxie"])
def test_a_name_that_would_change_the_url_is_refused(word: str) -> None:
    with pytest.raises(RecipeError, match="not the name"):
        Suite.parse(word)
    with pytest.raises(RecipeError, match="not the name"):
        Suite.parse("trixie", [word])


def test_a_snapshot_names_its_url_and_its_time() -> None:
    main, security = standard_suites("trixie", ["main"], snapshot=SNAPSHOT)
    assert main.canonical == f"https://snapshot-cloudflare.debian.org/archive/debian/{SNAPSHOT}"
    assert security.canonical == f"https://snapshot-cloudflare.debian.org/archive/debian-security/{SNAPSHOT}"
    assert main.at == 1769904000
    package = Package({"Package": "a", "Filename": "pool/a.deb"}, "debian-security")
    assert package_url(package, [main, security]) == f"{security.canonical}/pool/a.deb"


@pytest.mark.parametrize("text", ["2026-02-01", "20260201", "20260230T000000Z", "20260201T000000", "latest", "x/../y"])
def test_what_is_no_timestamp_is_no_snapshot(text: str) -> None:
    with pytest.raises(RecipeError, match="not a snapshot"):
        standard_suites("trixie", ["main"], snapshot=text)


def test_a_repository_as_users_write_it(key: Path) -> None:
    suite = parse_repository(f"{URL}/ stable main extra key={key.name}", base=key.parent)
    assert (suite.archive, suite.name, suite.components) == (URL, "stable", ("main", "extra"))
    assert suite.directory == f"{URL}/dists/stable"
    assert suite.keys == key.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a repository"),
        (f"{URL} stable main", "not a repository"),
        (f"{URL} stable key=repo.asc", "not a repository"),
        (f"{URL} stable main key=repo.asc key=repo.asc", "not a repository"),
        (f"{URL} ./ main key=repo.asc", "not the name"),
        ("ftp://x stable main key=repo.asc", "begins with http"),
        ("repo.example.org stable main key=repo.asc", "begins with http"),
        ("https://user:secret@x/ stable main key=repo.asc", "no user, password"),
        ("https://x/?token=secret stable main key=repo.asc", "no user, password"),
        (f"{CANONICAL['debian']} trixie main key=repo.asc", "own archive"),
        (f"{URL} stable main key=none.asc", "cannot be read"),
        (f"{URL} stable main key=.", "cannot be read"),
        (f"{URL} stable main key=text", "not a file of OpenPGP"),
    ],
)
def test_a_repository_that_is_refused(text: str, message: str, key: Path) -> None:
    (key.parent / "text").write_text("hello")
    with pytest.raises(RecipeError, match=message) as caught:
        parse_repository(text, base=key.parent)
    assert "secret" not in caught.value.render()


def test_mirrors_stand_in_for_archives_snapshots_and_repositories() -> None:
    mirrors = {"debian": "http://m/d/", "snapshot": "http://m/s", f"{URL}/": "http://user:pass@m/r"}
    snapshot = Suite.parse("trixie", snapshot=SNAPSHOT)
    assert from_mirror(f"{CANONICAL['debian']}/pool/a", mirrors) == "http://m/d/pool/a"
    assert from_mirror(f"{CANONICAL['debian']}-ports/pool/a", mirrors) == f"{CANONICAL['debian']}-ports/pool/a"
    assert from_mirror(snapshot.directory, mirrors) == f"http://m/s/debian/{SNAPSHOT}/dists/trixie"
    assert from_mirror(f"{URL}/dists/x", mirrors) == "http://user:pass@m/r/dists/x"
    assert from_mirror(f"{CANONICAL['debian-security']}/x", mirrors) == f"{CANONICAL['debian-security']}/x"


def read(suite: Suite, text: bytes, *, now: int = NOW, signer: Signer = SIGNER) -> int:
    """The Date of a suite whose InRelease is this."""
    transport = pages({f"{suite.directory}/InRelease": signer.clear(text)})
    return read_release(suite, transport=transport, store=MemoryStore(), mirrors={}, now=now).date


def repository(name: str = "stable", *, url: str = URL, signer: Signer = SIGNER, snapshot: str = "") -> Suite:
    keys = bytes(signer.certificate)
    return Suite(archive=url, name=name, components=("main",), keys=keys, snapshot=snapshot)


def test_valid_until_is_held_against_the_snapshots_time() -> None:
    text = release({}, Valid_Until=date(snapshot_time(SNAPSHOT) + 3600))
    assert read(repository(url="debian", snapshot=SNAPSHOT), text) == DATE
    with pytest.raises(IntegrityError, match="expired"):
        read(repository(), text)
    past = release({}, Valid_Until=date(snapshot_time(SNAPSHOT) - 1))
    with pytest.raises(IntegrityError, match="expired"):
        read(repository(url="debian", snapshot=SNAPSHOT), past)


def test_a_release_made_after_the_snapshot_is_not_of_it() -> None:
    later = release({}, Date=date(snapshot_time(SNAPSHOT) + 86400))
    with pytest.raises(IntegrityError, match="from the future"):
        read(repository(url="debian", snapshot=SNAPSHOT), later)


def test_a_snapshot_of_the_future_is_refused() -> None:
    with pytest.raises(RecipeError, match="lies in the future"):
        read(repository(url="debian", snapshot=SNAPSHOT), release({}), now=DATE)


def test_each_repository_is_signed_by_its_own_key_alone() -> None:
    other = Signer()
    text = release({})
    assert read(repository(), text) == read(repository(signer=other), text, signer=other) == DATE
    for suite, signer in ((repository(), other), (repository(signer=other), SIGNER)):
        with pytest.raises(IntegrityError, match="does not hold"):
            read(suite, text, signer=signer)
    with pytest.raises(IntegrityError, match="does not hold"):
        read(Suite.parse("trixie"), release({}, Codename="trixie"))


def test_where_nothing_is_signed_the_message_says_so() -> None:
    suite = repository()
    ports = {"store": MemoryStore(), "mirrors": {}, "now": NOW}
    with pytest.raises(IntegrityError, match="not signed"):
        read_release(suite, transport=pages({f"{suite.directory}/Release": release({})}), **ports)
    with pytest.raises(TransferError) as caught:
        read_release(suite, transport=pages({}), **ports)
    assert "is there a suite stable" in (caught.value.hint or "")


def test_a_mirrors_password_is_in_no_message() -> None:
    suite, mirrors = repository(), {URL: "https://user:secret@m/r"}
    where = "https://user:secret@m/r/dists/stable"
    ports = {"store": MemoryStore(), "mirrors": mirrors, "now": NOW}
    for web in ({}, {f"{where}/Release": b"x"}, {f"{where}/InRelease": b"x"}):
        with pytest.raises((IntegrityError, TransferError)) as caught:
            read_release(suite, transport=pages(web), **ports)
        assert "secret" not in caught.value.render()
        assert "***@m/r/dists/stable" in caught.value.render()


def packages(name: str, machine: str = "amd64") -> bytes:
    fields = f"Package: {name}\nVersion: 1\nArchitecture: {machine}\nFilename: pool/{name}.deb\n"
    return f"{fields}Size: 1\nSHA256: {'0' * 64}\n".encode()


def names(files: dict[str, bytes], served: dict[str, bytes] | None = None, **fields: str) -> list[str]:
    """The packages of a repository whose Release lists these files."""
    suite = repository()
    web = {f"{suite.directory}/{path}": data for path, data in (files if served is None else served).items()}
    web[f"{suite.directory}/InRelease"] = SIGNER.clear(release(files, **fields))
    transport, store = pages(web), MemoryStore()
    found = read_release(suite, transport=transport, store=store, mirrors={}, now=NOW)
    index = read_index([(suite, found)], AMD64, transport=transport, store=store, mirrors={}, reporter=ListReporter())
    return sorted(index.names())


def test_packages_for_all_architectures_may_have_an_index_of_their_own() -> None:
    files = {"main/binary-amd64/Packages": packages("a"), "main/binary-all/Packages": packages("b", "all")}
    assert names(files) == ["a"]
    assert names(files, Architectures="amd64 all") == ["a", "b"]
    assert names(files, Architectures="amd64 all", No_Support_for_Architecture_all="Packages") == ["a"]
    assert names({"main/binary-all/Packages": packages("b", "all")}, Architectures="all") == ["b"]


def test_a_component_or_architecture_that_is_not_there_is_said() -> None:
    with pytest.raises(ResolveError) as caught:
        names({"main/binary-arm64/Packages": packages("a")}, Components="updates/main updates/contrib")
    assert "components: main, contrib; architectures: amd64" in (caught.value.hint or "")


def test_an_index_that_is_not_what_its_name_says_is_refused() -> None:
    for suffix in (".xz", ".gz"):
        with pytest.raises(IntegrityError, match="cannot be read"):
            names({f"main/binary-amd64/Packages{suffix}": b"hello"})
    with pytest.raises(IntegrityError):
        names({"main/binary-amd64/Packages": b"Package: \xff"})


@pytest.mark.parametrize("served", [b"", b"hell", b"hello!", b"hello" * 1000])
def test_a_size_that_lies_is_refused(served: bytes) -> None:
    path = "main/binary-amd64/Packages"
    with pytest.raises(IntegrityError):
        names({path: b"hello"}, {path: served})


def test_only_a_missing_file_leads_to_the_second_place() -> None:
    """What is damaged, or kept back by a server's error, is not looked for elsewhere."""
    digest = Digest.of(b"x")
    download = Download(url=f"{URL}/first", digest=digest, size=1, otherwise=f"{URL}/second")
    for first, error in ((b"y", IntegrityError), (TransferError("500"), TransferError)):
        transport = pages({f"{URL}/first": first, f"{URL}/second": b"x"})
        with pytest.raises(error):
            fetch([download], transport=transport, store=MemoryStore(), mirrors={}, reporter=ListReporter(), task="t")
        assert [request.url for request in transport.requests] == [f"{URL}/first"]
    transport, store = pages({f"{URL}/second": b"x"}), MemoryStore()
    fetch([download], transport=transport, store=store, mirrors={}, reporter=ListReporter(), task="t")
    assert store.exists(digest)
