"""No password and no token turns up where it does not belong, whatever is done, and whatever fails.

Looked through are: what the verbs print (with --debug), receipts, every file they leave, the registries' logs, the
arguments of all processes, and what went over the wire. Every scenario with an account in tests/conformance is looked
through likewise, and so is every test here that knows the password (`nothing_leaks` in conftest.py).
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.clients import ROOT, environment
from tests.conformance.samples import Sample, make
from tests.peers.gate import Gate, gate
from tests.peers.planted import Planted, arguments
from tests.peers.registry import PASSWORD, USER, registry
from tests.peers.tokens import GuardedRegistry, guarded_registry

pytestmark = pytest.mark.peer
WRONG = "not sesame at all"


@dataclass(kw_only=True)
class User:
    """Somebody with a home, and all that was printed for him."""

    home: Path
    planted: Planted
    variables: dict[str, str] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """Where his accounts are."""
        return self.home / ".docker/config.json"

    def start(self, *argv: str | Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "builder", *map(str, argv)]
        told = environment(self.home, NO_PROXY="localhost", **self.variables)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(words, cwd=ROOT, env=told, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def run(self, *argv: str | Path, status: int = 0, stdin: str = "") -> str:
        process = self.start(*argv)
        output, _ = process.communicate(stdin, timeout=120)
        self.printed.append(f"{' '.join(map(str, argv))}\n{output}")
        assert process.returncode == status, output
        return output

    def login(self, host: str, password: str = PASSWORD, status: int = 0) -> None:
        self.run("login", "--debug", "--username", USER, "--password-stdin", host, stdin=f"{password}\n", status=status)

    def leaks(self, *captures: list[bytes]) -> list[str]:
        """Where a secret is: in print, in his files, or in what went over a wire."""
        joined = [b"".join(capture) for capture in captures]
        for capture in joined:
            self.planted.learn(capture)
        found = [f"printed: {text}" for text in self.printed if self.planted.in_data(text.encode())]
        found += self.planted.in_files(self.home, [self.file])
        return found + [f"sent: {what}" for capture in joined if (what := self.planted.sent(capture))]


@pytest.fixture
def user(tmp_path: Path) -> User:
    planted = Planted(wrong=WRONG)
    planted.account(USER, PASSWORD)
    planted.account(USER, WRONG)
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / "run").mkdir()
    return User(home=home, planted=planted)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Large enough for chunks, so that there is a journal."""
    return make("big", tmp_path_factory.mktemp("samples") / "big")


@pytest.fixture
def guarded(peer: Callable[[str], str], tmp_path: Path) -> Iterator[GuardedRegistry]:
    with guarded_registry(peer("docker-registry"), peer("openssl"), tmp_path / "guarded") as found:
        yield found


@pytest.fixture
def elsewhere(peer: Callable[[str], str], tmp_path: Path) -> Iterator[str]:
    """A registry that lets everybody in."""
    with registry(peer("docker-registry"), tmp_path / "elsewhere") as host:
        yield host


@contextmanager
def captured(host: str) -> Iterator[tuple[Gate, list[bytes]]]:
    """A way to a registry, and all that clients sent through it."""
    pieces: list[bytes] = []
    with gate(host) as way:
        way.holds = lambda piece, sent: pieces.append(piece) is not None
        yield way, pieces


def everything(user: User, host: str, elsewhere: str, sample: Sample) -> None:
    """Every verb that speaks with a registry, once well."""
    name = f"{host}/team/app"
    receipt, pulled = user.home / "receipt.json", user.home / "pulled"
    user.run("push", "--debug", "--plan", f"{sample.layout}:v1", f"{name}:v1")
    user.run("push", "--debug", "--receipt", receipt, "--json", f"{sample.layout}:v1", f"{name}:v1")
    assert receipt.stat().st_size > 100
    user.run("push", f"{sample.layout}:v1", f"{name}:v1")
    assert user.run("tags", "--debug", name) == "v1\n"
    user.run("registry", "probe", "--debug", name)
    user.run("inspect", "--debug", f"{name}:v1")
    user.run("pull", "--debug", f"{name}:v1", f"oci:{pulled}:v1")
    user.run("copy", "--debug", f"{name}:v1", f"{elsewhere}/team/app:v1")
    user.run("pull", "--debug", f"{name}:v2", f"oci:{pulled}:v2", status=6)


def test_tokens(user: User, guarded: GuardedRegistry, elsewhere: str, sample: Sample, tmp_path: Path) -> None:
    with captured(guarded.host) as (way, sent), captured(elsewhere) as (other, strange), arguments() as seen:
        user.login(way.host, WRONG, status=6)
        user.login(way.host)
        assert base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() in user.file.read_text()
        everything(user, way.host, other.host, sample)
        user.run("delete", "--debug", "--force", f"{way.host}/team/app:v1")
        user.run("logout", "--debug", way.host)
    assert user.planted.learn(b"".join(sent)) > 0
    assert user.leaks(sent, strange) == []
    assert b"uthorization" not in b"".join(strange)
    assert user.planted.in_files(tmp_path, [user.file]) == []  # the registries' logs
    assert not [path for _, path, _ in guarded.tokens.seen if user.planted.in_data(path.encode())]
    assert any(b"--password-stdin" in argv for argv in seen)
    assert not [argv for argv in seen if user.planted.in_data(argv)]


