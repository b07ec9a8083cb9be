"""Challenges, credentials and tokens: read right, and told to nobody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from builder.registry.auth import Challenge, Credentials, Secret, Token, authorize, scope_of
from rootfs.errors import TransferError
from rootfs.ports import Request
from tests.fakes.transport import reply

ME = Credentials(username="me", password=Secret("hush"))
REGISTRY = "https://r.example.org/v2/a"
BASIC = f"Basic {base64.b64encode(b'me:hush').decode()}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a.example/token",service="r",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a.example/token", "service": "r", "scope": "repository:a/b:pull,push"})],
        ),
        ('Basic realm="x y"', [("basic", {"realm": "x y"})]),
        ('basic realm=x, BEARER Realm = "q\\"uoted" , error=invalid', [
            ("basic", {"realm": "x"}), ("bearer", {"realm": 'q"uoted', "error": "invalid"})
        ]),
        ("Negotiate, Basic", [("negotiate", {}), ("basic", {})]),
        ("Negotiate YII==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ("", []),
        (",,=,", []),
        ('realm="no scheme"', []),
        ('Bearer realm="unclosed', [("bearer", {})]),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(challenge.scheme, challenge.parameters) for challenge in Challenge.parse(header)] == expected


def test_a_secret_does_not_show() -> None:
    token = Token(header=Secret("Bearer hush"))
    for shown in (repr(ME), str(ME), repr(token), f"{ME.password}", f"{ME.password!r:>40}"):
        assert "hush" not in shown
    assert Secret("a") == Secret("a") != Secret("b")


def ask(
    header: str,
    *,
    registry: str = REGISTRY,
    credentials: Credentials | None = ME,
    trusted: Sequence[str] = (),
    status: int = 200,
    answer: object = None,
) -> tuple[Request, Token]:
    """The dialogue's request, and the token it makes of the answer."""
    dialogue = authorize(Challenge.parse(header), registry=registry, credentials=credentials, trusted_realms=trusted)
    request = next(dialogue)
    body = answer if isinstance(answer, bytes) else json.dumps(answer or {"token": "t"}).encode()
    with pytest.raises(StopIteration) as end:
        dialogue.send(reply(request, status, body))
    return request, end.value.value


def bearer(realm: str) -> str:
    return f'Bearer realm="{realm}",service="r s",scope="repository:a:pull repository:b:pull"'


def test_a_token_is_asked_for() -> None:
    request, token = ask(bearer("https://r.example.org:444/token?x=1"), answer={"access_token": "t", "expires_in": 300})
    assert request.url == (
        "https://r.example.org:444/token?x=1&service=r+s&scope=repository%3Aa%3Apull&scope=repository%3Ab%3Apull"
    )
    assert request.headers == {"Authorization": BASIC}
    assert token == Token(header=Secret("Bearer t"), lifetime=300.0)
    assert "hush" not in repr(request)


def test_a_token_lives_a_minute_when_nothing_is_said() -> None:
    assert ask(bearer("https://r.example.org/token"))[1].lifetime == 60.0


def test_anonymous_tokens_come_from_anywhere() -> None:
    request, _ = ask(bearer("https://auth.example.net/token"), credentials=None)
    assert request.headers == {}


def test_the_password_does_not_go_to_another_host() -> None:
    with pytest.raises(TransferError, match="not sent to another host") as caught:
        ask(bearer("https://auth.example.net/token"))
    assert "`ocibuild login --realm auth.example.net r.example.org`" in (caught.value.hint or "")
    request, _ = ask(bearer("https://auth.example.net/token"), trusted=["auth.example.net"])
    assert request.headers == {"Authorization": BASIC}


def test_the_hub_has_its_own_token_server() -> None:
    ask(bearer("https://auth.docker.io/token"), registry="https://registry-1.docker.io/v2/a/b")
    with pytest.raises(TransferError, match="not sent"):
        ask(bearer("https://auth.docker.io/token"))


