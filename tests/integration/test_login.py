"""Log in and out of a real docker-registry: with a password, with tokens, over TLS; as podman and skopeo do."""

from __future__ import annotations

import base64
import json
import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from builder.cli.start import reaching
from builder.oci.descriptor import CONFIG, LAYER_TAR, MANIFEST, Descriptor
from builder.oci.manifest import Manifest
from builder.registry.client import Registry
from builder.registry.reference import Reference
from builder.registry.transfer import push
from builder.settings import read_settings, registry_access
from builder.wiring import open_tools
from rootfs.digest import canonical_json
from rootfs.errors import TransferError
from rootfs.ports import Request, Upload
from rootfs.store import DiskStore
from tests.fakes.reporter import ListReporter
from tests.peers.certificates import Authority, authority
from tests.peers.misbehaving import Handler, page, serving
from tests.peers.registry import PASSWORD, USER, registry
from tests.peers.tokens import GuardedRegistry, TokenServer, guarded_registry

pytestmark = pytest.mark.peer
ROOT = Path(__file__).parents[2]
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with nothing: no account, no settings."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "DOCKER_AUTH_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    monkeypatch.setenv("OCIBUILD_STORE", str(home / "store"))
    return home


@pytest.fixture
def ocibuild(home: Path) -> Run:
    def run(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "builder", *argv]
        return subprocess.run(words, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def locked_host(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry"), basic_auth=True) as host:
        yield host


@pytest.fixture(scope="module")
def guarded(peer: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRegistry]:
    place = tmp_path_factory.mktemp("guarded")
    with guarded_registry(peer("docker-registry"), peer("openssl"), place) as guarded:
        yield guarded


@pytest.fixture
def token_host(guarded: GuardedRegistry) -> str:
    return guarded.host


@pytest.fixture
def tokens(guarded: GuardedRegistry) -> TokenServer:
    return guarded.tokens


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority") / "pem")


@pytest.fixture(scope="module")
def tls_host(peer: Callable[[str], str], ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with a certificate of our authority, that wants a password and a client's certificate."""
    certificate, key = ours.server()
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(ours.certificate)]}
    with registry(peer("docker-registry"), tmp_path_factory.mktemp("registry"), basic_auth=True, tls=tls) as host:
        yield host


def image(store: DiskStore) -> Descriptor:
    def stored(media_type: str, data: bytes) -> Descriptor:
        store.put([data])
        return Descriptor.of(media_type, data)

    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    manifest = Manifest(config=stored(CONFIG, canonical_json(config)), layers=(stored(LAYER_TAR, b"\0" * 10240),))
    return stored(MANIFEST, manifest.to_bytes())


@contextmanager
def reached(name: str) -> Iterator[tuple[Registry, DiskStore]]:
    """A repository as a verb reaches it: settings, accounts and certificates of the user."""
    settings = read_settings({})
    with open_tools(settings, ListReporter()) as tools:
        store = tools.store
        assert isinstance(store, DiskStore)
        yield reaching(tools, settings, plain_http=False)(Reference.parse(name)), store


def push_to(name: str) -> Descriptor:
    with reached(name) as (target, store):
        root = image(store)
        push(store, root, target, ["v1"], ListReporter())
        assert target.get_manifest("v1")[0].digest == root.digest
    return root


def login(ocibuild: Run, host: str, *options: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    return ocibuild("login", "--username", USER, "--password-stdin", *options, host, stdin=f"{password}\n")


def test_log_in_push_and_log_out(home: Path, ocibuild: Run, locked_host: str) -> None:
    with pytest.raises(TransferError, match="wants a user and a password") as caught:
        push_to(f"{locked_host}/a")
    assert f"`ocibuild login {locked_host}`" in (caught.value.hint or "")

    wrong = login(ocibuild, locked_host, password="wrong one")
    assert wrong.returncode == 6
    assert "401" in wrong.stderr
    assert not list(home.rglob("auth.json"))

    done = login(ocibuild, locked_host)
    path = home / "run/containers/auth.json"
    assert done.stdout == f"{locked_host}: logged in as {USER}, by {path}\n", done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    push_to(f"{locked_host}/a")

    again = ocibuild("login", locked_host)
    assert (again.returncode, again.stdout) == (0, done.stdout)

    assert ocibuild("logout", locked_host).stdout == f"{locked_host}: logged out of {path}\n"
    assert ocibuild("logout", locked_host).stdout == f"{locked_host}: there was no account\n"
    assert ocibuild("login", locked_host).returncode == 2


def test_log_out_of_everything(home: Path, ocibuild: Run, locked_host: str) -> None:
    for place in (locked_host, f"{locked_host}/team"):
        assert login(ocibuild, place).returncode == 0
    path = home / "run/containers/auth.json"
    assert set(json.loads(path.read_bytes())["auths"]) == {locked_host, f"{locked_host}/team"}
    assert ocibuild("logout", "--all").returncode == 0
    assert json.loads(path.read_bytes())["auths"] == {}


@pytest.mark.parametrize("program", ["skopeo", "podman"])
def test_others_read_what_we_wrote_and_we_what_they_wrote(
    peer: Callable[[str], str], home: Path, ocibuild: Run, locked_host: str, program: str
) -> None:
    theirs = peer(program)
    flags = ["--tls-verify=false"]

    def call(*argv: str, stdin: str = "") -> str:
        done = subprocess.run([theirs, *argv], input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert login(ocibuild, locked_host).returncode == 0
    assert call("login", "--get-login", locked_host) == USER
    push_to(f"{locked_host}/{program}")
    if program == "skopeo":
        call("inspect", "--raw", *flags, f"docker://{locked_host}/skopeo:v1")
    call("logout", locked_host)
    assert ocibuild("login", locked_host).returncode == 2

    call("login", "-u", USER, "--password-stdin", *flags, locked_host, stdin=PASSWORD)
    assert ocibuild("login", locked_host).returncode == 0
    push_to(f"{locked_host}/{program}")
    assert ocibuild("logout", locked_host).returncode == 0
    gone = subprocess.run([theirs, "login", "--get-login", locked_host], capture_output=True, text=True, check=False)
    assert gone.returncode != 0


def test_tokens_of_a_password(home: Path, ocibuild: Run, token_host: str, tokens: TokenServer) -> None:
    assert login(ocibuild, token_host, password="wrong one").returncode == 6
    assert login(ocibuild, token_host).returncode == 0
    tokens.seen.clear()
    push_to(f"{token_host}/tokens")
    assert {method for method, *_ in tokens.seen} == {"GET"}
    asked = [path.rpartition("scope=")[2] for _, path, _ in tokens.seen]
    wanted = [set(scope.rpartition("%3A")[2].split("%2C")) for scope in asked]  # in no order that holds
    assert wanted == [{"pull", "push"}]  # one token does for all of a push
    assert all(header == f"Basic {BASIC}" for *_, header in tokens.seen)
    tokens.refuses_get = True
    try:
        push_to(f"{token_host}/posted")
    finally:
        tokens.refuses_get = False
    assert tokens.seen[-1][0] == "POST"
    assert all("sesame" not in path for _, path, _ in tokens.seen)


def test_an_identity_token(home: Path, ocibuild: Run, token_host: str, tokens: TokenServer) -> None:
    tokens.refresh_tokens.add("an identity token")
    done = ocibuild("login", "-u", "<token>", "--password-stdin", token_host, stdin="an identity token")
    assert done.returncode == 0, done.stderr
    tokens.seen.clear()
    push_to(f"{token_host}/identity")
    assert {method for method, *_ in tokens.seen} == {"POST"}
    wrong = ocibuild("login", "-u", "<token>", "--password-stdin", token_host, stdin="not it")
    assert wrong.returncode == 6
    assert "invalid_grant" in wrong.stderr


def test_anybody_may_read(home: Path, ocibuild: Run, token_host: str, tokens: TokenServer) -> None:
    login(ocibuild, token_host)
    root = push_to(f"{token_host}/public")
    assert ocibuild("logout", token_host).returncode == 0
    tokens.seen.clear()
    with reached(f"{token_host}/public") as (source, _):
        assert source.get_manifest("v1")[0].digest == root.digest
    assert {header for *_, header in tokens.seen} == {""}
    with pytest.raises(TransferError):
        push_to(f"{token_host}/private")


def test_a_mount_asks_for_both_repositories(home: Path, ocibuild: Run, token_host: str, tokens: TokenServer) -> None:
    login(ocibuild, token_host)
    push_to(f"{token_host}/mount/from")
    tokens.seen.clear()
    with reached(f"{token_host}/mount/to") as (target, store):
        layer = b"\0" * 10240
        store.put([layer])
        blob = Descriptor.of(LAYER_TAR, layer)
        url = f"http://{token_host}/v2/mount/to/blobs/uploads/?mount={blob.digest}&from=mount/from"

        def mount() -> Iterator[Request]:
            response = yield Request(method="POST", url=url)  # type: ignore[misc]
            assert response.status == 201

        target.hold(mount(), "push")  # type: ignore[arg-type]
        assert target.exists(blob)
    asked = " ".join(path for _, path, *_ in tokens.seen)
    assert "repository%3Amount%2Ffrom%3Apull" in asked
    assert "repository%3Amount%2Fto%3Apull%2Cpush" in asked


def certs(home: Path, host: str, authority: Authority, *, client: bool) -> None:
    place = home / ".config/containers/certs.d" / host
    place.mkdir(parents=True, exist_ok=True)
    for path in (authority.certificate, *(authority.client() if client else ())):
        (place / path.name).write_bytes(path.read_bytes())


def test_tls_with_our_own_authority_and_a_clients_certificate(
    home: Path, ocibuild: Run, tls_host: str, ours: Authority
) -> None:
    untrusted = login(ocibuild, tls_host)
    assert untrusted.returncode == 6
    assert "certificate is not trusted" in untrusted.stderr
    assert "certs.d" in untrusted.stderr
    certs(home, tls_host, ours, client=False)
    anonymous = login(ocibuild, tls_host)
    assert anonymous.returncode == 6
    assert "asks for a client's certificate" in anonymous.stderr
    assert "certs.d" in anonymous.stderr
    certs(home, tls_host, ours, client=True)
    assert login(ocibuild, tls_host).returncode == 0
    push_to(f"{tls_host}/a")


def test_skopeo_uses_the_same_certificates(
    peer: Callable[[str], str], home: Path, ocibuild: Run, tls_host: str, ours: Authority
) -> None:
    certs(home, tls_host, ours, client=True)
    assert login(ocibuild, tls_host).returncode == 0
    push_to(f"{tls_host}/skopeo")
    words = [peer("skopeo"), "inspect", "--raw", f"docker://{tls_host}/skopeo:v1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextmanager
def recording_proxy() -> Iterator[tuple[str, bytearray]]:
    """The URL of an HTTP proxy that knows CONNECT, and every byte that went through it."""
    seen = bytearray()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                seen.extend(data)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve(listener: socket.socket) -> None:
        with suppress(OSError), ExitStack() as stack:
            while True:
                client = stack.enter_context(listener.accept()[0])
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                seen.extend(head)
                name, _, port = head.split()[1].decode().rpartition(":")
                server = stack.enter_context(socket.create_connection((name, int(port))))
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=copy, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_no_secret_is_seen_anywhere(
    home: Path, ocibuild: Run, tls_host: str, ours: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the password, and a wrong one. They may lie in auth.json, and nowhere else."""
    planted = [PASSWORD, "a wrong secret", BASIC, base64.b64encode(f"{USER}:a wrong secret".encode()).decode()]
    certs(home, tls_host, ours, client=True)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    said = []
    with recording_proxy() as (proxy, capture):
        monkeypatch.setenv("OCIBUILD_PROXY", proxy)
        for words, stdin in (
            (("login", "-u", USER, "--password-stdin", "--debug", tls_host), PASSWORD),
            (("login", "-u", USER, "--password-stdin", "--debug", tls_host), "a wrong secret"),
            (("inspect", "--json", f"{tls_host}/secret:none"), ""),
            (("settings",), ""),
        ):
            done = ocibuild(*words, stdin=stdin)
            said += [done.stdout, done.stderr, str(done.returncode)]
        root = push_to(f"{tls_host}/secret")
        done = ocibuild("inspect", "--debug", f"{tls_host}/secret:v1")
        said += [done.stdout, done.stderr]
        with reached(f"{tls_host}/secret") as (source, _):
            said.append(f"{source.__dict__!r} {registry_access(read_settings({}))!r} {root!r}")
        assert bytes(capture).count(b"CONNECT localhost:") > 4
    keeper = home / "run/containers/auth.json"
    assert BASIC in keeper.read_text()
    files = [path for path in home.rglob("*") if path.is_file() and path != keeper]
    assert len(files) > 4
    places = {"output": "\n".join(said).encode(), "capture": bytes(capture)}
    places |= {str(path): path.read_bytes() for path in files}
    for place, data in places.items():
        for secret in planted:
            assert secret.encode() not in data, place


def test_a_realm_that_is_not_the_registrys_is_refused_with_the_command_that_allows_it(
    home: Path, ocibuild: Run, locked_host: str
) -> None:
    with serving() as server:
        host = f"127.0.0.1:{server.server_port}"
        realm = 'Bearer realm="https://thief.example:8443/token",service="x"'
        server.answers["/v2/"] = [page(status=401, WWW_Authenticate=realm)]
        refused = login(ocibuild, host)
        assert refused.returncode == 6
        assert f"`ocibuild login --realm thief.example:8443 {host}`" in refused.stderr
        assert PASSWORD not in refused.stderr
        assert all("authorization" not in headers for _, _, headers, _ in server.seen)
    assert login(ocibuild, locked_host).returncode == 0
    done = ocibuild("login", "--realm", "thief.example:8443", locked_host)
    assert done.returncode == 0, done.stderr
    realms = home / ".config/ocibuild/realms.json"
    assert json.loads(realms.read_bytes()) == {locked_host: ["thief.example:8443"]}
    assert ocibuild("logout", locked_host).returncode == 0
    assert json.loads(realms.read_bytes()) == {}


def test_a_location_and_a_redirect_to_another_host_get_no_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0" * 10240
    blob = Descriptor.of(LAYER_TAR, data)
    with serving() as server, serving() as thief:
        host = f"127.0.0.1:{server.server_port}"
        auths = {"auths": {host: {"auth": BASIC}}}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auths))
        wanted = page(status=401, WWW_Authenticate='Basic realm="x"')
        base = "/v2/a/blobs"
        server.answers["/v2/"] = [wanted]

        def asked(handler: Handler) -> None:
            known, reads = "Authorization" in handler.headers, handler.command == "GET"
            (page(status=307, Location=f"{thief.url}/b") if reads else page(status=404) if known else wanted)(handler)

        server.answers[f"{base}/{blob.digest}"] = [asked]
        server.answers[f"{base}/uploads/"] = [page(status=202, Location=f"{thief.url}/up?x=1")]
        thief.answers[f"/up?x=1&digest={str(blob.digest).replace(':', '%3A')}"] = [page(status=201)]
        thief.answers["/b"] = [page(data)]
        with reached(f"{host}/a") as (target, store):
            store.put([data])
            target.put(blob, Upload(open=lambda: store.open(blob.digest), size=len(data)))
            assert b"".join(target.open(blob)) == data
        assert any(headers.get("authorization") == f"Basic {BASIC}" for _, _, headers, _ in server.seen)
        assert {method for method, *_ in thief.seen} >= {"PUT", "GET"}
        assert all("authorization" not in headers for _, _, headers, _ in thief.seen)


def test_the_terminal_asks_without_showing(home: Path, locked_host: str) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "builder", "login", locked_host],
        cwd=ROOT,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    for prompt, answer in ((b"Username: ", USER), (b"Password: ", PASSWORD)):
        while prompt not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, f"{answer}\n".encode())
    output, _ = process.communicate(timeout=60)
    with suppress(OSError):  # the terminal's other end is closed
        while data := os.read(ours, 1024):
            shown += data
    os.close(ours)
    assert process.returncode == 0, shown
    assert output.decode().startswith(f"{locked_host}: logged in as {USER}")
    assert PASSWORD.encode() not in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("login",), "Missing argument"),
        (("login", "porter"), "not a registry's host"),
        (("login", "http://r.example.org"), "--plain-http"),
        (("login", "--password", "x", "r.example.org"), "--password-stdin"),
        (("login", "--password-stdin", "r.example.org"), "--password-stdin needs --username"),
        (("login", "-u", "a:b", "--password-stdin", "r.example.org"), "no colon"),
        (("login", "-u", "a", "r.example.org"), "no terminal"),
        (("logout",), "logout needs a registry, or --all"),
        (("logout", "--all", "r.example.org"), "logout needs a registry, or --all"),
    ],
)
def test_what_is_refused(ocibuild: Run, words: tuple[str, ...], said: str) -> None:
    done = ocibuild(*words, stdin="x")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_password_is_none(ocibuild: Run) -> None:
    done = ocibuild("login", "-u", "a", "--password-stdin", "r.example.org", stdin="\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "the password is empty" in done.stderr