def test_a_password(user: User, peer: Callable[[str], str], elsewhere: str, sample: Sample, tmp_path: Path) -> None:
    with registry(peer("docker-registry"), tmp_path / "locked", basic_auth=True) as host, captured(host) as (way, sent):
        user.login(way.host, WRONG, status=6)
        user.login(way.host)
        everything(user, way.host, elsewhere, sample)
        user.run("logout", way.host)
        user.run("push", "--debug", f"{sample.layout}:v1", f"{way.host}/team/other:v1", status=6)
    assert b"".join(sent).count(b"uthorization: Basic ") > 5
    assert user.leaks(sent) == []
    assert user.planted.in_files(tmp_path, [user.file]) == []


def test_variables(user: User, guarded: GuardedRegistry, sample: Sample) -> None:
    with captured(guarded.host) as (way, sent), arguments() as seen:
        names = {"": way.host, "_USER": USER, "_PASSWORD": PASSWORD}
        user.variables = {f"OCIBUILD_REGISTRY{name}": value for name, value in names.items()}
        user.run("push", "--debug", f"{sample.layout}:v1", f"{way.host}/team/app:v1")
        user.run("settings")
        user.variables["OCIBUILD_REGISTRY_PASSWORD"] = WRONG
        user.run("push", "--debug", f"{sample.layout}:v1", f"{way.host}/team/other:v1", status=6)
    assert user.leaks(sent) == []
    assert not [argv for argv in seen if user.planted.in_data(argv)]


def test_a_push_that_is_killed(user: User, guarded: GuardedRegistry, sample: Sample) -> None:
    """What is left in the store, the journal among it, holds no secret."""
    with captured(guarded.host) as (way, sent):
        user.login(way.host)
        way.holds = lambda piece, count: sent.append(piece) is not None or count > 24 << 20
        process = user.start("push", "--debug", f"{sample.layout}:v1", f"{way.host}/team/app:v1")
        assert way.held.wait(60)
        process.kill()
        process.communicate()
    assert list(user.home.rglob("registries/uploads/*"))
    assert user.leaks(sent) == []


def test_the_token_server_fails(user: User, guarded: GuardedRegistry, sample: Sample) -> None:
    """What it says when it refuses is shown, what it was told is not."""
    with captured(guarded.host) as (way, sent):
        user.login(way.host)
        guarded.tokens.shutdown()
        guarded.tokens.server_close()
        user.run("push", "--debug", f"{sample.layout}:v1", f"{way.host}/team/app:v1", status=6)
        guarded.tokens.shutdown = lambda: None  # type: ignore[method-assign]  # it is down
    assert user.leaks(sent) == []


FORMS = ("open sesame", "open%20sesame", "open+sesame", "cG9ydGVyOm9wZW4gc2VzYW1l", "6f70656e20736573616d65")


@pytest.mark.parametrize("form", FORMS)
def test_a_leak_is_found(form: str, user: User) -> None:
    assert user.leaks() == []
    (user.home / "store").mkdir()
    (user.home / "store/log").write_text(f"PUT failed ({form})")
    assert len(user.leaks()) == 1
    (user.home / "store/log").unlink()
    user.printed.append(f"error: {form}")
    assert len(user.leaks()) == 1
    user.printed.clear()
    assert user.leaks([f"GET /?x={form} HTTP/1.1\r\n".encode()]) in (["sent: password"], ["sent: account"])


def test_a_token_is_known_by_its_form(user: User, guarded: GuardedRegistry) -> None:
    """Also where nobody learnt it from the wire."""
    tokens = (guarded.tokens.token(USER, ["repository:a:pull"]), f"quirky-{'0123456789abcdef' * 2}")
    for token in tokens:
        assert user.planted.in_data(f"error: Bearer {token}".encode()) == "token"
        assert user.planted.sent(f"GET /?x={token} HTTP/1.1\r\n".encode()) == "token"
    assert user.planted.in_data(b"eyJ.eyJ.x quirky-1 sha256:" + b"0" * 64) == ""


def test_what_may_be_sent_and_what_not(user: User) -> None:
    assert user.leaks([b"GET / HTTP/1.1\r\nAuthorization: Basic cG9ydGVyOm9wZW4gc2VzYW1l\r\n\r\n"]) == []
    bearer = b"GET / HTTP/1.1\r\nAuthorization: Bearer abc.def-ghi\r\n\r\n"
    assert user.leaks([bearer]) == []
    assert user.leaks([bearer, b"GET /?token=abc.def-ghi HTTP/1.1\r\n\r\n"]) == ["sent: token"]


def test_arguments_are_seen(user: User) -> None:
    with arguments() as seen:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", PASSWORD], check=True)
    assert [argv for argv in seen if user.planted.in_data(argv)]
