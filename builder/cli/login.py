"""`ocibuild login`: keep an account at a registry, where docker and podman find it too."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from builder.cli.options import debug_option, settings_options
from builder.login import known_account, log_in
from builder.progress import make_reporter
from builder.registry.access import Access
from builder.registry.auth import Credentials
from builder.registry.credentials import Place
from builder.settings import read_settings, registry_access
from builder.wiring import LaterTransport
from rootfs.errors import UsageError
from rootfs.ports import Reporter

authfile_option = click.option(
    "--authfile",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The file of accounts; else podman's or docker's.",
)


@click.command(name="login")
@click.argument("registry")
@click.option("--username", "-u", metavar="NAME", help="The account's name.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from stdin.")
@click.option("--realm", "realms", multiple=True, metavar="HOST", help="A token server that may be told the password.")
@authfile_option
@click.option("--plain-http", is_flag=True, help="Speak plain http to the registry.")
@settings_options
@debug_option
def command(
    registry: str,
    *,
    username: str | None,
    password_stdin: bool,
    realms: tuple[str, ...],
    authfile: Path | None,
    plain_http: bool,
    **flags: str | None,
) -> None:
    """Log in to REGISTRY: a host, or host/namespace for an account that is good only there.

    The account is tried at the registry, then kept in the file that podman or docker reads. Without --password-stdin
    the terminal asks for the password. With --realm, or without a terminal, an account that is kept already is used.
    """
    settings = read_settings(flags)
    reporter = make_reporter(sys.stderr)
    place = Place.parse(registry)
    access = at_file(registry_access(settings), authfile)
    credentials = _credentials(place, username, access, reporter, from_stdin=password_stdin, known=bool(realms))
    with LaterTransport(settings) as transport:
        done = log_in(place, credentials, access, transport, reporter.note, realms=realms, plain_http=plain_http)
    click.echo(f"{place}: logged in as {done.username}, by {done.kept}")


def at_file(access: Access, path: Path | None) -> Access:
    """With this file in place of those that are usual."""
    return access if path is None else replace(access, sources=(path,), files=(path,), login_file=path)


def _credentials(
    place: Place, username: str | None, access: Access, reporter: Reporter, *, from_stdin: bool, known: bool
) -> Credentials:
    """From stdin, from what is kept, or from the terminal."""
    if from_stdin:
        if not username:
            raise UsageError("--password-stdin needs --username")
        return _given(username, sys.stdin.read().rstrip("\r\n"))
    terminal = sys.stdin.isatty()
    if username is None and (known or not terminal):
        found = known_account(place, access, reporter.note)
        if found is not None:
            return found
    if not terminal:
        hint = "ocibuild login --username NAME --password-stdin REGISTRY <FILE"
        raise UsageError(f"no account for {place}, and no terminal to ask for one", hint=hint)
    username = username or click.prompt("Username", err=True)
    return _given(username, click.prompt("Password", hide_input=True, err=True))


def _given(username: str, password: str) -> Credentials:
    if not password:
        raise UsageError("the password is empty")
    if ":" in username or not username.isprintable():
        raise UsageError("a user name holds no colon and no control character (RFC 7617)")
    return Credentials.of(username, password)
