"""Advice: the Warning headers of a registry, which are there for people (distribution-spec 1.1, "Warnings").

Law: pure; never acted upon, and its text is not trusted: it is capped, and control characters are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rootfs.ports import Response

_LONGEST = 300
_WARNING = re.compile(r'299\s+-\s+"((?:[^"\\]|\\.)*)"')


def advice(response: Response) -> Iterator[str]:
    """What the registry wants the user to know: the texts of code 299 without an agent, the only ones the spec has."""
    for text in _WARNING.findall(response.headers.get("warning", "")):
        plain = re.sub(r"\\(.)", r"\1", text)
        if shown := "".join(character for character in plain if character.isprintable()).strip()[:_LONGEST]:
            yield shown
