"""Identity: names within and of documents that follow from what the documents say, so that they are the same again.

Law: pure; neither a clock nor chance.
"""

from __future__ import annotations

import hashlib
import re
import uuid

_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")
_NAMESPACE = uuid.UUID("6e9bfb3a-6c1c-5d0e-9a49-0f5d4a4f7d3b")  # of ocibuild's documents; any fixed UUID will do


def unique(*facts: object) -> uuid.UUID:
    """The UUID of these facts (RFC 9562, version 5)."""
    return uuid.uuid5(_NAMESPACE, "\n".join(str(fact) for fact in facts))


def urn(*facts: object) -> str:
    """The same, as a URI."""
    return unique(*facts).urn


def identifier(*words: str) -> str:
    """A readable name of letters, digits, `.` and `-` within one document; the last word alone tells it from others."""
    *shown, whole = words
    return _UNFIT.sub("-", f"{'-'.join(shown)}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}")
