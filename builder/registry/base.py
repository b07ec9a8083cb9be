"""The base of a registry's API, `/v2/` (distribution-spec 1.1, "Determining Support"): is it there, and for whom?

Law: speaks through a Transport. Whether a registry speaks plain http is asked without any secret.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import suppress

from builder.registry.auth import Challenge, Credentials, Token, authorize
from builder.registry.reference import Reference
from builder.registry.refusal import refusal
from rootfs.errors import TransferError
from rootfs.ports import Request, Response, Transport
from rootfs.url import origin

_SPOKEN = frozenset({200, 401, 403, 429})


def speaks_plain_http(transport: Transport, reference: Reference) -> bool:
    """Whether a registry answers plain http as registries do, be it that it is in trouble at the moment (429, 5xx).

    A redirect to https says that it would rather not, 400 is what servers of https say. Some of these just close the
    connection, as one that breaks does: so it is asked again, unless it does speak https.
    """
    for scheme in ("http", "https", "http"):
        with (
            suppress(TransferError),
            transport.send(Request(method="GET", url=_base(scheme, reference), attempts=1)) as response,
        ):
            known = response.status in _SPOKEN or response.status >= 500
            return known and origin(response.url)[0] == "http"
    return False


def check(
    transport: Transport,
    reference: Reference,
    credentials: Credentials,
    *,
    plain_http: bool,
    trusted_realms: Iterable[str] = (),
) -> bool:
    """See that a registry lets an account in; False when it lets in anybody, so that nothing was learnt.

    TransferError when it does not let it in, is no registry, or would have the secret sent elsewhere.
    """
    base = _base("http" if plain_http else "https", reference)
    with transport.send(Request(method="GET", url=base)) as response:
        if response.status == 200:
            return False
        if response.status != 401:
            raise _not_in(response)
        challenges = Challenge.parse(response.headers.get("www-authenticate", ""))
    dialogue = authorize(challenges, registry=base, credentials=credentials, trusted_realms=trusted_realms)
    headers = {"Authorization": _token(dialogue, transport).header.reveal()}
    with transport.send(Request(method="GET", url=base, headers=headers)) as response:
        if response.status != 200:
            raise _not_in(response)
    return True


def _token(dialogue: Generator[Request, Response, Token], transport: Transport) -> Token:
    try:
        request = next(dialogue)
        while True:
            with transport.send(request) as response:
                request = dialogue.send(response)
    except StopIteration as end:
        token: Token = end.value
        return token


def _base(scheme: str, reference: Reference) -> str:
    return f"{scheme}://{reference.api_host}/v2/"


def _not_in(response: Response) -> TransferError:
    error = refusal(response, "to log in")
    if response.status == 401:
        error.hint = "is the user name right, and the password or token?"
    elif response.status == 404:
        error.hint = "is there a registry at this host and port?"
    return error
