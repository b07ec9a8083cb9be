"""Annotations: what may be said of an image, and how (image-spec 1.1, annotations.md).

Law: pure; says what is wrong with a name or a value, and leaves it to the caller whose mistake that is. Names below
`org.opencontainers.` are the specification's: one that it does not have is a mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from rootfs.digest import Digest
from rootfs.errors import IntegrityError

PREFIX = "org.opencontainers.image."
CREATED = f"{PREFIX}created"
VERSION = f"{PREFIX}version"
BASE_NAME = f"{PREFIX}base.name"
BASE_DIGEST = f"{PREFIX}base.digest"

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+\Z")  # RFC 3986, section 3: a scheme, and no spaces
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
REF_NAME_FORM = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_REFERENCE = re.compile(r"(?:localhost|[A-Za-z0-9-]+[.:][A-Za-z0-9.:-]*|\[[0-9A-Fa-f:.]+\](?::\d+)?)/[a-z0-9][!-~]*\Z")
_SPDX_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.:-]+\+?)\s*")
_SPDX_NAME = re.compile(r"(?:(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-)?[A-Za-z0-9.-]+\+?\Z")
_NAME = re.compile(r"[!-~]+\Z")


def fault_of(name: str, value: str) -> str | None:
    """What is wrong with an annotation, for people; None when nothing is."""
    if not _NAME.match(name):
        return "a name is printable ASCII without spaces, as in org.example.team"
    if not name.startswith("org.opencontainers."):
        return None
    short = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or short not in _FORMS:
        near = difflib.get_close_matches(short, _FORMS, n=1, cutoff=0.5)
        known = f"did you mean {PREFIX}{near[0]}?" if near else f"it has {PREFIX}{{{','.join(_FORMS)}}}"
        return f"names below org.opencontainers. are the specification's, which has no such name: {known}"
    return _FORMS[short](value)


def _text(value: str) -> str | None:
    return None if value.strip() else "it is empty"


def _time(value: str) -> str | None:
    try:
        if _RFC3339.match(value):
            datetime.fromisoformat(value)
            return None
    except ValueError:
        pass
    return "not a time of RFC 3339, as 2026-01-02T03:04:05Z is"


def _uri(value: str) -> str | None:
    return None if _URI.match(value) else "not a URL, as https://example.org/ is"


def _digest(value: str) -> str | None:
    try:
        Digest.parse(value)
    except IntegrityError as error:
        return error.hint
    return None


def _ref_name(value: str) -> str | None:
    return None if REF_NAME_FORM.match(value) else "letters and digits, separated by one of -._:@+/"


def _reference(value: str) -> str | None:
    return None if _REFERENCE.match(value) else "not a reference with its host, as registry.example.org/debian:13 is"


def _licenses(value: str) -> str | None:
    """The form of an SPDX expression (SPDX 2.3, annex D); which licences there are is not asked."""
    tokens, position = [], 0
    while match := _SPDX_TOKEN.match(value, position):
        tokens.append(match[1])
        position = match.end()
    fine = position == len(value) and _expression(tokens) and not tokens
    return None if fine else "not an SPDX expression, as `Apache-2.0 AND (MIT OR PSF-2.0)` is"


def _expression(tokens: list[str]) -> bool:
    """Take one expression off the front; False when there is none."""
    fine = _simple(tokens)
    while fine and tokens and tokens[0] in ("AND", "OR"):
        tokens.pop(0)
        fine = _simple(tokens)
    return fine


def _simple(tokens: list[str]) -> bool:
    """A licence, with an exception perhaps, or an expression in brackets."""
    if not tokens:
        return False
    if tokens[0] == "(":
        tokens.pop(0)
        return _expression(tokens) and bool(tokens) and tokens.pop(0) == ")"
    if not _is_name(tokens.pop(0)):
        return False
    if tokens and tokens[0] == "WITH":
        tokens.pop(0)
        return bool(tokens) and _is_name(tokens.pop(0))
    return True


def _is_name(token: str) -> bool:
    return token not in ("AND", "OR", "WITH") and _SPDX_NAME.match(token) is not None


_FORMS: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {
        "created": _time,
        "authors": _text,
        "url": _uri,
        "documentation": _uri,
        "source": _uri,
        "version": _text,
        "revision": _text,
        "vendor": _text,
        "licenses": _licenses,
        "ref.name": _ref_name,
        "title": _text,
        "description": _text,
        "base.digest": _digest,
        "base.name": _reference,
    }
)
