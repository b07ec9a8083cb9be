"""Challenges, credentials and tokens: read right, and told to nobody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest

from builder.registry.auth import Challenge, Credentials, Secret, Token, authorize, credentials_for
from builder.registry.reference import Reference
from rootfs.errors import TransferError
from rootfs.ports import Request
from tests.fakes.transport import reply

ME = Credentials(username="me", password=Secret("hush"))
REGISTRY = "https://r.example.org/v2/a"
BASIC = f"Basic {base64.b64encode(b'me:hush').decode()}"


def config(**auths: object) -> bytes:
    return json.dumps({"auths": auths}).encode()


def entry(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


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


@pytest.mark.parametrize(
    ("reference", "data", "expected"),
    [
        ("r.example.org/a", config(**{"r.example.org": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"https://r.example.org/v1/": entry("me:hush")}), ME),
        ("r.example.org/a", config(**{"r.example.org": {"username": "me", "password": "hush"}}), ME),
        ("r.example.org:5000/a", config(**{"r.example.org": entry("me:hush")}), None),
        ("r.example.org/a", config(**{"other.example.org": entry("me:hush")}), None),
        ("r.example.org/a", config(**{"r.example.org": {}}), None),
        ("r.example.org/a", b'{"credsStore": "x"}', None),
        ("r.example.org/a", b'{"auths": null}', None),
        ("docker.io/a/b", config(**{"https://index.docker.io/v1/": entry("me:hush")}), ME),
        ("r.example.org/a/b", config(**{"r.example.org": entry("x:y"), "r.example.org/a": entry("me:hush")}), ME),
        ("r.example.org/ab", config(**{"r.example.org": entry("me:hush"), "r.example.org/a": entry("x:y")}), ME),
    ],
)
def test_credentials(reference: str, data: bytes, expected: Credentials | None) -> None:
    assert credentials_for(Reference.parse(reference), data) == expected


def test_a_password_may_hold_a_colon() -> None:
    found = credentials_for(Reference.parse("r.example.org/a"), config(**{"r.example.org": entry("me:a:b")}))
    assert found == Credentials(username="me", password=Secret("a:b"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"auths": 1}',
        b"[" * 100_000,
        config(**{"r.example.org": 1}),
        config(**{"r.example.org": {"auth": "*hush*"}}),
        config(**{"r.example.org": {"auth": 7}}),
        config(**{"r.example.org": {"username": "hush"}}),
        config(**{"r.example.org": {"identitytoken": "hush"}}),
    ],
)
def test_unreadable_credentials(data: bytes) -> None:
    with pytest.raises(TransferError) as caught:
        credentials_for(Reference.parse("r.example.org/a"), data)
    assert "hush" not in caught.value.render()


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


def test_a_token_lives_a_minute_when_nothing_is_said() -> None:
    assert ask(bearer("https://r.example.org/token"))[1].lifetime == 60.0


def test_anonymous_tokens_come_from_anywhere() -> None:
    request, _ = ask(bearer("https://auth.example.net/token"), credentials=None)
    assert request.headers == {}


def test_the_password_does_not_go_to_another_host() -> None:
    with pytest.raises(TransferError, match="not sent to another host") as caught:
        ask(bearer("https://auth.example.net/token"))
    assert "auth.example.net" in (caught.value.hint or "")
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
    assert caught.value.because == "401 incorrect username or password"
    assert "log in" in (caught.value.hint or "")


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