@pytest.mark.parametrize(
    ("realm", "registry"),
    [
        ("http://r.example.org/token", REGISTRY),
        ("http://auth.example.net/token", "http://r.example.org/v2/a"),
        ("file:///etc/passwd", REGISTRY),
        ("", REGISTRY),
    ],
)
@pytest.mark.parametrize("credentials", [ME, None])
def test_realms_that_are_not_asked(realm: str, registry: str, credentials: Credentials | None) -> None:
    with pytest.raises(TransferError):
        ask(bearer(realm), registry=registry, credentials=credentials, trusted=["auth.example.net"])


def test_a_plain_realm_of_a_plain_registry() -> None:
    request, _ = ask(bearer("http://localhost:5001/token"), registry="http://localhost:5000/v2/a")
    assert request.headers == {"Authorization": BASIC}


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\r\\nb"}', b'{"expires_in": []}']
)
def test_answers_that_hold_no_token(answer: bytes) -> None:
    with pytest.raises(TransferError, match="token server"):
        ask(bearer("https://r.example.org/token"), answer=answer)


def test_a_refusing_token_server() -> None:
    with pytest.raises(TransferError) as caught:
        ask(bearer("https://r.example.org/token"), status=401, answer={"details": "incorrect username or password"})
    assert caught.value.because == "401 incorrect username or password (with the account of this registry)"
    assert "`ocibuild login r.example.org`" in (caught.value.hint or "")


def test_basic() -> None:
    with pytest.raises(StopIteration) as end:
        next(authorize(Challenge.parse("Basic realm=x"), registry=REGISTRY, credentials=ME))
    assert end.value.value == Token(header=Secret(BASIC))


@pytest.mark.parametrize(
    ("header", "credentials", "message"),
    [("Basic", None, "wants a user"), ("Negotiate", ME, "no common way"), ("", ME, "no common way")],
)
def test_no_way_in(header: str, credentials: Credentials | None, message: str) -> None:
    with pytest.raises(TransferError, match=message):
        next(authorize(Challenge.parse(header), registry=REGISTRY, credentials=credentials))


IDENTITY = Credentials.of("<token>", "hush", "a helper")


def form(request: Request) -> dict[str, str]:
    assert request.method == "POST"
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    assert isinstance(request.body, bytes)
    return dict(parse_qsl(request.body.decode(), strict_parsing=True))


def test_an_identity_token_is_posted() -> None:
    request, token = ask(bearer("https://r.example.org/token"), credentials=IDENTITY, answer={"access_token": "t"})
    assert request.url == "https://r.example.org/token"
    assert form(request) == {
        "grant_type": "refresh_token",
        "refresh_token": "hush",
        "service": "r s",
        "client_id": "ocibuild",
        "scope": "repository:a:pull repository:b:pull",
    }
    assert token.header == Secret("Bearer t")
    assert "hush" not in repr(request)
    assert "hush" not in repr(IDENTITY)


@pytest.mark.parametrize("status", [404, 405])
def test_a_password_is_posted_where_get_is_refused(status: int) -> None:
    dialogue = authorize(Challenge.parse(bearer("https://r.example.org/token")), registry=REGISTRY, credentials=ME)
    request = dialogue.send(reply(next(dialogue), status))
    assert form(request) | {"scope": ""} == {
        "grant_type": "password",
        "username": "me",
        "password": "hush",
        "service": "r s",
        "client_id": "ocibuild",
        "scope": "",
    }
    with pytest.raises(StopIteration) as end:
        dialogue.send(reply(request, 200, b'{"access_token": "t"}'))
    assert end.value.value.header == Secret("Bearer t")


def test_without_an_account_nothing_is_posted() -> None:
    with pytest.raises(TransferError, match="a token"):
        ask(bearer("https://r.example.org/token"), credentials=None, status=405)


