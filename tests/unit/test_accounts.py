"""Accounts: whose is found where, who is asked for it, and what a login writes."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.login import all_places, log_in, log_out
from builder.registry.access import Access
from builder.registry.accounts import Given, GivenFile, Source, find, forget, keep, read_realms, write_realms
from builder.registry.auth import Credentials, Secret
from builder.registry.credentials import AuthFile, Place
from builder.registry.helpers import fetch
from builder.registry.reference import Reference, is_loopback
from rootfs.errors import HostError, TransferError, UsageError
from rootfs.ports import Request, Response
from tests.fakes.transport import FakeTransport, reply

ME = Credentials(username="me", password=Secret("hush"))
HERE = Place(host="r.example.org")
HELPER = """#!/bin/sh
# docker-credential-test: keeps each account in a file of its own beside itself, named by the server
here=$(dirname "$0")
echo "$1" >>"$here/calls"
case $1 in
store)
    input=$(cat)
    server=$(printf %s "$input" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/')
    printf %s "$input" >"$here/$(printf %s "$server" | tr / _)" ;;
get)
    read -r server || [ -n "$server" ]
    case $server in
    *slow*) sleep 60 & wait ;;
    *broken*) echo '{"Secret": "hush"}'; exit 3 ;;
    *odd*) echo 'the key ring is locked'; exit 1 ;;
    *junk*) echo 'hush'; exit 0 ;;
    esac
    cat "$here/$(printf %s "$server" | tr / _)" 2>/dev/null || {
        echo 'credentials not found in native keychain'
        exit 1
    } ;;
erase)
    read -r server || [ -n "$server" ]
    rm "$here/$(printf %s "$server" | tr / _)" ;;
