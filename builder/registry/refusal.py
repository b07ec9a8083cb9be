"""What a registry says when it refuses (distribution-spec 1.1, "Error Codes"), as a TransferError.

Law: pure; reads the answer it is given, and trusts none of its text: it is capped, and control characters are dropped.
"""

from __future__ import annotations

import json
import re

from builder.registry.reference import common_host, is_loopback
from rootfs.errors import TransferError
from rootfs.ports import Response
from rootfs.url import redact, split

_READ = 1 << 16
_DIGITS = 10
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_SHOWN = 300
_API = re.compile(r"https?://[^/?]+/v2/")
_BLOB = re.compile(r"https?://[^/@?]+/v2/[^?]+/blobs/sha\d+:[0-9a-f]+\Z")
_MANIFEST = re.compile(r"https?://(?P<repository>[^/@?]+/v2/[^?]+)/manifests/[^/?]+\Z")

_HINTS = {
    401: "log in to the registry",
    403: "may this account push to, or read, this repository?",
    404: "is the repository's name right? some registries want it created first",
    405: "does this registry take what is pushed? it may be a mirror, or be read only at the moment",
    413: "a proxy before the registry limits the size of a request; its operator can raise the limit",
    429: "the registry limits the rate of requests: wait, then do it again; what was pushed is kept",
    501: "the registry does not do this; `ocibuild registry probe` says what it can",
    507: "the registry's disk or quota is full: make room there (`ocibuild delete`), or ask its operator for more",
    511: "log in to the network first: something between here and the registry answers in its place",
}
_HOPELESS = frozenset({501, 505, 507, 511})


def refusal(response: Response, what: str, *, retryable: bool = False) -> TransferError:
    """The error for an answer that is not the hoped-for one; its body is read, its server errors are retryable."""
    text = _text(response.read(_READ))
    hint = _HINTS.get(response.status)
    if hint and response.status in (401, 403) and _API.match(response.url):  # and not a storage behind it
        hint += f"{' another one' if response.status == 403 else ''}: `{login_command(response.url)}`"
    manifest = _MANIFEST.match(response.url)
    if response.status == 404 and manifest and "NAME_UNKNOWN" not in text:
        hint = f"is it there? `ocibuild tags {manifest['repository'].replace('/v2/', '/', 1)}` lists what is"
    if response.status == 404 and _BLOB.match(response.url) and "NAME_UNKNOWN" not in text:
        hint = "the registry lost a part of this image: `ocibuild push --check` of the same image mends it"
    if response.status == 400 and "HTTPS server" in text:
        hint = "the registry speaks https: leave out --plain-http"
    wait = response.headers.get("retry-after", "").strip()
    if response.status in (429, 503) and wait.isdecimal() and len(wait) < _DIGITS:
        text += f" (it asks to wait {wait} seconds)"
    return TransferError(
        f"registry refused: {what}",
        at=redact(response.url),
        because=f"{response.status} {text}".strip(),
        hint=hint,
        retryable=retryable
        or (response.status >= 500 and response.status not in _HOPELESS)
        or response.status in (408, 429),
    )


def check_document(response: Response) -> None:
    """TransferError when an answer that should be a manifest is a page for people."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _PAGES:
        raise TransferError(
            "no registry's answer",
            at=redact(response.url),
            because=f"a page came ({kind}), where a manifest belongs",
            hint="is the host right? a network that wants a login, or a proxy, may have answered in its place",
        )


def login_command(registry: str, realm: str = "") -> str:
    """The command that logs in to the registry at this URL; a `realm` is to be trusted with the password."""
    parts = split(registry)
    host = common_host(parts.netloc.rpartition("@")[2])
    plain = parts.scheme == "http" and not is_loopback(host)
    return " ".join(
        ["ocibuild login", *(["--realm", realm] if realm else []), *(["--plain-http"] if plain else []), host]
    )


def _text(body: bytes) -> str:
    """The error codes and messages of a JSON body, or the first line of a plain text; "" for a page of HTML."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
        text = "" if text.lstrip().startswith("<") else text.strip().partition("\n")[0]
    if isinstance(value, dict):
        errors = value.get("errors")
        rows = errors if isinstance(errors, list) else [value]
        names = ("code", "message", "error", "details")
        told = [[str(row[name]) for name in names if row.get(name)] for row in rows if isinstance(row, dict)]
        text = "; ".join(": ".join(parts) for parts in told if parts)
    return "".join(character for character in text if character.isprintable())[:_SHOWN]
