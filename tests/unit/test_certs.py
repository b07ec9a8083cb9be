"""certs.d, registries.conf, and which scheme a registry is spoken to in."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from builder.registry.access import Access
from builder.registry.certs import allows_plain_http, certificates
from builder.registry.reference import Reference
from rootfs.errors import HostError, TransferError
from rootfs.ports import Request, Response
from rootfs.tls import Contexts, TlsFiles, no_files
from tests.fakes.transport import FakeTransport, reply


def put(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("not PEM")
    return directory


def test_the_first_directory_there_is_counts(tmp_path: Path) -> None:
    user, system = tmp_path / "user", tmp_path / "system"
    put(system / "r.example.org:5000", "ca.crt", "b.crt", "client.cert", "client.key", "README")
    found = certificates("r.example.org", 5000, [user, system])
    here = system / "r.example.org:5000"
    assert found == TlsFiles(
        authorities=(here / "b.crt", here / "ca.crt"), certificate=here / "client.cert", key=here / "client.key"
    )
    put(user / "r.example.org:5000")
    assert certificates("r.example.org", 5000, [user, system]) == TlsFiles()
    assert certificates("r.example.org", 443, [user, system]) is None
    put(user / "r.example.org", "ca.crt")
    assert certificates("r.example.org", 443, [user, system]) is not None
    assert certificates("r.example.org", 8443, [user, system]) is None


@pytest.mark.parametrize(("name", "missing"), [("client.cert", ".key"), ("client.key", ".cert")])
def test_a_pair_is_two(tmp_path: Path, name: str, missing: str) -> None:
    put(tmp_path / "r.example.org", name)
    with pytest.raises(HostError, match=f"no {missing}") as caught:
        certificates("r.example.org", 443, [tmp_path])
    assert caught.value.at == str(tmp_path / "r.example.org" / name)


@pytest.mark.parametrize("names", [("ca.crt",), ("client.cert", "client.key")])
def test_what_is_no_certificate_is_named(tmp_path: Path, names: tuple[str, ...]) -> None:
    put(tmp_path / "r.example.org", *names)
    contexts = Contexts(lambda host, port: certificates(host, port, [tmp_path]))
    with pytest.raises(HostError, match="cannot use the certificate") as caught:
        contexts.at("https://r.example.org/v2/")
    assert caught.value.at == str(tmp_path / "r.example.org" / names[0])


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    put(tmp_path, "bundle.pem")
    with pytest.raises(HostError, match="cannot use the certificate") as caught:
        Contexts(no_files, bundle=tmp_path / "bundle.pem").at("https://r.example.org/v2/")
    assert caught.value.at == str(tmp_path / "bundle.pem")


def test_hosts_without_files_share_their_authorities() -> None:
    contexts = Contexts(no_files)
    assert contexts.at("http://a.example/") is None
    usual = contexts.at("https://a.example/")
    assert usual is not None
    assert usual is contexts.at("https://b.example:1/")
    assert usual.verify_mode == ssl.CERT_REQUIRED
    assert usual.check_hostname
    assert usual.get_ca_certs()
    own = Contexts(lambda host, port: TlsFiles() if (host, port) == ("[::1]", 5) else None)
    assert own.at("https://[::1]:5/") is own.at("https://[::1]:5/x") is not own.at("https://[::1]:6/")
    assert own.at("https://a.example/") is own.at("https://[::1]:6/")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("plain.example.org/a", True),
        ("plain.example.org:5000/a", False),
        ("plain.example.organ/a", False),
        ("r.example.org/team/a", True),
        ("r.example.org/team", True),
        ("r.example.org/teams", False),
        ("r.example.org/team/tls/a", False),
        ("a.wild.example.org:5000/x", True),
        ("wild.example.org/x", False),
        ("late.example.org/x", True),
        ("words.example.org/x", False),
    ],
)
def test_registries_conf(tmp_path: Path, name: str, allowed: bool) -> None:
    main, dropped = tmp_path / "registries.conf", tmp_path / "50.conf"
    main.write_text(
        "unqualified-search-registries = ['docker.io']\n"
        "[[registry]]\nlocation = 'plain.example.org'\ninsecure = true\n"
        "[[registry]]\nprefix = 'r.example.org/team'\nlocation = 'x.example.org'\ninsecure = true\n"
        "[[registry]]\nprefix = 'r.example.org/team/tls'\n"
        "[[registry]]\nprefix = '*.wild.example.org'\ninsecure = true\n"
        "[[registry]]\nlocation = 'late.example.org'\n"
        "[[registry]]\nlocation = 'words.example.org'\ninsecure = 'true'\n"
        "[[registry]]\ninsecure = true\n"
    )
    dropped.write_text("[[registry]]\nlocation = 'late.example.org'\ninsecure = true\n")
    assert allows_plain_http(Reference.parse(name), [tmp_path / "none", main, dropped]) is allowed


def test_a_registries_conf_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text("[[registry")
    with pytest.raises(HostError, match="registries' configuration"):
        allows_plain_http(Reference.parse("r.example.org/a"), [tmp_path / "registries.conf"])


def says(status: int, url: str = "") -> FakeTransport:
    """A host that answers plain http with this status, from this URL; -1: not at all."""

    def answer(request: Request) -> Response:
        assert "Authorization" not in request.headers
        if status < 0:
            raise TransferError("no answer")
        moved = Request(method=request.method, url=url) if url else request
        return reply(moved, status)

    return FakeTransport(answer)


@pytest.mark.parametrize(
    ("host", "transport", "plain"),
    [
        ("localhost:5000", says(200), True),
        ("127.0.0.9:5000", says(401), True),
        ("[::1]:5000", says(401), True),
        ("localhost:5000", says(400), False),
        ("localhost:5000", says(-1), False),
        ("localhost:5000", says(200, "https://localhost:5000/v2/"), False),
        ("10.0.0.1:5000", says(200), False),
        ("plain.example.org", says(200), True),
        ("plain.example.org", says(200, "https://plain.example.org/v2/"), False),
        ("r.example.org", says(200), False),
    ],
)
def test_plain_http_is_spoken_where_it_is_allowed(
    tmp_path: Path, host: str, transport: FakeTransport, plain: bool
) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text("[[registry]]\nlocation = 'plain.example.org'\ninsecure = true\n")
    access = Access(registries=(conf,))
    assert access.plain_http(Reference(host=host, repository="a"), transport, asked=False) is plain
    assert access.plain_http(Reference(host=host, repository="a"), transport, asked=True)


def test_where_there_are_certificates_tls_is_spoken(tmp_path: Path) -> None:
    put(tmp_path / "localhost:5000", "ca.crt")
    access, transport = Access(certificates=(tmp_path,)), says(200)
    assert not access.plain_http(Reference(host="localhost:5000", repository="a"), transport, asked=False)
    assert transport.requests == []