esac
"""


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of docker-credential-test, which is on the PATH."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "docker-credential-test").write_text(HELPER)
    (place / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return place


def calls(keyring: Path) -> list[str]:
    path = keyring / "calls"
    return path.read_text().split() if path.exists() else []


def entry(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def text(value: object) -> GivenFile:
    return GivenFile(name="x/auth.json", text=json.dumps(value))


def config(**auths: object) -> GivenFile:
    return text({"auths": auths})


def found(reference: str, *sources: Source, notes: list[str] | None = None) -> Credentials | None:
    return find(Place.of(Reference.parse(reference)), sources, ([] if notes is None else notes).append)


@pytest.mark.parametrize(
    ("reference", "source", "expected"),
    [
        ("r.example.org/a", config(**{"r.example.org": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"R.Example.org": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"https://r.example.org/v1/": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"https://r.example.org/v2/": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"r.example.org/": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"r.example.org": {"username": "me", "password": "hush"}}), ME),
        ("r.example.org:5000/a", config(**{"r.example.org": entry("me:hush")}), None),
        ("r.example.org/a", config(**{"r.example.org:5000": entry("me:hush")}), None),
        ("r.example.org/a", config(**{"other.example.org": entry("me:hush")}), None),
        ("r.example.org/a", config(**{"r.example.org": {}}), None),
        ("r.example.org/a", text({"auths": None}), None),
        ("r.example.org/a", GivenFile(name="empty", text=" \n"), None),
        ("docker.io/a/b", config(**{"https://index.docker.io/v1/": entry("me:hush")}), ME),
        ("docker.io/a/b", config(**{"docker.io": entry("me:hush")}), ME),
        ("index.docker.io/a/b", config(**{"docker.io": entry("me:hush")}), ME),
        ("docker.io/a/b", config(**{"registry-1.docker.io": entry("me:hush")}), ME),
        ("docker.io/a/b", config(**{"docker.io/a": entry("me:hush"), "docker.io": entry("x:y")}), ME),
        ("r.example.org/a/b", config(**{"r.example.org": entry("x:y"), "r.example.org/a": entry("me:hush")}), ME),
        ("r.example.org/a/b", config(**{"r.example.org": entry("me:hush"), "r.example.org/a/b": {}}), ME),
        ("r.example.org/ab", config(**{"r.example.org": entry("me:hush"), "r.example.org/a": entry("x:y")}), ME),
        ("r.example.org/a", config(**{"r.example.org": entry("me:a:b")}), replace(ME, password=Secret("a:b"))),
        (
            "r.example.org/a",
            config(**{"r.example.org": {**entry("0000:"), "identitytoken": "hush"}}),
            Credentials.of("<token>", "hush"),
        ),
    ],
)
def test_what_a_file_says(reference: str, source: GivenFile, expected: Credentials | None) -> None:
    assert found(reference, source) == expected


@pytest.mark.parametrize(
    "source",
    [
        GivenFile(name="x", text="[]"),
        GivenFile(name="x", text="hush"),
        GivenFile(name="x", text="[" * 100_000),
        text({"auths": 1}),
        text({"credHelpers": ["hush"]}),
        text({"credsStore": "../../bin/hush"}),
        text({"credsStore": 1}),
        config(**{"r.example.org": 1}),
        config(**{"r.example.org": {"auth": "*hush*"}}),
        config(**{"r.example.org": {"auth": 7}}),
        config(**{"r.example.org": {"username": "hush"}}),
        config(**{"r.example.org": {"identitytoken": ["hush"]}}),
    ],
)
def test_what_cannot_be_read(source: GivenFile) -> None:
    with pytest.raises(TransferError) as caught:
        found("r.example.org/a", source)
    assert "hush" not in caught.value.render()
    assert "hush" not in repr(source)
    assert caught.value.at == source.name


def test_an_entry_for_another_host_is_not_read() -> None:
    assert found("r.example.org/a", config(**{"other.example.org": 1})) is None


def test_the_first_source_that_has_one_counts(tmp_path: Path) -> None:
    first, second = Given(host="r.example.org", credentials=ME), config(**{"r.example.org": entry("x:y")})
    for sources in ([first, second], [tmp_path / "none", first]):
        assert found("r.example.org/a", *sources) == ME
    other = found("r.example.org/a", Given(host="other.example.org", credentials=ME), second, first)
    assert other is not None
    assert (other.username, other.source) == ("x", "x/auth.json")


def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot read the credentials"):
        found("r.example.org/a", tmp_path)  # a directory


def test_only_the_helper_of_the_host_is_asked_and_once(keyring: Path) -> None:
    (keyring / "r.example.org").write_text('{"Username": "me", "Secret": "hush"}')
    source = text({"credHelpers": {"r.example.org": "test", "other.example.org": "gone"}, "credsStore": "gone"})
    notes: list[str] = []
    account = Access(sources=(source,)).account(Reference.parse("r.example.org/a/b"), notes.append)
    assert calls(keyring) == []
    assert account() == account() == ME
    assert calls(keyring) == ["get"]
    assert notes == []


def test_a_store_is_asked_for_what_is_not_written(keyring: Path) -> None:
    (keyring / "https:__index.docker.io_v1_").write_text('{"Username": "me", "Secret": "hush"}')
    written = {"credsStore": "test", "auths": {"r.example.org": entry("x:y"), "https://index.docker.io/v1/": {}}}
    other = found("r.example.org/a", text(written))
    assert other is not None
    assert (other.username, calls(keyring)) == ("x", [])
    assert found("docker.io/a/b", text(written)) == ME
    assert found("third.example.org/a", text(written)) is None


def test_a_helper_knows_identity_tokens(keyring: Path) -> None:
    (keyring / "r.example.org").write_text('{"ServerURL": "x", "Username": "<token>", "Secret": "hush"}')
    assert found("r.example.org/a", text({"credsStore": "test"})) == Credentials.of("<token>", "hush")


def test_a_missing_helper_is_a_note(keyring: Path) -> None:
    notes: list[str] = []
    sources = (text({"credsStore": "gone"}), config(**{"r.example.org": entry("me:hush")}))
    assert found("r.example.org/a", *sources, notes=notes) == ME
    assert notes == ["x/auth.json: docker-credential-gone is not on the PATH; going on without"]


@pytest.mark.parametrize(
    ("host", "because"),
    [("broken.example.org", "exit status 3"), ("odd.example.org", "the key ring is locked"), ("junk.example.org", "")],
)
def test_a_helper_that_fails_is_a_note_without_its_secrets(keyring: Path, host: str, because: str) -> None:
    notes: list[str] = []
    assert found(f"{host}/a", text({"credHelpers": {host: "test"}}), notes=notes) is None
    assert because in notes[0]
    assert "hush" not in notes[0]


def test_a_helper_that_hangs_is_ended(keyring: Path) -> None:
    with pytest.raises(HostError, match="did not answer"):
        fetch("test", "slow.example.org", patience=0.3)


@pytest.mark.parametrize(
    ("typed", "host", "path"),
    [
        ("r.example.org", "r.example.org", ""),
        ("https://R.example.org/", "r.example.org", ""),
        ("localhost:5000/team/x", "localhost:5000", "team/x"),
        ("[::1]:5000", "[::1]:5000", ""),
        ("index.docker.io", "docker.io", ""),
    ],
)
def test_places(typed: str, host: str, path: str) -> None:
    assert Place.parse(typed) == Place(host=host, path=path)


@pytest.mark.parametrize("typed", ["", "porter", "http://r.example.org", "r.example.org/UP", "a b.c", "https://"])
def test_what_is_no_registry(typed: str) -> None:
    with pytest.raises(UsageError):
        Place.parse(typed)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("localhost:5000", True), ("127.0.0.1:5000", True), ("127.8.8.8", True), ("[::1]:5000", True),
     ("::1", True), ("[::1]", True), ("localhost.example.org", False), ("10.0.0.1:5000", False), ("128.0.0.1", False),
     ("127.0.0.1.example.org", False), ("[fe80::1]", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_keeping_and_forgetting(tmp_path: Path) -> None:
    path = tmp_path / "new/containers/auth.json"
    assert keep(path, HERE, ME) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    keep(path, Place(host="r.example.org", path="team"), replace(ME, username="x"))
    assert found("r.example.org/a", path) == ME
    team = found("r.example.org/team/b", path)
    assert team is not None
    assert (team.username, team.source) == ("x", str(path))
    assert forget(path, HERE, print)
    assert not forget(path, HERE, print)
    assert found("r.example.org/a", path) is None
    assert found("r.example.org/team/b", path) is not None
    assert [child.name for child in path.parent.iterdir()] == ["auth.json"]


def test_what_else_a_file_holds_stays(tmp_path: Path) -> None:
    path, real = tmp_path / "config.json", tmp_path / "real.json"
    real.write_text('{"HttpHeaders": {"X": "ü"}, "auths": {"https://r.example.org": {"auth": "eDp5"}, "z": {}}}')
    path.symlink_to(real)
    keep(path, HERE, ME)
    keep(path, Place(host="docker.io"), Credentials.of("<token>", "hush"))
    assert path.is_symlink()
    value = json.loads(real.read_bytes())
    assert value["HttpHeaders"] == {"X": "ü"}
    assert sorted(value["auths"]) == ["https://index.docker.io/v1/", "r.example.org", "z"]
    assert found("docker.io/a", path) == Credentials.of("<token>", "hush")


def test_dockers_file_gets_dockers_key() -> None:
    hub = Place(host="docker.io")
    assert AuthFile(name="/h/.docker/config.json").key(hub) == "https://index.docker.io/v1/"
    assert AuthFile(name="/r/containers/auth.json").key(hub) == "docker.io"


@pytest.mark.parametrize("named", [{"credsStore": "test"}, {"credHelpers": {"r.example.org": "test"}}])
def test_a_helper_keeps_and_forgets(keyring: Path, tmp_path: Path, named: dict[str, object]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(named))
    assert keep(path, HERE, ME) == "docker-credential-test"
    assert "hush" in (keyring / "r.example.org").read_text()
    assert json.loads(path.read_bytes()) == named | ({"auths": {"r.example.org": {}}} if "credsStore" in named else {})
    assert found("r.example.org/a", path) == ME
    with pytest.raises(UsageError, match="cannot keep"):
        keep(path, Place(host="r.example.org", path="team"), ME)
    assert forget(path, HERE, print)
    assert not (keyring / "r.example.org").exists()
    assert not forget(path, HERE, print)


def test_a_helper_that_is_gone_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "gone"}')
    with pytest.raises(HostError, match="docker-credential-gone is not on the PATH"):
        keep(path, HERE, ME)
    assert path.read_text() == '{"credsStore": "gone"}'


def test_trusted_realms_are_kept_by_registry(tmp_path: Path) -> None:
    path = tmp_path / "realms.json"
    assert read_realms(path) == {}
    write_realms(path, "r.example.org", ["b", "a", "a"])
    write_realms(path, "z.example.org", ["c"])
    access = Access(realms_file=path, trusted_realms=("all.example", "R.example.org=one.example", "x.example=no"))
    assert access.realms("r.example.org") == ("all.example", "one.example", "a", "b")
    write_realms(path, "r.example.org", [])
    assert read_realms(path) == {"z.example.org": ["c"]}
    path.write_text("[]")
    with pytest.raises(HostError, match="trusted realms"):
        access.realms("r.example.org")


def open_door(credentials: str = "", realm: str = "") -> Callable[[Request], Response]:
    """A registry's base: for everybody, or by Basic, or by the token server at `realm`."""

    def answer(request: Request) -> Response:
        got = request.headers.get("Authorization", "")
        if realm and request.url.startswith(realm):
            return reply(request, 200, b'{"token": "good"}') if got == credentials else reply(request, 401)
        challenge = f'Bearer realm="{realm}",service="r"' if realm else 'Basic realm="r"'
        if request.url.endswith("/v2/") and got in ("Bearer good",) if realm else got == credentials:
            return reply(request, 200)
        return reply(request, 401, headers={"WWW-Authenticate": challenge})

    return answer


