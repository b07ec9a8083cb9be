"""Licences: Debian's machine-readable copyright files (DEP-5, "copyright-format 1.0") -> SPDX licence expressions.

Law: pure. Says what the file says of the source package's files, all together; an image holds a part of them. A file
in free text gives no licence: nothing is guessed from words. A short name without an SPDX identifier becomes a
`LicenseRef-`, with the text that the file gives for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from builder.trust.contents import Licence
from rootfs.debian.control import parse_stanza
from rootfs.errors import IntegrityError

_FORMAT = re.compile(r"https?://www\.debian\.org/doc/packaging-manuals/copyright-format/1\.0/?\Z")
_VERSIONED = re.compile(r"(A?L?GPL|GFDL)-(\d(?:\.\d)?)(\+|-or-later|-only)?\Z", re.IGNORECASE)
_APART = re.compile(r"\s*,\s*and\s+|\s*,\s*(?!or\b)", re.IGNORECASE)
_JOINT = re.compile(r"\s*,?\s+(and|or)\s+", re.IGNORECASE)
_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")

# DEP-5's short names, and others that Debian's packages use for well-known texts, where SPDX has another identifier.
_KNOWN: Mapping[str, str] = {
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",  # what lies in /usr/share/common-licenses
    "artistic-2.0": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause",
    "bsd-4-clause-uc": "BSD-4-Clause-UC",
    "bsl-1.0": "BSL-1.0",
    "cc0-1.0": "CC0-1.0",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-3.0": "CC-BY-SA-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "expat": "MIT",
    "fsfap": "FSFAP",
    "fsful": "FSFUL",
    "fsfullr": "FSFULLR",
    "fsfullrwd": "FSFULLRWD",
    "isc": "ISC",
    "mit": "MIT",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "openssl": "OpenSSL",
    "psf-2": "PSF-2.0",
    "python-2.0": "Python-2.0",
    "unlicense": "Unlicense",
    "x11": "X11",
    "zlib": "Zlib",
    "0bsd": "0BSD",
}
_GNU = frozenset(
    {"GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0", "LGPL-2.1", "LGPL-3.0", "AGPL-3.0", "AGPL-1.0"}
    | {"GFDL-1.1", "GFDL-1.2", "GFDL-1.3"}
)
_EXCEPTIONS: Mapping[str, str] = {
    "bison": "Bison-exception-2.2",
    "libtool": "Libtool-exception",
}


def licence_of(copyright_file: str, package: str) -> Licence | None:
    """The licence of a copyright file: all of its Files paragraphs' licences. None when it is not machine-readable.

    `package` (the source package) is part of the names of licences that are its own.
    """
    try:
        header, *stanzas = _stanzas(copyright_file)
    except (IntegrityError, ValueError):
        return None
    if not _FORMAT.match(header.get("Format", "").strip()):
        return None
    found = _Reading(package, stanzas)
    terms = sorted({term for stanza in stanzas if stanza.get("Files") for term in found.terms(stanza["License"])})
    if not terms:
        return None
    joined = " AND ".join(f"({term})" if " OR " in term and len(terms) > 1 else term for term in terms)
    return Licence(expression=joined, texts=tuple(sorted(found.texts.items())))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    for part in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").strip("\n") + "\n"):
        if part.strip():
            stanza = parse_stanza(part)
            if "Files" in stanza and "License" not in stanza:
                raise ValueError("files without a licence")
            yield stanza


class _Reading:
    """One file's names of licences; `texts` fills with those that SPDX does not know."""

    def __init__(self, package: str, stanzas: list[dict[str, str]]) -> None:
        self.texts: dict[str, str] = {}
        self._package = package
        self._given: dict[str, str] = {}
        for stanza in stanzas:
            name, _, text = stanza.get("License", "").partition("\n")
            if name and text.strip():
                self._given.setdefault(name.strip().lower(), _plain(text))

    def terms(self, field: str) -> Iterator[str]:
        """What a License field's first line asks for, all of it: expressions. `, and` binds less than `or` (DEP-5)."""
        synopsis = " ".join(field.partition("\n")[0].split())
        for group in _APART.split(synopsis):
            words = [self._term(word) if at % 2 == 0 else word.upper() for at, word in enumerate(_JOINT.split(group))]
            if "OR" in words:
                yield " ".join(filter(None, words))
            else:
                yield from filter(None, words[::2])

    def _term(self, text: str) -> str:
        """One licence, with its exception."""
        name, _, exception = (part.strip() for part in text.strip("() ").partition(" with "))
        known = _identifier(name)
        word = exception.lower().removesuffix(" exception").replace(" ", "-")
        if known and not exception:
            return known
        if known and word in _EXCEPTIONS:
            return f"{known} WITH {_EXCEPTIONS[word]}"
        return self._own(text.strip("() "))

    def _own(self, name: str) -> str:
        """A name for a licence of this package alone."""
        if not name:
            return ""
        label = f"LicenseRef-{self._package}-{_UNFIT.sub('-', name).strip('-') or 'unnamed'}"
        label = _UNFIT.sub("-", label)
        said = self._given.get(name.lower())
        self.texts[label] = said or f"{name}: named, without a text, in the copyright file of {self._package}"
        return label


def _identifier(name: str) -> str:
    """SPDX's identifier of a DEP-5 short name; "" when there is none."""
    versioned = _VERSIONED.match(name)
    if versioned:
        family, number, later = versioned.groups()
        if "." not in number:
            number += ".0"
        known = f"{family.upper()}-{number}"
        return f"{known}-{'or-later' if later in ('+', '-or-later') else 'only'}" if known in _GNU else ""
    return _KNOWN.get(name.lower(), "")


def _plain(text: str) -> str:
    """A field's text without its marks: the leading space, the lone dot of an empty line."""
    lines = [line[1:] if line[:1] in (" ", "\t") else line for line in text.strip("\n").split("\n")]
    return "\n".join("" if line.strip() == "." else line.rstrip() for line in lines).strip("\n")
