"""Control data: stanzas of `Field: value` lines (Debian policy 5.1, deb822(5)).

Law: text to fields and back; knows the syntax, not what any field means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rootfs.errors import IntegrityError

Stanza = Mapping[str, str]

_NAME = re.compile(r"[!-,.-9;-~][!-9;-~]*\Z")  # policy 5.1; `#` begins a comment
_BLANKS = " \t\r"


def parse_stanza(text: str) -> dict[str, str]:
    """One stanza. Continuation lines stay in the value, joined by newlines, their leading space kept."""
    fields: dict[str, str] = {}
    name = ""
    stripped = text.strip("\n")
    for line in stripped.split("\n") if stripped else ():  # not splitlines(): to dpkg a form feed ends no line
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            if not name:
                raise IntegrityError("control data begins with a continuation line", because=line[:80])
            fields[name] += "\n" + line
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.match(name):
            raise IntegrityError("control data has a line that is no field", because=line[:80])
        if name in fields:
            raise IntegrityError(f"control data names the field {name} twice")
        fields[name] = value.strip(_BLANKS)
    return fields


def format_stanza(fields: Stanza) -> str:
    """The stanza as text, ending in a newline; the inverse of `parse_stanza`."""
    return "".join(
        f"{name}:{value}\n" if value.startswith("\n") else f"{name}: {value}\n" for name, value in fields.items()
    )