BASIC = f"Basic {base64.b64encode(b'me:hush').decode()}"


def access_to(tmp_path: Path) -> Access:
    path = tmp_path / "auth.json"
    return Access(sources=(path,), files=(path,), login_file=path, realms_file=tmp_path / "realms.json")


@pytest.mark.parametrize("realm", ["", "https://r.example.org/token"])
def test_a_login_is_tried_before_it_is_kept(tmp_path: Path, realm: str) -> None:
    access, transport = access_to(tmp_path), FakeTransport(open_door(BASIC, realm))
    wrong = replace(ME, password=Secret("wrong"))
    with pytest.raises(TransferError):
        log_in(HERE, wrong, access, transport, print)
    assert not access.login_file.exists()
    done = log_in(HERE, ME, access, transport, print)
    assert (done.username, done.kept) == ("me", str(access.login_file))
    assert found("r.example.org/a", access.login_file) == ME
    assert all_places(access, print) == [HERE]
    assert log_out(HERE, access, print) == [access.login_file]
    assert log_out(HERE, access, print) == []


def test_a_foreign_realm_is_trusted_by_the_printed_command_and_for_that_registry(tmp_path: Path) -> None:
    access, transport = access_to(tmp_path), FakeTransport(open_door(BASIC, "https://auth.example.net/token"))
    with pytest.raises(TransferError, match="not sent to another host"):
        log_in(HERE, ME, access, transport, print)
    assert all("Authorization" not in request.headers for request in transport.requests)
    log_in(HERE, ME, access, transport, print, realms=["Auth.example.net"])
    log_in(HERE, ME, access, transport, print)
    assert access.realms("r.example.org") == ("auth.example.net",)
    assert access.realms("other.example.org") == ()
    known = find(HERE, access.sources, print)
    assert known is not None
    access.login_file.write_text(access.login_file.read_text() + "\n")
    before = access.login_file.read_bytes()
    assert log_in(HERE, known, access, transport, print, realms=["b.example.net"]).kept == str(access.login_file)
    assert access.login_file.read_bytes() == before  # it was kept already
    assert access.realms("r.example.org") == ("auth.example.net", "b.example.net")
    log_out(HERE, access, print)
    assert access.realms("r.example.org") == ()


