"""What a registry says when it refuses (distribution-spec 1.1, "Error Codes"), as a TransferError.

Law: pure; reads the answer it is given, and trusts none of its text: it is capped, and control characters are dropped.
"""

from __future__ import annotations

import json
import re

from rootfs.errors import TransferError
from rootfs.ports import Response
from rootfs.url import redact

_READ = 1 << 16
_SHOWN = 300
_MANIFEST = re.compile(r"https?://(?P<repository>[^/@?]+/v2/[^?]+)/manifests/[^/?]+\Z")

_HINTS = {
    401: "log in to the registry: `ocibuild login REGISTRY`",
    403: "may this account push to, or read, this repository? another one: `ocibuild login REGISTRY`",
    404: "is the repository's name right? some registries want it created first",
    405: "does this registry take what is pushed? it may be a mirror, or be read only at the moment",
    413: "a proxy before the registry limits the size of a request; its operator can raise the limit",
    429: "the registry limits the rate of requests: wait, then do it again; what was pushed is kept",
}


def refusal(response: Response, what: str, *, retryable: bool = False) -> TransferError:
    """The error for an answer that is not the hoped-for one; its body is read, its server errors are retryable."""
    text = _text(response.read(_READ))
    hint = _HINTS.get(response.status)
    manifest = _MANIFEST.match(response.url)
    if response.status == 404 and manifest and "NAME_UNKNOWN" not in text:
        hint = f"is it there? `ocibuild tags {manifest['repository'].replace('/v2/', '/', 1)}` lists what is"
    if response.status == 400 and "HTTPS server" in text:
        hint = "the registry speaks https: leave out --plain-http"
    return TransferError(
        f"registry refused: {what}",
        at=redact(response.url),
        because=f"{response.status} {text}".strip(),
        hint=hint,
        retryable=retryable or response.status >= 500 or response.status in (408, 429),
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
