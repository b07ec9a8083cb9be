"""References: what is one, what is none, and that nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builder.finding import find_image
from builder.registry.credentials import Place as Account
from builder.registry.reference import Reference
from builder.target import Place as Target
from rootfs.digest import Digest
from rootfs.errors import UsageError

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("localhost:5000/python:3.14-wee", "localhost:5000", "python", "3.14-wee", None),
        ("localhost/python", "localhost", "python", None, None),
        ("r.example.org/a/b-c/d__e.f", "r.example.org", "a/b-c/d__e.f", None, None),
        (f"r.example.org/a@{DIGEST}", "r.example.org", "a", None, DIGEST),
        (f"[::1]:5000/a:v1@{DIGEST}", "[::1]:5000", "a", "v1", DIGEST),
        ("10.0.0.1/a:_x", "10.0.0.1", "a", "_x", None),
        ("docker.io/library/python", "docker.io", "library/python", None, None),
    ],
)
def test_parse(text: str, host: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    reference = Reference.parse(text)
    assert reference == Reference(host=host, repository=repository, tag=tag, digest=digest)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "python",
        "python:3.14",
        "library/python",
        "r.example.org/",
        "r.example.org/Python",
        "r.example.org/a//b",
        "r.example.org/a/",
        "r.example.org/-a",
        "r.example.org/a..b",
        "r.example.org/a___b",
        "r.example.org/a:",
        "r.example.org/a:.x",
        "r.example.org/a:" + "x" * 129,
        "r.example.org/a:x\n",
        "r.example.org/a@",
        "r.example.org/a@sha256:00",
        "r.example.org/a@md5:00",
        "r.example.org:/a",
        "r.example.org:123456/a",
        "r.example.org:65536/a",
        "r.example.org:0/a",
        "r.example.org/" + "a" * 250,
        "r..example/a",
        "-r.example/a",
        "user:pw@r.example.org/a",
        "https://r.example.org/a",
        "r.example.org/a b",
        "r.example.org/../a",
        "r.example.org/a?x=1",
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError):
        Reference.parse(text)


@pytest.mark.parametrize("scheme", ["", "https://", "docker://"])
@pytest.mark.parametrize("host", ["r.example.org", "localhost", "r:5000", "[::1]:5000"])
@pytest.mark.parametrize("read", [Reference.parse, Target.parse, find_image, Account.parse])
def test_a_password_in_a_reference_is_not_repeated(read: Callable[[str], object], host: str, scheme: str) -> None:
    for password in ("sesame", "open@sesame", "a/sesame", "sesame:x"):
        with pytest.raises(UsageError, match="no user and no password") as caught:
            read(f"{scheme}porter:{password}@{host}/a:v1")
        assert "sesame" not in f"{caught.value} {caught.value.at} {caught.value.because} {caught.value.hint}"


def test_no_host_is_guessed() -> None:
    with pytest.raises(UsageError, match="no registry") as caught:
        Reference.parse("library/python:3")
    assert caught.value.hint == "write its host before the repository, as in registry.example.org/library/python:3"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("localhost:5000", "write a repository after the host, as in localhost:5000/python"),
        ("localhost", "write a repository after the host, as in localhost/python"),
        ("/srv/layout", "write host/repository:tag, as in registry.example.org/python:3.14"),
        ("./dist/wee", "write host/repository:tag, as in registry.example.org/python:3.14"),
        ("", "write host/repository:tag, as in registry.example.org/python:3.14"),
        ("https://r.example.org/a", "leave out what is before the host: registry.example.org/python:3.14"),
    ],
)
def test_the_hint_fits_what_was_written(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert caught.value.hint == hint


def test_hosts_whose_api_is_elsewhere() -> None:
    assert Reference.parse("docker.io/a/b").api_host == "registry-1.docker.io"
    assert Reference.parse("r.example.org/a/b").api_host == "r.example.org"