def test_a_door_that_is_open_says_nothing_about_the_key(tmp_path: Path) -> None:
    notes: list[str] = []
    log_in(HERE, ME, access_to(tmp_path), FakeTransport(lambda request: reply(request, 200)), notes.append)
    assert "asked for no account" in notes[0]


@pytest.mark.parametrize("realm", ["", "a b", "https://x.example", "x.example/path"])
def test_a_realm_is_a_host(tmp_path: Path, realm: str) -> None:
    with pytest.raises(UsageError):
        log_in(HERE, ME, access_to(tmp_path), FakeTransport(open_door(BASIC)), print, realms=[realm])


def test_a_file_that_is_not_ours_to_read_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    notes: list[str] = []
    assert find(HERE, [tmp_path / "closed/auth.json"], notes.append) is None
    assert notes == []
    (tmp_path / "auth.json").touch()
    assert find(HERE, [tmp_path / "auth.json"], notes.append) is None
    places = Access(files=(tmp_path / "auth.json",), realms_file=tmp_path / "directory/realms.json")
    monkeypatch.setattr("builder.login.read_realms", lambda _: {})
    assert log_out(HERE, places, notes.append) == []
    assert all_places(places, notes.append) == []
    assert notes == [f"{tmp_path / 'auth.json'}: not ours to read, so what it holds is left alone"] * 3


def test_an_auth_file_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    missing = tmp_path / "auth.json"
    access = Access(sources=(missing,), named_file=missing)
    reference = Reference.parse("registry.example.org/a")
    account = access.account(reference, told.append)
    assert account() is None
    assert account() is None
    assert told == [f"{missing}, which REGISTRY_AUTH_FILE names, is not there; going on without"]
    missing.write_text("{}")
    assert access.account(reference, told.append)() is None
    assert len(told) == 1