def test_an_identity_token_is_no_password() -> None:
    with pytest.raises(TransferError, match="wants a user") as caught:
        next(authorize(Challenge.parse("Basic realm=x"), registry=REGISTRY, credentials=IDENTITY))
    assert caught.value.because == "a helper has an identity token"


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("", ["repository:a/b:pull,push"]),
        ("repository:a/b:pull", ["repository:a/b:pull,push"]),
        ("repository:c:pull repository:a/b:push,pull", ["repository:c:pull", "repository:a/b:push,pull"]),
        ("registry:catalog:*", ["registry:catalog:*", "repository:a/b:pull,push"]),
    ],
)
def test_what_we_want_is_asked_for_at_once(scope: str, expected: list[str]) -> None:
    header = f'Bearer realm="https://r.example.org/t",scope="{scope}"'
    dialogue = authorize(Challenge.parse(header), registry=REGISTRY, credentials=ME, scopes=[scope_of("a/b", "push")])
    assert parse_qs(urlsplit(next(dialogue).url).query)["scope"] == expected
    assert scope_of("a", "pull") == "repository:a:pull"


def test_an_account_is_looked_up_only_when_it_may_be_needed() -> None:
    looked: list[str] = []

    def account() -> Credentials:
        looked.append("up")
        return ME

    for header in ("Negotiate", bearer("http://elsewhere.example/token")):
        with pytest.raises(TransferError):
            next(authorize(Challenge.parse(header), registry=REGISTRY, credentials=account))
    assert looked == []
    next(authorize(Challenge.parse(bearer("https://r.example.org/token")), registry=REGISTRY, credentials=account))
    assert looked == ["up"]


@pytest.mark.parametrize(
    ("realm", "trusted", "told"),
    [
        ("https://auth.example.net/t", ["auth.example.net"], True),
        ("https://auth.example.net:8443/t", ["auth.example.net"], True),
        ("https://auth.example.net:8443/t", ["auth.example.net:8443"], True),
        ("https://auth.example.net/t", ["auth.example.net:443"], True),
        ("https://auth.example.net:8443/t", ["auth.example.net:443"], False),
        ("https://auth.example.net.evil.example/t", ["auth.example.net"], False),
        ("https://x.auth.example.net/t", ["auth.example.net"], False),
        ("https://r.example.org@evil.example/t", [], False),
        ("https://evil.example/r.example.org/t", [], False),
        ("https://10.1.2.3/t", ["10.1.2.3"], True),
        ("https://10.1.2.3/t", [], False),
    ],
)
@pytest.mark.parametrize("credentials", [ME, IDENTITY])
def test_who_is_told_the_secret(realm: str, trusted: list[str], told: bool, credentials: Credentials) -> None:
    if told:
        ask(bearer(realm), credentials=credentials, trusted=trusted)
        ask(bearer(realm), credentials=replace(credentials, realms=frozenset(trusted)))
        return
    with pytest.raises(TransferError, match="not sent to another host") as caught:
        ask(bearer(realm), credentials=credentials, trusted=trusted)
    assert "hush" not in caught.value.render()


@pytest.mark.parametrize("host", ["10.0.0.7:5000", "192.168.1.2", "[fd00::1]:5000"])
def test_private_addresses_are_hosts_like_others(host: str) -> None:
    request, _ = ask(bearer(f"https://{host}/token"), registry=f"https://{host}/v2/a")
    assert request.headers == {"Authorization": BASIC}


@pytest.mark.parametrize(
    ("registry", "command"),
    [
        ("https://r.example.org:5000/v2/a", "ocibuild login --realm auth.example.net:8443 r.example.org:5000"),
        ("http://10.0.0.7:5000/v2/a", "ocibuild login --realm auth.example.net:8443 --plain-http 10.0.0.7:5000"),
        ("http://localhost:5000/v2/a", "ocibuild login --realm auth.example.net:8443 localhost:5000"),
        ("https://registry-1.docker.io/v2/a", "ocibuild login --realm auth.example.net:8443 docker.io"),
    ],
)
def test_the_refusal_prints_the_command_that_allows_it(registry: str, command: str) -> None:
    with pytest.raises(TransferError) as caught:
        ask(bearer("https://auth.example.net:8443/token"), registry=registry)
    assert f"`{command}`" in (caught.value.hint or "")


@pytest.mark.parametrize("lifetime", ["NaN", "Infinity", "-5", "1e400"])
def test_a_lifetime_is_a_number_of_seconds(lifetime: str) -> None:
    _, token = ask(bearer("https://r.example.org/token"), answer=f'{{"token": "t", "expires_in": {lifetime}}}'.encode())
    assert token.lifetime in (0.0, 60.0)
